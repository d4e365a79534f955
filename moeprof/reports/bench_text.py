"""A bench in a terminal: what was measured, who is fastest and by how much, and why.

Where there are many workloads, the tables that explain are shown for the largest one of each
regime, and those of single cells are left to the other formats.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from moeprof.bench.causes import explain
from moeprof.bench.cells import Bench
from moeprof.bench.conditions import conditions, letters
from moeprof.bench.summary import measured_metrics, regimes
from moeprof.bench.winners import verdicts
from moeprof.reports import bench_phrases as phrases
from moeprof.reports.bench_details import account_grid, cell_grid, stage_grid
from moeprof.reports.bench_grids import (
    MarkedGrid,
    latency_grid,
    legend,
    regime_grids,
    speedup_grid,
    summary_grid,
)
from moeprof.reports.bench_table import GridTable

FEW_CELLS = 40


def render_bench(bench: Bench) -> RenderableType:
    """The whole bench."""
    groups, found = conditions(bench), verdicts(bench)
    parts: list[RenderableType] = [Text(phrases.title(bench), style="bold")]
    parts += [Text(sentence, style="bold") for sentence in phrases.headline(bench, found)]
    parts += [Text(sentence) for sentence in phrases.averages(bench)]
    parts.append(_notes(phrases.header(bench, groups)))
    parts += [_warning(sentence) for sentence in phrases.warnings(bench, groups)]
    metrics = measured_metrics(bench)
    for metric in metrics:
        parts += _titled(latency_grid(bench, metric, found, letters(bench, groups)))
    parts.append(Text(legend(bench), style="dim"))
    if bench.has_reference:
        for metric in metrics:
            parts += _titled(speedup_grid(bench, metric, found))
    for grid in regime_grids(bench, metrics):
        parts += _titled(grid)
    for metric in metrics:
        parts += _titled(summary_grid(bench, metric, found))
    parts += _explained(bench)
    if len(bench.every_cell) <= FEW_CELLS:
        parts += _titled(cell_grid(bench, groups, found))
    parts += _failures(bench)
    return Group(*parts)


def _explained(bench: Bench) -> list[RenderableType]:
    """Accounts and stages of the largest workload of each regime."""
    parts: list[RenderableType] = []
    for found in explain(bench, [regime.rows[-1] for regime in regimes(bench)]):
        if found.accounts:
            parts += _titled(account_grid(bench, found))
            parts += _titled(stage_grid(bench, found))
    if parts:
        parts.append(Text(phrases.ACCOUNT_NOTE, style="dim"))
    return parts


def _failures(bench: Bench) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if bench.failures:
        counted = f"{len(bench.failures)} of {len(bench.every_cell)} cells"
        parts.append(Text(f"\nFailed: {counted}", "bold red"))
        parts += [Text(f"  {sentence}", style="red") for sentence in phrases.failures(bench)]
    parts += [_warning(sentence) for sentence in phrases.missing(bench)]
    return parts


def _titled(grid: MarkedGrid) -> list[RenderableType]:
    return [Text(f"\n{grid.title}", style="bold"), GridTable(grid)]


def _notes(notes: Iterable[phrases.Note]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, sentence in notes:
        grid.add_row(Text(label, style="dim"), Text(sentence))
    return grid


def _warning(sentence: str) -> Text:
    return Text(f"! {sentence}", style="yellow")
