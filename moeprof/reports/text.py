"""Runs in a terminal: one table a run, one line a run for several.

Plain text carries everything; colour only stresses it. Narrow terminals lose columns in a fixed
order, the least telling first, never parts of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from moeprof.analysis.attribution import profile as explain_run
from moeprof.analysis.profiles import Profile, StageProfile
from moeprof.analysis.rows import stage_rows
from moeprof.errors import RecordError
from moeprof.ledger.ledger import WorkRow, work_rows
from moeprof.records import Run
from moeprof.reports import phrases
from moeprof.reports.kernel_metrics import kernel_table
from moeprof.reports.ledger_text import ledgers
from moeprof.reports.parity import parity_columns, parity_tables
from moeprof.reports.table import Column, FittedTable
from moeprof.reports.units import MISSING, count, number, percent, times, us

LONGEST_ROW_NAME = 24


def render_run(run: Run) -> RenderableType:
    """One run: who and what, the table of stages, what to know about it."""
    profile, missing = _profile(run)
    parts: list[RenderableType] = [_notes(phrases.heading(run))]
    if profile is not None and profile.trust.verdict == "differ":
        parts.append(_warning(f"trust: {phrases.trust_sentence(profile.trust)}"))
    if profile is not None:
        parts.append(Text(f"\n{phrases.source(run, profile)}", style="bold"))
        rows = work_rows(run, profile)
        parts.append(FittedTable(_columns(run, profile, rows), _caption(rows)))
    parts.extend(parity_tables(run))
    parts.extend(kernel_table(run))
    if profile is not None:
        parts.extend(ledgers(run, profile, row_label, _notes))
    parts.append(_notes(phrases.notes(run, profile)))
    parts.extend(_warning(text) for text in (*missing, *phrases.warnings(run, profile)))
    return Group(*parts)


def render_runs(runs: Sequence[Run]) -> RenderableType:
    """Several runs, a line each."""
    explained = [_profile(run)[0] for run in runs]
    shared = phrases.heading(runs[0])[:1] if len({r.solution.name for r in runs}) == 1 else ()
    parts: list[RenderableType] = [_notes(shared)] if shared else []
    stand_ins = dict.fromkeys(s for run in runs for s in run.solution.stand_ins)
    if stand_ins:
        parts.append(_warning(f"torch twins stand in for {'; '.join(stand_ins)}"))
    if runs[0].environment.device_kind == "cpu":
        parts.append(_warning("CPU timings: not GPU performance"))
    parts.append(FittedTable(_overview(runs, explained, with_solution=not shared)))
    return Group(*parts)


def row_label(name: str) -> str:
    """A row's name; of steps joined by '+' the first and last where all are too long."""
    first, *rest = name.split("+")
    if len(name) <= LONGEST_ROW_NAME or not rest:
        return name
    return f"{first}+..+{rest[-1]}"


def _profile(run: Run) -> tuple[Profile | None, tuple[str, ...]]:
    """The run explained, or why there is nothing to explain."""
    if not run.correctness.passed:
        return None, ()
    try:
        return explain_run(run), ()
    except RecordError as error:
        return None, (str(error),)


def _columns(run: Run, profile: Profile, rows: Sequence[WorkRow]) -> tuple[Column, ...]:
    stages = profile.stages
    names = tuple(row_label(stage.name) for stage in stages)
    share = Column(
        "share of\nspan",
        tuple(percent(stage.time_ns, profile.span_ns) for stage in stages),
        percent(sum(stage.time_ns for stage in stages), profile.span_ns),
        dropped=1,
    )
    if profile.source in ("events", "stage clock"):
        clock = "wall\nclock" if profile.source == "stage clock" else "event\npair"
        time = Column(clock, _each(stages, "busy_ns"), us(profile.span_ns))
        entries, needed = _entries_column(run, stages), _rows_column(run, rows)
        return (Column("stage", names, "sum", left=True), *entries, time, share, *needed)
    return (
        Column("stage", names, "sum", left=True),
        *_entries_column(run, stages),
        Column("GPU\nbusy", _each(stages, "busy_ns"), us(profile.busy_ns)),
        Column("gap:\nhost late", _each(stages, "host_late_ns"), _total(stages, "host_late_ns")),
        Column("gap:\nAPI", _each(stages, "api_ns"), _total(stages, "api_ns")),
        Column(
            "gap:\nlatency",
            _each(stages, "launch_latency_ns"),
            _total(stages, "launch_latency_ns"),
        ),
        *_optional(stages, "dependency_ns", "gap: de-\npendency"),
        *_optional(stages, "overlap_ns", "over-\nlapped", dropped=2),
        share,
        Column(
            "kernels",
            tuple(count(stage.operations) for stage in stages),
            count(sum(stage.operations for stage in stages)),
            dropped=4,
        ),
        *_rows_column(run, rows),
        *_rates(run, rows),
    )


def _entries_column(run: Run, stages: Sequence[StageProfile]) -> tuple[Column, ...]:
    """How often one call of a user's callable enters each stage, if any of them twice."""
    entries = {row.name: row.entries for row in stage_rows(run.solution.stages)}
    if max(entries.values(), default=1) < 2:
        return ()
    cells = tuple(count(entries.get(stage.name)) for stage in stages)
    return (Column("times\nentered", cells, dropped=7),)


