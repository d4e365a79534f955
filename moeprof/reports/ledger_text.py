"""The work ledger and the ledger of the GEMMs in a terminal, below the table of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from moeprof.analysis.profiles import Profile
from moeprof.ledger.ceilings import ceilings_of
from moeprof.ledger.floors import FloorRow, counts_idle_time, floor_rows, total
from moeprof.ledger.gemm_ledger import gemm_rows
from moeprof.records import Run
from moeprof.reports.gemm_phrases import gemm_notes
from moeprof.reports.phrases import Note
from moeprof.reports.table import Column, FittedTable
from moeprof.reports.units import MISSING, number, percent, times, us

LEAST_WIDTH = 100  # cells; a narrower terminal keeps to the table of the times


@dataclass(frozen=True, slots=True)
class WideOnly:
    """Renderables that a terminal narrower than ``LEAST_WIDTH`` leaves out."""

    parts: tuple[RenderableType, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width >= LEAST_WIDTH:
            yield from self.parts


def ledgers(
    run: Run,
    profile: Profile,
    label: Callable[[str], str],
    as_notes: Callable[[Sequence[Note]], RenderableType],
) -> list[RenderableType]:
    """What goes below the table of ``run``; nothing where the record has no kernel times.

    label: a row's name as the table above shows it. as_notes: labels and sentences, laid out.
    """
    ceilings, source = ceilings_of([run])
    rows = () if counts_idle_time(profile) else floor_rows(run, profile, ceilings)
    if not rows:
        return []
    heading = Text(
        f"\nWork ledger: busy = floor x amplification / efficiency; us, ceilings {source}",
        style="bold",
    )
    caption = "* bytes or rows on the solution's word" if any(r.declared for r in rows) else ""
    parts: list[RenderableType] = [WideOnly((heading, FittedTable(_columns(rows, label), caption)))]
    gemms = gemm_rows(run, profile, ceilings)
    if gemms:
        parts.append(Text("\nGEMMs", style="bold"))
        parts.append(as_notes(gemm_notes(gemms)))
        parts.append(Text(""))
    return parts


def _columns(rows: Sequence[FloorRow], label: Callable[[str], str]) -> tuple[Column, ...]:
    whole = total(rows)
    busy_ns = sum(row.work.busy_ns for row in rows)
    bytes_ = [row.work.necessary.bytes for row in rows]
    flops = [row.work.necessary.flops for row in rows]
    return (
        Column("stage", tuple(label(row.work.name) for row in rows), "sum", left=True),
        _amounts("needed\nMB", bytes_, 1e6),
        _amounts("needed\nGFLOP", flops, 1e9),
        Column("floor", tuple(map(_floor, rows)), us(whole.floor_ns) if whole else MISSING),
        Column(
            "amplifi-\ncation",
            tuple(map(_amplification, rows)),
            times(whole.amplification) if whole else MISSING,
        ),
        Column(
            "effi-\nciency",
            tuple(percent(row.best_ns, row.work.busy_ns) for row in rows),
            percent(whole.efficiency, 1) if whole else MISSING,
        ),
        Column("GPU\nbusy", tuple(us(row.work.busy_ns) for row in rows), us(busy_ns)),
        Column("executed work\nbound by", tuple(row.bound or MISSING for row in rows), left=True),
    )


def _amounts(header: str, amounts: Sequence[int | None], unit: float) -> Column:
    cells = tuple(number(amount / unit, 1) if amount else MISSING for amount in amounts)
    return Column(header, cells, number(sum(amount or 0 for amount in amounts) / unit, 1))


def _floor(row: FloorRow) -> str:
    return us(0.0 if row.unneeded else row.factors.floor_ns if row.factors else None)


def _amplification(row: FloorRow) -> str:
    if row.unneeded and row.work.busy_ns:
        return "unneeded"
    if row.factors is None:
        return MISSING
    return times(row.factors.amplification) + "*" * row.declared
