"""flashinfer-bench's own timers, step by step as they are, on a function of the same arguments.

    0.1.2   per iteration: zero 256 MB, clone every tensor argument (the destination too), wait for
            the GPU, record an event, call, record an event. Nothing waits after an iteration; the
            events exist before the first one. Its latency is the mean of the iterations.
    main    per iteration: zero twice the L2, wait for the GPU, note CUPTI's clock, call, note it
            again, wait. The same arguments every time. All runtime and driver calls are recorded;
            its time is from the first start to the last end of what was launched in between, its
            latency the median of the iterations.

Both take trials, each with random weights of its own, whose latencies are averaged. Here the trials
share one set of weights: a set more changes no launch, and its making would take minutes. Python's
collector stays as it is, as it does there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from moeprof.assemble import Window
from moeprof.records import Sample
from moeprof.timelines import TimelinePass
from moeprof.timing.device import now_ns

EVENT_FLUSH_BYTES = 256 << 20
ESTIMATES = 5  # forwards that main's timer makes to estimate how long one takes


class Straight(Protocol):
    """What is timed: called with one list of arguments."""

    arguments: tuple[Any, ...]

    def __call__(self, arguments: list[Any]) -> Any: ...


def event_pairs(call: Straight, warmup: int, iterations: int, trial: int) -> tuple[Sample, ...]:
    """One trial of 0.1.2's timer, nothing attached."""
    import torch

    flush, openings, closings = _event_tools(iterations, device_of(call))
    _event_warm_up(call, flush, warmup)
    for opening, closing in zip(openings, closings, strict=True):
        flush.zero_()
        arguments = cloned(call.arguments)  # while those of the last iteration are still held
        torch.cuda.synchronize()
        opening.record()
        call(arguments)
        closing.record()
    torch.cuda.synchronize()
    return _event_samples(openings, closings, trial)


def observed_event_pairs(
    cupti: Any, call: Straight, warmup: int, iterations: int, trials: int
) -> tuple[tuple[Sample, ...], TimelinePass]:
    """The same under CUPTI, all trials: the events' times, and the operations between them.

    Of each iteration of the timeline stage_begin_ns is when the first event had been recorded,
    stage_end_ns when the call had returned, exit_ns when the second event had been recorded.
    """
    samples: list[Sample] = []

    def iterate() -> list[Window]:
        windows: list[Window] = []
        for trial in range(trials):
            made, seen = _observed_trial(cupti, call, warmup, iterations, trial)
            samples.extend(made)
            windows.extend(seen)
        return windows

    timeline: TimelinePass = cupti.collect("fib_observed", iterate)
    return tuple(samples), timeline


def _observed_trial(
    cupti: Any, call: Straight, warmup: int, iterations: int, trial: int
) -> tuple[tuple[Sample, ...], list[Window]]:
    import torch

    flush, openings, closings = _event_tools(iterations, device_of(call))
    _event_warm_up(call, flush, warmup)
    windows: list[Window] = []
    with cupti.recording(api=True, tags=False):
        for opening, closing in zip(openings, closings, strict=True):
            flush.zero_()
            arguments = cloned(call.arguments)
            torch.cuda.synchronize()
            before = now_ns()
            entry = cupti.now_ns()
            shift = entry - (before + now_ns()) // 2  # from the host's clock to CUPTI's
            opening.record()
            opened = now_ns()
            call(arguments)
            returned = now_ns()
            closing.record()
            closed = now_ns()
            windows.append(Window(entry, closed + shift, (opened + shift,), (returned + shift,)))
        torch.cuda.synchronize()
    return _event_samples(openings, closings, trial), windows


def kernel_spans(
    cupti: Any, call: Straight, l2_bytes: int, warmup: int, iterations: int, trials: int
) -> TimelinePass:
    """All trials of main's timer: a timeline whose iterations are in order of trial."""

    def iterate() -> list[Window]:
        windows: list[Window] = []
        for _ in range(trials):
            windows.extend(_span_trial(cupti, call, l2_bytes, warmup, iterations))
        return windows

    timeline: TimelinePass = cupti.collect("fib_span", iterate)
    return timeline


def _span_trial(
    cupti: Any, call: Straight, l2_bytes: int, warmup: int, iterations: int
) -> list[Window]:
    """Warm-ups with nothing recorded, then the windows of the iterations that are."""
    import torch

    arguments = list(call.arguments)
    flush = torch.empty((2 * l2_bytes >> 20) << 20, dtype=torch.int8, device=device_of(call))
    torch.cuda.synchronize()
    call(arguments)
    torch.cuda.synchronize()
    for untimed in (ESTIMATES, warmup):
        for _ in range(untimed):
            flush.zero_()
            call(arguments)
        torch.cuda.synchronize()
    windows: list[Window] = []
    with cupti.recording(api=True, tags=False, every_call=True):
        for _ in range(iterations):
            flush.zero_()
            torch.cuda.synchronize()
            entry = cupti.now_ns()
            call(arguments)
            leave = cupti.now_ns()
            torch.cuda.synchronize()
            windows.append(Window(entry, leave, (), ()))
    return windows


def cloned(arguments: Sequence[Any]) -> list[Any]:
    """New tensors of the same values; other arguments as they are."""
    import torch

    return [value.clone() if isinstance(value, torch.Tensor) else value for value in arguments]


def device_of(call: Straight) -> Any:
    """Where the arguments lie."""
    return next(value.device for value in call.arguments if hasattr(value, "device"))


def _event_tools(iterations: int, device: Any) -> tuple[Any, list[Any], list[Any]]:
    """The buffer that is zeroed, and both events of every iteration, made before the first."""
    import torch

    flush = torch.empty(EVENT_FLUSH_BYTES // 4, dtype=torch.int32, device=device)
    openings, closings = (
        [torch.cuda.Event(enable_timing=True) for _ in range(iterations)]  # type: ignore[no-untyped-call]
        for _ in range(2)
    )
    return flush, openings, closings


def _event_warm_up(call: Straight, flush: Any, warmup: int) -> None:
    import torch

    for _ in range(warmup):
        flush.zero_()
        call(cloned(call.arguments))
    torch.cuda.synchronize()


def _event_samples(
    openings: Sequence[Any], closings: Sequence[Any], trial: int
) -> tuple[Sample, ...]:
    pairs = zip(openings, closings, strict=True)
    spans_us = [opening.elapsed_time(closing) * 1e3 for opening, closing in pairs]
    return tuple(Sample(span_us=span, wall_us=span, trial=trial) for span in spans_us)
