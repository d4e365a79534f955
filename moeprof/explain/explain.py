"""Two solutions and their variants on one workload, in one process: the figures of ``explain``.

Everything shares the inputs. The bare pass goes round: A, B, first variant, second variant, ...,
ten samples each a turn, so that a drift of clocks or host falls on all alike. What the variants
must take is predicted from A's and B's profiles, whose CUPTI passes come last: an attached profiler
slows the process. Every variant is checked against the reference before it is timed.

One process is one sample of the host's mood: the noise shown is that of this process alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from moeprof.analysis.attribution import profile as profile_of
from moeprof.analysis.noise import difference_by_turn, median_noise
from moeprof.analysis.reconstruct import reconstruct
from moeprof.compare.comparable import reasons, told
from moeprof.compare.compare import compare
from moeprof.compare.comparison import Comparison, Explained
from moeprof.errors import ContractError, WrongResult
from moeprof.explain.host_costs import host_change_us
from moeprof.explain.varying import STEPS_A_VARIATION, Varying
from moeprof.interventions.interventions import Intervention, Kind, plan_interventions
from moeprof.interventions.predictions import Evidence, predict_change
from moeprof.interventions.verdicts import Explanation, Measurement, judge
from moeprof.measure.execute import (
    Progress,
    out_of_memory_named,
    refuse_missing_cupti,
    refuse_stand_ins,
)
from moeprof.measure.passes import Passes
from moeprof.measure.plan import Inputs, Plan
from moeprof.measure.record import as_run
from moeprof.measure.workbench import Case, still_right, try_out
from moeprof.records import CPU_PASSES, PASSES, Run, Sample
from moeprof.solutions.catalog import LoadedSolution, load_solution

# fewer make the switch itself dear: with one warm-up and two samples a turn, the first forward
# after a switch ran up to twice as long as the second (seen at T=1 on an H200)
SAMPLES_A_TURN = 10
# an event pair a stage is a cross-check of single records; interventions have others
EXPLAIN_PASSES = {"cuda": tuple(name for name in PASSES if name != "events"), "cpu": CPU_PASSES}


@dataclass(frozen=True)
class ExplainPlan:
    """What to explain: ``run`` is that of the first solution and has one workload."""

    run: Plan
    other: LoadedSolution
    sensitivity: bool = False


@dataclass(slots=True)
class Contender:
    """A variant under measurement, or why it cannot be one."""

    intervention: Intervention
    case: Case | None = None
    problem: str = ""
    remark: str = ""


def explain(plan: ExplainPlan, progress: Progress, on_run: Callable[[Run], None]) -> Explanation:
    """Measure both solutions and every variant; ``on_run`` gets the records of the two.

    Raises WrongResult if one of the two is wrong, EnvironmentMissing, ResourceExhausted.
    """
    for loaded in (plan.run.loaded, plan.other):
        refuse_stand_ins(loaded, plan.run.device)
    refuse_missing_cupti(plan.run.settings.passes, plan.run.device)
    with out_of_memory_named():
        try:
            return Explaining(plan, progress, on_run).run()
        finally:
            progress.finish()


class Explaining:
    """The state of one ``explain``: the inputs, and the clocks in turn and one after another."""

    def __init__(
        self, plan: ExplainPlan, progress: Progress, on_run: Callable[[Run], None]
    ) -> None:
        self.plan = plan
        self.progress = progress
        self.on_run = on_run
        settings, device = plan.run.settings, plan.run.device
        self.settings = settings
        self.passes = Passes(settings, device)
        even = max(2, settings.iterations // 2 * 2)  # as many plain samples as stamped ones
        samples = min(SAMPLES_A_TURN, even)
        short = replace(settings, iterations=samples)
        self.in_turn = Passes(short, device)
        self.turns = math.ceil(settings.iterations * settings.trials / short.iterations)
        self.reference = load_solution("reference", device).solution
        self.inputs = Inputs(plan.run)
        self.problem = self.inputs.problem(plan.run.workloads[0], plan.run.routing)

    def run(self) -> Explanation:
        """Every step in order; whatever disturbs the host comes last."""
        loaded = (self.plan.run.loaded, self.plan.other)
        base, other = (self.problem.case(one.solution) for one in loaded)
        contenders = [Contender(found) for found in self.interventions(base)]
        varying = Varying(self.plan.run, loaded if self.plan.sensitivity else ())
        after_bare = self.settings.passes[self.settings.passes.index("bare") + 1 :]
        variants = sum(one.intervention.variant is not None for one in contenders)
        self.progress.start(
            (2 + variants) * (1 + self.turns)
            + 2 * len(after_bare)
            + STEPS_A_VARIATION * varying.count
        )
        self.check_both(base, other)
        self.check_variants((base, other), contenders)
        cases = [base, other, *(one.case for one in contenders if one.case is not None)]
        self.passes.settle(cases)
        self.interleave(cases)
        host_us = {
            one.intervention.name: found
            for one in contenders
            if one.case is not None
            and (found := host_change_us(one.intervention, base, self.passes.device)) is not None
        }
        varying.measure_spans(self.inputs, self.reference, self.progress)
        for name in after_bare:
            for case in (base, other):
                self.progress.step(f"{name} {case.forward.solution.name}")
                self.passes.measure(name, case)
        varying.measure_stages(self.passes, self.progress)
        for case in (base, other):
            still_right(case, self.settings)
            self.require_right(case)
        runs = [
            as_run(self.plan.run, one, case, self.passes, position)
            for position, (one, case) in enumerate(zip(loaded, (base, other), strict=True))
        ]
        for run in runs:
            self.on_run(run)
        explanation = self.judged(runs, contenders, host_us)
        return replace(explanation, sensitivity=varying.rows())

    # -- before the clocks ----------------------------------------------------------------

    def interventions(self, base: Case) -> tuple[Intervention, ...]:
        """What to try, from the solutions alone."""
        return plan_interventions(
            self.plan.run.loaded.solution,
            self.plan.other.solution,
            tuple(base.given),
            self.problem.routing.local_pairs,
            self.plan.run.device,
        )

    def check_both(self, base: Case, other: Case) -> None:
        """First calls and verdicts of the two; there is nothing to explain about a wrong result."""
        for case in (base, other):
            self.try_out(case)
            self.require_right(case)

    def require_right(self, case: Case) -> None:
        """Raise WrongResult unless the verdict on ``case`` is good."""
        if not case.correctness.passed:
            name = case.forward.solution.name
            raise WrongResult(
                f"the result of {name} is wrong: {case.correctness.problem}",
                do=f"moeprof run --solution {name} shows more",
            )

    def check_variants(self, sides: Sequence[Case], contenders: Sequence[Contender]) -> None:
        """First calls and verdicts of the variants; one that is wrong is shown and not timed."""
        unchanged = {case.forward.solution.name: case for case in sides}
        for one in contenders:
            variant = one.intervention.variant
            if variant is None:
                continue
            try:
                case = self.problem.case(variant)
            except ContractError as error:
                one.problem = str(error)
                continue
            self.try_out(case)
            if case.correctness.passed:
                one.case, one.remark = case, _remark(unchanged[variant.name], case)
            else:
                one.problem = f"the variant's result is wrong: {case.correctness.problem}"

    def try_out(self, case: Case) -> None:
        self.progress.step(f"first {case.forward.solution.name}")
        try_out(case, self.reference, self.passes.device, self.settings)

    # -- the clocks -----------------------------------------------------------------------

    def interleave(self, cases: Sequence[Case]) -> None:
        """The bare pass of all in turn; every second sample is stamped."""
        for turn in range(self.turns):
            for case in cases:
                self.progress.step(f"turn {turn + 1} of {self.turns}")
                self.in_turn.measure("bare", case, turn)

    # -- after the clocks -----------------------------------------------------------------

    def judged(
        self,
        runs: Sequence[Run],
        contenders: Sequence[Contender],
        host_us: Mapping[str, Mapping[str, float]],
    ) -> Explanation:
        """Predictions from the profiles, then each beside what was measured."""
        found = [reconstruct(run) for run in runs]
        labels = (runs[0].solution.name, runs[1].solution.name)
        before, after = (
            Explained(run, profile_of(run, reconstruction), label)
            for run, reconstruction, label in zip(runs, found, labels, strict=True)
        )
        comparison = compare(before, after)
        evidence = Evidence(
            before=before,
            after=after,
            reconstructions=dict(zip(labels, found, strict=True)),
            ceilings=comparison.ceilings,
            host_us=host_us,
        )
        outcomes = []
        for one in contenders:
            possible = not one.intervention.impossible and not one.problem
            prediction = predict_change(one.intervention, evidence) if possible else None
            measurement = _measurement(one, comparison)
            outcomes.append(judge(one.intervention, prediction, measurement, self.plan.run.device))
        against = told(reasons(runs[0], runs[1], labels))
        return Explanation(comparison, tuple(outcomes), reasons=against)


def _remark(base: Case, variant: Case) -> str:
    """How the variant's output differs from the base's."""
    want, got = (case.forward.output(case.forward()).clone() for case in (base, variant))
    if torch.equal(want.view(torch.int16), got.view(torch.int16)):
        return "same output, bit for bit"
    distance = (got.float() - want.float()).norm() / want.float().norm().clamp_min(1e-30)
    return f"output differs by relative L2 {float(distance):.1e}"


def _measurement(one: Contender, comparison: Comparison) -> Measurement:
    """The difference of medians that the intervention made."""
    intervention = one.intervention
    if intervention.impossible:
        return Measurement()
    sides = (comparison.before, comparison.after)
    side = next(s for s in sides if s.run.solution.name == intervention.solution)
    if intervention.kind == Kind.FIRST_CALL:
        walls_us = [sample.wall_us for sample in side.run.samples("bare")]
        return _difference([side.run.samples("first")[0].wall_us], walls_us)
    if intervention.kind == Kind.GRAPH:
        replays_us = [sample.span_us for sample in side.run.samples("graph")]
        why = next((p.unavailable for p in side.run.passes if p.name == "graph"), None)
        return _difference(replays_us, side.bare_us, why or "the graph pass did not run")
    if one.case is None:
        return Measurement(problem=one.problem)
    own = [sample for p in one.case.passes if p.name == "bare" for sample in p.samples]
    found = _difference([sample.span_us for sample in own], side.bare_us)
    paired = difference_by_turn(_by_turn(side.run.samples("bare")), _by_turn(own))
    if paired is not None:
        change_us, noise_us = paired
        found = replace(found, change_us=change_us, noise_us=noise_us)
    return replace(found, remark=one.remark)


def _by_turn(samples: Sequence[Sample]) -> dict[int, list[float]]:
    turns: dict[int, list[float]] = {}
    for sample in samples:
        turns.setdefault(sample.trial, []).append(sample.span_us)
    return turns


def _difference(
    changed_us: Sequence[float], base_us: Sequence[float], missing: str = ""
) -> Measurement:
    if not changed_us or not base_us:
        return Measurement(problem=missing or "there are no samples")
    base = statistics.median(base_us)
    noise_us = math.hypot(median_noise(changed_us), median_noise(base_us))
    return Measurement(statistics.median(changed_us) - base, noise_us, base)
