"""How the host spends a stage: the launches and waits in it, as fractions of its own time.

The ``api`` pass shows every launch call between the stage's begin and end. A profiler stretches
that time but keeps its proportions (measured on 27 kernels of the seeds' eager pipeline), so a
launch is placed in the undisturbed run at the same fraction of the stage's stamped time.

Time in which the host only waits for the GPU is no property of the host and is cut out first: the
part of a synchronising call, or of a copy that blocks, until the work launched before it is done.
What such a call costs beyond that is the host's and stays.

Limits: an event synchronise is taken to wait for all earlier work; calls that CUPTI does not record
and that block (a lock, a page fault) count as the host's time.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.records import Iteration, Operation

# cudaFree waits for the device; its stream-ordered form and the host's do not
BLOCKING_CALL = re.compile(r"Synchronize|^(cudaFree|cuMemFree)(_v\d+)?$")


@dataclass(frozen=True, slots=True)
class HostStep:
    """One thing the host does, begin and end as fractions of the stage's host time.

    operation: what it launches; None for a wait until everything launched so far is done.
    """

    begin: float
    end: float
    operation: int | None
    name: str = ""


@dataclass(frozen=True, slots=True)
class StageScript:
    """What the host does in one stage, in order. host_ns: its own time under the profiler."""

    steps: tuple[HostStep, ...]
    host_ns: float

    @property
    def waits(self) -> bool:
        return any(step.operation is None for step in self.steps)


@dataclass(frozen=True, slots=True)
class _Wait:
    """The host waited for the GPU from begin to end during call ``name``, ns."""

    begin_ns: int
    end_ns: int
    name: str


def is_blocking_copy(operation: Operation, iteration: Iteration, position: int) -> bool:
    """Whether the launching call of a copy returned only when the copy was done."""
    done_ns = iteration.end_ns[position]
    return operation.kind == "memcpy" and iteration.launch_end_ns[position] >= done_ns


def stage_scripts(
    operations: Sequence[Operation],
    iterations: Sequence[Iteration],
    stages: Sequence[str],
    launch_latency_ns: int,
) -> tuple[StageScript, ...]:
    """One script a stage: medians over ``iterations`` of the api pass, all of one set."""
    typical_ns = _typical_launch_ns(operations, iterations)
    readings = [_Reading(operations, i, launch_latency_ns, typical_ns) for i in iterations]
    indices = _stage_indices(operations, iterations[0], stages)
    scripts = []
    for index in range(len(stages)):
        mine = [p for p, where in enumerate(indices) if where == index]
        steps = [_launch_step(operations[p], p, index, readings) for p in mine]
        steps.extend(_wait_steps(index, readings))
        # of two steps at one instant the launch comes first: a blocking copy waits for itself
        steps.sort(key=lambda step: (step.begin, step.operation is None, step.operation or 0))
        host_ns = statistics.median(reading.host_ns(index) for reading in readings)
        scripts.append(StageScript(tuple(steps), host_ns))
    return tuple(scripts)


class _Reading:
    """One api iteration, with the time the host spent waiting cut out."""

    def __init__(
        self,
        operations: Sequence[Operation],
        iteration: Iteration,
        launch_latency_ns: int,
        typical_launch_ns: int,
    ) -> None:
        self.iteration = iteration
        self.launch_end_ns = list(iteration.launch_end_ns)
        waits: list[_Wait] = []
        for position, operation in enumerate(operations):
            if not is_blocking_copy(operation, iteration, position):
                continue
            # when such a call handed its copy to the GPU is not recorded: at latest a launch
            # latency before the copy began, and not later than any other launch would take
            begin_ns = iteration.launch_begin_ns[position]
            submitted_ns = iteration.start_ns[position] - launch_latency_ns
            submitted_ns = max(begin_ns, min(submitted_ns, begin_ns + typical_launch_ns))
            self.launch_end_ns[position] = submitted_ns
            done_ns = max(submitted_ns, iteration.end_ns[position])
            waits.append(_Wait(submitted_ns, done_ns, operation.launch))
        for call in iteration.calls:
            if BLOCKING_CALL.search(call.name):
                done_ns = _drained_ns(iteration, call.begin_ns)
                end_ns = min(max(done_ns, call.begin_ns), call.end_ns)
                waits.append(_Wait(call.begin_ns, end_ns, call.name))
        self.waits = sorted(waits, key=lambda wait: wait.begin_ns)

    def host_ns(self, stage: int) -> int:
        """The stage's duration without waiting."""
        return self._own_ns(stage, self.iteration.stage_end_ns[stage])

    def fraction(self, stage: int, moment_ns: int) -> float:
        """Where ``moment_ns`` lies in the stage's host time, 0 to 1."""
        whole_ns = self.host_ns(stage)
        own_ns = self._own_ns(stage, moment_ns)
        return min(1.0, max(0.0, own_ns / whole_ns)) if whole_ns > 0 else 0.0

    def stage_waits(self, stage: int) -> list[_Wait]:
        begin_ns = self.iteration.stage_begin_ns[stage]
        end_ns = self.iteration.stage_end_ns[stage]
        return [wait for wait in self.waits if begin_ns <= wait.begin_ns < end_ns]

    def _own_ns(self, stage: int, moment_ns: int) -> int:
        begin_ns = self.iteration.stage_begin_ns[stage]
        waited_ns = sum(
            max(0, min(wait.end_ns, moment_ns) - max(wait.begin_ns, begin_ns))
            for wait in self.waits
        )
        return moment_ns - begin_ns - waited_ns


