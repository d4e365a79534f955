"""Records beside a capture in a terminal: the verdict, what differs, every stage in a table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.compare.agreement import Agreement, Figure
from moeprof.reports import agreement_phrases as phrases
from moeprof.reports.compare_text import notes_grid, warning
from moeprof.reports.table import NEVER, Column, FittedTable
from moeprof.reports.units import MISSING, count, number


def render_agreement(agreement: Agreement) -> RenderableType:
    """Everything, for a person."""
    style = "bold green" if agreement.agrees else "bold"
    parts: list[RenderableType] = [warning(doubt) for doubt in phrases.doubts(agreement)]
    parts.append(Text(phrases.headline(agreement), style=style))
    found = phrases.sentences(agreement)
    if found:
        parts.append(notes_grid([("  -", sentence) for sentence in found]))
    parts.append(Text("\nStage by stage, us", style="bold"))
    parts.append(FittedTable(row_columns(agreement)))
    parts.append(Text("Shown, not judged, us", style="bold"))
    parts.append(FittedTable(span_columns(agreement)))
    parts.append(notes_grid(phrases.notes(agreement)))
    return Group(*parts)


def row_columns(agreement: Agreement) -> tuple[Column, ...]:
    """A row a stage; what is judged stays longest where the terminal is narrow."""
    rows = agreement.rows
    busy = agreement.busy
    return (
        Column("stage", tuple(row.name for row in rows), "sum", left=True),
        Column(
            "busy,\nrecord", tuple(phrases.us_range(row.busy) for row in rows),
            phrases.us_range(busy),
        ),
        Column("busy,\ncapture", tuple(_us(row.busy.capture) for row in rows), _us(busy.capture)),
        Column("differ-\nence", tuple(_signed(row.busy) for row in rows), _signed(busy)),
        Column("%", tuple(_share(row.busy) for row in rows), _share(busy), dropped=2),
        Column(
            "allowed",
            tuple(_us(row.tolerance.allowed_ns(row.busy.nearest)) for row in rows), dropped=3,
        ),
        Column(
            "opera-\ntions", tuple(_counts(row.operations) for row in rows),
            _counts(agreement.operations), dropped=1,
        ),
        Column(
            "sum of durations,\nrecord / capture", tuple(_both(row.kernel_sum) for row in rows),
            _both(agreement.kernel_sum), dropped=4,
        ),
        Column("idle before,\nrecord / capture", tuple(_both(r.gap) for r in rows), dropped=5),
        Column("verdict", tuple(map(phrases.verdict, rows)), dropped=NEVER, left=True),
    )  # fmt: skip


def span_columns(agreement: Agreement) -> tuple[Column, ...]:
    """The span and its idle parts on both sides."""
    lines = phrases.span_words(agreement)
    return (
        Column("", tuple(label for label, _ in lines), left=True),
        Column("record", tuple(phrases.us_range(figure) for _, figure in lines)),
        Column("capture", tuple(_us(figure.capture) for _, figure in lines)),
    )


def _us(nanoseconds: float) -> str:
    return number(nanoseconds / 1e3, 2)


def _signed(figure: Figure) -> str:
    return f"{figure.difference / 1e3:+,.2f}"


def _share(figure: Figure) -> str:
    if not figure.nearest:
        return MISSING
    return f"{100 * figure.difference / figure.nearest:+.1f}"


def _counts(figure: Figure) -> str:
    if figure.low == figure.high == figure.capture:
        return count(figure.capture)
    low, high = count(figure.low), count(figure.high)
    return f"{low if low == high else f'{low}-{high}'} / {count(figure.capture)}"


def _both(figure: Figure) -> str:
    return f"{phrases.us_range(figure)} / {_us(figure.capture)}"
