"""A table that drops columns, not characters, where the terminal is narrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

NEVER = 0


@dataclass(frozen=True, slots=True)
class Column:
    """One column. dropped: the larger, the earlier it goes where space lacks; NEVER stays.

    instead: the narrower column that takes its place first. total: the cell of the footer.
    """

    header: str
    cells: tuple[str, ...]
    total: str = ""
    dropped: int = NEVER
    left: bool = False
    instead: Column | None = None

    @property
    def width(self) -> int:
        lines = (*self.header.split("\n"), *self.cells, self.total)
        return max(cell_len(line) for line in lines)


@dataclass(frozen=True, slots=True)
class FittedTable:
    """A rich renderable: the columns that fit, in order."""

    columns: tuple[Column, ...]
    caption: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = fit(self.columns, options.max_width)
        footer = any(column.total for column in columns)
        table = Table(
            box=box.SIMPLE_HEAD,
            show_footer=footer,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            caption=Text(self.caption, style="dim") if self.caption else None,
            caption_justify="left",
        )
        for column in columns:
            table.add_column(
                Text(column.header, style="bold"),
                Text(column.total, style="bold"),
                justify="left" if column.left else "right",
                no_wrap=True,
                vertical="bottom",
            )
        for row in zip(*(column.cells for column in columns), strict=True):
            table.add_row(*(Text(cell) for cell in row))
        yield table


def fit(columns: Sequence[Column], width: int) -> tuple[Column, ...]:
    """The columns that stay: first the narrower variants, then without the least important."""
    kept = [column for column in columns if any((*column.cells, column.total))]
    while _width(kept) > width:
        variant = next((i for i, column in enumerate(kept) if column.instead is not None), None)
        if variant is not None:
            instead = kept[variant].instead
            assert instead is not None
            kept[variant] = instead
            continue
        worst = max(kept, key=lambda column: column.dropped)
        if worst.dropped == NEVER:
            break
        kept.remove(worst)
    return tuple(kept)


def _width(columns: Sequence[Column]) -> int:
    """Cells, one space after each, one between neighbours for the rule of the box."""
    return sum(column.width + 1 for column in columns) + max(0, len(columns) - 1)
