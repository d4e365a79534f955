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

import itertools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprof.timelines import Iteration, Operation

Times = NDArray[np.int64]

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
    copies = [(p, o) for p, o in enumerate(operations) if o.kind == "memcpy"]
    readings = [_read(copies, i, launch_latency_ns, typical_ns) for i in iterations]
    indices = _stage_indices(operations, iterations[0], stages)
    scripts = []
    for index in range(len(stages)):
        mine = [p for p, where in enumerate(indices) if where == index]
        whole_ns = _host_ns(index, readings)
        steps = _launch_steps(operations, mine, index, readings, whole_ns)
        steps += _wait_steps(index, readings, whole_ns)
        # of two steps at one instant the launch comes first: a blocking copy waits for itself
        steps.sort(key=lambda step: (step.begin, step.operation is None, step.operation or 0))
        scripts.append(StageScript(tuple(steps), float(np.median(whole_ns))))
    return tuple(scripts)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One api iteration. launch_end_ns: without waiting; waits: the time to be cut out."""

    iteration: Iteration
    launch_end_ns: tuple[int, ...]
    waits: tuple[_Wait, ...]

    def stage_waits(self, stage: int) -> list[_Wait]:
        begin_ns = self.iteration.stage_begin_ns[stage]
        end_ns = self.iteration.stage_end_ns[stage]
        return [wait for wait in self.waits if begin_ns <= wait.begin_ns < end_ns]


def _read(
    copies: Sequence[tuple[int, Operation]],
    iteration: Iteration,
    launch_latency_ns: int,
    typical_launch_ns: int,
) -> _Reading:
    launch_end_ns = list(iteration.launch_end_ns)
    waits: list[_Wait] = []
    for position, operation in copies:
        if not is_blocking_copy(operation, iteration, position):
            continue
        # when such a call handed its copy to the GPU is not recorded: at latest a launch
        # latency before the copy began, and not later than any other launch would take
        begin_ns = iteration.launch_begin_ns[position]
        submitted_ns = iteration.start_ns[position] - launch_latency_ns
        submitted_ns = max(begin_ns, min(submitted_ns, begin_ns + typical_launch_ns))
        launch_end_ns[position] = submitted_ns
        done_ns = max(submitted_ns, iteration.end_ns[position])
        waits.append(_Wait(submitted_ns, done_ns, operation.launch))
    for call in iteration.calls:
        if BLOCKING_CALL.search(call.name):
            done_ns = _drained_ns(iteration, call.begin_ns)
            end_ns = min(max(done_ns, call.begin_ns), call.end_ns)
            waits.append(_Wait(call.begin_ns, end_ns, call.name))
    waits.sort(key=lambda wait: wait.begin_ns)
    return _Reading(iteration, tuple(launch_end_ns), tuple(waits))


def _host_ns(stage: int, readings: Sequence[_Reading]) -> Times:
    """The stage's duration without waiting, [R]."""
    ends = [[reading.iteration.stage_end_ns[stage]] for reading in readings]
    return _own_ns(stage, readings, np.array(ends))[:, 0]


def _fractions(
    stage: int, readings: Sequence[_Reading], whole_ns: Times, moments_ns: Sequence[Sequence[int]]
) -> list[float]:
    """Where moments [R][M] lie in the stage's host time [R], 0 to 1: medians over readings, [M]."""
    moments = np.array(moments_ns, dtype=np.int64).reshape(len(readings), -1)
    if not moments.size:
        return []
    positive_ns = np.maximum(whole_ns, 1)[:, None]
    shares = np.clip(_own_ns(stage, readings, moments) / positive_ns, 0.0, 1.0)
    shares *= whole_ns[:, None] > 0
    shares.sort(axis=0)  # np.median of so few takes four times as long
    below, above = (len(shares) - 1) // 2, len(shares) // 2
    medians: list[float] = ((shares[below] + shares[above]) / 2).tolist()
    return medians


def _own_ns(stage: int, readings: Sequence[_Reading], moments_ns: Times) -> Times:
    """Time from the stage's begin to moments [R, M], less the waiting in between."""
    begins = [reading.iteration.stage_begin_ns[stage] for reading in readings]
    begin_ns = np.array(begins, dtype=np.int64)[:, None]
    last_ns = int(moments_ns.max())
    inside = [
        [wait for wait in reading.waits if wait.end_ns > begin and wait.begin_ns < last_ns]
        for reading, begin in zip(readings, begins, strict=True)
    ]
    waited_ns = np.zeros_like(moments_ns)
    most = max(map(len, inside))
    bounds = [
        [(w.begin_ns, w.end_ns) for w in waits] + [(0, 0)] * (most - len(waits)) for waits in inside
    ]
    bounds_ns = np.array(bounds, dtype=np.int64).reshape(len(readings), most, 2)
    for number in range(most):  # the i-th wait of each reading that has one, at once
        from_ns, until_ns = bounds_ns[:, number, :1], bounds_ns[:, number, 1:]
        overlap_ns = np.minimum(until_ns, moments_ns) - np.maximum(from_ns, begin_ns)
        waited_ns += np.maximum(0, overlap_ns)
    return moments_ns - begin_ns - waited_ns


def _launch_steps(
    operations: Sequence[Operation],
    positions: Sequence[int],
    stage: int,
    readings: Sequence[_Reading],
    whole_ns: Times,
) -> list[HostStep]:
    moments = [
        [r.iteration.launch_begin_ns[p] for p in positions]
        + [r.launch_end_ns[p] for p in positions]
        for r in readings
    ]
    at = _fractions(stage, readings, whole_ns, moments)
    bounds = zip(at[: len(positions)], at[len(positions) :], positions, strict=True)
    return [HostStep(begin, end, p, operations[p].launch) for begin, end, p in bounds]


def _wait_steps(stage: int, readings: Sequence[_Reading], whole_ns: Times) -> list[HostStep]:
    """The stage's waits, from the iterations that have the usual number of them."""
    found = [reading.stage_waits(stage) for reading in readings]
    usual = statistics.mode(len(waits) for waits in found)
    same = [i for i, waits in enumerate(found) if len(waits) == usual]
    begins = [[wait.begin_ns for wait in found[i]] for i in same]
    at = _fractions(stage, [readings[i] for i in same], whole_ns[same], begins)
    return [
        HostStep(moment, moment, None, wait.name)
        for moment, wait in zip(at, found[same[0]], strict=True)
    ]


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
    kernels = [operation.kind == "kernel" for operation in operations]
    if not any(kernels):
        return 0
    calls = [(iteration.launch_begin_ns, iteration.launch_end_ns) for iteration in iterations]
    bounds_ns = np.array(calls, dtype=np.int64)[:, :, kernels]  # [iteration][begin, end][kernel]
    return round(float(np.median(bounds_ns[:, 1] - bounds_ns[:, 0])))


def _drained_ns(iteration: Iteration, moment_ns: int) -> int:
    """When the GPU has finished everything whose launch began before ``moment_ns``."""
    launched = map(moment_ns.__gt__, iteration.launch_begin_ns)
    return max(itertools.compress(iteration.end_ns, launched), default=0)
