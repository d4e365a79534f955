"""The undisturbed forward: a wall clock and one outer pair of events, nothing else.

Every second iteration also stamps the host clock at stage boundaries, which the reconstruction
needs; the iterations without stamps between them show what the stamps cost.
"""

from __future__ import annotations

from itertools import cycle, islice

from moeprof.measure.forward import StagedCall
from moeprof.records import Sample
from moeprof.timing.device import CpuDevice, CudaDevice, no_collection, now_ns


def measure(
    forward: StagedCall, device: CudaDevice | CpuDevice, iterations: int, trial: int
) -> tuple[Sample, ...]:
    """``iterations`` samples, every second one stamped."""
    with no_collection():
        return tuple(
            _cuda_sample(forward, device, trial, stamped)
            if isinstance(device, CudaDevice)
            else _cpu_sample(forward, trial, stamped)
            for stamped in islice(cycle((False, True)), iterations)
        )


def _cuda_sample(forward: StagedCall, device: CudaDevice, trial: int, stamped: bool) -> Sample:
    opening, closing = device.event(), device.event()
    stamps: list[int] = []
    leave = (lambda position: stamps.append(now_ns())) if stamped else None
    device.prepare()
    entry = now_ns()
    opening.record()
    if stamped:
        stamps.append(now_ns())
    slots = forward(leave=leave)
    closing.record()
    if stamped:
        stamps.append(now_ns())
    device.synchronize()
    wall = now_ns() - entry
    del slots
    return Sample(
        span_us=opening.elapsed_time(closing) * 1e3,
        wall_us=wall / 1e3,
        trial=trial,
        stamps_us=tuple((stamp - entry) / 1e3 for stamp in stamps),
    )


def _cpu_sample(forward: StagedCall, trial: int, stamped: bool) -> Sample:
    stamps: list[int] = []
    leave = (lambda position: stamps.append(now_ns())) if stamped else None
    entry = now_ns()
    forward(leave=leave)
    wall_us = (now_ns() - entry) / 1e3
    stamps_us = tuple((stamp - entry) / 1e3 for stamp in stamps)
    return Sample(span_us=wall_us, wall_us=wall_us, trial=trial, stamps_us=stamps_us)
