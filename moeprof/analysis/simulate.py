"""Host and GPU of one stage, replayed: launches at their fractions, operations in stream order.

The forward half of the reconstruction: given how long the host had for a stage, when does every
operation of it start? Where the host waits for the GPU inside a stage the host's own time is not
known beforehand; it is solved for, so that the stage ends when its stamp says. All integer ns.

All samples of a pass are replayed at once: every time is an array [S], one element a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moeprof.analysis.host import HostStep, StageScript

# A profiler makes the host slower, never faster: own time of a stage with waits, as a multiple of
# what it was under the profiler (1.2 to 1.65 times too long was measured; bounds with a margin).
LEAST_HOST, MOST_HOST = 0.4, 1.1

Times = NDArray[np.int64]  # [S] ns
Reals = NDArray[np.float64]  # [S] ns


@dataclass(frozen=True, slots=True)
class OperationModel:
    """What places one operation, ns. held_by: an operation on another stream it waits for."""

    stream: int
    duration_ns: int
    launch_latency_ns: int
    queued_gap_ns: int
    held_by: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """The host waited for the GPU in call ``name``."""

    name: str
    begin_ns: Times
    end_ns: Times


@dataclass(frozen=True, slots=True)
class Device:
    """The GPU so far: per operation (start, end, launch begin, launch end); streams' last ends."""

    models: Sequence[OperationModel]
    placed: dict[int, tuple[Times, Times, Times, Times]] = field(default_factory=dict)
    stream_end_ns: dict[int, Times] = field(default_factory=dict)

    @property
    def drained_ns(self) -> Times | None:
        """When everything launched so far is done; None if nothing was launched."""
        drained: Times | None = None
        for end_ns in self.stream_end_ns.values():
            drained = end_ns if drained is None else np.maximum(drained, end_ns)
        return drained

    def columns(self, index: int) -> list[list[int]]:
        """One of the four times [S][operation]."""
        times = [self.placed[position][index] for position in range(len(self.models))]
        found: list[list[int]] = np.stack(times, axis=1).tolist()
        return found

    def launch(self, position: int, begin_ns: Times, end_ns: Times) -> None:
        """Queue one operation. Only for a Device that no one else holds."""
        model = self.models[position]
        start_ns = end_ns + model.launch_latency_ns
        before_ns = self.stream_end_ns.get(model.stream)
        if before_ns is not None:
            start_ns = np.maximum(start_ns, before_ns + model.queued_gap_ns)
        if model.held_by is not None and model.held_by in self.placed:
            start_ns = np.maximum(start_ns, self.placed[model.held_by][1] + model.queued_gap_ns)
        done_ns = start_ns + model.duration_ns
        self.placed[position] = (start_ns, done_ns, begin_ns, end_ns)
        ends = done_ns if before_ns is None else np.maximum(done_ns, before_ns)
        self.stream_end_ns[model.stream] = ends

    def copy(self) -> Device:
        return Device(self.models, dict(self.placed), dict(self.stream_end_ns))


@dataclass(frozen=True, slots=True, eq=False)
class _Burst:
    """Launches between two waits [n]; wait: the call that then waits, None at the stage's end.

    begin, end: [n, 1] fractions of the stage's host time; at: that of the wait.
    """

    operations: tuple[int, ...]
    begin: Reals
    end: Reals
    wait: str | None
    at: float


def simulate_stage(
    script: StageScript, device: Device, begin_ns: Times, end_ns: Times
) -> tuple[Device, tuple[Wait, ...]]:
    """The device after a stage that the host spent [begin_ns, end_ns] in, and its waits."""
    bursts = _bursts(script)
    host_ns = (end_ns - begin_ns).astype(np.float64)
    if script.waits:
        host_ns = _solve_host_ns(script.host_ns, bursts, device, begin_ns, end_ns)
    after, waits, _ = _replay(bursts, device, begin_ns, host_ns)
    return after, waits


def _bursts(script: StageScript) -> list[_Burst]:
    found: list[_Burst] = []
    launches: list[HostStep] = []
    for step in (*script.steps, None):
        if step is not None and step.operation is not None:
            launches.append(step)
            continue
        found.append(
            _Burst(
                operations=tuple(s.operation for s in launches if s.operation is not None),
                begin=np.array([[launch.begin] for launch in launches]).reshape(-1, 1),
                end=np.array([[launch.end] for launch in launches]).reshape(-1, 1),
                wait=step.name if step is not None else None,
                at=step.begin if step is not None else 1.0,
            )
        )
        launches = []
    return found


def _solve_host_ns(
    profiled_ns: float, bursts: Sequence[_Burst], device: Device, begin_ns: Times, end_ns: Times
) -> Reals:
    """The host's own time for which the stage ends at end_ns (more time, later end)."""
    low = np.full(begin_ns.shape, LEAST_HOST * profiled_ns)
    high = np.maximum(low, np.minimum(MOST_HOST * profiled_ns, end_ns - begin_ns))
    while (apart := high - low > 1.0).any():
        middle = (low + high) / 2
        late = _replay(bursts, device, begin_ns, middle)[2] > end_ns
        high = np.where(apart & late, middle, high)
        low = np.where(apart & ~late, middle, low)
    return low


def _replay(
    bursts: Sequence[_Burst], device: Device, begin_ns: Times, host_ns: Reals
) -> tuple[Device, tuple[Wait, ...], Reals]:
    """Replay with host_ns of the host's own time: the device, the waits, when the stage ends."""
    device = device.copy()
    waits: list[Wait] = []
    origin_ns = begin_ns.astype(np.float64)
    for burst in bursts:
        begins_ns = _whole(origin_ns + burst.begin * host_ns)  # [n, S]
        ends_ns = _whole(origin_ns + burst.end * host_ns)
        for position, begun_ns, returned_ns in zip(
            burst.operations, begins_ns, ends_ns, strict=True
        ):
            device.launch(position, begun_ns, returned_ns)
        if burst.wait is not None:
            now_ns = origin_ns + burst.at * host_ns
            drained_ns = device.drained_ns
            resumed_ns = np.maximum(now_ns, 0.0 if drained_ns is None else drained_ns)
            origin_ns = origin_ns + (resumed_ns - now_ns)
            waits.append(Wait(burst.wait, _whole(now_ns), _whole(resumed_ns)))
    return device, tuple(waits), origin_ns + host_ns


def _whole(values: Reals) -> Times:
    return np.rint(values).astype(np.int64)
