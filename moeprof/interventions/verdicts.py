"""Predicted beside measured: whether an intervention proves what a profile says.

A prediction holds if it misses the measured change by at most max(3 us, 10 % of the larger). Where
both are below the noise of the measurement there is nothing to prove; on a CPU nothing is judged,
since its timings say nothing about a GPU. A bar of the waterfall is proven by the interventions
that address it, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from moeprof.compare.comparison import Bar, Cause, Comparison, Part
from moeprof.interventions.interventions import Intervention, Kind
from moeprof.interventions.predictions import Prediction
from moeprof.interventions.sensitivity import SensitivityRow

TOLERANCE_US, TOLERANCE_FRACTION = 3.0, 0.10
HOST_CAUSES = (Cause.ORCHESTRATION, Cause.LAUNCH_LATENCY)


class Verdict(StrEnum):
    """What came of an intervention, or of a bar."""

    PROVEN = "proven"
    UNPROVEN = "unproven"
    NO_EFFECT = "no effect seen"
    NOT_JUDGED = "not judged on a CPU"
    REPORTED = "reported"
    IMPOSSIBLE = "impossible"
    FAILED = "failed"
    NOT_TESTED = "not tested"
    SAME_STAGE = "same stage"


@dataclass(frozen=True, slots=True)
class Measurement:
    """The measured change of the bare span, us, and half the 95 % interval of that difference.

    problem: why there is none. remark: what the variant's output was beside the base's.
    """

    change_us: float | None = None
    noise_us: float = 0.0
    base_us: float | None = None
    problem: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One intervention with its prediction, measurement and verdict."""

    intervention: Intervention
    prediction: Prediction | None
    measurement: Measurement
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True, slots=True)
class BarVerdict:
    """A bar of the waterfall and the interventions that address it."""

    bar: Bar
    verdict: Verdict
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """A comparison with the interventions that test it. before is the solution that was changed.

    reasons: what stands against comparing the two sides. sensitivity: empty unless asked for.
    """

    comparison: Comparison
    outcomes: tuple[Outcome, ...]
    sensitivity: tuple[SensitivityRow, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def bars(self) -> tuple[BarVerdict, ...]:
        """Every bar of the waterfall with what the interventions say about it."""
        return bar_verdicts(self.comparison, self.outcomes)


def judge(
    intervention: Intervention,
    prediction: Prediction | None,
    measurement: Measurement,
    device_kind: str,
) -> Outcome:
    """The verdict on one intervention, with its reason where it is not plain from the figures."""

    def outcome(verdict: Verdict, why: str = "") -> Outcome:
        return Outcome(intervention, prediction, measurement, verdict, why)

    if intervention.impossible:
        return outcome(Verdict.IMPOSSIBLE, intervention.impossible)
    if measurement.change_us is None:
        return outcome(Verdict.FAILED, measurement.problem or "it was not measured")
    if intervention.kind == Kind.FIRST_CALL:
        return outcome(Verdict.REPORTED)
    if device_kind == "cpu":
        return outcome(Verdict.NOT_JUDGED)
    if prediction is None or prediction.change_us is None:
        return outcome(Verdict.UNPROVEN, prediction.how if prediction else "nothing was predicted")
    return outcome(*_verdict(prediction.change_us, measurement.change_us, measurement.noise_us))


def _verdict(predicted_us: float, measured_us: float, noise_us: float) -> tuple[Verdict, str]:
    if abs(measured_us) <= noise_us and abs(predicted_us) <= noise_us:
        return Verdict.NO_EFFECT, ""
    miss_us = abs(predicted_us - measured_us)
    if miss_us <= tolerance_us(predicted_us, measured_us):
        return Verdict.PROVEN, ""
    covered = miss_us <= noise_us + tolerance_us(predicted_us, measured_us)
    why = f"the prediction misses by {miss_us:,.1f} us"
    return Verdict.UNPROVEN, f"{why}, which the noise would cover" if covered else why


def tolerance_us(predicted_us: float, measured_us: float) -> float:
    """How far a prediction may miss."""
    larger = max(abs(predicted_us), abs(measured_us))
    return max(TOLERANCE_US, TOLERANCE_FRACTION * larger)


def bar_verdicts(comparison: Comparison, outcomes: Sequence[Outcome]) -> tuple[BarVerdict, ...]:
    """Every bar of the waterfall, in its order, with what the interventions say about it."""
    parts: Mapping[str, Part] = {part.name: part for part in comparison.parts}
    covers = {
        (side.run.solution.name, stage.name): set(stage.covers)
        for side in (comparison.before, comparison.after)
        for stage in side.run.solution.stages
    }
    found = []
    for bar in comparison.bars:
        part = parts[bar.part]
        addressing = [o for o in outcomes if _addresses(o.intervention, bar, part, covers)]
        verdict = _bar_verdict(bar, addressing)
        if verdict.verdict == Verdict.NOT_TESTED and _same_stage(comparison, part):
            verdict = BarVerdict(bar, Verdict.SAME_STAGE)
        found.append(verdict)
    return tuple(found)


def _same_stage(comparison: Comparison, part: Part) -> bool:
    """Whether both sides run one stage with one set of options there: nothing to exchange."""
    stages = [
        [(s.backend, dict(s.options)) for s in side.run.solution.stages if s.covers == part.steps]
        for side in (comparison.before, comparison.after)
    ]
    return bool(part.steps) and len(stages[0]) == 1 and stages[0] == stages[1]


def _bar_verdict(bar: Bar, addressing: Sequence[Outcome]) -> BarVerdict:
    """Unproven if one of them is, else proven if one is; an impossible one proves nothing."""
    verdicts = [outcome.verdict for outcome in addressing]
    for verdict in (Verdict.UNPROVEN, Verdict.PROVEN, Verdict.NO_EFFECT, Verdict.NOT_JUDGED):
        if verdict in verdicts:
            by = tuple(o.intervention.name for o in addressing if o.verdict == verdict)
            return BarVerdict(bar, verdict, by)
    return BarVerdict(bar, Verdict.NOT_TESTED, tuple(o.intervention.name for o in addressing))


def _addresses(
    intervention: Intervention, bar: Bar, part: Part, covers: Mapping[tuple[str, str], set[str]]
) -> bool:
    """Whether what ``intervention`` changes is what ``bar`` charges.

    covers: the steps of each stage by its solution and name.
    """
    if intervention.kind == Kind.GRAPH:
        return bar.cause in HOST_CAUSES
    local_only = intervention.kind == Kind.LOCAL_ONLY
    reached = {*intervention.stages, *(intervention.bounded_stages if local_only else ())}
    own = [covers.get((intervention.solution, stage), set()) for stage in reached]
    steps = set().union(*own)
    touched = bool(steps & set(part.steps))
    more_rows = (part.before.rows or 0) > (part.after.rows or 0)
    if local_only:
        return touched and more_rows and bar.cause == Cause.AMPLIFICATION
    if intervention.kind == Kind.SWAP and steps == set(part.steps):
        # of two backends with as many rows one may still move more bytes
        return bar.cause not in HOST_CAUSES and not (more_rows and bar.cause == Cause.AMPLIFICATION)
    return False
