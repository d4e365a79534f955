"""A series drawn in characters: a point a check, the level under it, a line where it steps.

Drawn here in a few lines, since the one kept library for this (plotext) changed all of its names
with its last version. Where there are more checks than columns the newest are shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from moeprof.history.values import Series
from moeprof.reports.units import duration

HEIGHT = 12
AXIS = 12  # columns of the axis and its labels
WIDEST = 3  # columns a check
STYLES = {"REGRESSED": "bold red", "IMPROVED": "green", "INCONCLUSIVE": "yellow", "SAME": ""}


@dataclass(frozen=True, slots=True)
class Marks:
    point: str = "●"
    level: str = "─"
    step: str = "│"
    axis: str = "┤"


ASCII = Marks("o", "-", "|", "|")


@dataclass(frozen=True, slots=True)
class SeriesPlot:
    """A rich renderable."""

    series: Series

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        marks = ASCII if options.ascii_only else Marks()
        yield from draw(self.series, options.max_width, marks)


def draw(series: Series, width: int, marks: Marks, height: int = HEIGHT) -> list[Text]:
    """The lines of the plot, from the top, and one of what its columns are."""
    room = max(1, width - AXIS)
    first = max(0, len(series.points) - room)
    points = series.points[first:]
    wide = max(1, min(WIDEST, room // len(points)))
    levels = _levels(series)[first:]
    values = [*(point.us for point in points), *levels]
    low, high = min(values), max(values)
    margin = max(0.05 * (high - low), 0.01 * high)
    low, high = low - margin, high + margin

    def row(us: float) -> int:
        return min(height - 1, int((high - us) / (high - low) * height))

    cells = [[(" ", "")] * (wide * len(points)) for _ in range(height)]
    steps = {change.at for change in series.changes or ()}
    for place, (point, level) in enumerate(zip(points, levels, strict=True)):
        for column in range(wide * place, wide * (place + 1)):
            cells[row(level)][column] = (marks.level, "dim")
        if first + place in steps:
            for line in range(height):
                cells[line][wide * place] = (marks.step, "cyan")
        where = wide * place + wide // 2
        cells[row(point.us)][where] = (marks.point, STYLES.get(point.verdict, ""))
    lines = []
    for number, drawn in enumerate(cells):
        us = high - (number + 0.5) / height * (high - low)
        text = Text(f"{duration(us):>{AXIS - 2}} {marks.axis}", style="dim", no_wrap=True)
        for mark, style in drawn:
            text.append(mark, style=style or "default")
        lines.append(text)
    shown = (
        f"checks {first + 1} to {len(series.points)}, {marks.step} a change, {marks.level} level"
    )
    lines.append(Text(" " * AXIS + shown, style="dim"))
    return lines


def _levels(series: Series) -> list[float]:
    """The level under every point; the whole geometric mean where changes were not looked for."""
    import math

    found: list[float] = []
    bounds = [0, *(change.at for change in series.changes or ()), len(series.points)]
    for begin, end in zip(bounds, bounds[1:], strict=False):
        own = [math.log(point.us) for point in series.points[begin:end]]
        found += [math.exp(sum(own) / len(own))] * len(own)
    return found
