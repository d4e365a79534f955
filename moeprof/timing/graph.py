"""The forward as one CUDA graph: no Python, no launch calls, the same kernels.

A short spin kernel goes before the opening event, so that the cost of launching the graph itself
lies outside the span.
"""

from __future__ import annotations

from typing import Any

from moeprof.measure.forward import Hook, StagedCall
from moeprof.records import Sample
from moeprof.timing.device import CudaDevice, no_collection, now_ns

HOLD_US = 60.0  # longer than a graph launch takes on the host; 20 to 30 us seen on an H200


def capture(forward: StagedCall, leave: Hook | None = None) -> tuple[Any, Any]:
    """Capture one forward. Returns (graph, what the captured call returned: a replay writes it).

    Raises RuntimeError where the forward does something that a capture forbids.
    """
    import torch

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        forward()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        slots = forward(leave=leave)
    return graph, slots


def capture_stages(forward: StagedCall) -> tuple[Any, tuple[int, ...]]:
    """Capture one forward. Returns (graph, number of nodes it has after each stage).

    Nodes are numbered in order of creation, which is how CUPTI names those of the launched graph.
    """
    import torch
    from cuda.bindings import runtime

    counts: list[int] = []

    def count(position: int) -> None:
        stream = torch.cuda.current_stream().cuda_stream
        found = runtime.cudaGraphGetNodes(runtime.cudaStreamGetCaptureInfo(stream)[3])
        counts.append(int(found[-1]))

    graph, _ = capture(forward, count)
    return graph, tuple(counts)


def measure(graph: Any, device: CudaDevice, iterations: int) -> tuple[Sample, ...]:
    """Samples of the replayed graph, after one replay that uploads it."""
    graph.replay()
    with no_collection():
        return tuple(_sample(graph, device) for _ in range(iterations))


def _sample(graph: Any, device: CudaDevice) -> Sample:
    opening, closing = device.event(), device.event()
    device.prepare()
    entry = now_ns()
    device.hold_stream(HOLD_US)
    opening.record()
    graph.replay()
    closing.record()
    device.synchronize()
    wall_us = (now_ns() - entry) / 1e3
    return Sample(span_us=opening.elapsed_time(closing) * 1e3, wall_us=wall_us)
