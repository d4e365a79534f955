"""Solution x workloads x clocks -> Runs: the one loop that touches a device.

Passes run in the order of ``records.PASSES`` over all workloads, since an attached profiler slows
the process after it: every workload's unprofiled figures are taken before CUPTI is loaded. Weights
are made once. A Run is handed out as soon as its workload's last pass has finished.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from moeprof import __version__
from moeprof.catalog import LoadedSolution, load_solution
from moeprof.contract import Buffers
from moeprof.dataset import Dataset
from moeprof.definition import Definition, Workload
from moeprof.environment import ClockReader, describe
from moeprof.errors import EnvironmentMissing, ResourceExhausted, WrongResult
from moeprof.forward import Forward
from moeprof.inputs import fingerprints, make_activations, make_weights
from moeprof.numerics import failed
from moeprof.records import (
    Calibration,
    ClockSample,
    MachineCeilings,
    PassResult,
    Run,
    Sample,
    Settings,
    SolutionIdentity,
    StageInfo,
    WorkloadIdentity,
)
from moeprof.routing import identify, make_routing, parse_spec
from moeprof.timing import bare, blocked, ceilings, graph, stages
from moeprof.timing.calibration import calibrate_device, calibrate_host
from moeprof.timing.device import CpuDevice, CudaDevice, host_loop_us, now_ns
from moeprof.timing.ranges import Ranges
from moeprof.workbench import Case, check, first_call, given_tensors

CUPTI_PASSES = ("kernels", "api")

# a forward longer than this may hold the GPU at its power cap; whether it does is tried out
RESTS_ABOVE_US, POWER_TRIAL_US = 2_000.0, 300_000.0


class Progress(Protocol):
    """Told what is happening; draws it or not."""

    def start(self, total_steps: int) -> None: ...
    def step(self, label: str) -> None: ...
    def finish(self) -> None: ...


@dataclass(frozen=True)
class Plan:
    """What to run."""

    loaded: LoadedSolution
    definition: Definition
    workloads: tuple[Workload, ...]
    dataset: Dataset
    settings: Settings
    routing: str
    weights: str
    device: str  # 'cuda' or 'cpu'
    allow_no_local_work: bool = False


def execute(plan: Plan, progress: Progress, on_run: Callable[[Run], None]) -> None:
    """Run every pass on every workload; ``on_run`` gets each record when it is complete.

    Raises EnvironmentMissing, ResourceExhausted; a wrong result is a Run without timings.
    """
    _refuse_stand_ins(plan)
    with _out_of_memory_named():
        Execution(plan, progress, on_run).run()


class Execution:
    """The state of one ``execute``: device, cases, clock samples."""

    def __init__(self, plan: Plan, progress: Progress, on_run: Callable[[Run], None]) -> None:
        self.plan = plan
        self.progress = progress
        self.on_run = on_run
        self.settings = plan.settings
        cuda = plan.device == "cuda"
        self.cuda = CudaDevice(plan.settings.l2) if cuda else None
        self.device: CudaDevice | CpuDevice = self.cuda or CpuDevice()
        self.clock_reader = ClockReader(enabled=cuda)
        self.clocks: dict[str, list[ClockSample]] = {}
        self.calibration: Calibration | None = None
        self.ceilings: MachineCeilings | None = None
        self.cupti: Any = None
        self.cases: list[Case] = []
        self.synchronises = False

    def run(self) -> None:
        """All passes in order; a case whose result is wrong leaves after the first."""
        passes = self.settings.passes
        steps = len(self.plan.workloads) * (
            len(passes) + (self.settings.trials - 1) * ("bare" in passes)
        )
        self.progress.start(steps)
        try:
            self.prepare()
            self.first()
            for name in passes[1:]:
                self.measure(name, last=name == passes[-1])
            if len(passes) == 1:
                self.hand_out(self.cases)
        finally:
            self.progress.finish()

    # -- before the clocks ------------------------------------------------------------------

    def prepare(self) -> None:
        """Make weights once and the inputs of every workload."""
        plan = self.plan
        spec = parse_spec(plan.routing)
        weights = make_weights(plan.definition, plan.weights, self.settings.seed, plan.device)
        weight_prints = fingerprints(weights)
        buffers = Buffers(plan.loaded.solution.keeps_buffers)
        for workload in plan.workloads:
            routing = make_routing(
                spec,
                plan.definition,
                workload,
                self.settings.seed,
                dataset=plan.dataset,
                allow_no_local_work=plan.allow_no_local_work,
            )
            activations = make_activations(
                plan.definition, workload, routing, plan.weights, self.settings.seed, plan.device
            )
            given = given_tensors(plan.definition, workload, {**activations, **weights}, buffers)
            identity = identify(
                routing, plan.definition, workload, plan.weights, self.settings.seed
            )
            forward = Forward(plan.loaded.solution, given)
            untouched = {**weight_prints, **fingerprints(activations)}
            self.cases.append(Case(workload, identity, given, forward, untouched))
            self.clocks[workload.uuid] = []

    def first(self) -> None:
        """The first call of every workload, then its verdict."""
        reference = load_solution("reference", self.plan.device).solution
        for case in self.cases:
            self.progress.step(f"first T={case.workload.seq_len}")
            try:
                first_call(case, self.device)
                check(case, reference, self.settings)
            except WrongResult as error:
                case.correctness = failed(str(error))
            if not case.correctness.passed:
                case.passes.clear()
        wrong = [case for case in self.cases if not case.correctness.passed]
        self.cases = [case for case in self.cases if case.correctness.passed]
        self.hand_out(wrong)
        if self.cuda is not None and self.cases:
            for case in self.cases:
                case.rests = self.meets_power_cap(case)
            self.calibration = calibrate_host(self.cuda)
            self.ceilings = ceilings.measure(self.cuda)

    def meets_power_cap(self, case: Case) -> bool:
        """Whether the forward, run back to back, makes the driver lower the clock."""
        begin = now_ns()
        case.forward()
        self.device.synchronize()
        if now_ns() - begin < RESTS_ABOVE_US * 1e3:
            return False
        while now_ns() - begin < POWER_TRIAL_US * 1e3:
            case.forward()
            self.device.synchronize()
        reasons = [reason for s in self.clock_reader.sample("first") for reason in s.throttle]
        return any("power" in reason for reason in reasons)

    # -- the clocks --------------------------------------------------------------------------

    def measure(self, name: str, last: bool) -> None:
        """One pass over all workloads."""
        if name in CUPTI_PASSES and self.cases:
            self.attach()
        for trial in range(self.settings.trials if name == "bare" else 1):
            for case in self.cases:
                self.progress.step(f"{name} T={case.workload.seq_len}")
                self.warm_up(case)
                self.one(name, case, trial)
                loop_us = host_loop_us()
                self.clocks[case.workload.uuid].extend(
                    replace(sample, host_loop_us=loop_us)
                    for sample in self.clock_reader.sample(name)
                )
                if last and trial == (self.settings.trials if name == "bare" else 1) - 1:
                    self.hand_out([case])

    def warm_up(self, case: Case) -> None:
        """Untimed forwards before the samples: clocks and caches reach their steady state."""
        if self.cuda is not None:
            self.cuda.rests = case.rests
        for _ in range(self.settings.warmup):
            case.forward()
        self.device.synchronize()

    def one(self, name: str, case: Case, trial: int) -> None:
        """One pass over one workload; its result is added to the case."""
        iterations = self.settings.iterations
        if name == "bare":
            samples = bare.measure(case.forward, self.device, iterations, trial)
            _extend(case, "bare", samples)
        elif self.cuda is None:
            case.passes.append(
                PassResult(name, stages.measure_wall(case.forward, CpuDevice(), iterations))
            )
        elif name == "events":
            case.passes.append(
                PassResult(name, stages.measure_events(case.forward, self.cuda, iterations))
            )
        elif name == "blocked":
            case.passes.append(self.blocked(case, self.cuda))
        elif name == "graph":
            case.passes.append(self.graph(case, self.cuda))
        elif name == "kernels":
            case.timelines.append(self.cupti.kernels(case.forward, self.cuda, iterations))
        elif name == "api":
            ranges = Ranges(case.forward.stage_names, case.workload.seq_len)
            case.timelines.append(self.cupti.api(case.forward, self.cuda, iterations, ranges))

    def attach(self) -> None:
        """Load CUPTI, once, and read the device's own latencies."""
        if self.cupti is None and self.cuda is not None:
            from moeprof.timing.cupti import Cupti

            self.cupti = Cupti()
            if self.calibration is not None:
                self.calibration = calibrate_device(self.cupti, self.cuda, self.calibration)

    def blocked(self, case: Case, device: CudaDevice) -> PassResult:
        """The queued forward, or why it cannot be queued."""
        host_us = _host_us(case)
        certain = 1 if self.synchronises else blocked.CERTAIN
        try:
            samples = blocked.measure(
                case.forward, device, self.settings.iterations, host_us, certain
            )
        except blocked.Synchronises as error:
            self.synchronises = True  # on one workload: the next need less evidence
            return PassResult("blocked", unavailable=str(error))
        return PassResult("blocked", samples)

    def graph(self, case: Case, device: CudaDevice) -> PassResult:
        """The replayed graph, or why it cannot be captured; a stale result is a warning."""
        import torch

        held = next((p.unavailable for p in case.passes if p.name == "blocked"), None)
        if held is not None:
            return PassResult("graph", unavailable=f"not capturable: {held}")
        try:
            captured, output = graph.capture(case.forward)
        except RuntimeError as error:
            torch.cuda.synchronize()
            return PassResult("graph", unavailable=f"not capturable: {str(error).splitlines()[0]}")
        expected = case.forward.output(case.forward()).float()
        output.fill_(float("nan"))
        samples = graph.measure(captured, device, self.settings.iterations)
        distance = (output.float() - expected).norm() / expected.norm().clamp_min(1e-30)
        if not float(distance) <= self.settings.max_relative_l2:
            reason = "the replay does not reproduce the result: launches escaped the capture"
            return PassResult("graph", unavailable=reason)
        return PassResult("graph", samples)

    # -- after the clocks --------------------------------------------------------------------

    def hand_out(self, cases: list[Case]) -> None:
        """Turn finished cases into Runs."""
        for case in cases:
            self.on_run(self.as_run(case))

    def as_run(self, case: Case) -> Run:
        """The record of one case."""
        plan, solution = self.plan, self.plan.loaded.solution
        return Run(
            moeprof=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            solution=SolutionIdentity(
                name=solution.name,
                source_hash=plan.loaded.source_hash,
                stages=case.stages or tuple(_unmeasured(stage) for stage in solution.stages),
                keeps_buffers=solution.keeps_buffers,
                description=solution.description,
            ),
            workload=WorkloadIdentity(
                definition=plan.definition.name,
                uuid=case.workload.uuid,
                seq_len=case.workload.seq_len,
                local_expert_offset=case.workload.local_expert_offset,
                routed_scaling_factor=case.workload.routed_scaling_factor,
                constants=dict(plan.definition.constants),
            ),
            routing=case.routing,
            environment=describe(plan.device),
            settings=self.settings,
            correctness=case.correctness,
            passes=tuple(case.passes),
            timelines=tuple(case.timelines),
            clocks=tuple(self.clocks[case.workload.uuid]),
            calibration=self.calibration,
            ceilings=self.ceilings,
            warnings=tuple(case.warnings),
            position=plan.workloads.index(case.workload),
        )


