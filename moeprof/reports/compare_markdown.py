"""Comparisons and their tables as Markdown, for an issue or a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moeprof.compare.comparison import Comparison
from moeprof.compare.tables import Table
from moeprof.reports import compare_phrases as phrases
from moeprof.reports.compare_text import caption, part_columns
from moeprof.reports.overview import grids
from moeprof.reports.table import Column
from moeprof.reports.waterfall import lines


def comparison_markdown(comparison: Comparison, reasons: Sequence[str] = ()) -> str:
    """reasons: what stands against comparing these two, shown on top."""
    before, after = comparison.before, comparison.after
    tokens = before.run.workload.seq_len
    found = [f"# {before.label} and {after.label} at T = {tokens:,}", ""]
    found += [f"> **{escape(reason)}**" for reason in reasons] + [""] * bool(reasons)
    found += [f"{escape(phrases.headline(comparison))}.", ""]
    doubt = phrases.doubt(comparison)
    found += [f"> **{escape(doubt)}**", ""] if doubt else []
    largest = phrases.largest_cause(comparison)
    found += [f"**{escape(largest)}.**", ""] if largest else []
    found += [f"- {escape(sentence)}" for sentence in phrases.sentences(comparison)]
    found += ["", f"## From {before.label} to {after.label}", "", *_waterfall(comparison)]
    found += ["", f"## {after.label} - {before.label} by part and cause, us", ""]
    found += _columns(part_columns(comparison))
    found += ["", caption(comparison)] if caption(comparison) else []
    found += ["", "## How it was measured", ""]
    found += [f"- {label}: {escape(text)}" for label, text in phrases.notes(comparison)]
    found += [f"- caution: {escape(text)}" for text in phrases.cautions(comparison)]
    return "\n".join(found) + "\n"


def overview_markdown(table: Table, cpu: bool, reasons: Sequence[str] = ()) -> str:
    """Several solutions over many workloads."""
    found = [f"# {', '.join(table.solutions)} over {len(table.rows)} workloads", ""]
    notes = (*reasons, *table.left_out)
    found += [f"> **{escape(reason)}**" for reason in notes] + [""] * bool(notes)
    for grid in grids(table, cpu):
        found += [f"## {grid.title}", "", *rows(grid.headings, grid.rows, grid.left), ""]
    return "\n".join(found).rstrip("\n") + "\n"


def rows(headings: Sequence[str], cells: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """The lines of one table; all but the first ``left`` columns are right-aligned."""
    rule = [":--" if position < left else "--:" for position in range(len(headings))]
    return [_row(headings), _row(rule), *(_row(row) for row in cells)]


def escape(text: str) -> str:
    """``text`` as Markdown that shows it as it is."""
    for character in "\\|*_<>`":
        text = text.replace(character, f"\\{character}")
    return text


def _waterfall(comparison: Comparison) -> list[str]:
    table = []
    for line in lines(comparison):
        change = "" if line.total else f"{line.delta_ns / 1e3:+,.1f}"
        label = f"**{escape(line.label)}**" if line.total else escape(line.label)
        table.append((label, change, f"{line.end_ns / 1e3:,.1f}"))
    return rows(("", "change, us", "running total, us"), table)


def _columns(columns: Sequence[Column]) -> list[str]:
    headings = [column.header.replace("-\n", "").replace("\n", " ") for column in columns]
    cells = [
        [escape(cell) for cell in row] for row in zip(*(c.cells for c in columns), strict=True)
    ]
    total = [f"**{column.total}**" if column.total else "" for column in columns]
    return rows([escape(heading) for heading in headings], [*cells, total])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
