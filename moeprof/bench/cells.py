"""The grid of a bench: every solution on every workload, a record or the reason why there is none.

Built from records and failures in whatever order they come; equal sets give equal benches. What is
not the same work never shares a row: workloads are told apart by definition, routing, device and
timer as well as by uuid. No figure is derived here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from moeprof.errors import UsageError
from moeprof.records import Run

FailureKind = Literal["wrong result", "timeout", "crashed", "not available", "error", "interrupted"]
CellKind = Literal["measured", "missing"] | FailureKind
REFERENCE = "reference"  # the solution that is a specification: speedups are over it


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a solution has no record on a workload. message: one line."""

    solution: str
    uuid: str
    seq_len: int
    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class Workload:
    """One row: work that is the same for all its cells. name: unique in the bench.

    The first five fields and ``timer`` tell rows apart; of a workload on which everything failed
    only the first two are known.
    """

    seq_len: int
    uuid: str
    definition: str = ""
    routing_hash: str = ""
    device: str = ""
    timer: str = ""
    local_expert_offset: int | None = None
    local_pairs: int | None = None
    active_experts: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One solution on one workload. A record that is wrong is a failure that keeps its record."""

    solution: str
    workload: Workload
    run: Run | None = None
    failure: Failure | None = None

    @property
    def measured(self) -> Run | None:
        """The record, if its times may be shown."""
        return self.run if self.failure is None else None

    @property
    def kind(self) -> CellKind:
        if self.failure is not None:
            return self.failure.kind
        return "measured" if self.run is not None else "missing"


@dataclass(frozen=True, slots=True)
class Bench:
    """solutions: those that compete, in the order asked for, the reference not among them.

    workloads: by number of tokens. cells: of each workload, one a solution in that order.
    references: the reference's cell of each workload. baseline: the solution that pairwise ratios
    are over. left_out: records not shown, a sentence each.
    """

    solutions: tuple[str, ...]
    workloads: tuple[Workload, ...]
    cells: tuple[tuple[Cell, ...], ...]
    references: tuple[Cell, ...]
    reference: str
    baseline: str
    left_out: tuple[str, ...] = ()

    @property
    def has_reference(self) -> bool:
        return any(cell.measured is not None for cell in self.references)

    @property
    def every_cell(self) -> tuple[Cell, ...]:
        """All cells, those of the reference last in each row (if it was asked for or measured)."""
        shown = any(cell.kind != "missing" for cell in self.references)
        return tuple(
            cell
            for row, reference in zip(self.cells, self.references, strict=True)
            for cell in (*row, *((reference,) if shown else ()))
        )

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(cell.failure for cell in self.every_cell if cell.failure is not None)

    def cell(self, solution: str, workload: Workload) -> Cell:
        """The cell of ``solution`` (the reference too) on ``workload``."""
        row = self.workloads.index(workload)
        if solution == self.reference:
            return self.references[row]
        return self.cells[row][self.solutions.index(solution)]

    def column(self, solution: str) -> tuple[Cell, ...]:
        """The cells of one solution, a workload each."""
        if solution == self.reference and solution not in self.solutions:
            return self.references
        position = self.solutions.index(solution)
        return tuple(row[position] for row in self.cells)


def assemble(
    runs: Sequence[Run],
    failures: Sequence[Failure],
    solutions: Sequence[str],
    reference: str = REFERENCE,
    baseline: str | None = None,
) -> Bench:
    """The bench of ``solutions``; records of others are added behind them, by name.

    Of several records of one cell the newest is shown and the others are named. A failure counts
    more than a record: a result that was found wrong after it was timed has no time.
    baseline: what pairwise ratios are over, by default the first solution. Raises UsageError where
    there is nothing to show, or no solution of the baseline's name.
    """
    newest, left_out = _newest(runs)
    rows = _rows(newest, failures)
    if not rows:
        raise UsageError("a bench without a record or a failure", "at least one of them")
    found = [run.solution.name for run in newest.values()] + [f.solution for f in failures]
    names = tuple(dict.fromkeys((*solutions, *sorted(found))))
    # alone, the reference is the solution that is shown
    competing = tuple(name for name in names if name != reference) or (reference,)
    baseline = competing[0] if baseline is None else baseline
    if baseline not in competing:
        raise UsageError(f"no solution {baseline!r} in this bench", ", ".join(competing))
    failed = _failed(rows, failures, newest)
    cells = tuple(tuple(_cell(name, row, newest, failed) for name in competing) for row in rows)
    references = tuple(_cell(reference, row, newest, failed) for row in rows)
    return Bench(competing, rows, cells, references, reference, baseline, left_out)


def _cell(
    name: str,
    workload: Workload,
    newest: dict[tuple[Workload, str], Run],
    failed: dict[tuple[Workload, str], Failure],
) -> Cell:
    key = (_nameless(workload), name)
    run, failure = newest.get(key), failed.get(key)
    if run is not None and failure is None:
        failure = _own_failure(run)
    return Cell(name, workload, run, failure)


def _own_failure(run: Run) -> Failure | None:
    """What the record itself says against showing its times."""
    name, workload = run.solution.name, run.workload
    if not run.correctness.passed:
        why = run.correctness.problem or "the output does not match the reference"
        return Failure(name, workload.uuid, workload.seq_len, "wrong result", why)
    if not run.samples("bare") and not run.samples("graph"):
        why = "the record has no samples of the passes bare and graph"
        return Failure(name, workload.uuid, workload.seq_len, "error", why)
    return None


def _newest(runs: Iterable[Run]) -> tuple[dict[tuple[Workload, str], Run], tuple[str, ...]]:
    """The newest record of each cell, and a sentence for each older one."""
    found: dict[tuple[Workload, str], Run] = {}
    left_out: list[str] = []
    for run in sorted(runs, key=lambda run: (run.created, run.solution.source_hash)):
        key = (_workload(run), run.solution.name)
        older = found.get(key)
        if older is not None:
            left_out.append(
                f"an older record of {run.solution.name} at T = {run.workload.seq_len:,} "
                f"({older.workload.uuid[:8]}, {older.created}) is left out"
            )
        found[key] = run
    return found, tuple(left_out)


def _workload(run: Run) -> Workload:
    workload, routing = run.workload, run.routing
    timer = "host clock"
    if run.environment.device_kind == "cuda":
        timer = "CUDA events"
    if run.capture is not None:
        timer = run.capture.tool
    known = workload.has_definition
    return Workload(
        seq_len=workload.seq_len,
        uuid=workload.uuid,
        definition=workload.definition,
        routing_hash=routing.histogram_hash,
        device=run.environment.device,
        timer=timer,
        local_expert_offset=workload.local_expert_offset if known else None,
        local_pairs=routing.local_pairs if known else None,
        active_experts=routing.active_experts if known else None,
    )


def _rows(
    newest: Iterable[tuple[Workload, str]], failures: Iterable[Failure]
) -> tuple[Workload, ...]:
    """Every workload under its name, by number of tokens; those where all failed among them."""
    found = list(dict.fromkeys(workload for workload, _ in newest))
    known = {(workload.seq_len, workload.uuid) for workload in found}
    lost = {(failure.seq_len, failure.uuid) for failure in failures} - known
    found += [Workload(seq_len, uuid) for seq_len, uuid in lost]
    found.sort(
        key=lambda one: (
            one.seq_len,
            one.uuid,
            one.definition,
            one.device,
            one.timer,
            one.routing_hash,
        )
    )
    return tuple(_named(workload, found) for workload in found)


def _named(workload: Workload, every: Sequence[Workload]) -> Workload:
    """Under a name that is as short as tells it from the others."""
    alike = [w for w in every if (w.seq_len, w.uuid[:8]) == (workload.seq_len, workload.uuid[:8])]
    parts = [workload.uuid[:8]]
    if len(alike) > 1:
        parts = [workload.uuid]
        parts += [workload.definition] if len({w.definition for w in alike}) > 1 else []
        parts += [workload.device] if len({w.device for w in alike}) > 1 else []
        parts += [workload.timer] if len({w.timer for w in alike}) > 1 else []
        hashes = {w.routing_hash for w in alike}
        parts += [f"routing {workload.routing_hash[:6]}"] if len(hashes) > 1 else []
    return replace(workload, name=" ".join(part for part in parts if part))


def _nameless(workload: Workload) -> Workload:
    return replace(workload, name="")


def _failed(
    rows: Iterable[Workload],
    failures: Iterable[Failure],
    newest: dict[tuple[Workload, str], Run],
) -> dict[tuple[Workload, str], Failure]:
    """The failure of each cell; of several the one that comes first by kind and message.

    A failure does not know its routing: where rows share a uuid it belongs to the one whose record
    it condemns, else to all of them.
    """
    found: dict[tuple[Workload, str], Failure] = {}
    for failure in sorted(failures, key=lambda one: (one.kind, one.message), reverse=True):
        same = [
            _nameless(w) for w in rows if (w.seq_len, w.uuid) == (failure.seq_len, failure.uuid)
        ]
        recorded = [w for w in same if (w, failure.solution) in newest]
        for workload in recorded or same:
            found[workload, failure.solution] = failure
    return found
