"""The forward behind a spin kernel: every launch is queued before the first runs.

The host's lateness vanishes from the span; what remains is GPU work and the gaps between queued
kernels. The spin ends by itself, so a solution that synchronises inside cannot deadlock; it is
recognised by the stream having run dry although the hold was far longer than the host needs.
"""

from __future__ import annotations

from moeprof.errors import UsageError
from moeprof.measure.forward import StagedCall
from moeprof.records import Sample
from moeprof.timing.device import CudaDevice, no_collection, now_ns

LONGEST_HOLD_US = 200_000.0
CERTAIN = 3


class Synchronises(UsageError):
    """The solution waits for the GPU inside the forward; ``stage`` is where it waited longest."""

    def __init__(self, stage: str) -> None:
        super().__init__(
            f"stage {stage} waits for the GPU, so the launches cannot be queued ahead",
            do="remove the synchronisation (.item(), .nonzero(), a pageable copy) to measure this",
        )
        self.stage = stage


def measure(
    forward: StagedCall, device: CudaDevice, iterations: int, host_us: float, certain: int = CERTAIN
) -> tuple[Sample, ...]:
    """Samples of the queued forward. host_us: how long the host needs to launch it. certain: times
    in a row that a stage must wait out most of a doubled hold to be said to synchronise.

    Raises Synchronises if the stream cannot be held until the last launch.
    """
    hold_us = 2.0 * host_us + 200.0
    late = 0
    with no_collection():
        _sample(forward, device, hold_us)  # the spin kernel's own first launch loads its module
        samples: list[Sample] = []
        while len(samples) < iterations:
            sample = _sample(forward, device, hold_us)
            if sample is not None:
                samples.append(sample)
                continue
            stage, waited_us = _longest_stage(forward, device, hold_us)
            late = late + 1 if waited_us > 0.5 * hold_us else 0
            hold_us *= 2.0
            # a late host is late once; a wait grows with the hold, time after time
            if late == certain or hold_us > LONGEST_HOLD_US:
                raise Synchronises(stage)
        return tuple(samples)


def _sample(forward: StagedCall, device: CudaDevice, hold_us: float) -> Sample | None:
    """One sample, or None if the stream ran dry before the last launch."""
    opening, closing = device.event(), device.event()
    device.prepare()
    entry = now_ns()
    device.hold_stream(hold_us)
    opening.record()
    slots = forward()
    closing.record()
    held = not opening.query()
    device.synchronize()
    wall_us = (now_ns() - entry) / 1e3
    del slots
    if not held:
        return None
    return Sample(span_us=opening.elapsed_time(closing) * 1e3, wall_us=wall_us)


def _longest_stage(forward: StagedCall, device: CudaDevice, hold_us: float) -> tuple[str, float]:
    """The stage in which the host spent longest while the stream was held, and how long."""
    device.prepare()
    device.hold_stream(hold_us)
    stamps = [now_ns()]
    forward(leave=lambda position: stamps.append(now_ns()))
    device.synchronize()
    durations = [end - begin for begin, end in zip(stamps, stamps[1:], strict=False)]
    position = max(range(len(durations)), key=durations.__getitem__)
    return forward.stage_names[position], durations[position] / 1e3
