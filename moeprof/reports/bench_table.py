"""A marked grid in a terminal: columns go, then the table is cut into parts; never a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from moeprof.reports.bench_grids import Mark, MarkedGrid

SIGNS = {"best": "*", "tie": "~"}
STYLES = {"best": "bold green", "tie": "bold", "strong": "bold", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Fit:
    """How a table is set. letters: a heading's line breaks beyond so many; padding: cells between
    columns beside the one of the rule."""

    letters: int
    padding: int


LOOSE, TIGHT, TIGHTEST = Fit(9, 1), Fit(7, 1), Fit(7, 0)


@dataclass(frozen=True, slots=True)
class GridTable:
    """A rich renderable."""

    grid: MarkedGrid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts, how = cut(self.grid, options.max_width)
        for part in parts:
            yield _table(part, how)
        if self.grid.caption:
            yield Text(self.grid.caption, style="dim")


def cut(grid: MarkedGrid, width: int) -> tuple[tuple[MarkedGrid, ...], Fit]:
    """The grid as it fits: without what may go, then closer, then in parts that repeat the keys."""
    kept = [position for position in range(len(grid.headings)) if _known(grid, position)]
    for text in grid.dropped:
        if _width(grid, kept, LOOSE) <= width:
            break
        kept = [position for position in kept if grid.headings[position] != text]
    ways = (LOOSE, TIGHT, TIGHTEST)
    how = next((way for way in ways if _width(grid, kept, way) <= width), LOOSE)
    keys = [position for position in kept if position < grid.keys]
    parts: list[list[int]] = [list(keys)]
    for position in kept[len(keys) :]:
        if len(parts[-1]) > len(keys) and _width(grid, [*parts[-1], position], how) > width:
            parts.append(list(keys))
        parts[-1].append(position)
    return tuple(_columns(grid, part) for part in parts), how


def heading(text: str, letters: int) -> str:
    """A heading on lines of few letters: a column is as wide as its figures."""
    lines: list[str] = []
    for word in text.split():
        pieces = [word]
        if len(word) > letters:
            pieces = [f"_{one}" if i else one for i, one in enumerate(word.split("_"))]
        for number, piece in enumerate(pieces):
            joint = "" if number else " "
            fits = lines and len(lines[-1]) + len(joint) + len(piece) <= letters
            if fits:
                lines[-1] += joint + piece
            else:
                lines.append(piece)
    return "\n".join(lines)


def shown(mark: Mark) -> str:
    """The text with its sign."""
    return mark.text + SIGNS.get(mark.stress, "")


def _table(grid: MarkedGrid, how: Fit) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, how.padding, 0, 0),
    )
    for position, text in enumerate(grid.headings):
        table.add_column(
            Text(heading(text, how.letters), style="bold"),
            justify="left" if position in grid.words else "right",
            no_wrap=True,
            vertical="bottom",
        )
    signed = [any(row[i].stress in SIGNS for row in grid.rows) for i in range(len(grid.headings))]
    for row in grid.rows:
        style = "bold" if row[0].text == "sum" else ""
        cells = [
            _cell(mark, column_signed and position not in grid.words)
            for position, (mark, column_signed) in enumerate(zip(row, signed, strict=True))
        ]
        table.add_row(*cells, style=style)
    return table


def _cell(mark: Mark, padded: bool) -> Text:
    """padded: a sign stands in this column, so figures without one leave its place free."""
    text = shown(mark)
    if padded and mark.stress not in SIGNS:
        text += " "
    return Text(text, style=STYLES.get(mark.stress, ""))


def _known(grid: MarkedGrid, position: int) -> bool:
    """Whether any row says anything in this column."""
    return any(row[position].text not in ("", "-") for row in grid.rows) or not grid.rows


def _width(grid: MarkedGrid, positions: Sequence[int], how: Fit) -> int:
    """Cells, the padding of each, one between neighbours and at both ends for the box."""
    widths = []
    for position in positions:
        lines = heading(grid.headings[position], how.letters).split("\n")
        marks = [row[position] for row in grid.rows]
        signed = position not in grid.words and any(mark.stress in SIGNS for mark in marks)
        cells = [_cell(mark, signed).plain for mark in marks]
        widths.append(max(map(cell_len, (*lines, *cells))))
    return sum(width + how.padding for width in widths) + len(widths) + 1


def _columns(grid: MarkedGrid, positions: Sequence[int]) -> MarkedGrid:
    return replace(
        grid,
        headings=tuple(grid.headings[position] for position in positions),
        rows=tuple(tuple(row[position] for position in positions) for row in grid.rows),
        keys=sum(position < grid.keys for position in positions),
        words=tuple(i for i, position in enumerate(positions) if position in grid.words),
    )
