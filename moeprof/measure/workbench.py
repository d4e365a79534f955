"""One workload on the device, ready to be measured: inputs, forward, reference, verdict.

Made once a workload and kept through every pass. What leaves this module is correctness and the
work executed; nothing here is timed but the first call.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from moeprof.contract import Buffers, Solution
from moeprof.definition import Definition, Workload
from moeprof.errors import WrongResult
from moeprof.measure.changed import Change, changed
from moeprof.measure.forward import Forward
from moeprof.measure.inputs import changed_inputs
from moeprof.measure.numerics import failed, judge, judge_stages
from moeprof.measure.outputs import (
    Guards,
    guarded_output,
    memory_problem,
    same_bits,
    same_memory,
)
from moeprof.measure.reference import Reference
from moeprof.measure.work import executed_work
from moeprof.records import (
    ClockSample,
    Correctness,
    PassResult,
    RoutingIdentity,
    Sample,
    Settings,
    StageInfo,
)
from moeprof.timelines import TimelinePass
from moeprof.timing.device import CpuDevice, CudaDevice, now_ns


@dataclass(slots=True)
class Case:
    """A workload under measurement; passes and timelines are added as they finish.

    untouched: the inputs' fingerprints from before the solution was ever called. guards: the rows
    around its output. remembered: its output on the changed inputs, once that was right.
    """

    workload: Workload
    routing: RoutingIdentity
    given: Mapping[str, Any]
    forward: Forward
    untouched: Mapping[str, torch.Tensor]
    guards: Guards
    remembered: tuple[Change, torch.Tensor] | None = None
    stages: tuple[StageInfo, ...] = ()
    correctness: Correctness = field(default_factory=lambda: failed("never ran"))
    passes: list[PassResult] = field(default_factory=list)
    timelines: list[TimelinePass] = field(default_factory=list)
    clocks: list[ClockSample] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rests: bool = False

    @property
    def seq_len(self) -> int:
        return self.workload.seq_len


@dataclass(frozen=True, slots=True)
class Problem:
    """One workload's inputs on the device, to which any number of solutions can be bound.

    untouched: fingerprints of the inputs, made before any solution saw them.
    """

    definition: Definition
    workload: Workload
    routing: RoutingIdentity
    inputs: Mapping[str, Any]
    untouched: Mapping[str, torch.Tensor]

    def case(self, solution: Solution, buffers: Buffers | None = None) -> Case:
        """``solution`` on these inputs, with a destination of its own. Raises ContractError.

        buffers: shared with other workloads of the same solution, by default its own.
        """
        shape = self.definition.shape_of(self.definition.outputs[0], self.workload.seq_len)
        output, guards = guarded_output(shape, self.inputs["hidden_states"].device)
        given = {
            **self.definition.constants,
            "seq_len": self.workload.seq_len,
            **self.inputs,
            "output": output,
            "buffers": buffers or Buffers(solution.keeps_buffers),
        }
        forward = Forward(solution, given)
        return Case(self.workload, self.routing, given, forward, self.untouched, guards)


def first_call(case: Case, device: CudaDevice | CpuDevice) -> None:
    """Run the forward once and record what that cost: JIT, loading, allocation."""
    device.synchronize()
    entry = now_ns()
    slots = case.forward.guarded()
    device.synchronize()
    wall_us = (now_ns() - entry) / 1e3
    del slots
    case.passes.append(PassResult("first", (Sample(span_us=wall_us, wall_us=wall_us),)))


def try_out(
    case: Case,
    reference: Solution | Reference,
    device: CudaDevice | CpuDevice,
    settings: Settings,
) -> None:
    """The first call and the verdict; a wrong result leaves the case without samples."""
    known = reference if isinstance(reference, Reference) else Reference(reference)
    try:
        first_call(case, device)
        output = check(case, known, settings)
        if case.correctness.passed:
            check_again(case, known, output, settings)
    except WrongResult as error:
        case.correctness = failed(str(error))
    except RuntimeError as error:
        if not _is_fault(error):
            raise
        case.correctness = failed(_fault(case.forward, error))
    if not case.correctness.passed:
        case.passes.clear()


def check(case: Case, known: Reference, settings: Settings) -> Any:
    """Judge the solution on poisoned memory and note the work it executed; its output.

    Fresh memory is filled with NaN for this call and the destination is poisoned, so that an
    unwritten row cannot pass by holding an earlier result; inputs must be unchanged after it.
    """
    case.given["output"].fill_(float("nan"))
    keep = case.forward.solution.keeps_buffers
    with poisoned_memory():
        given = {**case.given, "buffers": Buffers(keep)}
        forward = Forward(case.forward.solution, given)
        slots = forward.guarded()
        _finish(forward)
    tensors = forward.named(slots)
    problem = _strayed(case) or memory_problem(tensors["output"], case.given)
    if problem is not None:
        case.correctness = failed(problem)
        return None
    wanted = known.tensors(case)
    verdict = judge(tensors["output"], wanted["output"].float(), settings)
    if verdict.problem is None or verdict.relative_l2 < 1.0:
        stages = judge_stages(
            case.forward.solution,
            tensors,
            wanted,
            case.workload.local_expert_offset,
            settings.max_relative_l2,
        )
        verdict = replace(verdict, stages=stages)
    case.correctness = _with_stage_verdict(verdict)
    case.stages = tuple(_stage_info(stage, tensors, case) for stage in case.forward.solution.stages)
    return tensors["output"]


def check_again(case: Case, known: Reference, first: Any, settings: Settings) -> None:
    """Judge the forward that is measured on changed inputs at the same addresses: see ``changed``.

    first: its output on the inputs as they are, alive, so that a second one in the same memory is
    seen. A solution with kept buffers may return one; any other must not write over its last one.
    """
    kept = first.clone()
    change = known.change(case)
    with changed(case.given, change):
        second = _called(case)
        verdict = judge(second, known.on_change(case).float(), settings)
    problem = _strayed(case)
    if problem is None and not verdict.passed:
        problem = f"after its inputs changed in place: {verdict.problem}"
        if isinstance(second, torch.Tensor) and same_bits(second, kept):
            problem = "the solution returns the result of an earlier call, whatever its inputs hold"
    if problem is None and _returns_kept(case, first, second):
        problem = "the solution returns the same memory at every call: the last result is lost"
    if problem is not None:
        case.correctness = failed(problem)
        return
    case.remembered = (change, second.clone())


def still_right(case: Case, settings: Settings) -> None:
    """After the clocks: the forward still computes. What fails has its samples taken away.

    A solution may begin to remember results only after some calls. It is compared with its own
    output on the changed inputs, which was right before.
    """
    if case.remembered is None or not case.correctness.passed:
        return
    change, expected = case.remembered
    case.remembered = None
    problem = None
    try:
        with changed(case.given, change):
            output = _called(case)
            verdict = judge(output, expected.float(), settings)
        if not verdict.passed:
            problem = f"after the measurement its result is wrong: {verdict.problem}"
        problem = _strayed(case) or problem
    except WrongResult as error:
        problem = f"after the measurement: {error}"
    except RuntimeError as error:
        if not _is_fault(error):
            raise
        problem = _fault(case.forward, error)
    if problem is not None:
        case.correctness = failed(problem)
        case.passes.clear()
        case.timelines.clear()


def _called(case: Case) -> Any:
    """The output of one call of the measured forward into poisoned memory."""
    case.given["output"].fill_(float("nan"))
    slots = case.forward.guarded()
    _finish(case.forward)
    return case.forward.output(slots)


def _strayed(case: Case) -> str | None:
    """What the solution has written that it must not: beside its output, or an input."""
    outside = case.guards.problem()
    if outside is not None:
        case.guards.mend()
        return outside
    changed_ones = changed_inputs(case.untouched, case.given)
    return f"the solution changed its input {', '.join(changed_ones)}" if changed_ones else None


def _returns_kept(case: Case, first: Any, second: Any) -> bool:
    """Whether a solution that allocates its output gives the same memory out twice."""
    solution = case.forward.solution
    fills = any("output" in stage.reads for stage in solution.stages)
    return not fills and not solution.keeps_buffers and same_memory(first, second)


def _with_stage_verdict(verdict: Correctness) -> Correctness:
    """A right output with a wrong stage is a wrong result: errors cancelled by luck."""
    wrong = next((stage for stage in verdict.stages if not stage.passed), None)
    if wrong is None or verdict.problem is not None:
        return verdict
    problem = f"{wrong.tensor} of stage {wrong.stage} is off by relative L2 {wrong.relative_l2:.3g}"
    return replace(verdict, passed=False, problem=problem)


def _finish(forward: Forward) -> None:
    """Surface asynchronous errors here, where they are still the solution's."""
    if torch.cuda.is_available():
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            raise WrongResult(_fault(forward, error)) from error


