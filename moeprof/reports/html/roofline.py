"""Achieved rates of the stages against the machine's ceilings: roofline and bandwidth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moeprof.ledger.floors import FloorRow
from moeprof.ledger.ledger import Ceilings
from moeprof.reports.html.plot import (
    BAR_PIXELS,
    FRAME_PIXELS,
    Figure,
    log_axis,
    shown,
    significant,
    symbol,
)
from moeprof.reports.survey.data import ReportData, WorkloadData


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
        "xaxis": log_axis("executed FLOPs / byte", roof["x"]),
        "yaxis": log_axis("TFLOP/s", [*roof["y"], *(rate for _, rate in points)]),
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
        found = significant([row.gigabytes_per_second or 0 for row in rows])
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
        "xaxis": log_axis("GB/s, logarithmic", rates),
        "yaxis": {"autorange": "reversed"},
        "shapes": [_vertical(ceiling)],
        "height": FRAME_PIXELS + 20 + BAR_PIXELS * max(2, len(names)),
        "showlegend": True,
    }
    return {"data": traces, "layout": layout}


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
        "x": significant([low, ridge, high]),
        "y": significant([low * terabytes, peak, peak]),
        "line": {"color": "--ink", "width": 1.5, "dash": "dot"},
        "hovertemplate": "%{y:,.0f} TFLOP/s<extra>ceiling</extra>",
    }


def _points(rows: Sequence[FloorRow], colours: Mapping[str, str]) -> Figure:
    return {
        "x": significant([row.intensity or 0 for row in rows]),
        "y": significant([row.teraflops or 0 for row in rows]),
        "text": [shown(row.work.name) for row in rows],
        "marker": {"color": [colours[row.work.name] for row in rows], "size": 11},
        "hovertemplate": (
            "%{text}: %{y:,.1f} TFLOP/s<br>%{x:,.1f} FLOPs / byte<extra>%{fullData.name}</extra>"
        ),
    }


def _marked(label: str, solutions: Sequence[str], points: Figure) -> list[Figure]:
    """The points of one solution in its symbol, and a colourless one for the legend."""
    shape = {"symbol": symbol(solutions.index(label)), "line": {"color": "--paper", "width": 1}}
    common = {"type": "scatter", "mode": "markers", "name": shown(label), "legendgroup": label}
    marker = {**points["marker"], **shape}
    legend = {"symbol": shape["symbol"], "color": "--total", "size": 9}
    return [
        {**common, **points, "marker": marker, "showlegend": False},
        {**common, "x": [None], "y": [None], "marker": legend, "hoverinfo": "skip"},
    ]


def _vertical(x: float) -> Figure:
    line = {"color": "--ink", "width": 1.5, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}
