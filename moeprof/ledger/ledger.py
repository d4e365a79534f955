"""The work ledger: what the definition makes necessary, what was executed, what that cost.

Time is spent on work; first ask whether the work was needed. ``necessary`` has the formulas of the
necessary work; executed work is what the record says the stage's tensors hold. Left out: padding
inside a kernel's tiles, scratch memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.analysis.profiles import Profile
from moeprof.analysis.rows import Row, stage_rows
from moeprof.ledger.necessary import ROW_STEPS, Geometry, Work, geometry, necessary_work
from moeprof.records import Run, StageInfo

UNKNOWN = Work(None, None, None)


@dataclass(frozen=True, slots=True)
class WorkRow:
    """One row's work beside its time. launches: operations an iteration (a mean)."""

    name: str
    covers: tuple[str, ...]
    necessary: Work
    executed: Work
    busy_ns: float
    launches: float
    rows_declared: bool = False

    @property
    def row_amplification(self) -> float | None:
        return _ratio(self.executed.rows, self.necessary.rows)

    @property
    def bytes_amplification(self) -> float | None:
        return _ratio(self.executed.bytes, self.necessary.bytes)

    @property
    def flops_amplification(self) -> float | None:
        return _ratio(self.executed.flops, self.necessary.flops)

    @property
    def gigabytes_per_second(self) -> float | None:
        """Executed bytes over busy time."""
        return _ratio(self.executed.bytes, self.busy_ns)

    @property
    def teraflops(self) -> float | None:
        """Executed FLOPs over busy time, TFLOP/s."""
        rate = _ratio(self.executed.flops, self.busy_ns)
        return None if rate is None else rate / 1e3


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What this machine can do at best, measured on it."""

    bytes_per_second: float
    flops_per_second: float

    def floor_ns(self, work: Work) -> float:
        """The shortest time that ``work`` can take."""
        return 1e9 * max(
            (work.bytes or 0) / self.bytes_per_second, (work.flops or 0) / self.flops_per_second
        )


@dataclass(frozen=True, slots=True)
class Factors:
    """busy = floor x amplification / efficiency.

    floor: best time of the necessary work; amplification: best time of the executed work over it;
    efficiency: best time of the executed work over the time it took.
    """

    floor_ns: float
    amplification: float
    efficiency: float

    @property
    def busy_ns(self) -> float:
        return self.floor_ns * self.amplification / self.efficiency


def factors(busy_ns: float, necessary: Work, executed: Work, ceilings: Ceilings) -> Factors | None:
    """The three factors of a busy time; None where no time, or no work, was necessary or done."""
    floor_ns = ceilings.floor_ns(necessary)
    executed_ns = ceilings.floor_ns(executed)
    if floor_ns <= 0 or executed_ns <= 0 or busy_ns <= 0:
        return None
    return Factors(floor_ns, executed_ns / floor_ns, executed_ns / busy_ns)


def work_rows(run: Run, profile: Profile) -> tuple[WorkRow, ...]:
    """The ledger of every row of ``profile``, in its order; without a definition, times alone."""
    if not run.workload.has_definition:
        return tuple(
            WorkRow(stage.name, (), UNKNOWN, UNKNOWN, stage.busy_ns, stage.operations)
            for stage in profile.stages
        )
    size = geometry(run)
    rows = {row.name: row for row in stage_rows(run.solution.stages)}
    ledger: list[WorkRow] = []
    for stage in profile.stages:
        row = rows.get(stage.name, Row(stage.name, None, (), False))
        ledger.append(
            WorkRow(
                name=stage.name,
                covers=row.covers,
                necessary=necessary_work(row.covers, size),
                executed=_executed(row, size),
                busy_ns=stage.busy_ns,
                launches=stage.operations,
                rows_declared=row.stage is not None and row.stage.rows_declared,
            )
        )
    return tuple(ledger)


def _executed(row: Row, size: Geometry) -> Work:
    """What the record says. A step split out of an opaque stage shares the stage's row count."""
    stage = row.stage
    if stage is None:
        return Work(None, None, None)
    runs_rows = row.whole or any(step in ROW_STEPS for step in row.covers)
    rows = stage.rows_executed if runs_rows else None
    if not row.whole:
        return Work(rows, None, _gemm_flops(row.covers, rows, size))
    return Work(rows, _moved(stage), stage.flops or _gemm_flops(row.covers, rows, size))


def _moved(stage: StageInfo) -> int | None:
    if stage.bytes_read is None or stage.bytes_written is None:
        return None
    return stage.bytes_read + stage.bytes_written


def _gemm_flops(covers: Sequence[str], rows: int | None, size: Geometry) -> int | None:
    per_row = {"gemm1": 4 * size.intermediate * size.hidden}
    per_row["gemm2"] = 2 * size.hidden * size.intermediate
    gemms = [per_row[step] for step in covers if step in per_row]
    return rows * sum(gemms) if rows is not None and gemms else None


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None
