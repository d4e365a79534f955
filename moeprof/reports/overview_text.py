"""The tables of several solutions over many workloads, in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.compare.tables import Table
from moeprof.reports.compare_text import warning
from moeprof.reports.overview import Grid, grids
from moeprof.reports.table import NEVER, Column, FittedTable

# how early a column goes where the terminal is narrow; the solutions' own figures stay
DROPPED: Mapping[str, int] = MappingProxyType(
    {
        **{"offset": 9, "P": 8, "workload": 7, "reference": 6, "workloads": 5, "variation": 4},
        **{"n": 4, "winner": 2, "max": 2, "min": 2, "median": 1},
    }
)
RATIO_DROPPED = 3


def render_overview(table: Table, cpu: bool, reasons: Sequence[str] = ()) -> RenderableType:
    """reasons: what stands against comparing these records, shown on top."""
    parts: list[RenderableType] = [warning(reason) for reason in (*reasons, *table.left_out)]
    for grid in grids(table, cpu):
        parts += [Text(grid.title, style="bold"), FittedTable(_columns(grid))]
    return Group(*parts)


def _columns(grid: Grid) -> tuple[Column, ...]:
    cells = list(zip(*grid.rows, strict=True)) or [() for _ in grid.headings]
    return tuple(
        Column(
            heading.replace(" / ", " /\n"),
            tuple(column),
            dropped=RATIO_DROPPED if " / " in heading else DROPPED.get(heading, NEVER),
            left=position < grid.left or heading == "winner",
        )
        for position, (heading, column) in enumerate(zip(grid.headings, cells, strict=True))
    )
