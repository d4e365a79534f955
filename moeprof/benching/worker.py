"""The measuring process of a bench: solutions loaded, then measured in turn, cell after cell.

It tells what it is about to do before it does it, so that whoever watches knows whom to blame if
nothing comes any more. A solution that raises loses its cell; one that makes the GPU fault ends the
process, for nothing on that GPU context can be believed after it.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from moeprof import __version__
from moeprof.bench.cells import Failure
from moeprof.benching.messages import (
    Asked,
    End,
    Event,
    Failed,
    Job,
    Loading,
    Preparing,
    Ready,
    Recorded,
    Turn,
)
from moeprof.benching.words import place, without_paths
from moeprof.definition import Definition, Workload
from moeprof.errors import EnvironmentMissing, MoeprofError, UsageError, is_out_of_memory
from moeprof.fib.find import SolutionFile, find_solution, is_fib, shown
from moeprof.machine.environment import describe
from moeprof.measure.execute import (
    Execution,
    out_of_memory_named,
    refuse_missing_cupti,
    refuse_stand_ins,
)
from moeprof.measure.plan import Problems
from moeprof.problem.routing import parse_spec
from moeprof.records import Run
from moeprof.solutions.catalog import LoadedSolution, load_solution
from moeprof.solutions.raised import said
from moeprof.storage.benches import BenchPlan, BenchSolution, BenchWorkload
from moeprof.storage.store import save

Send = Callable[[Event], None]


def work(
    problems: Problems, asked: Sequence[Asked], trusted: bool, send: Send, job: Callable[[], Job]
) -> None:
    """Load, say what is ready, wait for the job, measure it. trusted: foreign code may run.

    Raises UsageError, EnvironmentMissing, ResourceExhausted: what no solution is to blame for.
    """
    refuse_missing_cupti(problems.settings.passes, problems.device)
    found = [_load(one, problems, trusted, send) for one in asked]
    loaded = [one for one, _ in found if one is not None]
    plan = _plan(problems, [shown for _, shown in found])
    send(Ready(plan))
    given = job()
    send(Preparing())
    gc.collect()
    gc.freeze()  # clocks collect garbage before each pass: not in a million objects of libraries
    with out_of_memory_named():
        _measure(problems, loaded, plan, given, send)
    send(End())


def _load(
    one: Asked, problems: Problems, trusted: bool, send: Send
) -> tuple[LoadedSolution | None, BenchSolution]:
    """A solution ready to run, or why it is not; SystemExit and whatever its file raises too."""
    send(Loading(one.solution))
    root = problems.dataset.root
    try:
        if is_fib(one.solution):
            _require_definition(find_solution(one.solution, root), problems.definition)
        loaded = load_solution(one.solution, problems.device, dataset=root, trusted=trusted)
        refuse_stand_ins(loaded, problems.device)
    except EnvironmentMissing as error:
        return None, one.lost("not available", str(error))
    except MoeprofError as error:
        return None, one.lost("error", str(error))
    name = loaded.solution.name
    return loaded, BenchSolution(name, loaded.origin, loaded.source_hash, asked=one.by_name)


def _require_definition(file: SolutionFile, definition: Definition) -> None:
    if file.solution.definition != definition.name:
        raise UsageError(f"it is a solution of {shown(file.solution.definition)}", definition.name)


def _plan(problems: Problems, solutions: Sequence[BenchSolution]) -> BenchPlan:
    names = [solution.name for solution in solutions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two solutions are called {twice}", do="name each once, or rename one")
    spec = parse_spec(problems.routing)
    return BenchPlan(
        moeprof=__version__,
        definition=problems.definition.name,
        alias=problems.definition.alias or problems.definition.name,
        routing=f"file:{spec.path.name}" if spec.path else problems.routing,
        weights=problems.weights,
        settings=problems.settings,
        environment=describe(problems.device),
        solutions=tuple(solutions),
        workloads=tuple(BenchWorkload(w.uuid, w.seq_len) for w in problems.workloads),
    )


def _measure(
    problems: Problems, loaded: Sequence[LoadedSolution], plan: BenchPlan, job: Job, send: Send
) -> None:
    cells = set(job.cells)
    chosen = {uuid for _, uuid in cells}
    workloads = tuple(w for w in problems.workloads if w.uuid in chosen)
    given = replace(problems, workloads=workloads)

    def keep(run: Run) -> None:
        save(run, Path(job.folder), plan.alias)
        send(Recorded(run.solution.name, run.workload.uuid))

    watch = _Watch(send, problems.device)
    Execution(
        given, loaded, watch, keep, lambda name, workload: (name, workload.uuid) in cells
    ).run()


class _Watch:
    """Tells of turns and failures."""

    def __init__(self, send: Send, device: str) -> None:
        self._send = send
        self._cuda = device == "cuda"
        self._turn = "first"

    def begin(self, turn: str, solution: str, workload: Workload) -> None:
        self._turn = turn
        self._send(Turn(turn, solution, workload.uuid, workload.seq_len))

    def calibrating(self) -> None:
        self._send(Preparing())

    def wrong(self, solution: str, workload: Workload) -> None:
        fault = self._fault()
        if fault:
            self._faulted(solution, workload, fault)

    def failed(self, solution: str, workload: Workload, error: BaseException) -> None:
        told = self._told(error)
        traceback.print_exception(error)  # to the process's output, of which the end is kept
        fault = self._fault()
        if fault:
            self._faulted(solution, workload, fault)
        traceback.clear_frames(error.__traceback__)  # which hold its tensors
        self._release()
        self._send(Failed(Failure(solution, workload.uuid, workload.seq_len, "error", told), False))

    def _told(self, error: BaseException) -> str:
        if isinstance(error, MoeprofError):
            return without_paths(str(error))
        what = "ran out of memory" if is_out_of_memory(error) else "raised"
        return f"{place(self._turn)} it {what}: {said(error)}"

    def _fault(self) -> str:
        """What the GPU says if an earlier kernel broke it; '' while it works."""
        if self._cuda:
            import torch

            try:
                torch.cuda.synchronize()
            except RuntimeError as error:
                return str(error).splitlines()[0]
        return ""

    def _faulted(self, solution: str, workload: Workload, fault: str) -> NoReturn:
        told = f"it made the GPU fault {place(self._turn)}: {without_paths(fault)}"
        failure = Failure(solution, workload.uuid, workload.seq_len, "crashed", told)
        self._send(Failed(failure, True))
        sys.stdout.flush()
        os._exit(1)  # an orderly end would wait for the broken GPU

    def _release(self) -> None:
        gc.collect()
        if self._cuda:
            import torch

            with suppress(RuntimeError):
                torch.cuda.empty_cache()
