"""Figures of latencies, stages, waterfalls, samples and timelines; ``plot`` has the notation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moeprof.analysis.lanes import CAUSES, Lanes
from moeprof.compare.comparison import Comparison
from moeprof.contract import STEPS
from moeprof.reports.html.plot import (
    BAR_PIXELS,
    FRAME_PIXELS,
    Figure,
    distinct,
    log_axis,
    rounded,
    row_axis,
    series_colour,
    shown,
    symbol,
)
from moeprof.reports.survey.data import Entry, ReportData, WorkloadData
from moeprof.reports.waterfall_lines import lines

OTHER_COLOURS = 3
CAUSE_COLOURS = {
    "host late": "--host-late",
    "API call": "--api-call",
    "launch latency": "--launch-latency",
    "dependency": "--dependency",
}


def row_colours(data: ReportData) -> dict[str, str]:
    """The colour of every row of every profile: its first step's, or one of those for the rest."""
    steps = [str(step) for step in STEPS]
    found: dict[str, str] = {}
    other: list[str] = []
    for entry in data.entries:
        for row in entry.ledger:
            known = [step for step in row.work.covers if step in steps]
            if known:
                found[row.work.name] = f"--{known[0]}"
            elif row.work.busy_ns and row.work.name not in other:
                other.append(row.work.name)
    for position, name in enumerate(other):
        found.setdefault(name, f"--other-{position % OTHER_COLOURS}")
    order = {f"--{step}": position for position, step in enumerate(steps)}
    return dict(sorted(found.items(), key=lambda item: order.get(item[1], len(order))))


def latency(data: ReportData) -> Figure:
    """Median latency by number of tokens, one line a solution."""
    traces = []
    for position, solution in enumerate(data.solutions):
        points = [
            (workload.seq_len, entry.latency_us, workload.name)
            for workload in data.workloads
            if (entry := workload.entry(solution)) is not None and entry.latency_us is not None
        ]
        if points:
            tokens, latencies_us, names = zip(*points, strict=True)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": shown(solution),
                    "x": tokens,
                    "y": rounded(latencies_us),
                    "text": [shown(name) for name in names],
                    "hovertemplate": "%{text}<br>%{y:,.1f} us<extra>%{fullData.name}</extra>",
                    "marker": {
                        "color": series_colour(position),
                        "symbol": symbol(position),
                        "size": 8,
                    },
                    "line": {"color": series_colour(position), "width": 2},
                }
            )
    layout = {
        "xaxis": log_axis("tokens", [x for trace in traces for x in trace["x"]]),
        "yaxis": log_axis("median latency, us", [y for trace in traces for y in trace["y"]]),
        "height": 420,
        "showlegend": True,
    }
    return {"data": traces, "layout": layout}


def stages(workload: WorkloadData, colours: Mapping[str, str]) -> Figure:
    """One stacked bar a solution: GPU busy by stage, then idle by cause."""
    entries = [entry for entry in workload.entries if entry.profile is not None]
    labels = [shown(entry.label) for entry in entries]
    traces = []
    for name, colour in colours.items():
        values = [_row_us(entry, name, "busy_ns") for entry in entries]
        if any(values):
            traces.append(_stacked(name, colour, values, labels))
    for field, cause in CAUSES.items():
        values = [_gap_us(entry, field) for entry in entries]
        if any(values):
            traces.append(_stacked(f"idle: {cause}", CAUSE_COLOURS[cause], values, labels))
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "us of the span"}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed"},
        "height": FRAME_PIXELS + BAR_PIXELS * max(2, len(entries)),
    }
    return {"data": traces, "layout": layout}


def waterfall(comparison: Comparison) -> Figure:
    """From the span of one solution to that of the other, a bar a part and cause."""
    shown_lines = lines(comparison)
    positions = list(range(len(shown_lines)))
    bars = {
        "type": "waterfall",
        "orientation": "h",
        "y": positions,
        "x": rounded(line.delta_ns / 1e3 for line in shown_lines),
        "measure": [
            "relative" if not line.total else "total" if position else "absolute"
            for position, line in enumerate(shown_lines)
        ],
        "hoverinfo": "skip",
        "increasing": {"marker": {"color": "--worse"}},
        "decreasing": {"marker": {"color": "--better"}},
        "totals": {"marker": {"color": "--total"}},
        "connector": {"line": {"color": "--grid", "width": 1}},
    }
    right_us = rounded(max(line.begin_ns, line.end_ns) / 1e3 for line in shown_lines)
    figures = [line.end_ns if line.total else line.delta_ns for line in shown_lines]
    signs = ["" if line.total else "+" for line in shown_lines]
    values = {
        "type": "scatter",
        "mode": "text",
        "y": positions,
        "x": right_us,
        "text": [f" {ns / 1e3:{sign},.1f}" for sign, ns in zip(signs, figures, strict=True)],
        "textposition": "middle right",
        "cliponaxis": False,
        "hoverinfo": "skip",
    }
    layout = {
        "xaxis": {"title": {"text": "us"}, "range": [0, round(1.25 * max(right_us), 1)]},
        "yaxis": row_axis([line.label for line in shown_lines]),
        "height": FRAME_PIXELS + 26 * len(shown_lines),
    }
    return {"data": [bars, values], "layout": layout}


