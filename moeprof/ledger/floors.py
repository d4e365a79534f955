"""The work ledger in time: floor, amplification and efficiency of every row.

    busy = floor x amplification / efficiency

of ``ledger.factors``, at the ceilings measured beside the run. A row's executed bytes are those of
its tensors; inside an opaque stage those that its declared rows need (``compare.executed_work``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.analysis.profiles import Profile
from moeprof.compare.compare import best_time, executed_work
from moeprof.compare.comparison import Bound
from moeprof.compare.partition import profile_rows
from moeprof.ledger.ledger import Ceilings, Factors, WorkRow, factors, work_rows
from moeprof.ledger.necessary import Work
from moeprof.records import Run


@dataclass(frozen=True, slots=True)
class FloorRow:
    """One row. best_ns: the best time of its executed work, and what bounds it; None if unknown.

    factors: None where that is unknown, or there is no time or no necessary work. declared: its
    rows, or the bytes of a part of an opaque stage, are the solution's word.
    """

    work: WorkRow
    executed: Work
    declared: bool
    best_ns: float | None
    factors: Factors | None
    bound: Bound | None

    @property
    def unneeded(self) -> bool:
        """Whether it does what the definition does not ask for."""
        return not self.work.covers and not self.work.necessary.bytes

    @property
    def intensity(self) -> float | None:
        """Executed FLOPs a byte; None where either is unknown or there are no FLOPs."""
        if not self.executed.flops or not self.executed.bytes:
            return None
        return self.executed.flops / self.executed.bytes

    @property
    def teraflops(self) -> float | None:
        """Executed FLOPs over busy time, TFLOP/s."""
        if not self.executed.flops or not self.work.busy_ns:
            return None
        return self.executed.flops / self.work.busy_ns / 1e3

    @property
    def gigabytes_per_second(self) -> float | None:
        """Executed bytes over busy time."""
        if not self.executed.bytes or not self.work.busy_ns:
            return None
        return self.executed.bytes / self.work.busy_ns


def counts_idle_time(profile: Profile) -> bool:
    """Whether the rows' busy times are those of clocks around stages: no basis for efficiency."""
    return profile.source not in ("reconstructed", "api")


def floor_rows(run: Run, profile: Profile, ceilings: Ceilings) -> tuple[FloorRow, ...]:
    """The rows of ``profile`` in order.

    None where the workload has no definition. Where only clocks around the stages were
    read (``counts_idle_time``), busy times hold idle time as well.
    """
    if not run.workload.has_definition:
        return ()
    rows = {row.name: row for row in profile_rows(run, profile)}
    found: list[FloorRow] = []
    for work in work_rows(run, profile):
        row = rows[work.name]
        executed = executed_work(run, row, work)
        best = best_time(executed, ceilings)
        inside = not row.whole and executed.bytes is not None
        found.append(
            FloorRow(
                work=work,
                executed=executed,
                declared=inside or (work.rows_declared and executed.rows is not None),
                best_ns=ceilings.floor_ns(executed) if best else None,
                factors=factors(work.busy_ns, work.necessary, executed, ceilings) if best else None,
                bound=best[1] if best else None,
            )
        )
    return tuple(found)


def total(rows: Sequence[FloorRow]) -> Factors | None:
    """The factors of all rows as one, where unneeded work amplifies the rest.

    None where the executed work of a row that took time is unknown.
    """
    ran = [row for row in rows if row.work.busy_ns]
    best = [row.best_ns for row in ran if row.best_ns is not None]
    floor_ns = sum(row.factors.floor_ns for row in ran if row.factors is not None)
    if len(best) < len(ran) or not floor_ns:
        return None
    busy_ns = sum(row.work.busy_ns for row in ran)
    return Factors(floor_ns, sum(best) / floor_ns, sum(best) / busy_ns)
