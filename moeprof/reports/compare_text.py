"""A comparison in a terminal: what it says, the waterfall, every part in a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from moeprof.compare.comparison import Cause, Comparison, Part, PartSide
from moeprof.reports import compare_phrases as phrases
from moeprof.reports.table import NEVER, Column, FittedTable
from moeprof.reports.units import MISSING, us
from moeprof.reports.waterfall import Waterfall, lines

# a column for each cause: heading, and how early it goes where the terminal is narrow
COLUMNS: tuple[tuple[str, Cause, int], ...] = (
    ("orches-\ntration", Cause.ORCHESTRATION, 1),
    ("launch\nlatency", Cause.LAUNCH_LATENCY, 4),
    ("amplifi-\ncation", Cause.AMPLIFICATION, NEVER),
    ("effi-\nciency", Cause.EFFICIENCY, NEVER),
    ("one side\nonly", Cause.ONE_SIDED, 2),
    ("over-\nlap", Cause.OVERLAP, 5),
    ("not\nsplit", Cause.NOT_SPLIT, 3),
)


def render_comparison(comparison: Comparison, reasons: Sequence[str] = ()) -> RenderableType:
    """reasons: what stands against comparing these two, shown on top."""
    before, after = comparison.before.label, comparison.after.label
    parts: list[RenderableType] = [warning(reason) for reason in reasons]
    parts.append(Text(phrases.headline(comparison), style="bold"))
    doubt = phrases.doubt(comparison)
    parts += [warning(doubt)] if doubt else []
    largest = phrases.largest_cause(comparison)
    parts += [Text(largest, style="bold")] if largest else []
    parts.append(notes_grid([("  -", sentence) for sentence in phrases.sentences(comparison)]))
    parts.append(Text(f"\nFrom {before} to {after}, us", style="bold"))
    parts.append(Waterfall(lines(comparison)))
    parts.append(Text(f"\n{after} - {before} by part and cause, us", style="bold"))
    parts.append(FittedTable(part_columns(comparison), caption(comparison)))
    parts.append(notes_grid(phrases.notes(comparison)))
    parts += [warning(sentence) for sentence in phrases.cautions(comparison)]
    return Group(*parts)


def part_columns(comparison: Comparison) -> tuple[Column, ...]:
    """Parts by causes, with a total of each; a cause without any bar has no column."""
    parts = comparison.parts
    totals = dict(comparison.causes)
    columns = [
        Column("part", tuple(phrases.part_label(part.name) for part in parts), "span", left=True),
        Column(
            comparison.before.label,
            tuple(us(part.before.time_ns) for part in parts),
            us(comparison.span_before_ns),
            dropped=6,
        ),
        Column(
            comparison.after.label,
            tuple(us(part.after.time_ns) for part in parts),
            us(comparison.span_after_ns),
            dropped=6,
        ),
        Column(
            "differ-\nence",
            tuple(signed(part.delta_ns) for part in parts),
            signed(comparison.delta_ns),
        ),
    ]
    for heading, cause, dropped in COLUMNS:
        if cause in totals:
            cells = tuple(signed(_bar(part, cause)) for part in parts)
            columns.append(Column(heading, cells, signed(totals[cause]), dropped))
    columns.append(Column("rows executed", tuple(rows(part) for part in parts), dropped=7))
    return tuple(columns)


def rows(part: Part) -> str:
    """Rows executed on both sides; '*' marks those on a solution's word."""
    if part.before.rows is None and part.after.rows is None:
        return ""
    return f"{_rows(part.before)} / {_rows(part.after)}"


def caption(comparison: Comparison) -> str:
    """What '*' means, where it is used."""
    sides = [side for part in comparison.parts for side in (part.before, part.after)]
    declared = any(side.declared and side.rows is not None for side in sides)
    return "* rows on the solution's word: the op shows no problem sizes" if declared else ""


def signed(nanoseconds: int | None) -> str:
    """Microseconds with a sign; a dash for nothing."""
    return MISSING if nanoseconds is None else f"{nanoseconds / 1e3:+,.1f}"


def warning(sentence: str) -> Text:
    """A line that must not be overlooked, also without colour."""
    return Text(f"! {sentence}", style="yellow")


def notes_grid(notes: Sequence[tuple[str, str]]) -> Table:
    """Labels and sentences in two columns."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for label, sentence in notes:
        grid.add_row(Text(label, style="dim"), Text(sentence))
    return grid


def _bar(part: Part, cause: Cause) -> int | None:
    return next((bar.delta_ns for bar in part.bars if bar.cause == cause), None)


def _rows(side: PartSide) -> str:
    return MISSING if side.rows is None else f"{side.rows:,}{'*' * side.declared}"
