"""A finished case as the record of it."""

from __future__ import annotations

from datetime import UTC, datetime

from moeprof import __version__
from moeprof.analysis.named_steps import tell_steps
from moeprof.machine.environment import describe
from moeprof.measure.passes import Passes
from moeprof.measure.plan import Problems
from moeprof.measure.workbench import Case, unmeasured
from moeprof.records import Run, SolutionIdentity, WorkloadIdentity
from moeprof.solutions.catalog import LoadedSolution


def as_run(
    plan: Problems, loaded: LoadedSolution, case: Case, passes: Passes, position: int
) -> Run:
    """The record of one finished case of ``loaded``. position: how many came before it."""
    solution = loaded.solution
    stages = case.stages or tuple(unmeasured(stage) for stage in solution.stages)
    notes: tuple[str, ...] = ()
    if loaded.opaque:
        stages, notes = tell_steps(stages, case.timelines)
    return Run(
        moeprof=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        solution=SolutionIdentity(
            name=solution.name,
            source_hash=loaded.source_hash,
            stages=stages,
            keeps_buffers=solution.keeps_buffers,
            description=solution.description,
            author=loaded.author,
            fib_hash=loaded.fib_hash,
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
        warnings=(*case.warnings, *notes),
        position=position,
    )
