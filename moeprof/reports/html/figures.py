"""The figures of the page as plotly figures, written as plain dicts.

plotly's Python objects would validate these at the price of a slow import (they also cost more time
than all the rest of the page); the page is tested in a real browser instead. A figure holds what is
particular to it: the page adds fonts, grid and margins. Two notations are the page's to resolve, so
that it can follow the reader's light or dark scheme and stays small:

    "--gemm1"                          a colour: the CSS variable of that name
    {"dict": [a, b], "index": [0, 1]}  a long array of few distinct values

Every string from a record passes ``shown``: plotly reads a little HTML in text.
"""

from __future__ import annotations

import html
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from moeprof.comparison import Comparison
from moeprof.contract import STEPS
from moeprof.lanes import CAUSES, Lanes
from moeprof.ledger import Ceilings
from moeprof.reports.survey.data import Entry, LedgerRow, ReportData, WorkloadData
from moeprof.reports.waterfall_lines import lines

Figure = dict[str, Any]
Kind = TypeVar("Kind", bound=Hashable)

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
SERIES_COLOURS = 8
OTHER_COLOURS = 3
CAUSE_COLOURS = {
    "host late": "--host-late",
    "API call": "--api-call",
    "launch latency": "--launch-latency",
    "dependency": "--dependency",
}
BAR_PIXELS, FRAME_PIXELS = 30, 80


def shown(text: str) -> str:
    """``text`` as plotly text that shows it as it is."""
    return html.escape(text, quote=False)


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
                    "y": _rounded(latencies_us),
                    "text": [shown(name) for name in names],
                    "hovertemplate": "%{text}<br>%{y:,.1f} us<extra>%{fullData.name}</extra>",
                    "marker": {"color": _series(position), "symbol": _symbol(position), "size": 8},
                    "line": {"color": _series(position), "width": 2},
                }
            )
    layout = {
        "xaxis": _log_axis("tokens", [x for trace in traces for x in trace["x"]]),
        "yaxis": _log_axis("median latency, us", [y for trace in traces for y in trace["y"]]),
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
        "x": _rounded(line.delta_ns / 1e3 for line in shown_lines),
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
    right_us = _rounded(max(line.begin_ns, line.end_ns) / 1e3 for line in shown_lines)
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
        "yaxis": _rows([line.label for line in shown_lines]),
        "height": FRAME_PIXELS + 26 * len(shown_lines),
    }
    return {"data": [bars, values], "layout": layout}


def distribution(workload: WorkloadData, solutions: Sequence[str]) -> Figure:
    """Every sample of the bare pass and its quartiles, one row a solution."""
    traces: list[Figure] = []
    for entry in workload.entries:
        if entry.bare_us:
            colour = _series(solutions.index(entry.label))
            traces.append(
                {
                    "type": "box",
                    "orientation": "h",
                    "name": shown(entry.label),
                    "x": _rounded(entry.bare_us),
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
        "xaxis": _log_axis("us, logarithmic", [x for trace in traces for x in trace["x"]]),
        "yaxis": {"autorange": "reversed"},
        "height": FRAME_PIXELS + 44 * max(1, len(traces)),
    }
    return {"data": traces, "layout": layout}


def roofline(workload: WorkloadData, data: ReportData, colours: Mapping[str, str]) -> Figure:
    """Stages that count FLOPs: executed FLOPs a byte against TFLOP/s, below the ceilings."""
    points = [
        (row.intensity, row.teraflops)
        for entry in workload.entries
        for row in entry.ledger
        if row.intensity is not None and row.teraflops is not None
    ]
    roof = _roof(data.ceilings, [intensity for intensity, _ in points])
    traces = [roof]
    for entry in workload.entries:
        rows = [row for row in entry.ledger if row.intensity and row.teraflops]
        if rows:
            traces += _marked(entry.label, data.solutions, _points(rows, colours))
    layout = {
        "xaxis": _log_axis("executed FLOPs / byte", roof["x"]),
        "yaxis": _log_axis("TFLOP/s", [*roof["y"], *(rate for _, rate in points)]),
        "height": 400,
        "showlegend": True,
    }
    return {"data": traces if points else [], "layout": layout}


def bandwidth(workload: WorkloadData, data: ReportData, colours: Mapping[str, str]) -> Figure:
    """Stages that only move bytes: GB/s of what they moved, against the ceiling."""
    traces: list[Figure] = []
    names: dict[str, None] = {}
    ceiling = data.ceilings.bytes_per_second / 1e9
    rates = [ceiling]
    for entry in workload.entries:
        rows = [r for r in entry.ledger if not r.intensity and r.gigabytes_per_second]
        names |= {row.work.name: None for row in rows}
        found = _significant([row.gigabytes_per_second or 0 for row in rows])
        rates += found
        points = {
            "x": found,
            "y": [shown(row.work.name) for row in rows],
            "marker": {"color": [colours[row.work.name] for row in rows], "size": 10},
            "hovertemplate": "%{y}: %{x:,.1f} GB/s<extra>%{fullData.name}</extra>",
        }
        if rows:
            traces += _marked(entry.label, data.solutions, points)
    layout = {
        "xaxis": _log_axis("GB/s, logarithmic", rates),
        "yaxis": {"autorange": "reversed"},
        "shapes": [_vertical(ceiling)],
        "height": FRAME_PIXELS + 20 + BAR_PIXELS * max(2, len(names)),
        "showlegend": True,
    }
    return {"data": traces, "layout": layout}


def timeline(lanes: Lanes, colours: Mapping[str, str]) -> Figure:
    """One iteration, a row a lane, us since host entry."""
    traces = []
    for position, lane in enumerate(lanes.lanes):
        idle = lane.kind == "idle"
        kinds, index = _distinct([(interval.row, interval.name) for interval in lane.intervals])
        texts = [_interval_text(row, name, idle) for row, name in kinds]
        tints = [
            CAUSE_COLOURS[name] if idle else colours.get(row, "--neutral") for row, name in kinds
        ]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": shown(lane.label),
                "base": _rounded([i.begin_ns / 1e3 for i in lane.intervals]),
                "x": _rounded([(i.end_ns - i.begin_ns) / 1e3 for i in lane.intervals]),
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
        "yaxis": _rows([lane.label for lane in lanes.lanes]),
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


def _roof(ceilings: Ceilings, intensities: Sequence[float]) -> Figure:
    """Bandwidth up to the ridge, FP8 rate beyond it."""
    peak = ceilings.flops_per_second / 1e12
    terabytes = ceilings.bytes_per_second / 1e12
    ridge = peak / terabytes
    low = min([ridge, *intensities]) / 3
    high = max([ridge, *intensities]) * 3
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "ceiling",
        "x": _significant([low, ridge, high]),
        "y": _significant([low * terabytes, peak, peak]),
        "line": {"color": "--ink", "width": 1.5, "dash": "dot"},
        "hovertemplate": "%{y:,.0f} TFLOP/s<extra>ceiling</extra>",
    }


