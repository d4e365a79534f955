"""What an intervention should change, from the two profiles, before anyone looks at what it did.

    graph replay       the host's orchestration and the launch latency, less the gaps a graph leaves
    local pairs only   each row's operations shortened to best(needed work) / best(executed work)
    other backend      the difference of that stage's busy time and gaps between the two profiles
    buffers, views,    what the replaced host code takes by itself (timed apart from the forward),
      workspace        as far as the GPU waits for the host

A first call is reported and not predicted. Left out: launches that a variant makes in addition (the
repair of the clamp fills two tensors), and what one stage's new row order or layout does to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moeprof.analysis.profiles import Reading
from moeprof.analysis.reconstruct import Reconstruction
from moeprof.analysis.rows import Row
from moeprof.compare.compare import best_time
from moeprof.compare.comparison import Explained
from moeprof.compare.partition import profile_rows
from moeprof.interventions.interventions import Intervention, Kind
from moeprof.interventions.what_if import Change, how, span_change_us
from moeprof.ledger.ledger import Ceilings, work_rows
from moeprof.ledger.necessary import ROW_STEPS

BOUNDED_STEPS = (*ROW_STEPS, "gather")  # what runs fewer rows where fewer pairs are kept


@dataclass(frozen=True, slots=True)
class Prediction:
    """change_us: negative where the forward should get faster; None where nothing is predicted.

    how: where the figure comes from, or why there is none.
    """

    change_us: float | None
    how: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What predictions are made of. host_us: for an intervention's name, by stage, what the
    replaced host code takes less (negative) or more, timed apart from the forward."""

    before: Explained
    after: Explained
    reconstructions: Mapping[str, Reconstruction]  # by label
    ceilings: Ceilings
    host_us: Mapping[str, Mapping[str, float]]

    def side(self, solution: str) -> Explained:
        return self.before if self.before.run.solution.name == solution else self.after


def predict_change(intervention: Intervention, evidence: Evidence) -> Prediction:
    """The predicted change of the bare span of the intervention's solution."""
    if intervention.kind == Kind.FIRST_CALL:
        return Prediction(None, "reported, not predicted")
    if intervention.kind == Kind.GRAPH:
        return _graph(evidence.side(intervention.solution))
    if intervention.kind == Kind.LOCAL_ONLY:
        return _local_only(intervention, evidence)
    if intervention.kind == Kind.SWAP:
        return _swap(intervention, evidence)
    return _host(intervention, evidence)


def _graph(side: Explained) -> Prediction:
    readings = {reading.name: reading for reading in side.profile.trust.readings}
    timeline, graph = readings["timeline"], readings["bare - graph"]
    if timeline.value_us is None:
        return Prediction(None, timeline.why or "there is no timeline")
    removed_us = timeline.value_us + graph.corrected_us
    return Prediction(-removed_us, _graph_how(timeline, graph))


def _graph_how(timeline: Reading, graph: Reading) -> str:
    return (
        f"orchestration of the timeline {timeline.value_us:,.1f} us and launch latency beyond a "
        f"graph's own gaps {graph.corrected_us:,.1f} us"
    )


def _local_only(intervention: Intervention, evidence: Evidence) -> Prediction:
    side = evidence.side(intervention.solution)
    factors = needed_shares(intervention, side, evidence.ceilings)
    if not factors:
        return Prediction(None, "no row of the stages it changes has known work")
    reconstruction = evidence.reconstructions[side.label]
    change_us = span_change_us(side, reconstruction, Change(durations=factors))
    parts = ", ".join(f"{row} x {factor:.2f}" for row, factor in factors.items())
    return Prediction(change_us, f"busy time {parts}; {how(reconstruction)}")


def needed_shares(
    intervention: Intervention, side: Explained, ceilings: Ceilings
) -> dict[str, float]:
    """By row, the best time of the needed work over that of the executed work, at most 1.

    Rows of stages that run a bounded number of rows in the variant; others copy what they did.
    """
    bounded = intervention.bounded_stages
    found: dict[str, float] = {}
    for line in work_rows(side.run, side.profile):
        if line.name not in bounded or not set(line.covers) & set(BOUNDED_STEPS):
            continue
        needed, executed = (best_time(w, ceilings) for w in (line.necessary, line.executed))
        if needed is not None and executed is not None:
            found[line.name] = min(1.0, needed[0] / executed[0])
    return found


def _swap(intervention: Intervention, evidence: Evidence) -> Prediction:
    (stage,) = intervention.stages
    own = evidence.side(intervention.solution)
    other = evidence.after if own is evidence.before else evidence.before
    steps = _steps_of(stage, own)
    own_us, other_us = _stage_us(own, steps), _stage_us(other, steps)
    return Prediction(
        other_us - own_us,
        f"busy time and gaps of {stage}: {other_us:,.1f} us in {other.label} against "
        f"{own_us:,.1f} us",
    )


def _steps_of(stage: str, side: Explained) -> Sequence[str]:
    return next(s.covers for s in side.run.solution.stages if s.name == stage)


def _stage_us(side: Explained, steps: Sequence[str]) -> float:
    """Busy time and gaps of every row of the stage that covers exactly ``steps``."""
    rows: Sequence[Row] = profile_rows(side.run, side.profile)
    names = {row.name for row in rows if row.stage and tuple(row.stage.covers) == tuple(steps)}
    return sum(stage.time_ns for stage in side.profile.stages if stage.name in names) / 1e3


def _host(intervention: Intervention, evidence: Evidence) -> Prediction:
    side = evidence.side(intervention.solution)
    host_us = evidence.host_us.get(intervention.name)
    if host_us is None:
        return Prediction(None, "the replaced host code was not timed apart")
    reconstruction = evidence.reconstructions[side.label]
    change_us = span_change_us(side, reconstruction, Change(host_us=host_us))
    total_us = sum(host_us.values())
    return Prediction(
        change_us,
        f"the host code by itself takes {total_us:+,.1f} us; {how(reconstruction)}",
    )
