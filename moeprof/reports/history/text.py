"""The history of a solution in a terminal: one time drawn over its checks, or all in a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.history.values import Series
from moeprof.reports.compare_text import notes_grid
from moeprof.reports.history import phrases
from moeprof.reports.history.plot import SeriesPlot
from moeprof.reports.table import Column, FittedTable
from moeprof.reports.units import MISSING, duration


def render_series(series: Series) -> RenderableType:
    """The headline, the plot, the changes and what the times are."""
    parts: list[RenderableType] = [Text(phrases.headline(series), style="bold"), Text("")]
    parts.append(SeriesPlot(series))
    if series.changes:
        parts.append(_changes(series))
    parts += [Text(""), notes_grid(notes(series))]
    return Group(*parts)


def render_all(every: Sequence[Series]) -> RenderableType:
    """One line a quantity: now, then, noise and the last change."""
    columns = (
        Column("time", tuple(phrases.quantity_label(one.quantity) for one in every), left=True),
        Column("now", tuple(duration(one.points[-1].us) for one in every)),
        Column("first", tuple(duration(one.points[0].us) for one in every), dropped=2),
        Column("checks", tuple(str(len(one.points)) for one in every), dropped=1),
        Column(
            "noise of\na check",
            tuple(f"{100 * one.points[-1].noise:.2f} %" for one in every),
            dropped=3,
        ),
        Column("changes", tuple(_count(one) for one in every)),
        Column("last change", tuple(_last(one) for one in every), left=True),
    )
    return FittedTable(columns)


def notes(series: Series) -> tuple[tuple[str, str], ...]:
    """(label, sentence): where the times are from and how noisy they are."""
    times = f"of the {series.source} pass; a point is the geometric mean of a check's processes"
    found = [("times", times), ("noise", phrases.noise_text(series))]
    if series.changes is None:
        found.append(("changes", "not looked for"))
    return tuple(found)


def _changes(series: Series) -> RenderableType:
    changes = series.changes or ()
    columns = (
        Column("check", tuple(str(change.at + 1) for change in changes)),
        Column("date, UTC", tuple(phrases.moment(series.points[c.at]) for c in changes), left=True),
        Column("code", tuple(phrases.code(series.points[c.at]) for c in changes), left=True),
        Column("before", tuple(duration(change.before_us) for change in changes)),
        Column("after", tuple(duration(change.after_us) for change in changes)),
        Column("change", tuple(f"{100 * (c.ratio - 1):+.1f} %" for c in changes)),
        Column("standard\nerror", tuple(f"{100 * c.noise:.2f} %" for c in changes), dropped=1),
        Column("between", tuple(phrases.between(series, c) for c in changes), left=True, dropped=2),
    )
    return FittedTable(columns)


def _count(series: Series) -> str:
    return MISSING if series.changes is None else str(len(series.changes))


def _last(series: Series) -> str:
    return phrases.change_text(series, series.changes[-1]) if series.changes else MISSING