def _rates(run: Run, rows: Sequence[WorkRow]) -> tuple[Column, ...]:
    if not run.workload.has_definition:
        return ()
    known = [row.executed.bytes for row in rows if row.executed.bytes is not None]
    megabytes = tuple(_megabytes(row.executed.bytes) for row in rows)
    teraflops = tuple(number(row.teraflops) for row in rows)
    return (
        Column("MB\nmoved", megabytes, _megabytes(sum(known) if known else None), dropped=6),
        Column("GB/s", tuple(number(row.gigabytes_per_second) for row in rows), dropped=3),
        Column("TFLOP/s", teraflops if set(teraflops) != {MISSING} else (), dropped=5),
    )


def _rows_column(run: Run, rows: Sequence[WorkRow]) -> tuple[Column, ...]:
    if not run.workload.has_definition:
        return ()
    short = tuple(_amplification(row) for row in rows)
    column = Column(
        "rows executed\n/ needed",
        tuple(_row_counts(row) for row in rows),
        instead=Column("rows x\nneeded", short, dropped=0),
    )
    return (column,)


def _row_counts(row: WorkRow) -> str:
    executed, needed = row.executed.rows, row.necessary.rows
    if executed is None:
        return MISSING
    if needed is None:
        return f"{executed:,}"
    return f"{executed:,} / {needed:,} = {_amplification(row)}"


def _amplification(row: WorkRow) -> str:
    return times(row.row_amplification) + "*" * (
        row.rows_declared and row.executed.rows is not None
    )


def _caption(rows: Sequence[WorkRow]) -> str:
    declared = any(row.rows_declared and row.executed.rows is not None for row in rows)
    return "* rows on the solution's word: the op shows no problem sizes" if declared else ""


def _megabytes(amount: int | None) -> str:
    return MISSING if amount is None else f"{amount / 1e6:,.1f}"


def _each(stages: Iterable[StageProfile], field: str) -> tuple[str, ...]:
    return tuple(us(getattr(stage, field)) for stage in stages)


def _total(stages: Iterable[StageProfile], field: str) -> str:
    return us(sum(getattr(stage, field) for stage in stages))


def _optional(
    stages: Sequence[StageProfile], field: str, header: str, dropped: int = 0
) -> tuple[Column, ...]:
    """The column, if any row has a figure in it."""
    if not any(getattr(stage, field) for stage in stages):
        return ()
    return (Column(header, _each(stages, field), _total(stages, field), dropped=dropped),)


def _overview(
    runs: Sequence[Run], explained: Sequence[Profile | None], with_solution: bool
) -> tuple[Column, ...]:
    def figures(header: str, field: str, dropped: int = 0) -> Column:
        cells = tuple(us(getattr(p, field)) if p else MISSING for p in explained)
        return Column(header, cells, dropped=dropped)

    shares = tuple(percent(p.orchestration_ns, p.span_ns) if p else MISSING for p in explained)
    gpu = any(p is not None and p.source in ("reconstructed", "api") for p in explained)
    solution = (Column("solution", tuple(run.solution.name for run in runs), left=True),)
    return (
        *(solution if with_solution else ()),
        Column("workload", tuple(run.workload.uuid[:8] for run in runs), left=True, dropped=3),
        Column("T", tuple(f"{run.workload.seq_len:,}" for run in runs)),
        Column("P", tuple(_routed(run, run.routing.local_pairs) for run in runs), dropped=2),
        Column("A", tuple(_routed(run, run.routing.active_experts) for run in runs), dropped=4),
        figures("wall us", "wall_ns", dropped=5),
        figures("span us", "span_ns"),
        *((figures("GPU busy us", "busy_ns"), Column("orchestration", shares)) if gpu else ()),
        *parity_columns(runs),
        Column("relative L2", tuple(map(_relative_l2, runs)), dropped=1),
        Column("status", tuple(map(_status, runs, explained)), left=True),
    )


def _routed(run: Run, value: int) -> str:
    return f"{value:,}" if run.workload.has_definition else MISSING


def _relative_l2(run: Run) -> str:
    return f"{run.correctness.relative_l2:.4f}" if run.correctness.checked else MISSING


def _status(run: Run, profile: Profile | None) -> str:
    if not run.correctness.passed:
        return "WRONG"
    doubts = len(phrases.warnings(run, profile))
    doubts += profile is not None and profile.trust.verdict == "differ"
    verdict = "ok" if run.correctness.checked else "not checked"
    if profile is None:
        return f"{verdict}, no stage times"
    upper = ", upper bounds" if profile.host_upper_bounds else ""
    return f"{verdict}{upper}" + (f", {doubts} warning{'s' * (doubts > 1)}" if doubts else "")


def _notes(notes: Iterable[phrases.Note]) -> Table:
    """Labels and sentences in two columns; a label repeated is shown once."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    last = ""
    for label, sentence in notes:
        style = "red" if sentence.startswith("WRONG") else ""
        grid.add_row(Text(label if label != last else "", style="dim"), Text(sentence, style=style))
        last = label
    return grid


def _warning(sentence: str) -> Text:
    return Text(f"! {sentence}", style="yellow")
