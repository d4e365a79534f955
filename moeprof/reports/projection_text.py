"""NVTX ranges projected onto the GPU, in a terminal: nsys's own view, for comparison with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.importing.projection import RangeSummary
from moeprof.reports.table import Column, FittedTable

TITLE = (
    "NVTX ranges projected onto the GPU, by the rules of nsys (idle gaps included, ranges inside "
    "not subtracted), ns"
)


def render_projection(rows: Sequence[RangeSummary]) -> RenderableType:
    """One line a range name, the longest total first."""
    if not rows:
        return Text("no range encloses a launch")

    def figures(header: str, shown: Callable[[RangeSummary], str], dropped: int = 0) -> Column:
        return Column(header, tuple(shown(row) for row in rows), dropped=dropped)

    columns = (
        Column("range", tuple(row.name for row in rows), left=True),
        Column("style", tuple(row.style for row in rows), left=True, dropped=6),
        figures("total\nprojected", lambda row: f"{row.total_projected_ns:,}"),
        figures("total\nrange", lambda row: f"{row.total_range_ns:,}", 4),
        figures("instances", lambda row: f"{row.instances:,}"),
        figures("average", lambda row: f"{row.average_ns:,.1f}"),
        figures("median", lambda row: f"{row.median_ns:,.1f}"),
        figures("min", lambda row: f"{row.shortest_ns:,}", 3),
        figures("max", lambda row: f"{row.longest_ns:,}", 3),
        figures("deviation", lambda row: f"{row.deviation_ns:,.1f}", 5),
        figures("GPU\noperations", lambda row: f"{row.operations:,}", 2),
        figures("average\nlevel", lambda row: _or_dash(row.average_level), 7),
        figures("average\nchildren", lambda row: f"{row.average_children:,.1f}", 7),
    )
    return Group(Text(TITLE, style="bold"), FittedTable(columns))


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
