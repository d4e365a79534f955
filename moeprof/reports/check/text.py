"""A check in a terminal: the headline, a line a stage with its interval drawn, then why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from moeprof.regression.values import Check
from moeprof.reports.check import interval, phrases
from moeprof.reports.compare_text import notes_grid, warning
from moeprof.reports.table import Column, fit

PLOT = "no change"
EDGES = 2  # the columns that the box takes at both sides
STYLES = {"REGRESSED": "bold red", "IMPROVED": "green", "INCONCLUSIVE": "yellow", "SAME": "dim"}


def render_check(check: Check) -> RenderableType:
    """The whole report."""
    style = "red" if check.wrong_result or not check.comparable else STYLES[check.verdict]
    parts: list[RenderableType] = [Text(phrases.headline(check), style=f"bold {style}")]
    told = check.against if check.comparable else check.against[1:]
    parts += [warning(sentence) for sentence in told]
    if check.findings:
        parts.append(VerdictTable(phrases.rows(check)))
    explained = phrases.explanations(check)
    if explained:
        parts += [notes_grid(_once(explained)), Text("")]
    parts.append(notes_grid(phrases.notes(check)))
    return Group(*parts)


@dataclass(frozen=True, slots=True)
class VerdictTable:
    """A rich renderable: what fits of the columns; the plot goes first where space lacks."""

    rows: Sequence[phrases.Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        marks = interval.ASCII if options.ascii_only else interval.Marks()
        columns = fit(columns_of(self.rows, marks), options.max_width - EDGES)
        table = Table(
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            caption=Text(caption(columns, marks), style="dim"),
            caption_justify="left",
        )
        for column in columns:
            table.add_column(
                Text(column.header, style="bold"),
                justify="left" if column.left else "right",
                no_wrap=True,
                vertical="bottom",
            )
        cells = zip(*(column.cells for column in columns), strict=True)
        for row, texts in zip(self.rows, cells, strict=True):
            style = STYLES[row.finding.verdict]
            first, *others = texts
            table.add_row(Text(first, style=style), *(Text(text) for text in others))
        yield table


def columns_of(rows: Sequence[phrases.Row], marks: interval.Marks) -> tuple[Column, ...]:
    """The table as columns; also Markdown's, which has no plot."""
    found = [row.finding for row in rows]
    half = interval.reach(found)
    plots = tuple(interval.draw(finding, half, marks) for finding in found)
    return (
        Column("verdict", tuple(map(phrases.verdict_label, found)), left=True),
        Column("what", tuple(row.label for row in rows), left=True),
        Column("baseline,\nus", tuple(phrases.small_us(f.baseline_us) for f in found), dropped=3),
        Column("now,\nus", tuple(phrases.small_us(f.candidate_us) for f in found), dropped=3),
        Column("change", tuple(phrases.percent(f.ratio) for f in found)),
        Column("interval", tuple(phrases.interval_text(f) for f in found), dropped=2),
        Column("shift,\nus", tuple(phrases.signed_us(f.shift_us) for f in found), dropped=1),
        Column("p after\nHolm", tuple(phrases.p_text(f.p_holm) for f in found), dropped=4),
        Column("floors", tuple(phrases.floor_text(f) for f in found), dropped=5),
        Column(_axis(half), plots, left=True, dropped=6),
    )


def caption(columns: Sequence[Column], marks: interval.Marks) -> str:
    """What the names mean, and the characters of the plot where it is shown."""
    plot = f"; {marks.band} within the relative floor, {marks.line} interval"
    return phrases.KEY + plot * (PLOT in columns[-1].header)


def _axis(half: float) -> str:
    left, right = f"-{100 * half:.0f} %", f"+{100 * half:.0f} %"
    gap = interval.WIDTH - len(left) - len(right)
    return left + PLOT.center(gap) + right


def _once(explained: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Labels in front of the first of their sentences alone."""
    shown: list[tuple[str, str]] = []
    last = ""
    for label, sentence in explained:
        shown.append(("" if label == last else label, sentence))
        last = label
    return shown
