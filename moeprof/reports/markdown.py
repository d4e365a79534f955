"""ReportData as Markdown: what the page shows in words and tables, for a terminal or an issue.

Left out: raw samples and timelines, which JSON has. Of the pairs of solutions only the default one
is shown; ``moeprof compare`` shows any other.
"""

from __future__ import annotations

from collections.abc import Iterable

from moeprof.reports import compare_phrases
from moeprof.reports.compare_markdown import escape, rows
from moeprof.reports.kernel_metrics import kernel_grid
from moeprof.reports.overview import Grid
from moeprof.reports.parity import parity_grids
from moeprof.reports.survey import tables
from moeprof.reports.survey.data import Entry, Pair, ReportData, WorkloadData
from moeprof.reports.survey.summary import subject


def report_markdown(data: ReportData) -> str:
    """The whole report, ending in one newline."""
    found = ["# Where the time goes", "", f"{escape(subject(data))}.", ""]
    found += _list(data.summary)
    found += _grid(tables.latencies(data), 2)
    for workload in data.workloads:
        found += _workload(workload, data)
    found += ["## Doubts", "", *(_list(tables.warnings(data)) or ["None.", ""])]
    found += _grid(tables.environment(data), 2)
    return "\n".join(found).rstrip("\n") + "\n"


def _workload(workload: WorkloadData, data: ReportData) -> list[str]:
    found = [f"## {escape(workload.name)}", ""]
    pair = workload.pair(data.default_pair) if data.default_pair else None
    if pair is not None:
        found += _pair(pair)
    found += _grid(tables.samples(workload), 3)
    for entry in workload.entries:
        found += _entry(entry)
    return found


def _pair(pair: Pair) -> list[str]:
    comparison = pair.comparison
    if comparison is None:
        why = f"{pair.before} and {pair.after} cannot be compared:"
        return [escape(why), "", *_list(pair.refused)]
    told = compare_phrases
    found = [f"{escape(told.headline(comparison))}.", ""]
    largest = told.largest_cause(comparison)
    found += [f"**{escape(largest)}.**", ""] if largest else []
    found += _list((*told.sentences(comparison), *pair.cautions))
    return [*found, *_grid(tables.waterfall(comparison), 3)]


def _entry(entry: Entry) -> list[str]:
    found = [f"### {escape(entry.label)}", ""]
    if entry.problem:
        found += [f"> **{escape(entry.problem)}**", ""]
    else:
        found += [*_grid(tables.stages(entry)), *_grid(tables.ledger(entry))]
    for grid in parity_grids(entry.run):
        found += _grid(grid)
    kernels = kernel_grid(entry.run)
    found += _grid(kernels) if kernels else []
    return [*found, *_list(f"{label}: {text}" for label, text in tables.notes(entry))]


def _list(sentences: Iterable[str]) -> list[str]:
    found = [f"- {escape(sentence)}" for sentence in sentences]
    return [*found, ""] if found else []


def _grid(grid: Grid, level: int | None = None) -> list[str]:
    """A table under a heading of ``level``, or under a plain line."""
    title = f"{'#' * level} {escape(grid.title)}" if level else f"{escape(grid.title)}:"
    cells = [[escape(cell) for cell in row] for row in grid.rows]
    headings = [escape(heading) for heading in grid.headings]
    return [title, "", *rows(headings, cells, grid.left), ""]