def _launch_step(
    operation: Operation, position: int, stage: int, readings: Sequence[_Reading]
) -> HostStep:
    begin = [r.fraction(stage, r.iteration.launch_begin_ns[position]) for r in readings]
    end = [r.fraction(stage, r.launch_end_ns[position]) for r in readings]
    return HostStep(statistics.median(begin), statistics.median(end), position, operation.launch)


def _wait_steps(stage: int, readings: Sequence[_Reading]) -> list[HostStep]:
    """The stage's waits, from the iterations that have the usual number of them."""
    found = [reading.stage_waits(stage) for reading in readings]
    usual = statistics.mode(len(waits) for waits in found)
    same = [(r, waits) for r, waits in zip(readings, found, strict=True) if len(waits) == usual]
    steps = []
    for position in range(usual):
        at = statistics.median(r.fraction(stage, w[position].begin_ns) for r, w in same)
        steps.append(HostStep(at, at, None, same[0][1][position].name))
    return steps


def _stage_indices(
    operations: Sequence[Operation], iteration: Iteration, stages: Sequence[str]
) -> list[int]:
    """The stage during which each operation was launched; by time where it names none."""
    index = {name: position for position, name in enumerate(stages)}
    return [
        index[operation.stage]
        if operation.stage in index
        else max(
            0,
            sum(b <= iteration.launch_begin_ns[position] for b in iteration.stage_begin_ns) - 1,
        )
        for position, operation in enumerate(operations)
    ]


def _typical_launch_ns(operations: Sequence[Operation], iterations: Sequence[Iteration]) -> int:
    """Median duration of the calls that launch kernels."""
    calls = [
        iteration.launch_end_ns[p] - iteration.launch_begin_ns[p]
        for iteration in iterations
        for p, operation in enumerate(operations)
        if operation.kind == "kernel"
    ]
    return round(statistics.median(calls)) if calls else 0


def _drained_ns(iteration: Iteration, moment_ns: int) -> int:
    """When the GPU has finished everything whose launch began before ``moment_ns``."""
    return max(
        (
            end_ns
            for begin_ns, end_ns in zip(iteration.launch_begin_ns, iteration.end_ns, strict=True)
            if begin_ns < moment_ns
        ),
        default=0,
    )