def _points(rows: Sequence[LedgerRow], colours: Mapping[str, str]) -> Figure:
    return {
        "x": _significant([row.intensity or 0 for row in rows]),
        "y": _significant([row.teraflops or 0 for row in rows]),
        "text": [shown(row.work.name) for row in rows],
        "marker": {"color": [colours[row.work.name] for row in rows], "size": 11},
        "hovertemplate": (
            "%{text}: %{y:,.1f} TFLOP/s<br>%{x:,.1f} FLOPs / byte<extra>%{fullData.name}</extra>"
        ),
    }


def _marked(label: str, solutions: Sequence[str], points: Figure) -> list[Figure]:
    """The points of one solution in its symbol, and a colourless one for the legend."""
    shape = {"symbol": _symbol(solutions.index(label)), "line": {"color": "--paper", "width": 1}}
    common = {"type": "scatter", "mode": "markers", "name": shown(label), "legendgroup": label}
    marker = {**points["marker"], **shape}
    legend = {"symbol": shape["symbol"], "color": "--total", "size": 9}
    return [
        {**common, **points, "marker": marker, "showlegend": False},
        {**common, "x": [None], "y": [None], "marker": legend, "hoverinfo": "skip"},
    ]


def _rows(labels: Sequence[str]) -> Figure:
    """A vertical axis of one row a label, the first on top."""
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": [shown(label) for label in labels],
        "range": [len(labels) - 0.5, -0.5],
    }


def _log_axis(title: str, values: Iterable[float]) -> Figure:
    """A logarithmic axis around ``values`` with ticks at 1, 2, 5, 10, ... or at decades only."""
    known = [value for value in values if value > 0] or [1.0]
    low, high = math.log10(min(known)), math.log10(max(known))
    margin = max(0.05, 0.06 * (high - low))
    digits = (1,) if high - low > 2.5 else (1, 2, 5)
    decades = range(math.floor(low - margin), math.ceil(high + margin))
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    ticks = [tick for tick in ticks if low - margin <= math.log10(tick) <= high + margin]
    return {
        "title": {"text": title},
        "type": "log",
        "range": [round(low - margin, 3), round(high + margin, 3)],
        "tickvals": ticks,
        "ticktext": [f"{tick:,.10g}" for tick in ticks],
    }


def _vertical(x: float) -> Figure:
    line = {"color": "--ink", "width": 1.5, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def _row_us(entry: Entry, name: str, field: str) -> float:
    stage = entry.profile.stage(name) if entry.profile else None
    return round(float(getattr(stage, field)) / 1e3, 2) if stage else 0.0


def _gap_us(entry: Entry, field: str) -> float:
    stages = entry.profile.stages if entry.profile else ()
    return round(float(sum(getattr(stage, field) for stage in stages)) / 1e3, 2)


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 2) for value in values]


def _significant(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _distinct(values: Sequence[Kind]) -> tuple[list[Kind], list[int]]:
    """The distinct values, and the position of each value among them."""
    known: dict[Kind, int] = {}
    index = [known.setdefault(value, len(known)) for value in values]
    return list(known), index


def _series(position: int) -> str:
    return f"--series-{position % SERIES_COLOURS}"


def _symbol(position: int) -> str:
    return SYMBOLS[position % len(SYMBOLS)]
