"""Solutions x workloads x clocks -> Runs: the one loop that touches a device.

Passes run in the order of ``records.PASSES`` over all workloads, since an attached profiler slows
the process after it: every workload's unprofiled figures are taken before CUPTI is loaded. Weights
are made once. A Run is handed out as soon as its workload's last pass has finished.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from moeprof.contract import Buffers
from moeprof.definition import Workload
from moeprof.errors import (
    ContractError,
    EnvironmentMissing,
    MoeprofError,
    ResourceExhausted,
    WrongResult,
    is_out_of_memory,
)
from moeprof.measure import parity
from moeprof.measure.passes import CUPTI_PASSES, Passes
from moeprof.measure.plan import Inputs, Plan, Problems
from moeprof.measure.record import as_run
from moeprof.measure.reference import Reference
from moeprof.measure.turns import in_turn
from moeprof.measure.workbench import Case, Problem, still_right, try_out
from moeprof.records import PARITY_PASSES, PASSES, Run
from moeprof.solutions.catalog import LoadedSolution, load_solution
from moeprof.solutions.raised import said


class Progress(Protocol):
    """Told what is happening; draws it or not."""

    def start(self, total_steps: int) -> None: ...
    def step(self, label: str) -> None: ...
    def finish(self) -> None: ...


class Watch(Protocol):
    """Told of every turn before it begins, and of what ended one."""

    def begin(self, turn: str, solution: str, workload: Workload) -> None:
        """turn: a pass; 'rest', does it meet the power cap; 'again', the check after the passes."""

    def calibrating(self) -> None:
        """No solution has its turn: the machine's own figures are taken."""

    def wrong(self, solution: str, workload: Workload) -> None:
        """Its result is wrong, which will be recorded."""

    def failed(self, solution: str, workload: Workload, error: BaseException) -> None:
        """What a solution raised; the others go on without it unless this raises too."""


def execute(plan: Plan, progress: Progress, on_run: Callable[[Run], None]) -> None:
    """Run every pass on every workload; ``on_run`` gets each record when it is complete.

    Raises EnvironmentMissing, ResourceExhausted; a wrong result is a Run without timings.
    """
    refuse_stand_ins(plan.loaded, plan.device)
    refuse_missing_cupti(plan.settings.passes, plan.device)
    with out_of_memory_named():
        execution = Execution(plan, (plan.loaded,), _Alone(plan, progress), on_run)
        progress.start(execution.turns)
        try:
            execution.run()
        finally:
            progress.finish()


class _Alone:
    """The watch of a run of one solution: draws, and what it raises ends the run."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._passes = plan.settings.passes
        self._foreign = plan.loaded.foreign
        self._progress = progress

    def begin(self, turn: str, solution: str, workload: Workload) -> None:
        if turn in self._passes:
            self._progress.step(f"{turn} T={workload.seq_len}")

    def calibrating(self) -> None:
        return None

    def wrong(self, solution: str, workload: Workload) -> None:
        return None

    def failed(self, solution: str, workload: Workload, error: BaseException) -> None:
        """What foreign code raises once it has been right is its own fault, in one line."""
        known = isinstance(error, MoeprofError) or is_out_of_memory(error)
        if known or not (self._foreign or isinstance(error, SystemExit)):
            raise error
        raise WrongResult(
            f"{solution} on T={workload.seq_len} was right, and later raised {said(error)}"
        ) from error


@dataclass(eq=False, slots=True)
class Entry:
    """A solution on a workload, under measurement. position: the workload's in this process."""

    loaded: LoadedSolution
    case: Case
    position: int

    @property
    def solution(self) -> str:
        return self.loaded.solution.name


def every_one(solution: str, workload: Workload) -> bool:
    return True


