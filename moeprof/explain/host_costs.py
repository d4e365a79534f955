"""What single pieces of host code take by themselves: asking for memory, making weight views.

The requests of one forward for memory are written down stage by stage and then repeated apart from
it, once as the solution makes them and once as its variant would. The difference is what the
variant should save on the host, known before the variant itself was timed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from moeprof.contract import Buffers, Solution
from moeprof.interventions.interventions import Intervention, Kind, other_workspace, workspace_bytes
from moeprof.measure.forward import Forward
from moeprof.measure.workbench import Case
from moeprof.timing.device import CpuDevice, CudaDevice, no_collection, now_ns

REPEATS = 100


@dataclass(frozen=True, slots=True)
class Request:
    """One request for memory. value: what it is to be filled with, None for uninitialised."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    device: Any
    value: Any = None

    def ask(self, buffers: Buffers) -> Any:
        if self.value is None:
            return buffers.empty(self.name, self.shape, self.dtype, self.device)
        return buffers.full(self.name, self.shape, self.value, self.dtype, self.device)


class RecordingBuffers(Buffers):
    """Buffers that write down what is asked of them."""

    __slots__ = ("requests",)

    def __init__(self, keep: bool) -> None:
        super().__init__(keep)
        self.requests: list[Request] = []

    def empty(self, name: str, shape: tuple[int, ...], dtype: Any, device: Any) -> Any:
        self.requests.append(Request(name, tuple(shape), dtype, device))
        return super().empty(name, shape, dtype, device)

    def full(self, name: str, shape: tuple[int, ...], value: Any, dtype: Any, device: Any) -> Any:
        self.requests.append(Request(name, tuple(shape), dtype, device, value))
        return super().full(name, shape, value, dtype, device)


def host_change_us(
    intervention: Intervention, case: Case, device: CudaDevice | CpuDevice
) -> Mapping[str, float] | None:
    """By stage, what the intervention changes on the host, us; None where that is not known.

    case: the unchanged solution.
    """
    solution = case.forward.solution
    if intervention.kind == Kind.BUFFERS:
        return _buffers_us(solution, case, device)
    if intervention.kind == Kind.WORKSPACE:
        return _workspace_us(solution, case, device)
    if intervention.kind == Kind.VIEWS:
        return {name: -_views_us(name, solution, case, device) for name in intervention.stages}
    return None


def requests_by_stage(solution: Solution, case: Case) -> dict[str, list[Request]]:
    """What each stage asks of its buffers in one forward."""
    buffers = RecordingBuffers(solution.keeps_buffers)
    forward = Forward(solution, {**case.given, "buffers": buffers})
    ends: list[int] = []
    forward(leave=lambda position: ends.append(len(buffers.requests)))
    begins = [0, *ends[:-1]]
    return {
        name: buffers.requests[begin:end]
        for name, begin, end in zip(forward.stage_names, begins, ends, strict=True)
    }


def _buffers_us(solution: Solution, case: Case, device: CudaDevice | CpuDevice) -> dict[str, float]:
    keep = solution.keeps_buffers
    return {
        name: _asking_us(asked, not keep, device) - _asking_us(asked, keep, device)
        for name, asked in requests_by_stage(solution, case).items()
        if asked
    }


def _workspace_us(
    solution: Solution, case: Case, device: CudaDevice | CpuDevice
) -> dict[str, float]:
    size, keep = other_workspace(solution), solution.keeps_buffers
    asked = requests_by_stage(solution, case)
    found: dict[str, float] = {}
    for stage in solution.stages:
        if "workspace_bytes" in stage.option_names:
            now, mine = (workspace_bytes(stage),), asked[stage.name]
            other = [replace(r, shape=(size,)) if r.shape == now else r for r in mine]
            before_us, after_us = (_asking_us(r, keep, device) for r in (mine, other))
            found[stage.name] = after_us - before_us
    return found


def _asking_us(requests: list[Request], keep: bool, device: CudaDevice | CpuDevice) -> float:
    buffers = Buffers(keep)
    return _median_us(lambda: [request.ask(buffers) for request in requests], device)


def _views_us(stage: str, solution: Solution, case: Case, device: CudaDevice | CpuDevice) -> float:
    """Two transpositions and a cast to what the scales are already, of the stage's own weights."""
    reads = next(s.reads for s in solution.stages if s.name == stage)
    weights, scale = (
        next(case.given[name] for name in reads if name.endswith(ending))
        for ending in ("_weights", "_weights_scale")
    )
    return _median_us(
        lambda: (weights.transpose(1, 2), scale.to(dtype=scale.dtype).transpose(1, 2)), device
    )


def _median_us(call: Callable[[], Any], device: CudaDevice | CpuDevice) -> float:
    """Host time of one call; its result is dropped before the next, as a forward's is."""
    call()
    device.synchronize()
    taken_ns = []
    with no_collection():
        for _ in range(REPEATS):
            begin = now_ns()
            made = call()
            taken_ns.append(now_ns() - begin)
            del made
            device.synchronize()
    return statistics.median(taken_ns) / 1e3
