"""Operations that another thread launched during a call: charged by time. Pure.

CUPTI tags calls of the thread that is in the stage, and code may launch from others (autograd runs
its backward on one, a server copies on one). Such an operation belongs to the stage that the
measured thread was in when its launch call began: that thread waits there, or the work runs beside
what it does. A Solution's stages launch on one thread, so this is for users' callables alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from moeprof.timelines import Iteration, Operation, TimelinePass


def charge_by_time(timeline: TimelinePass, stages: Sequence[str]) -> tuple[TimelinePass, int]:
    """The api pass with a stage for every operation, and the most that one iteration lacked."""
    sets: dict[tuple[Operation, ...], int] = {}
    iterations: list[Iteration] = []
    most = 0
    for iteration in timeline.iterations:
        operations = timeline.operation_sets[iteration.operation_set]
        if iteration.launch_begin_ns and len(iteration.stage_begin_ns) == len(stages):
            most = max(most, sum(not operation.stage for operation in operations))
            operations = tuple(
                operation
                if operation.stage
                else replace(operation, stage=stages[_open_at(iteration, begin_ns)])
                for operation, begin_ns in zip(operations, iteration.launch_begin_ns, strict=True)
            )
        position = sets.setdefault(operations, len(sets))
        iterations.append(replace(iteration, operation_set=position))
    charged = replace(timeline, operation_sets=tuple(sets), iterations=tuple(iterations))
    return charged, most


def _open_at(iteration: Iteration, moment_ns: int) -> int:
    """Which stage the measured thread was in at ``moment_ns``, the first one before all."""
    return max(0, bisect_right(iteration.stage_begin_ns, moment_ns) - 1)
