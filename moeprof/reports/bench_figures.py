"""Figures of a bench: latency by tokens, speedup by regime, stages; ``html.plot`` has the notation.

Figures come in one form for each timer; the page shows the one that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moeprof.bench.causes import Account, Explanation
from moeprof.bench.cells import Bench
from moeprof.bench.figures import Metric, spread
from moeprof.bench.summary import mean, ratios, regimes, speedups
from moeprof.bench.winners import Verdict
from moeprof.reports.bench_grids import four_digits
from moeprof.reports.html.plot import (
    BAR_PIXELS,
    FRAME_PIXELS,
    Figure,
    log_axis,
    rounded,
    series_colour,
    shown,
    symbol,
)

OTHER_COLOURS = 3


def latency(bench: Bench, metric: Metric, verdicts: Sequence[Verdict | None]) -> Figure:
    """Medians by number of tokens, one line a solution, the reference's eager one among them."""
    names = list(bench.solutions)
    if metric == "eager" and bench.has_reference and bench.reference not in names:
        names.append(bench.reference)
    traces: list[Figure] = []
    for position, name in enumerate(names):
        known = [
            (cell.workload.seq_len, found, verdict, cell.workload.name)
            for cell, verdict in zip(bench.column(name), verdicts, strict=True)
            if (found := spread(cell, metric)) is not None
        ]
        if not known:
            continue
        reference = name not in bench.solutions
        colour = "--total" if reference else series_colour(position)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": shown(name),
                "x": [one[0] for one in known],
                "y": rounded(one[1].median_us for one in known),
                "error_y": {
                    "type": "data",
                    "array": rounded(one[1].noise_us for one in known),
                    "color": colour,
                    "thickness": 1,
                    "width": 2,
                },
                "text": [
                    shown(f"T={tokens:,} {workload}{_place(name, verdict)}")
                    for tokens, _, verdict, workload in known
                ],
                "hovertemplate": "%{text}<br>%{y:,.1f} us<extra>%{fullData.name}</extra>",
                "marker": {"color": colour, "symbol": symbol(position), "size": 7},
                "line": {"color": colour, "width": 2, "dash": "dot" if reference else "solid"},
            }
        )
    known_us = [us for trace in traces for us in trace["y"]]
    layout = {
        "xaxis": log_axis("tokens", [workload.seq_len for workload in bench.workloads]),
        "yaxis": log_axis(f"{metric} latency, us", known_us),
        "height": 460,
        "showlegend": True,
    }
    return {"data": traces, "layout": layout}


def by_regime(bench: Bench, metric: Metric, arithmetic: bool) -> Figure:
    """Mean speedup over the reference (over the baseline where there is none), by regime."""
    of = speedups if bench.has_reference else ratios
    over = bench.reference if bench.has_reference else bench.baseline
    every = regimes(bench)
    labels = [f"{one.name}<br>{one.span}" for one in every]
    traces = []
    for position, name in enumerate(bench.solutions):
        means = [mean(of(bench, name, metric, one.rows), len(one.rows)) for one in every]
        values = [
            None if m is None else round(m.arithmetic if arithmetic else m.geometric, 2)
            for m in means
        ]
        if any(value is not None for value in values):
            traces.append(
                {
                    "type": "bar",
                    "name": shown(name),
                    "x": labels,
                    "y": values,
                    "text": [
                        "" if m is None or m.whole else f"<br>{m.count} of {m.among} workloads"
                        for m in means
                    ],
                    "textposition": "none",
                    "hovertemplate": "%{x}: %{y:.2f}x%{text}<extra>%{fullData.name}</extra>",
                    "marker": {"color": series_colour(position)},
                }
            )
    kind = "arithmetic" if arithmetic else "geometric"
    layout = {
        "barmode": "group",
        "xaxis": {"type": "category"},
        "yaxis": {
            "title": {"text": f"{kind} mean, times faster than {shown(over)}"},
            "rangemode": "tozero",
        },
        "height": 400,
        "showlegend": True,
    }
    return {"data": traces, "layout": layout}


def stages(found: Explanation, metric: Metric, colours: Mapping[str, str]) -> Figure:
    """One stacked bar a solution: GPU busy by stage, then the time in which the GPU waits."""
    accounts = [one for one in found.accounts if _busy(one, metric)]
    labels = [shown(one.solution) for one in accounts]
    traces: list[Figure] = []
    legend: list[tuple[str, str]] = []
    for name in found.rows:
        values = rounded(_busy(one, metric).get(name, 0.0) for one in accounts)
        if any(values):
            traces.append(_stacked(name, colours[name], values, labels))
            legend.append((name, colours[name]))
    for name, colour, amounts in _idle(accounts, metric):
        if any(amounts):
            traces.append(_stacked(name, colour, rounded(amounts), labels))
            legend.append((name, colour))
    layout = {
        "barmode": "stack",
        "xaxis": {"title": {"text": "us"}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed"},
        "height": FRAME_PIXELS + BAR_PIXELS * max(2, len(accounts)),
    }
    return {"data": traces, "layout": layout, "legend": legend}


def row_colours(every: Sequence[Explanation]) -> dict[str, str]:
    """The colour of every row: its first step's, or one of those for the rest."""
    found: dict[str, str] = {}
    other: list[str] = []
    for one in every:
        for name, step in zip(one.rows, one.first_steps, strict=True):
            if step:
                found.setdefault(name, f"--{step}")
            elif name not in other:
                other.append(name)
    for position, name in enumerate(other):
        found.setdefault(name, f"--other-{position % OTHER_COLOURS}")
    return found


def _busy(one: Account, metric: Metric) -> dict[str, float]:
    return dict(one.busy if metric == "eager" else one.graph_busy)


def _idle(accounts: Sequence[Account], metric: Metric) -> list[tuple[str, str, list[float]]]:
    """(what, colour, us of each account) of the time in which the GPU waits."""
    if metric == "graph":
        between = [one.graph_gap_us or 0.0 for one in accounts]
        return [("gaps between nodes", "--launch-latency", between)]
    return [
        ("GPU waits for the host", "--host-late", [one.host_us or 0.0 for one in accounts]),
        ("other gaps", "--launch-latency", [one.gaps_us or 0.0 for one in accounts]),
    ]


def _place(name: str, verdict: Verdict | None) -> str:
    if verdict is None or name not in verdict.names:
        return ""
    return ": fastest" if verdict.winner else ": tied for the fastest"


def _stacked(name: str, colour: str, values: Sequence[float], labels: Sequence[str]) -> Figure:
    return {
        "type": "bar",
        "orientation": "h",
        "name": shown(name),
        "x": list(values),
        "y": list(labels),
        "text": [four_digits(value) for value in values],
        "textposition": "none",
        "marker": {"color": colour},
        "hovertemplate": "%{fullData.name}<br>%{text} us<extra>%{y}</extra>",
    }
