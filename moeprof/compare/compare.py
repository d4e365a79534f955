"""Two records of one workload subtracted: why one solution takes longer, part by part and by cause.

The difference of two spans is a sum of bars, one for each part of the finest shared partition
(``partition``) and cause:

    orchestration   idle time before its launches and during them (host_late + api)
    launch latency  from the launch to the start, waits for another stream included
    amplification   more work executed than the other side executes for the same result
    efficiency      more time for each unit of executed work
    one side only   work that only one side does at all (a cast, a step fused away)
    overlap         work that was hidden behind other work
    not split       busy time of a part whose executed work the record does not tell

Work time (busy + overlap) is executed work x time per unit of work; ``split`` divides its change
exactly. The unit of work is the best time of what was executed, at the ceilings: FLOPs where they
bound the step, bytes where those do. Running 8 times the rows counts 8 times in a GEMM bound by
FLOPs and next to nothing in one that mostly loads weights. Necessary work is the same on both
sides, so the ratio of executed work is the ratio of amplifications. No part's best time is less
than one shortest kernel.

Rows inside an opaque stage moved the bytes that the definition needs for the rows they ran: that is
the solution's word. A side that runs no rows at all has no time per row; the whole difference is
then amplification.

All times are integer nanoseconds (``whole_numbers``), so the bars add up to the difference of the
spans without a remainder. Whether two records may be compared is ``comparable``'s question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moeprof.analysis.attribution import profile as explain_run
from moeprof.analysis.noise import median_noise
from moeprof.analysis.rows import Row
from moeprof.compare.comparison import Bar, Bound, Cause, Comparison, Explained, Part, PartSide
from moeprof.compare.partition import profile_rows, shared_parts
from moeprof.compare.split import whole_numbers, work_share
from moeprof.ledger.ceilings import SHORTEST_KERNEL_NS, ceilings_of
from moeprof.ledger.ledger import UNKNOWN, Ceilings, WorkRow, work_rows
from moeprof.ledger.necessary import ROW_STEPS, Work, geometry, necessary_work
from moeprof.records import Run

SPAN_FIELDS = ("busy_ns", "host_late_ns", "api_ns", "launch_latency_ns", "dependency_ns")


def labels_of(before: Run, after: Run) -> tuple[str, str]:
    """What to call the two sides: the solutions' names, told apart where they are the same."""
    first, second = before.solution.name, after.solution.name
    return (f"{first} (A)", f"{second} (B)") if first == second else (first, second)


def explain_pair(before: Run, after: Run) -> tuple[Explained, Explained]:
    """Both records with their profiles; RecordError if one has no stage times."""
    first, second = labels_of(before, after)
    return (
        Explained(before, explain_run(before), first),
        Explained(after, explain_run(after), second),
    )


def compare(before: Explained, after: Explained, ceilings: Ceilings | None = None) -> Comparison:
    """Subtract ``before`` from ``after``. Raises RecordError if a profile does not add up.

    ceilings: what bounds a step, by default the records' own or, failing that, an H200's.
    """
    label = "given"
    if ceilings is None:
        ceilings, label = ceilings_of((before.run, after.run))
    return compare_sides(Side.of(before, ceilings), Side.of(after, ceilings), ceilings, label)


def compare_sides(first: Side, second: Side, ceilings: Ceilings, label: str) -> Comparison:
    """``compare`` for sides made before: one side is compared with many others in a report."""
    before, after = first.explained, second.explained
    parts: list[Part] = []
    for rows in shared_parts(first.rows, second.rows):
        part = Part(
            name=rows.name,
            steps=rows.steps,
            necessary=_necessary(before.run, rows.steps),
            before=first.books.side(rows.before),
            after=second.books.side(rows.after),
            bars=(),
        )
        if any(_times(part.before)) or any(_times(part.after)):
            parts.append(replace(part, bars=part_bars(part)))
    return Comparison(
        before=before,
        after=after,
        span_before_ns=round(before.profile.span_ns),
        span_after_ns=round(after.profile.span_ns),
        parts=tuple(parts),
        ceilings=ceilings,
        ceilings_label=label,
        noise_us=math.hypot(median_noise(before.bare_us), median_noise(after.bare_us)),
    )


def _necessary(run: Run, steps: Sequence[str]) -> Work:
    """What the definition asks for; unknown where there is none (a callable, a bare capture)."""
    return necessary_work(steps, geometry(run)) if run.workload.has_definition else UNKNOWN


def part_bars(part: Part) -> tuple[Bar, ...]:
    """The bars of one part; they add up to the difference of its times."""
    before, after = part.before, part.after
    found = {
        Cause.ORCHESTRATION: after.orchestration_ns - before.orchestration_ns,
        Cause.LAUNCH_LATENCY: after.latency_ns - before.latency_ns,
        **_work_bars(part),
        Cause.OVERLAP: before.overlap_ns - after.overlap_ns,
    }
    return tuple(Bar(part.name, cause, delta) for cause, delta in found.items() if delta)