def _is_fault(error: RuntimeError) -> bool:
    """Whether torch says that a kernel failed: from then on every call of the process does."""
    return type(error).__name__ == "AcceleratorError" or str(error).startswith("CUDA error")


def _fault(forward: Forward, error: RuntimeError) -> str:
    return f"{forward.solution.name} made the GPU fault: {str(error).splitlines()[0]}"


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill every tensor that torch allocates uninitialised: NaN, or the largest integer."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # non-deterministic ops are allowed here
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


def unmeasured(stage: Any) -> StageInfo:
    """What a stage says of itself."""
    return StageInfo(
        name=stage.name,
        covers=tuple(str(step) for step in stage.covers),
        backend=stage.backend,
        reads=stage.reads,
        writes=stage.writes,
    )


def _stage_info(stage: Any, tensors: Mapping[str, Any], case: Case) -> StageInfo:
    constants = {name: value for name, value in case.given.items() if type(value) is int}
    work = executed_work(stage, tensors, constants, case.routing)
    library = stage.library
    return replace(
        unmeasured(stage),
        options=dict(stage.options),
        why=stage.why,
        library=None if library is None else f"{library.name} {library.version or ''}".strip(),
        stand_in=None if library is None else library.stand_in,
        kernel_rules=tuple((rule.pattern, rule.steps) for rule in stage.kernel_rules),
        rows_executed=work.rows,
        rows_declared=work.rows_declared,
        bytes_read=work.bytes_read,
        bytes_written=work.bytes_written,
        flops=work.flops,
        rows_per_expert=work.rows_per_expert,
    )
