"""A check as Markdown: a step summary, or a comment that a bot finds again by its first line."""

from __future__ import annotations

from moeprof.regression.values import Check
from moeprof.reports.check import phrases
from moeprof.reports.check.interval import Marks
from moeprof.reports.check.text import PLOT, columns_of
from moeprof.reports.compare_markdown import escape, rows

SHOWN_OPEN = ("REGRESSED", "IMPROVED", "INCONCLUSIVE")


def check_markdown(check: Check) -> str:
    """Headline, what changed and why, then all of it folded; ends in one newline."""
    found = [f"<!-- moeprof check: {marker(check)} -->"]
    found += [f"### {escape(phrases.headline(check))}", "", escape(phrases.subject(check)), ""]
    told = check.against if check.comparable else check.against[1:]
    found += [f"> {escape(sentence)}" for sentence in told] + [""] * bool(told)
    table = phrases.rows(check)
    open_ = tuple(row for row in table if row.finding.verdict in SHOWN_OPEN)
    if open_:
        found += [*_table(open_), ""]
    explained = phrases.explanations(check)
    found += [f"- **{escape(label)}**: {escape(sentence)}" for label, sentence in explained]
    found += [""] * bool(explained)
    found += ["<details><summary>All stages, and how it was measured</summary>", ""]
    if table:
        found += [*_table(table), "", f"{escape(phrases.KEY)}.", ""]
    found += [f"- {label}: {escape(sentence)}" for label, sentence in phrases.notes(check)]
    found += ["", "</details>"]
    return "\n".join(found) + "\n"


def marker(check: Check) -> str:
    """What names this check among others of one pull request."""
    words = (check.candidate.solution, f"T{check.workload.seq_len}", check.device)
    return " ".join(word.replace("-->", "") for word in words)


def _table(shown: tuple[phrases.Row, ...]) -> list[str]:
    columns = [column for column in columns_of(shown, Marks()) if PLOT not in column.header]
    headings = [column.header.replace("\n", " ") for column in columns]
    cells = zip(*(column.cells for column in columns), strict=True)
    return rows(headings, [[escape(cell) for cell in row] for row in cells], left=2)
