"""The passes over one call on one device: which clock runs when, and what it adds to the record.

Knows neither solutions nor records' identities: it measures whatever is a ``Subject``. Unprofiled
passes come before CUPTI's, in the caller's order, because an attached profiler slows the process.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from moeprof.assemble import with_node_stages
from moeprof.machine.environment import ClockReader
from moeprof.measure.forward import StagedCall
from moeprof.records import Calibration, ClockSample, MachineCeilings, PassResult, Sample, Settings
from moeprof.timelines import TimelinePass
from moeprof.timing import bare, blocked, ceilings, graph, stages
from moeprof.timing.calibration import calibrate_device, calibrate_host
from moeprof.timing.device import CpuDevice, CudaDevice, host_loop_us, now_ns
from moeprof.timing.ranges import Ranges

CUPTI_PASSES = ("kernels", "api")

# a forward longer than this may hold the GPU at its power cap; whether it does is tried out
# (GEMMs at 1,050 TFLOP/s did within 1,350 us forwards: 1,690 MHz instead of 1,980)
RESTS_ABOVE_US, POWER_TRIAL_US = 800.0, 150_000.0
LONGEST_WARM_UP_NS = 30_000_000  # enough to warm up whatever takes milliseconds itself


class Subject(Protocol):
    """A call under measurement; passes, timelines, clocks and warnings are added to it."""

    passes: list[PassResult]
    timelines: list[TimelinePass]
    clocks: list[ClockSample]
    warnings: list[str]
    rests: bool

    @property
    def forward(self) -> StagedCall: ...

    @property
    def seq_len(self) -> int: ...


class Passes:
    """The clocks of one process. device: 'cuda' or 'cpu'.

    calibration and ceilings are there after ``settle``; the first CUPTI pass completes them.
    """

    def __init__(self, settings: Settings, device: str) -> None:
        self.settings = settings
        cuda = device == "cuda"
        self.cuda = CudaDevice(settings.l2) if cuda else None
        self.device: CudaDevice | CpuDevice = self.cuda or CpuDevice()
        self.clock_reader = ClockReader(enabled=cuda)
        self.calibration: Calibration | None = None
        self.ceilings: MachineCeilings | None = None
        self.cupti: Any = None
        self.synchronising: set[str] = set()

    def settle(self, subjects: Sequence[Subject]) -> None:
        """After the first calls: which subjects must rest, what measuring costs, the ceilings."""
        for subject in subjects:
            self.try_rest(subject)
        if subjects:
            self.calibrate()

    def try_rest(self, subject: Subject) -> None:
        """Find out whether the subject must rest between its iterations."""
        if self.cuda is not None:
            subject.rests = self.meets_power_cap(subject.forward)

    def calibrate(self) -> None:
        """What measuring costs the host here, and the machine's ceilings."""
        if self.cuda is not None:
            self.calibration = calibrate_host(self.cuda)
            self.ceilings = ceilings.measure(self.cuda)

    def meets_power_cap(self, forward: StagedCall) -> bool:
        """Whether the forward, run back to back, makes the driver lower the clock."""
        begin = now_ns()
        forward()
        self.device.synchronize()
        if now_ns() - begin < RESTS_ABOVE_US * 1e3:
            return False
        self.clock_reader.sample("first")  # the cap is counted from here
        while now_ns() - begin < POWER_TRIAL_US * 1e3:
            forward()
            self.device.synchronize()
        reasons = [reason for s in self.clock_reader.sample("first") for reason in s.throttle]
        return any("power" in reason for reason in reasons)

    def measure(self, name: str, subject: Subject, trial: int = 0) -> None:
        """Warm-ups and one pass over one subject; the clocks are read beside it."""
        if name in CUPTI_PASSES:
            self.attach()
        self.warm_up(subject)
        self.one(name, subject, trial)
        loop_us = host_loop_us()
        subject.clocks.extend(
            replace(sample, host_loop_us=loop_us) for sample in self.clock_reader.sample(name)
        )

    def warm_up(self, subject: Subject) -> None:
        """Untimed forwards before the samples: clocks and caches reach their steady state."""
        if self.cuda is not None:
            self.cuda.rests = subject.rests
        begin = now_ns()
        for _ in range(self.settings.warmup):
            subject.forward()
            if now_ns() - begin > LONGEST_WARM_UP_NS:
                break
        self.device.synchronize()

    def one(self, name: str, subject: Subject, trial: int) -> None:
        """One pass over one subject; its result is added to it."""
        forward, iterations = subject.forward, self.settings.iterations
        if name == "bare":
            _extend(subject, "bare", bare.measure(forward, self.device, iterations, trial))
        elif self.cuda is None:
            samples = stages.measure_wall(forward, CpuDevice(), iterations)
            subject.passes.append(PassResult(name, samples))
        elif name == "events":
            samples = stages.measure_events(forward, self.cuda, iterations)
            subject.passes.append(PassResult(name, samples))
        elif name == "blocked":
            subject.passes.append(self.blocked(subject, self.cuda))
        elif name == "graph":
            subject.passes.append(self.graph(subject, self.cuda))
        elif name == "kernels":
            subject.timelines.append(self.cupti.kernels(forward, self.cuda, iterations))
        elif name == "api":
            ranges = Ranges(forward.row_names, subject.seq_len)
            subject.timelines.append(self.cupti.api(forward, self.cuda, iterations, ranges))
            if any(p.name == "graph" and p.samples for p in subject.passes):
                self.add_graph_nodes(subject, self.cuda)

    def add_graph_nodes(self, subject: Subject, device: CudaDevice) -> None:
        """The operations of the replayed graph, each with the stage whose capture made it."""
        try:
            captured, nodes_after = graph.capture_stages(subject.forward)
        except ImportError as error:
            subject.warnings.append(f"graph: its nodes are not told apart by stage ({error})")
            return
        timeline = self.cupti.graph(captured.replay, device, self.settings.iterations)
        named = with_node_stages(timeline, subject.forward.stage_names, nodes_after)
        subject.timelines.append(named)

    def attach(self) -> None:
        """Load CUPTI, once, and read the device's own latencies."""
        if self.cupti is None and self.cuda is not None:
            from moeprof.timing.cupti import session

            self.cupti = session()
            if self.calibration is not None:
                self.calibration = calibrate_device(self.cupti, self.cuda, self.calibration)

    def blocked(self, subject: Subject, device: CudaDevice) -> PassResult:
        """The queued forward, or why it cannot be queued."""
        host_us = _host_us(subject)
        certain = 1 if subject.forward.name in self.synchronising else blocked.CERTAIN
        try:
            samples = blocked.measure(
                subject.forward, device, self.settings.iterations, host_us, certain
            )
        except blocked.Synchronises as error:
            # on one workload: the same code on the next needs less evidence
            self.synchronising.add(subject.forward.name)
            return PassResult("blocked", unavailable=str(error))
        return PassResult("blocked", samples)

    def graph(self, subject: Subject, device: CudaDevice) -> PassResult:
        """The replayed graph, or why it cannot be captured or is not the same forward."""
        import torch

        held = next((p.unavailable for p in subject.passes if p.name == "blocked"), None)
        if held is not None:
            return PassResult("graph", unavailable=f"not capturable: {held}")
        try:
            captured, written = graph.capture(subject.forward)
        except RuntimeError as error:
            torch.cuda.synchronize()
            return PassResult("graph", unavailable=f"not capturable: {str(error).splitlines()[0]}")
        eager = subject.forward()
        with torch.inference_mode():  # results may be inference tensors, or need gradients
            pairs = [
                (want.to(torch.float32, copy=True), got)
                for want, got in subject.forward.replayable(eager, written)
            ]
            for _, got in pairs:
                got.fill_(float("nan"))
        samples = graph.measure(captured, device, self.settings.iterations)
        with torch.inference_mode():
            same = all(self._reproduced(want, got) for want, got in pairs)
        if not same:
            reason = (
                "the replay does not reproduce the result: "
                "launches escaped the capture, or no two calls agree"
            )
            return PassResult("graph", unavailable=reason)
        if not pairs:
            subject.warnings.append("graph: no new tensor is returned to check the replay by")
        return PassResult("graph", samples)

    def _reproduced(self, want: Any, got: Any) -> bool:
        """Whether ``got`` is ``want`` [same shape, float32], where that is a number at all."""
        numbers = want.isfinite()
        want, got = want[numbers], got.float()[numbers]
        distance = (got - want).norm() / want.norm().clamp_min(1e-30)
        return float(distance) <= self.settings.max_relative_l2


def _extend(subject: Subject, name: str, samples: tuple[Sample, ...]) -> None:
    """Add a trial's samples to the pass of that name."""
    earlier = next((p for p in subject.passes if p.name == name), None)
    if earlier is None:
        subject.passes.append(PassResult(name, samples))
    else:
        position = subject.passes.index(earlier)
        subject.passes[position] = PassResult(name, earlier.samples + samples)


def _host_us(subject: Subject) -> float:
    """How long the host needs to launch the forward, from the stamps of the bare pass."""
    bare_samples = [s for p in subject.passes if p.name == "bare" for s in p.samples]
    last = [sample.stamps_us[-1] for sample in bare_samples if sample.stamps_us]
    return statistics.median(last) if last else 2_000.0
