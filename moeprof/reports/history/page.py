"""The history of a solution as one HTML page that fetches nothing, written as the report is."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moeprof.history.values import Point, Series
from moeprof.reports.history import phrases
from moeprof.reports.html.plot import Figure, rounded, shown
from moeprof.reports.html.shell import document

HERE = Path(__file__).parent
GRID = {"gridcolor": "--grid", "zerolinecolor": "--grid", "linecolor": "--grid"}
COLOURS = {"REGRESSED": "--worse", "IMPROVED": "--better", "INCONCLUSIVE": "--series-2"}


def history_page(every: Sequence[Series]) -> str:
    """The whole page of one subject's series, at least one. Equal series give equal pages."""
    lead, *others = [phrases.headline(one) for one in every]
    items = "\n".join(f"<li>{html.escape(other)}</li>" for other in others)
    summary = f'<p class="lead">{html.escape(lead)}.</p>\n' + f"<ul>{items}</ul>" * bool(others)
    return document(
        HERE,
        title=f"moeprof history: {every[0].subject.solution}",
        heading="History",
        subject=str(every[0].subject),
        origin=f" from checks up to {max(phrases.moment(one.points[-1]) for one in every)}",
        data=[figure(one) for one in every],
        summary=summary,
    )


def figure(series: Series) -> Figure:
    """Every process as a dot, every check as a point with its noise, its levels and its steps."""
    points = series.points
    numbers = list(range(1, len(points) + 1))
    processes = {
        "type": "scatter",
        "mode": "markers",
        "x": [n for n, point in zip(numbers, points, strict=True) for _ in point.processes_us],
        "y": rounded(us for point in points for us in point.processes_us),
        "marker": {"color": "--neutral", "size": 4},
        "hoverinfo": "skip",
    }
    checks = {
        "type": "scatter",
        "mode": "markers",
        "x": numbers,
        "y": rounded(point.us for point in points),
        "error_y": {
            "type": "data",
            "array": rounded(2 * point.noise * point.us for point in points),
            "color": "--soft",
            "thickness": 1,
        },
        "text": [shown(_told(point)) for point in points],
        "hovertemplate": "check %{x}: %{y:,.2f} us<br>%{text}<extra></extra>",
        "marker": {
            "color": [COLOURS.get(point.verdict, "--accent") for point in points],
            "size": 9,
        },
    }
    steps = [
        {"type": "line", "x0": c.at + 0.5, "x1": c.at + 0.5, "y0": 0, "y1": 1, "yref": "paper",
         "line": {"color": "--caution", "width": 1.5, "dash": "dot"}}
        for c in series.changes or ()
    ]  # fmt: skip
    notes = [
        {"x": c.at + 0.5, "y": 1, "yref": "paper", "showarrow": False, "xanchor": "left",
         "text": f"{100 * (c.ratio - 1):+.1f} %", "font": {"color": "--caution"}}
        for c in series.changes or ()
    ]  # fmt: skip
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "check"}, "dtick": max(1, len(points) // 12), **GRID},
        "yaxis": {"title": {"text": "us"}, **GRID},
        "shapes": steps,
        "annotations": notes,
    }
    return {"title": phrases.headline(series), "data": [processes, checks], "layout": layout}


def _told(point: Point) -> str:
    return ", ".join(
        part for part in (phrases.moment(point), phrases.code(point), point.verdict) if part
    )
