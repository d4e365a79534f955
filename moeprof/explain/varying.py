"""Measures both solutions on other routings, ranks and numbers of tokens: few iterations each."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from moeprof.analysis.attribution import profile as profile_of
from moeprof.contract import Buffers, Solution
from moeprof.errors import MoeprofError
from moeprof.interventions.sensitivity import SensitivityRow, Variation, variations
from moeprof.measure.execute import Progress
from moeprof.measure.passes import CUPTI_PASSES, Passes
from moeprof.measure.plan import Inputs, Problems
from moeprof.measure.record import as_run
from moeprof.measure.workbench import Case, try_out
from moeprof.records import RoutingIdentity
from moeprof.solutions.catalog import LoadedSolution

ITERATIONS = 5
STEPS_A_VARIATION = 3  # of the progress bar, at most


@dataclass(slots=True)
class Varied:
    """A solution on one variation of the workload, and what became of it."""

    loaded: LoadedSolution
    variation: Variation
    routing: RoutingIdentity | None = None
    case: Case | None = None
    failure: str = ""
    busy_us: dict[str, float] = field(default_factory=dict)


class Varying:
    """Every variation of a plan's workload for some solutions; none of them, nothing to do."""

    def __init__(self, plan: Problems, solutions: Sequence[LoadedSolution]) -> None:
        self._plan = plan
        settings = plan.settings
        brief = replace(settings, iterations=min(ITERATIONS, settings.iterations))
        self._brief = brief
        self._passes: Passes | None = Passes(brief, plan.device) if solutions else None
        self._varied = [
            Varied(loaded, variation)
            for loaded in solutions
            for variation in variations(
                plan.definition, plan.workloads[0], plan.routing, plan.dataset
            )
        ]

    @property
    def count(self) -> int:
        return len(self._varied)

    def measure_spans(self, inputs: Inputs, reference: Solution, progress: Progress) -> None:
        """Checks and bare samples. Buffers are shared between variations, as ``run`` does."""
        buffers = {
            one.loaded.solution.name: Buffers(one.loaded.solution.keeps_buffers)
            for one in self._varied
        }
        for one in self._varied:
            assert self._passes is not None
            solution, variation = one.loaded.solution, one.variation
            progress.step(f"{variation.varied} {solution.name}")
            try:
                problem = inputs.problem(variation.workload, variation.routing)
                one.routing = problem.routing
                case = problem.case(solution, buffers[solution.name])
            except MoeprofError as error:
                one.failure = str(error)
                continue
            try_out(case, reference, self._passes.device, self._brief)
            if case.correctness.passed:
                one.case = case
                self._passes.measure("bare", case)
            else:
                one.failure = f"the result is wrong: {case.correctness.problem}"

    def measure_stages(self, attached: Passes, progress: Progress) -> None:
        """Busy time by row, on a GPU under CUPTI. attached: passes that have calibrated it."""
        names = CUPTI_PASSES if self._plan.device == "cuda" else ("stages",)
        for one in self._varied:
            if one.case is None or self._passes is None:
                continue
            self._passes.calibration, self._passes.cupti = attached.calibration, attached.cupti
            for name in names:
                progress.step(f"{name} {one.loaded.solution.name}")
                self._passes.measure(name, one.case)
            run = as_run(self._plan, one.loaded, one.case, self._passes, 0)
            one.busy_us = {row.name: row.busy_ns / 1e3 for row in profile_of(run).stages}
            one.case.timelines.clear()

    def rows(self) -> tuple[SensitivityRow, ...]:
        """What was found, by solution and variation."""
        return tuple(_row(one) for one in self._varied)


def _row(one: Varied) -> SensitivityRow:
    routing, workload = one.routing, one.variation.workload
    results = one.case.passes if one.case else []
    spans_us = [s.span_us for result in results if result.name == "bare" for s in result.samples]
    return SensitivityRow(
        solution=one.loaded.solution.name,
        varied=one.variation.varied,
        routing=routing.label if routing else one.variation.routing,
        num_tokens=workload.seq_len,
        local_expert_offset=workload.local_expert_offset,
        local_pairs=routing.local_pairs if routing else 0,
        active_experts=routing.active_experts if routing else 0,
        busiest_expert=max(routing.tokens_per_expert) if routing else 0,
        span_us=statistics.median(spans_us) if spans_us else None,
        busy_us=one.busy_us or None,
        problem=one.failure,
    )
