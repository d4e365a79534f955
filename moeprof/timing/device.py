"""The device a clock measures on: flush, synchronise, events, holding the stream.

``CudaDevice`` and ``CpuDevice`` are the only places that touch ``torch.cuda``'s globals.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

now_ns = time.perf_counter_ns

LONGEST_REST_NS = 100_000_000


class Device(Protocol):
    """What every clock needs of a device."""

    kind: str

    def prepare(self) -> None:
        """Bring the caches into the state chosen by the settings, and finish all work."""

    def synchronize(self) -> None:
        """Wait until the device has finished everything."""


class CpuDevice:
    """The host as the device: nothing is asynchronous and no cache is flushed."""

    kind = "cpu"

    def prepare(self) -> None:
        return None

    def synchronize(self) -> None:
        return None


class CudaDevice:
    """The current CUDA device.

    l2: 'flush' zeroes twice the L2's size before every iteration, never between stages: stage
    k + 1 finds what stage k left in L2, which is the truth in place.
    rests: pause before an iteration as long as the last one took. Back to back, FP8 GEMMs of 13 ms
    hold an H200 at its power cap, and its clock sinks by 5 to 8 % depending on each pass's duty
    cycle; a pause makes every pass see the same clock.
    """

    kind = "cuda"

    def __init__(self, l2: Literal["flush", "warm"]) -> None:
        import torch

        self._torch = torch
        self._ready_ns = now_ns()
        self.rests = False
        properties = torch.cuda.get_device_properties(0)
        self._cycles_per_us = getattr(properties, "clock_rate", 1_980_000) / 1e3
        self._flush = (
            torch.empty(2 * properties.L2_cache_size, dtype=torch.int8, device="cuda")
            if l2 == "flush"
            else None
        )

    def prepare(self) -> None:
        if self.rests:
            # awake: after a sleep of 1.4 ms the host launched eight kernels 70 us later
            spin_until_ns(min(2 * now_ns() - self._ready_ns, now_ns() + LONGEST_REST_NS))
        if self._flush is not None:
            self._flush.zero_()
        # sync after the flush: queued behind it, the forward's launch cost would hide
        self._torch.cuda.synchronize()
        self._ready_ns = now_ns()

    def synchronize(self) -> None:
        self._torch.cuda.synchronize()

    def event(self) -> Any:
        """A CUDA event that keeps its time."""
        return self._torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def hold_stream(self, duration_us: float) -> None:
        """Queue a spin kernel of about ``duration_us``, which ends by itself: no deadlock.

        The duration is counted in cycles of the nominal clock, so a lower clock only lengthens it.
        """
        cycles = int(duration_us * self._cycles_per_us)
        self._torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]


def spin_until_ns(until_ns: int) -> None:
    """Keep this thread busy until the clock reads ``until_ns``."""
    while now_ns() < until_ns:
        pass


def host_loop_us() -> float:
    """The best of five timings of a fixed loop of Python: how fast the host is just now."""
    best_ns = 1 << 62
    for _ in range(5):
        begin = now_ns()
        sum(range(2_000))
        best_ns = min(best_ns, now_ns() - begin)
    return best_ns / 1e3


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python's cyclic collector out of the iterations; it runs once before them."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
