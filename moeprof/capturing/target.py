"""The process under the profiler: ``python -m moeprof.capturing.target FOLDER``.

FOLDER holds the job and gets the answer. The solution is loaded, its inputs are made and its result
is checked as ``moeprof run`` does: a wrong result is never captured. Then, between the profiler's
start and stop, N forwards, each with a flushed L2 and in a range of its own with a range a stage.
Whatever a user can cause is an answer with one line; anything else is a traceback.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from moeprof.capturing.job import (
    ANSWER,
    JOB,
    SKELETON,
    TRACE,
    Answer,
    GraphNodes,
    Job,
    read,
    write,
)
from moeprof.errors import EnvironmentMissing, MoeprofError, UsageError, WrongResult, nearest


def main(folder: Path) -> int:
    """Do the job in ``folder``; the exit code that the command should end with."""
    job = read(Job, folder / JOB)
    os.environ.update(job.variables)  # before anything reads them
    try:
        from moeprof.measure.execute import out_of_memory_named

        with out_of_memory_named():
            answer = capture(job, folder)
    except MoeprofError as error:
        answer = Answer(error=str(error), exit_code=error.exit_code)
    write(folder / ANSWER, answer)
    return answer.exit_code


def capture(job: Job, folder: Path) -> Answer:
    """Run the forwards under whatever profiler is attached; leave the skeleton in ``folder``."""
    from moeprof.measure.execute import refuse_stand_ins
    from moeprof.measure.passes import Passes
    from moeprof.measure.plan import Inputs
    from moeprof.measure.record import as_run
    from moeprof.measure.workbench import try_out
    from moeprof.solutions.catalog import load_solution
    from moeprof.storage.atomic import write_atomically
    from moeprof.storage.store import to_json

    plan = _plan(job)
    refuse_stand_ins(plan.loaded, job.device)
    solution = plan.loaded.solution
    names = tuple(stage.name for stage in solution.stages)
    if job.stage and job.stage not in names:
        do = nearest(job.stage, names)
        raise UsageError(f"{solution.name} has no stage {job.stage!r}", do=do)
    case = Inputs(plan).problem(job.workload, job.routing).case(solution)
    passes = Passes(job.settings, job.device)
    reference = load_solution("reference", job.device).solution
    try_out(case, reference, passes.device, job.settings)
    if not case.correctness.passed:
        problem = case.correctness.problem or "the output does not match the reference"
        raise WrongResult(f"wrong result: {solution.name} on T={case.seq_len}: {problem}",
                          do="nothing was captured; moeprof run records the verdict")  # fmt: skip
    if job.tool != "ncu":  # which runs under replay, where neither clocks nor ceilings are true
        passes.settle([case])
    call, nodes = _forward(job, case, passes)
    passes.warm_up(case)
    _record(job, call, passes, case, folder / TRACE)
    case.clocks.extend(passes.clock_reader.sample("api"))
    case.passes.clear()
    run = replace(as_run(plan, plan.loaded, case, passes, 0), calibration=None)
    write_atomically(folder / SKELETON, json.dumps(to_json(run), allow_nan=False).encode())
    return Answer(nodes=nodes)


def _plan(job: Job) -> Any:
    from moeprof.measure.plan import Plan
    from moeprof.problem.dataset import Dataset
    from moeprof.solutions.catalog import load_solution

    dataset = Dataset(Path(job.dataset))
    return Plan(
        loaded=load_solution(job.solution, job.device, dataset=dataset.root, trusted=job.trusted),
        definition=dataset.definition(job.definition),
        workloads=(job.workload,),
        dataset=dataset,
        settings=job.settings,
        routing=job.routing,
        weights=job.weights,
        device=job.device,
        allow_no_local_work=job.allow_no_local_work,
    )


# ---------------------------------------------------------------- the call

StagedForward = Callable[["Marker"], Any]


def _forward(job: Job, case: Any, passes: Any) -> tuple[StagedForward, GraphNodes | None]:
    """What one iteration calls, and in graph mode which node is whose."""
    forward = case.forward
    if job.mode == "eager":
        return lambda marker: forward(marker.enter, marker.leave), None
    if passes.cuda is None:
        raise UsageError("--mode graph captures CUDA graphs", "a GPU")
    from moeprof.timing.graph import capture_stages

    checked = passes.graph(case, passes.cuda)  # replays it and compares with the eager result
    if checked.unavailable:
        raise UsageError(
            f"{forward.solution.name} has no CUDA graph: {checked.unavailable}", do="--mode eager"
        )
    try:
        graph, nodes_after = capture_stages(forward)
    except ImportError as error:
        raise EnvironmentMissing(
            f"the graph's nodes cannot be counted ({error})", do="pip install cuda-bindings"
        ) from None
    return lambda marker: graph.replay(), GraphNodes(forward.stage_names, nodes_after)


# ---------------------------------------------------------------- the ranges


class Marker(Protocol):
    """Opens and closes the ranges by which the importer tells iterations and stages apart."""

    def iteration(self) -> Any: ...
    def enter(self, position: int) -> None: ...
    def leave(self, position: int) -> None: ...


class RecordFunctions:
    """Ranges of torch's profiler: ``moeprof.iteration``, ``moeprof.STAGE``."""

    def __init__(self, stages: tuple[str, ...]) -> None:
        from torch.profiler import record_function

        self._range = record_function
        self._names = [f"moeprof.{stage}" for stage in stages]
        self._open: list[Any] = []

    def iteration(self) -> Any:
        return self._range("moeprof.iteration")

    def enter(self, position: int) -> None:
        opened = self._range(self._names[position])
        opened.__enter__()  # type: ignore[no-untyped-call]
        self._open.append(opened)

    def leave(self, position: int) -> None:
        self._open.pop().__exit__(None, None, None)


class Unmarked:
    """No ranges: the forward that only wakes the profiler up."""

    def enter(self, position: int) -> None: ...
    def leave(self, position: int) -> None: ...

    @contextmanager
    def iteration(self) -> Iterator[None]:
        yield


# ---------------------------------------------------------------- the recording


def _record(job: Job, call: StagedForward, passes: Any, case: Any, trace: Path) -> None:
    """N iterations between start and stop of the profiler."""
    from moeprof.timing.device import no_collection
    from moeprof.timing.ranges import Ranges

    names, device = case.forward.stage_names, passes.device
    marker: Marker
    marker = RecordFunctions(names) if job.tool == "torch" else Ranges(names, case.seq_len)
    with ExitStack() as stack:
        stack.enter_context(no_collection())
        if job.tool == "torch":
            stack.enter_context(_torch_profiler(trace))
        elif passes.cuda is not None:
            stack.enter_context(_profiler_range())
        if job.tool != "ncu":  # switching records on makes the first forward slow
            _iterate(call, Unmarked(), device)
        for _ in range(job.settings.iterations):
            _iterate(call, marker, device)


def _iterate(call: StagedForward, marker: Marker, device: Any) -> None:
    device.prepare()
    with marker.iteration():
        kept = call(marker)
        device.synchronize()
    del kept


@contextmanager
def _profiler_range() -> Iterator[None]:
    """What nsys and ncu record: from cudaProfilerStart to cudaProfilerStop."""
    import torch

    torch.cuda.profiler.start()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]


@contextmanager
def _torch_profiler(trace: Path) -> Iterator[None]:
    """torch's own profiler, without stacks and shapes, which cost the host and tell no times."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    recorded.export_chrome_trace(str(trace))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