def distribution(workload: WorkloadData, solutions: Sequence[str]) -> Figure:
    """Every sample of the bare pass and its quartiles, one row a solution."""
    traces: list[Figure] = []
    for entry in workload.entries:
        if entry.bare_us:
            colour = series_colour(solutions.index(entry.label))
            traces.append(
                {
                    "type": "box",
                    "orientation": "h",
                    "name": shown(entry.label),
                    "x": rounded(entry.bare_us),
                    "boxpoints": "all",
                    "jitter": 0.6,
                    "pointpos": 0,
                    "marker": {"color": colour, "size": 3, "opacity": 0.55},
                    "line": {"color": colour, "width": 1.5},
                    "fillcolor": "rgba(0,0,0,0)",
                    "hovertemplate": "%{x:,.1f} us<extra>%{fullData.name}</extra>",
                    "hoveron": "points",
                }
            )
    layout = {
        "xaxis": log_axis("us, logarithmic", [x for trace in traces for x in trace["x"]]),
        "yaxis": {"autorange": "reversed"},
        "height": FRAME_PIXELS + 44 * max(1, len(traces)),
    }
    return {"data": traces, "layout": layout}


def timeline(lanes: Lanes, colours: Mapping[str, str]) -> Figure:
    """One iteration, a row a lane, us since host entry."""
    traces = []
    for position, lane in enumerate(lanes.lanes):
        idle = lane.kind == "idle"
        kinds, index = distinct([(interval.row, interval.name) for interval in lane.intervals])
        texts = [_interval_text(row, name, idle) for row, name in kinds]
        tints = [
            CAUSE_COLOURS[name] if idle else colours.get(row, "--neutral") for row, name in kinds
        ]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": shown(lane.label),
                "base": rounded([i.begin_ns / 1e3 for i in lane.intervals]),
                "x": rounded([(i.end_ns - i.begin_ns) / 1e3 for i in lane.intervals]),
                "y": [position] * len(lane.intervals),
                "width": 0.72,
                "text": {"dict": [shown(text) for text in texts], "index": index},
                "textposition": "none",
                "marker": {"color": {"dict": tints, "index": index}, "line": {"width": 0}},
                "hovertemplate": "%{text}<br>%{x:,.2f} us from %{base:,.2f}<extra></extra>",
            }
        )
    end_ns = max(interval.end_ns for lane in lanes.lanes for interval in lane.intervals)
    layout = {
        "barmode": "overlay",
        "xaxis": {"title": {"text": "us since host entry"}, "rangemode": "tozero"},
        "yaxis": row_axis([lane.label for lane in lanes.lanes]),
        "height": FRAME_PIXELS + 34 * max(2, len(lanes.lanes)),
    }
    return {"data": traces, "layout": layout, "end": round(1.02 * end_ns / 1e3, 1)}


def _interval_text(row: str, name: str, idle: bool) -> str:
    if idle:
        return f"{name} before {row}"
    return name if not row or row == name else f"{row}: {name}"


def _stacked(name: str, colour: str, values: Sequence[float], labels: Sequence[str]) -> Figure:
    return {
        "type": "bar",
        "orientation": "h",
        "name": shown(name),
        "x": values,
        "y": labels,
        "marker": {"color": colour},
        "hovertemplate": "%{fullData.name}<br>%{x:,.1f}<extra>%{y}</extra>",
    }


def _row_us(entry: Entry, name: str, field: str) -> float:
    stage = entry.profile.stage(name) if entry.profile else None
    return round(float(getattr(stage, field)) / 1e3, 2) if stage else 0.0


def _gap_us(entry: Entry, field: str) -> float:
    stages = entry.profile.stages if entry.profile else ()
    return round(float(sum(getattr(stage, field) for stage in stages)) / 1e3, 2)
