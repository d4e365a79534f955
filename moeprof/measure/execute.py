"""Solution x workloads x clocks -> Runs: the one loop that touches a device.

Passes run in the order of ``records.PASSES`` over all workloads, since an attached profiler slows
the process after it: every workload's unprofiled figures are taken before CUPTI is loaded. Weights
are made once. A Run is handed out as soon as its workload's last pass has finished.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from moeprof import __version__
from moeprof.contract import Buffers
from moeprof.definition import Definition, Workload
from moeprof.errors import EnvironmentMissing, ResourceExhausted, is_out_of_memory
from moeprof.machine.environment import describe
from moeprof.measure.inputs import fingerprints, make_activations, make_weights
from moeprof.measure.passes import CUPTI_PASSES, Passes
from moeprof.measure.workbench import Case, Problem, try_out
from moeprof.problem.dataset import Dataset
from moeprof.problem.routing import identify, make_routing, parse_spec
from moeprof.records import Run, Settings, SolutionIdentity, StageInfo, WorkloadIdentity
from moeprof.solutions.catalog import LoadedSolution, load_solution


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
    refuse_stand_ins(plan.loaded, plan.device)
    refuse_missing_cupti(plan.settings.passes, plan.device)
    with out_of_memory_named():
        Execution(plan, progress, on_run).run()


class Execution:
    """The state of one ``execute``: the clocks and the cases under measurement."""

    def __init__(self, plan: Plan, progress: Progress, on_run: Callable[[Run], None]) -> None:
        self.plan = plan
        self.progress = progress
        self.on_run = on_run
        self.settings = plan.settings
        self.passes = Passes(plan.settings, plan.device)
        self.cases: list[Case] = []

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
        inputs = Inputs(plan)
        buffers = Buffers(plan.loaded.solution.keeps_buffers)
        for workload in plan.workloads:
            problem = inputs.problem(workload, plan.routing)
            self.cases.append(problem.case(plan.loaded.solution, buffers))

    def first(self) -> None:
        """The first call of every workload, then its verdict."""
        reference = load_solution("reference", self.plan.device).solution
        for case in self.cases:
            self.progress.step(f"first T={case.workload.seq_len}")
            try_out(case, reference, self.passes.device, self.settings)
        wrong = [case for case in self.cases if not case.correctness.passed]
        self.cases = [case for case in self.cases if case.correctness.passed]
        self.hand_out(wrong)
        self.passes.settle(self.cases)

    # -- the clocks --------------------------------------------------------------------------

    def measure(self, name: str, last: bool) -> None:
        """One pass over all workloads."""
        trials = self.settings.trials if name == "bare" else 1
        for trial in range(trials):
            for case in self.cases:
                self.progress.step(f"{name} T={case.seq_len}")
                self.passes.measure(name, case, trial)
                if last and trial == trials - 1:
                    self.hand_out([case])

    # -- after the clocks --------------------------------------------------------------------

    def hand_out(self, cases: list[Case]) -> None:
        """Turn finished cases into Runs."""
        for case in cases:
            position = self.plan.workloads.index(case.workload)
            self.on_run(as_run(self.plan, self.plan.loaded, case, self.passes, position))


class Inputs:
    """Makes the inputs of workloads on the device: weights once, the rest as asked for."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        seed = plan.settings.seed
        self._weights = make_weights(plan.definition, plan.weights, seed, plan.device)
        self._weight_prints = fingerprints(self._weights)

    def problem(self, workload: Workload, routing_spec: str) -> Problem:
        """``workload`` with tokens routed as ``routing_spec`` says; UsageError if it cannot be."""
        plan, seed = self._plan, self._plan.settings.seed
        routing = make_routing(
            parse_spec(routing_spec),
            plan.definition,
            workload,
            seed,
            dataset=plan.dataset,
            allow_no_local_work=plan.allow_no_local_work,
        )
        activations = make_activations(
            plan.definition, workload, routing, plan.weights, seed, plan.device
        )
        return Problem(
            definition=plan.definition,
            workload=workload,
            routing=identify(routing, plan.definition, workload, plan.weights, seed),
            inputs={**activations, **self._weights},
            untouched={**self._weight_prints, **fingerprints(activations)},
        )


def as_run(plan: Plan, loaded: LoadedSolution, case: Case, passes: Passes, position: int) -> Run:
    """The record of one finished case of ``loaded``. position: how many came before it."""
    solution = loaded.solution
    return Run(
        moeprof=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        solution=SolutionIdentity(
            name=solution.name,
            source_hash=loaded.source_hash,
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
        settings=plan.settings,
        correctness=case.correctness,
        passes=tuple(case.passes),
        timelines=tuple(case.timelines),
        clocks=tuple(case.clocks),
        calibration=passes.calibration,
        ceilings=passes.ceilings,
        warnings=tuple(case.warnings),
        position=position,
    )


def _unmeasured(stage: Any) -> StageInfo:
    return StageInfo(
        name=stage.name,
        covers=tuple(str(step) for step in stage.covers),
        backend=stage.backend,
        reads=stage.reads,
        writes=stage.writes,
    )


def refuse_stand_ins(loaded: LoadedSolution, device: str) -> None:
    """A torch twin is never timed as the real op: on a GPU the real library must load."""
    stand_ins = loaded.solution.stand_ins
    if device == "cuda" and stand_ins:
        named = "; ".join(f"{library.name}: {library.stand_in}" for library in stand_ins)
        raise EnvironmentMissing(
            f"{loaded.solution.name} needs a library that does not load here ({named})",
            do="moeprof doctor shows the install line; --device cpu checks it with torch twins",
        )


def refuse_missing_cupti(passes: Sequence[str], device: str, installed: bool | None = None) -> None:
    """Said before anything is measured: the CUPTI passes come last, after minutes of others.

    installed: whether the module ``cupti`` is, by default as found.
    """
    asked = [name for name in passes if name in CUPTI_PASSES]
    if installed is None:
        installed = importlib.util.find_spec("cupti") is not None
    if device == "cuda" and asked and not installed:
        rest = ",".join(name for name in passes if name not in CUPTI_PASSES)
        raise EnvironmentMissing(
            f"the passes {', '.join(asked)} need CUPTI's Python interface, which is not installed",
            do=f"pip install 'cupti-python==13.0.*' (the minor version of torch's CUDA), or leave "
            f"them out with --passes {rest}",
        )


@contextmanager
def out_of_memory_named() -> Iterator[None]:
    """Raise ResourceExhausted where torch says that the GPU's memory is full."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceExhausted(
            f"out of GPU memory: {str(error).splitlines()[0]}",
            do="run fewer or smaller workloads, or free the GPU (nvidia-smi shows who uses it)",
        ) from error