class Execution:
    """Solutions on workloads in one process: the first calls, then pass after pass.

    Weights are made once, the inputs of a workload once, its reference once, for all solutions. In
    every pass the solutions take turns on one workload, once a trial, in the orders of ``turns``,
    before the next workload's turn comes. wanted: which solutions to run on which workloads.
    """

    def __init__(
        self,
        plan: Problems,
        solutions: Sequence[LoadedSolution],
        watch: Watch,
        on_run: Callable[[Run], None],
        wanted: Callable[[str, Workload], bool] = every_one,
    ) -> None:
        self.plan = plan
        self.solutions = tuple(solutions)
        self.watch = watch
        self.on_run = on_run
        self.wanted = wanted
        self.settings = plan.settings
        self.passes = Passes(plan.settings, plan.device)
        self.entries: list[Entry] = []
        self.round = 0

    @property
    def turns(self) -> int:
        """How many turns it takes if none fails."""
        cells = sum(
            self.wanted(loaded.solution.name, workload)
            for loaded in self.solutions
            for workload in self.plan.workloads
        )
        return cells * self.settings.turns

    def run(self) -> None:
        """All passes in order; an entry whose result is wrong leaves after the first."""
        passes = self.settings.passes
        self.inputs = Inputs(self.plan)
        self.prepare()
        self.first()
        for name in passes[1:]:
            self.measure(name, last=name == passes[-1])
        if len(passes) == 1:
            for entry in self.next_round():
                self.finish(entry)

    # -- before the clocks ------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the inputs of every workload and bind the solutions to them."""
        self.problems: dict[str, Problem] = {}
        buffers = {
            loaded.solution.name: Buffers(loaded.solution.keeps_buffers)
            for loaded in self.solutions
        }
        for position, workload in enumerate(self.plan.workloads):
            chosen = [one for one in self.solutions if self.wanted(one.solution.name, workload)]
            if not chosen:
                continue
            problem = self.inputs.problem(workload, self.plan.routing)
            self.problems[workload.uuid] = problem
            for loaded in chosen:
                name = loaded.solution.name
                try:
                    case = problem.case(loaded.solution, buffers[name])
                except ContractError as error:
                    self.watch.failed(name, workload, error)
                else:
                    self.entries.append(Entry(loaded, case, position))

    def first(self) -> None:
        """The first call of every entry and its verdict; wrong ones are handed out at once."""
        reference = Reference(load_solution("reference", self.plan.device).solution)
        device, settings = self.passes.device, self.settings
        for entry in self.next_round():
            call = partial(try_out, entry.case, reference, device, settings)
            if self.attempt("first", entry, call) and not entry.case.correctness.passed:
                self.hand_out(entry)
        reference.forget()
        for entry in self.next_round():
            self.attempt("rest", entry, partial(self.passes.try_rest, entry.case))
        if self.entries:
            self.watch.calibrating()
            self.passes.calibrate()

    # -- the clocks --------------------------------------------------------------------------

    def measure(self, name: str, last: bool) -> None:
        """One pass over all entries; they are finished where it is the last."""
        trials = self.settings.trials if name == "bare" else 1
        foreign = name in PARITY_PASSES
        clock = partial(parity.measure, self.passes) if foreign else self.passes.measure
        for trial in range(trials):
            for entry in self.next_round():
                call = partial(clock, name, entry.case, trial)
                if self.attempt(name, entry, call) and last and trial == trials - 1:
                    self.finish(entry)

    def next_round(self) -> Iterator[Entry]:
        """Every entry once: workload by workload, the solutions in turn."""
        for workload in self.plan.workloads:
            rivals = [one for one in self.entries if one.case.workload is workload]
            yield from in_turn(rivals, self.round)
            self.round += 1

    def attempt(self, turn: str, entry: Entry, call: Callable[[], None]) -> bool:
        """Whether the turn ended well; an entry that fails leaves.

        EnvironmentMissing is raised: what the machine lacks is no solution's fault.
        """
        workload = entry.case.workload
        self.watch.begin(turn, entry.solution, workload)
        try:
            call()
        except EnvironmentMissing:
            raise
        except (Exception, SystemExit) as error:
            self.watch.failed(entry.solution, workload, error)
        else:
            return True
        self.leave(entry)
        return False

    def leave(self, entry: Entry) -> None:
        """Go on without ``entry``."""
        self.entries = [one for one in self.entries if one is not entry]
        self.restore(entry)

    def restore(self, entry: Entry) -> None:
        """Give the inputs back what a solution may have changed in them: others share them."""
        if len(self.solutions) > 1:
            self.inputs.restore(self.problems[entry.case.workload.uuid], self.plan.routing)

    # -- after the clocks --------------------------------------------------------------------

    def finish(self, entry: Entry) -> None:
        """Hand an entry out, if what was measured is still a right result."""
        self.restore(entry)
        if self.attempt("again", entry, partial(still_right, entry.case, self.settings)):
            self.hand_out(entry)

    def hand_out(self, entry: Entry) -> None:
        """Turn an entry into a Run; one whose result is wrong leaves."""
        right = entry.case.correctness.passed
        if not right:
            self.watch.wrong(entry.solution, entry.case.workload)
        self.on_run(as_run(self.plan, entry.loaded, entry.case, self.passes, entry.position))
        if not right:
            self.leave(entry)


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
    asked = [name for name in passes if name in (*CUPTI_PASSES, *parity.CUPTI_PASSES)]
    if installed is None:
        installed = importlib.util.find_spec("cupti") is not None
    if device == "cuda" and asked and not installed:
        rest = ",".join(name for name in passes if name in PASSES and name not in CUPTI_PASSES)
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