def _extend(case: Case, name: str, samples: tuple[Sample, ...]) -> None:
    """Add a trial's samples to the pass of that name."""
    earlier = next((p for p in case.passes if p.name == name), None)
    if earlier is None:
        case.passes.append(PassResult(name, samples))
    else:
        position = case.passes.index(earlier)
        case.passes[position] = PassResult(name, earlier.samples + samples)


def _host_us(case: Case) -> float:
    """How long the host needs to launch the forward, from the stamps of the bare pass."""
    last = [
        s.stamps_us[-1] for p in case.passes if p.name == "bare" for s in p.samples if s.stamps_us
    ]
    return statistics.median(last) if last else 2_000.0


def _unmeasured(stage: Any) -> StageInfo:
    return StageInfo(
        name=stage.name,
        covers=tuple(str(step) for step in stage.covers),
        backend=stage.backend,
        reads=stage.reads,
        writes=stage.writes,
    )


def _refuse_stand_ins(plan: Plan) -> None:
    """A torch twin is never timed as the real op: on a GPU the real library must load."""
    stand_ins = plan.loaded.solution.stand_ins
    if plan.device == "cuda" and stand_ins:
        named = "; ".join(f"{library.name}: {library.stand_in}" for library in stand_ins)
        raise EnvironmentMissing(
            f"{plan.loaded.solution.name} needs a library that does not load here ({named})",
            do="moeprof doctor shows the install line; --device cpu checks it with torch twins",
        )


@contextmanager
def _out_of_memory_named() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        raise ResourceExhausted(
            f"out of GPU memory: {str(error).splitlines()[0]}",
            do="run fewer or smaller workloads, or free the GPU (nvidia-smi shows who uses it)",
        ) from error
