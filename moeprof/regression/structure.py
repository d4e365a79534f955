"""What each stage of a run executes: operations, their launch shapes, work and allocations.

Times play no part here. Of the processes of one side the usual structure counts: one process whose
kernels differ is noise, all of them are a change.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moeprof.analysis.reconstruct import usual_set
from moeprof.analysis.rows import clock_rows, rows_of, stage_rows
from moeprof.records import Run, StageInfo
from moeprof.timelines import Iteration, Operation

ALLOCATOR = re.compile(
    r"cuda(Malloc|Free|HostAlloc)|cuMem(Alloc|Free|Create|Release|Map|Unmap|HostAlloc)"
)
Shape = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class RowStructure:
    """One row. kernels: how often each operation runs, by name; shapes: the launch shapes (grid,
    block, registers, shared bytes) of each; allocations: allocator calls a forward, by name.

    info: the stage as declared, None where the row is not a whole stage.
    """

    kernels: Mapping[str, int]
    shapes: Mapping[str, tuple[Shape, ...]]
    allocations: Mapping[str, float]
    info: StageInfo | None

    @property
    def launches(self) -> int:
        return sum(self.kernels.values())

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for rows that run the same operations in the same shapes."""
        return tuple(sorted(self.kernels.items())), tuple(sorted(self.shapes.items(), key=str))


def usual_structure(runs: Sequence[Run]) -> dict[str, RowStructure]:
    """Each row as most of ``runs`` have it; allocations are the median over runs."""
    found = [structure_of(run) for run in runs]
    rows = dict.fromkeys(row for one in found for row in one)
    usual: dict[str, RowStructure] = {}
    for row in rows:
        alike = [one[row] for one in found if row in one]
        key, _ = Counter(one.key for one in alike).most_common(1)[0]
        chosen = next(one for one in alike if one.key == key)
        names = dict.fromkeys(name for one in alike for name in one.allocations)
        usual[row] = RowStructure(
            kernels=chosen.kernels,
            shapes=chosen.shapes,
            allocations={
                name: statistics.median(one.allocations.get(name, 0.0) for one in alike)
                for name in names
            },
            info=chosen.info,
        )
    return usual


def structure_of(run: Run) -> dict[str, RowStructure]:
    """The rows of one run; without an api pass only what the stages declare."""
    stages = run.solution.stages
    timeline = run.timeline("api")
    operations: Sequence[Operation] = ()
    allocations: dict[str, dict[str, float]] = {}
    if timeline is not None:
        usual, iterations = usual_set(timeline)
        operations = timeline.operation_sets[usual]
        allocations = _allocations(run, iterations)
    kernels: dict[str, Counter[str]] = {}
    shapes: dict[str, dict[str, list[Shape]]] = {}
    for operation, row in zip(operations, rows_of(operations, stages), strict=True):
        kernels.setdefault(row, Counter())[operation.name] += 1
        shape = (operation.grid, operation.block, operation.registers, operation.shared_bytes)
        shapes.setdefault(row, {}).setdefault(operation.name, []).append(shape)
    declared = {row.name: row.stage for row in stage_rows(stages) if row.whole}
    return {
        row: RowStructure(
            kernels=kernels.get(row, {}),
            shapes={name: tuple(found) for name, found in shapes.get(row, {}).items()},
            allocations=allocations.get(row, {}),
            info=declared.get(row),
        )
        for row in dict.fromkeys((*declared, *kernels))
    }


def _allocations(run: Run, iterations: Sequence[Iteration]) -> dict[str, dict[str, float]]:
    """Allocator calls a forward, by row and name: those that begin while the host is in it."""
    found: dict[str, dict[str, float]] = {}
    rows = clock_rows(run.solution.stages)
    row_of = {position: row for row, positions in rows.items() for position in positions}
    for iteration in iterations:
        for call in iteration.calls:
            if not ALLOCATOR.match(call.name):
                continue
            entered = sum(begin <= call.begin_ns for begin in iteration.stage_begin_ns)
            row = row_of.get(entered - 1)
            if row is not None:
                own = found.setdefault(row, {})
                own[call.name] = own.get(call.name, 0.0) + 1.0 / len(iterations)
    return found
