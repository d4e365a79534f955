"""Host and GPU of one stage, replayed: launches at their fractions, operations in stream order.

The forward half of the reconstruction: given how long the host had for a stage, when does every
operation of it start? Where the host waits for the GPU inside a stage the host's own time is not
known beforehand; it is solved for, so that the stage ends when its stamp says. All integer ns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from moeprof.host import StageScript
from moeprof.records import ApiCall

# A profiler makes the host slower, never faster: own time of a stage with waits, as a multiple of
# what it was under the profiler (1.2 to 1.65 times too long was measured; bounds with a margin).
LEAST_HOST, MOST_HOST = 0.4, 1.1


@dataclass(frozen=True, slots=True)
class OperationModel:
    """What places one operation, ns. held_by: an operation on another stream it waits for."""

    stream: int
    duration_ns: int
    launch_latency_ns: int
    queued_gap_ns: int
    held_by: int | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """The GPU so far: per operation (start, end, launch begin, launch end); streams' last ends."""

    models: Sequence[OperationModel]
    placed: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)
    stream_end_ns: dict[int, int] = field(default_factory=dict)

    @property
    def drained_ns(self) -> int:
        """When everything launched so far is done; 0 if nothing was launched."""
        return max(self.stream_end_ns.values(), default=0)

    def column(self, index: int) -> tuple[int, ...]:
        """One of the four times of every operation, in order of operation."""
        return tuple(self.placed[position][index] for position in range(len(self.models)))

    def launch(self, position: int, begin_ns: int, end_ns: int) -> None:
        """Queue one operation. Only for a Device that no one else holds."""
        model = self.models[position]
        start_ns = end_ns + model.launch_latency_ns
        before_ns = self.stream_end_ns.get(model.stream)
        if before_ns is not None:
            start_ns = max(start_ns, before_ns + model.queued_gap_ns)
        if model.held_by is not None and model.held_by in self.placed:
            start_ns = max(start_ns, self.placed[model.held_by][1] + model.queued_gap_ns)
        done_ns = start_ns + model.duration_ns
        self.placed[position] = (start_ns, done_ns, begin_ns, end_ns)
        self.stream_end_ns[model.stream] = max(done_ns, before_ns or 0)

    def copy(self) -> Device:
        return Device(self.models, dict(self.placed), dict(self.stream_end_ns))


def simulate_stage(
    script: StageScript, device: Device, begin_ns: int, end_ns: int
) -> tuple[Device, tuple[ApiCall, ...]]:
    """The device after a stage that the host spent [begin_ns, end_ns] in, and its waits."""
    host_ns = float(end_ns - begin_ns)
    if script.waits:
        host_ns = _solve_host_ns(script, device, begin_ns, end_ns)
    after, waits, _ = _replay(script, device, begin_ns, host_ns)
    return after, waits


def _solve_host_ns(script: StageScript, device: Device, begin_ns: int, end_ns: int) -> float:
    """The host's own time for which the stage ends at end_ns (more time, later end)."""
    low = LEAST_HOST * script.host_ns
    high = max(low, min(MOST_HOST * script.host_ns, end_ns - begin_ns))
    while high - low > 1.0:
        middle = (low + high) / 2
        if _replay(script, device, begin_ns, middle)[2] > end_ns:
            high = middle
        else:
            low = middle
    return low


def _replay(
    script: StageScript, device: Device, begin_ns: int, host_ns: float
) -> tuple[Device, tuple[ApiCall, ...], float]:
    """Replay with host_ns of the host's own time: the device, the waits, when the stage ends."""
    device = device.copy()
    waits: list[ApiCall] = []
    origin_ns = float(begin_ns)
    for step in script.steps:
        now_ns = origin_ns + step.begin * host_ns
        if step.operation is None:
            resumed_ns = max(now_ns, float(device.drained_ns))
            origin_ns += resumed_ns - now_ns
            waits.append(ApiCall(step.name, round(now_ns), round(resumed_ns)))
        else:
            device.launch(step.operation, round(now_ns), round(origin_ns + step.end * host_ns))
    return device, tuple(waits), origin_ns + host_ns
