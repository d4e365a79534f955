"""Time per stage: a pair of CUDA events around each, or the wall clock on a CPU.

On a GPU this is a cross-check only: each event costs host time and reads its own floor
(``Calibration.null_event_pair_us``), so a stage of a few microseconds mostly measures the pair.
"""

from __future__ import annotations

from moeprof.measure.forward import StagedCall
from moeprof.records import Sample
from moeprof.timing.device import CpuDevice, CudaDevice, no_collection, now_ns


def measure_events(forward: StagedCall, device: CudaDevice, iterations: int) -> tuple[Sample, ...]:
    """Samples with ``stage_us`` from an event pair around each stage."""
    with no_collection():
        return tuple(_events_sample(forward, device) for _ in range(iterations))


def _events_sample(forward: StagedCall, device: CudaDevice) -> Sample:
    stages = len(forward.stage_names)
    begins = [device.event() for _ in range(stages)]
    ends = [device.event() for _ in range(stages)]
    device.prepare()
    entry = now_ns()
    slots = forward(
        enter=lambda position: begins[position].record(),
        leave=lambda position: ends[position].record(),
    )
    device.synchronize()
    wall = now_ns() - entry
    del slots
    return Sample(
        span_us=begins[0].elapsed_time(ends[-1]) * 1e3,
        wall_us=wall / 1e3,
        stage_us=tuple(
            begin.elapsed_time(end) * 1e3 for begin, end in zip(begins, ends, strict=True)
        ),
    )


def measure_wall(forward: StagedCall, device: CpuDevice, iterations: int) -> tuple[Sample, ...]:
    """Samples with ``stage_us`` from the host clock; only for a device that is synchronous."""
    with no_collection():
        return tuple(_wall_sample(forward) for _ in range(iterations))


def _wall_sample(forward: StagedCall) -> Sample:
    begins: list[int] = []
    ends: list[int] = []
    entry = now_ns()
    forward(
        enter=lambda position: begins.append(now_ns()), leave=lambda position: ends.append(now_ns())
    )
    wall_us = (now_ns() - entry) / 1e3
    stage_us = tuple((end - begin) / 1e3 for begin, end in zip(begins, ends, strict=True))
    return Sample(span_us=wall_us, wall_us=wall_us, stage_us=stage_us)
