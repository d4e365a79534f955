"""What measuring costs in this process: the floors that every other figure is read against."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

from moeprof.records import Calibration
from moeprof.timelines import TimelinePass
from moeprof.timing.device import CudaDevice, no_collection, now_ns

REPEATS = 50


def calibrate_host(device: CudaDevice) -> Calibration:
    """Null event pair, one event record and one launch, before any profiler is attached."""
    import torch

    tiny = torch.zeros(1, device="cuda")
    pairs, records, launches = [], [], []
    with no_collection():
        for _ in range(REPEATS):
            opening, closing = device.event(), device.event()
            device.synchronize()
            opening.record()
            begin = now_ns()
            closing.record()
            records.append(now_ns() - begin)
            device.synchronize()
            pairs.append(opening.elapsed_time(closing) * 1e3)
            begin = now_ns()
            tiny.add_(1.0)
            launches.append(now_ns() - begin)
            device.synchronize()
    return Calibration(
        null_event_pair_us=statistics.median(pairs),
        event_record_us=statistics.median(records) / 1e3,
        launch_us=statistics.median(launches) / 1e3,
        tiny_bare_us=_tiny_us(device, tiny),
    )


def _tiny_us(device: CudaDevice, tiny: Any) -> float:
    """Host entry to synchronised of 25 one-element launches, median."""
    times = []
    with no_collection():
        for _ in range(REPEATS):
            device.synchronize()
            begin = now_ns()
            for _ in range(25):
                tiny.add_(1.0)
            device.synchronize()
            times.append(now_ns() - begin)
    return statistics.median(times) / 1e3


def calibrate_device(cupti: Any, device: CudaDevice, host: Calibration) -> Calibration:
    """Launch latency on an idle GPU and the gap between queued kernels, from CUPTI records."""
    import torch

    from moeprof.contract import STEPS, Solution, stage
    from moeprof.measure.forward import Forward
    from moeprof.timing.ranges import Ranges

    tiny = torch.zeros(1, device="cuda")

    @stage(*STEPS, writes="output")
    def launches(output: Any) -> None:
        torch.cuda.synchronize()
        output.add_(1.0)
        torch.cuda.synchronize()
        device.hold_stream(200.0)
        for _ in range(8):
            output.add_(1.0)

    forward = Forward(Solution("calibration", (launches,)), {"output": tiny})
    timeline = cupti.api(forward, device, REPEATS, Ranges(forward.stage_names, 1))
    replayed = cupti.graph(_tiny_graph(tiny).replay, device, REPEATS)
    latency_ns, queued_gap_ns = latencies(timeline)
    with cupti.recording(api=False):
        tiny_kernels_us = _tiny_us(device, tiny)
    with cupti.recording(api=True):
        tiny_api_us = _tiny_us(device, tiny)
    return replace(
        host,
        tiny_kernels_us=tiny_kernels_us,
        tiny_api_us=tiny_api_us,
        launch_latency_ns=latency_ns,
        queued_gap_ns=queued_gap_ns,
        graph_gap_ns=_graph_gap_ns(replayed),
    )


def _tiny_graph(tiny: Any) -> Any:
    """Eight one-element kernels as a graph."""
    import torch

    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        for _ in range(8):
            tiny.add_(1.0)
    return captured


def _graph_gap_ns(timeline: TimelinePass) -> int | None:
    gaps = [
        begin - end
        for iteration in timeline.iterations
        for end, begin in zip(iteration.end_ns, iteration.start_ns[1:], strict=False)
    ]
    return _median(gaps)


def latencies(timeline: TimelinePass) -> tuple[int | None, int | None]:
    """Launch latency and queued gap of the forward above: one idle launch, a hold, eight."""
    idle: list[int] = []
    queued: list[int] = []
    for iteration in timeline.iterations:
        if len(iteration.start_ns) != 10 or not iteration.launch_end_ns:
            continue
        idle.append(iteration.start_ns[0] - iteration.launch_end_ns[0])
        queued.extend(iteration.start_ns[n] - iteration.end_ns[n - 1] for n in range(3, 10))
    return _median(idle), _median(queued)


def _median(values: list[int]) -> int | None:
    return int(statistics.median(values)) if values else None
