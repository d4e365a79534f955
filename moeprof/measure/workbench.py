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
from moeprof.measure.forward import Forward
from moeprof.measure.inputs import changed_inputs
from moeprof.measure.numerics import failed, judge, judge_stages
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

    untouched: the inputs' fingerprints from before the solution was ever called.
    """

    workload: Workload
    routing: RoutingIdentity
    given: Mapping[str, Any]
    forward: Forward
    untouched: Mapping[str, torch.Tensor]
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
        own = buffers or Buffers(solution.keeps_buffers)
        given = given_tensors(self.definition, self.workload, self.inputs, own)
        return Case(self.workload, self.routing, given, Forward(solution, given), self.untouched)


def given_tensors(
    definition: Definition, workload: Workload, inputs: Mapping[str, Any], buffers: Buffers
) -> dict[str, Any]:
    """Everything a solution's first stage may ask for. ``output`` is poisoned with NaN."""
    spec = definition.outputs[0]
    output = torch.full(
        definition.shape_of(spec, workload.seq_len),
        float("nan"),
        dtype=torch.bfloat16,
        device=inputs["hidden_states"].device,
    )
    return {
        **definition.constants,
        "seq_len": workload.seq_len,
        **inputs,
        "output": output,
        "buffers": buffers,
    }


def first_call(case: Case, device: CudaDevice | CpuDevice) -> None:
    """Run the forward once and record what that cost: JIT, loading, allocation."""
    device.synchronize()
    entry = now_ns()
    slots = case.forward.guarded()
    device.synchronize()
    wall_us = (now_ns() - entry) / 1e3
    del slots
    case.passes.append(PassResult("first", (Sample(span_us=wall_us, wall_us=wall_us),)))


class Reference:
    """What the reference makes of the inputs of one workload, computed once for all solutions.

    Only the last workload's tensors are held: try the solutions out workload by workload.
    """

    def __init__(self, solution: Solution) -> None:
        self._solution = solution
        self._inputs: Mapping[str, torch.Tensor] | None = None  # of whose inputs they are
        self._tensors: Mapping[str, Any] = {}

    def tensors(self, case: Case) -> Mapping[str, Any]:
        """Every tensor of the reference on the inputs of ``case``, by name; not to be changed."""
        if self._inputs is not case.untouched:
            self.forget()
            given = {**case.given, "output": torch.empty_like(case.given["output"])}
            forward = Forward(self._solution, given)
            self._tensors = forward.named(forward())
            self._inputs = case.untouched
        return self._tensors

    def forget(self) -> None:
        """Free the tensors: 2 GB at T=14107."""
        self._inputs, self._tensors = None, {}


def try_out(
    case: Case,
    reference: Solution | Reference,
    device: CudaDevice | CpuDevice,
    settings: Settings,
) -> None:
    """The first call and the verdict; a wrong result leaves the case without samples."""
    try:
        first_call(case, device)
        check(case, reference, settings)
    except WrongResult as error:
        case.correctness = failed(str(error))
    if not case.correctness.passed:
        case.passes.clear()


def check(case: Case, reference: Solution | Reference, settings: Settings) -> None:
    """Judge the solution on poisoned memory and note the work it executed.

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
    changed = changed_inputs(case.untouched, case.given)
    if changed:
        case.correctness = failed(f"the solution changed its input {', '.join(changed)}")
        return
    known = reference if isinstance(reference, Reference) else Reference(reference)
    wanted = known.tensors(case)
    tensors = forward.named(slots)
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
            raise WrongResult(
                f"{forward.solution.name} made the GPU fault: {str(error).splitlines()[0]}"
            ) from error


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


def _stage_info(stage: Any, tensors: Mapping[str, Any], case: Case) -> StageInfo:
    constants = {name: value for name, value in case.given.items() if type(value) is int}
    work = executed_work(stage, tensors, constants, case.routing)
    library = stage.library
    return StageInfo(
        name=stage.name,
        covers=tuple(str(step) for step in stage.covers),
        backend=stage.backend,
        reads=stage.reads,
        writes=stage.writes,
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
