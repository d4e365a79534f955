"""Records beside a capture as Markdown, for an issue or a pull request."""

from __future__ import annotations

from collections.abc import Sequence

from moeprof.compare.agreement import Agreement
from moeprof.reports import agreement_phrases as phrases
from moeprof.reports.agreement_text import row_columns, span_columns
from moeprof.reports.compare_markdown import escape, rows
from moeprof.reports.table import Column


def agreement_markdown(agreement: Agreement) -> str:
    """The same content as in a terminal."""
    found = [f"# {escape(phrases.headline(agreement))}", ""]
    doubts = phrases.doubts(agreement)
    found += [f"> **{escape(doubt)}**" for doubt in doubts] + [""] * bool(doubts)
    said = phrases.sentences(agreement)
    found += [f"- {escape(sentence)}" for sentence in said] + [""] * bool(said)
    found += ["## Stage by stage, us", "", *_table(row_columns(agreement)), ""]
    found += ["## Shown, not judged, us", "", *_table(span_columns(agreement)), ""]
    found += [f"- {label}: {escape(text)}" for label, text in phrases.notes(agreement)]
    return "\n".join(found) + "\n"


def _table(columns: Sequence[Column]) -> list[str]:
    headings = [column.header.replace("-\n", "").replace("\n", " ") for column in columns]
    cells = [
        [escape(cell) for cell in row] for row in zip(*(c.cells for c in columns), strict=True)
    ]
    total = [f"**{column.total}**" if column.total else "" for column in columns]
    return rows([escape(h) for h in headings], [*cells, total] if any(total) else cells)