def _work_bars(part: Part) -> dict[Cause, int]:
    """The change of the work time, split where both sides' work is known."""
    before, after = part.before, part.after
    delta_ns = after.work_ns - before.work_ns
    if not before.work_ns or not after.work_ns:
        return {Cause.ONE_SIDED: delta_ns}
    if set(part.steps) & set(ROW_STEPS) and 0 in (before.rows, after.rows):
        same = before.rows == after.rows
        return {Cause.EFFICIENCY if same else Cause.AMPLIFICATION: delta_ns}
    if not before.best_ns or not after.best_ns:
        return {Cause.NOT_SPLIT: delta_ns}
    share = work_share(before.work_ns, after.work_ns, before.best_ns, after.best_ns)
    amplification = round(share)
    return {Cause.AMPLIFICATION: amplification, Cause.EFFICIENCY: delta_ns - amplification}


def _times(side: PartSide) -> tuple[int, ...]:
    return side.work_ns, side.orchestration_ns, side.latency_ns


class _Books:
    """One side's integer times and executed work, by row name."""

    def __init__(self, side: Explained, ceilings: Ceilings) -> None:
        profile = side.profile
        cells = {
            (stage.name, field): float(getattr(stage, field))
            for stage in profile.stages
            for field in SPAN_FIELDS
        }
        self._times = whole_numbers(cells, profile.span_ns)
        self._stages = {stage.name: stage for stage in profile.stages}
        self._work = {row.name: executed_work(side.run, row, found) for row, found in _ledger(side)}
        self._ceilings = ceilings
        self._sides: dict[tuple[str, ...], PartSide] = {}  # those asked for before

    def side(self, rows: Sequence[Row]) -> PartSide:
        """The rows of one part as one."""
        asked = tuple(row.name for row in rows)
        if asked not in self._sides:
            self._sides[asked] = self._side(rows)
        return self._sides[asked]

    def _side(self, rows: Sequence[Row]) -> PartSide:
        names = [row.name for row in rows if row.name in self._stages]
        ran = [self._stages[name] for name in names]
        launched = [stage.name for stage in ran if stage.busy_ns or stage.overlap_ns]
        work = {name: self._work[name] for name in launched}
        best = {name: best_time(one, self._ceilings) for name, one in work.items()}
        known = [found for found in best.values() if found is not None]
        stages = [row.stage for row in rows if row.stage is not None]
        return PartSide(
            busy_ns=self._sum(names, "busy_ns"),
            overlap_ns=round(sum(stage.overlap_ns for stage in ran)),
            orchestration_ns=self._sum(names, "host_late_ns", "api_ns"),
            latency_ns=self._sum(names, "launch_latency_ns", "dependency_ns"),
            operations=sum(stage.operations for stage in ran),
            rows=max((w.rows for w in work.values() if w.rows is not None), default=None),
            bytes=_total([w.bytes for w in work.values()]),
            flops=_total([w.flops for w in work.values() if w.flops is not None]),
            best_ns=sum(ns for ns, _ in known) if known and len(known) == len(best) else None,
            bound=max(known)[1] if known else None,
            declared=any(stage.rows_declared for stage in stages),
            backends=tuple(dict.fromkeys(stage.backend for stage in stages)),
            why="; ".join(dict.fromkeys(stage.why for stage in stages if stage.why)),
        )

    def _sum(self, names: Sequence[str], *fields: str) -> int:
        return sum(self._times[name, field] for name in names for field in fields)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One record made ready to be compared: its rows, and their times and work at the ceilings."""

    explained: Explained
    rows: tuple[Row, ...]
    books: _Books

    @classmethod
    def of(cls, explained: Explained, ceilings: Ceilings) -> Side:
        """Raises RecordError if the profile does not add up."""
        rows = profile_rows(explained.run, explained.profile)
        return cls(explained, rows, _Books(explained, ceilings))


def _ledger(side: Explained) -> list[tuple[Row, WorkRow]]:
    """Each row with its line of the work ledger."""
    run = side.run
    if side.profile.source in ("events", "stage clock"):  # rows are whole stages there
        stages = tuple(replace(stage, kernel_rules=()) for stage in run.solution.stages)
        run = replace(run, solution=replace(run.solution, stages=stages))
    rows = {row.name: row for row in profile_rows(run, side.profile)}
    return [(rows[found.name], found) for found in work_rows(run, side.profile)]


def executed_work(run: Run, row: Row, found: WorkRow) -> Work:
    """What a row executed. Inside an opaque stage bytes are those its declared rows need."""
    if row.stage is None or row.whole or row.stage.rows_executed is None or not row.covers:
        return found.executed
    size = replace(geometry(run), pairs=row.stage.rows_executed)
    work = necessary_work(row.covers, size)
    return Work(work.rows, work.bytes, found.executed.flops)


def best_time(work: Work, ceilings: Ceilings) -> tuple[float, Bound] | None:
    """The shortest time of executed work, ns, and what bounds it; None if its bytes are unknown."""
    if work.bytes is None:
        return None
    by_bytes_ns = ceilings.floor_ns(Work(None, work.bytes, None))
    by_flops_ns = ceilings.floor_ns(Work(None, None, work.flops))
    if max(by_bytes_ns, by_flops_ns) <= SHORTEST_KERNEL_NS:
        return SHORTEST_KERNEL_NS, "launch"
    return (by_flops_ns, "FLOPs") if by_flops_ns > by_bytes_ns else (by_bytes_ns, "bytes")


def _total(values: Sequence[int | None]) -> int | None:
    """The sum; None if a value is unknown or there is none."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None
