"""False alarms and power of a policy on hand-made noise, beside the rules of other tools.

Each check is played with nothing changed, with one stage's GPU time lengthened by 3 and 5 %, and
with one stage's host time lengthened by 20 us.
It is decided by ``decide``, the code that decides a real check, from the same summaries of the
same number of processes. Counted are

    alarms       checks without a change in which anything alerts, the forward included
    named        checks with a change in which that stage alerts and no other stage does
    second       checks without a change that ask for a second round, which is their cost
    undecided    checks without a change that end inconclusive

The other tools see the iterations of the first round, of one process a side and of all, and are
asked about stages only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moeprof.regression.decide import Decision, decide
from moeprof.regression.limits import limits_of
from moeprof.regression.noise_models import (
    BASELINE,
    CANDIDATE,
    LARGE,
    ROUNDS,
    STAGES,
    Played,
    Scenario,
    Shape,
    draw,
    ticked,
)
from moeprof.regression.paces import Measured, with_paces
from moeprof.regression.policy import Policy
from moeprof.regression.rivals import RIVALS, Rule
from moeprof.regression.sides import Flags
from moeprof.regression.statistics import Array, summarise
from moeprof.regression.values import FORWARD_MEASURES, Measure

OWN = "moeprof"
COUNT = len(STAGES)
ALL = range(COUNT)
_BUSY: tuple[Measure, ...] = ("busy",)
_HOST: tuple[Measure, ...] = ("host",)
MEASURES: tuple[Measure, ...] = (*_BUSY * COUNT, *_HOST * COUNT, *FORWARD_MEASURES)
ITERATIONS = 20  # of the default preset's CUPTI passes
SLOWDOWNS = (0.03, 0.05)
HOST_US = 20.0
QUEUED_GAP_US, LAUNCH_LATENCY_US, LEAVING_US = 1.1, 2.4, 20.0
BATCH = 500  # checks at once: 0.3 GB


@dataclass(frozen=True, slots=True)
class Rates:
    """What a rule did in one scenario: counts of ``checks``. named: for each slowdown of the GPU
    time of a stage, by stage; host_named: for a slower host, by stage. None: it was not asked."""

    rule: str
    checks: int
    alarms: int
    named: tuple[tuple[float, tuple[int, ...]], ...]
    host_named: tuple[int, ...] | None = None
    second: int | None = None
    undecided: int | None = None

    def named_at(self, slowdown: float, stages: Sequence[int] = ALL) -> float:
        """Part of the slowdowns named, over ``stages``."""
        counts = dict(self.named)[slowdown]
        return sum(counts[stage] for stage in stages) / (self.checks * len(stages))


@dataclass(frozen=True, slots=True)
class ScenarioRates:
    """One scenario: moeprof's rule first, then the others. known: it was told of the spread
    between sessions."""

    scenario: Scenario
    shape: Shape
    stored: bool
    known: bool
    rates: tuple[Rates, ...]


def simulate(
    scenario: Scenario,
    policy: Policy,
    checks: int,
    seed: int,
    shape: Shape = LARGE,
    stored: bool = False,
    known: bool = False,
    rivals: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> ScenarioRates:
    """Play ``checks`` checks of ``scenario`` and count.

    stored: the baseline is not measured again at the second round; its processes are then as many
    as both rounds' together. known: its noise between sessions is known to the rule.
    """
    totals: dict[str, Rates] = {}
    for number, size in enumerate(_batches(checks)):
        played = draw(scenario, shape, size, policy.processes, ITERATIONS, seed + number, stored)
        session = scenario.session if known else 0.0
        counted = [_own_rates(_Rule(policy, stored, session), played)]
        if rivals:
            counted += list(_rival_rates(played))
        for rates in counted:
            so_far = totals.get(rates.rule)
            totals[rates.rule] = rates if so_far is None else _added(so_far, rates)
        progress(size)
    return ScenarioRates(scenario, shape, stored, known, tuple(totals.values()))


def _batches(checks: int) -> Iterator[int]:
    while checks > 0:
        yield min(checks, BATCH)
        checks -= BATCH


def _added(one: Rates, other: Rates) -> Rates:
    named = tuple(
        (slowdown, tuple(a + b for a, b in zip(counts, dict(other.named)[slowdown], strict=True)))
        for slowdown, counts in one.named
    )
    return replace(
        one,
        checks=one.checks + other.checks,
        alarms=one.alarms + other.alarms,
        named=named,
        host_named=None
        if one.host_named is None or other.host_named is None
        else tuple(a + b for a, b in zip(one.host_named, other.host_named, strict=True)),
        second=None if one.second is None else one.second + (other.second or 0),
        undecided=None if one.undecided is None else one.undecided + (other.undecided or 0),
    )


# ---------------------------------------------------------------- moeprof's rule


@dataclass(frozen=True, slots=True)
class _Rule:
    """The policy and how the baseline is used."""

    policy: Policy
    stored: bool
    session: float


def _own_rates(rule: _Rule, played: Played) -> Rates:
    usual = _summaries(ticked(played.busy_us), played.host_us)
    first, last = _decided(rule, usual, played)
    alarm, _ = _alerts(first, last)
    asked = first.awaited.any(axis=-1)
    open_ = _open(first) & ~asked | _open(last) & asked

    def named(changed: Array, stage: int) -> int:
        _, stages = _alerts(*_decided(rule, changed, played))
        others = np.delete(stages, stage, axis=-1).any(axis=-1)
        return int((stages[:, stage] & ~others).sum())

    return Rates(
        rule=OWN,
        checks=len(alarm),
        alarms=int(alarm.sum()),
        named=tuple(
            (
                slowdown,
                tuple(named(_slower(usual, played, stage, slowdown), stage) for stage in ALL),
            )
            for slowdown in SLOWDOWNS
        ),
        host_named=tuple(named(_later(usual, played, stage), stage) for stage in ALL),
        second=int(asked.sum()),
        undecided=int((open_ & ~alarm).sum()),
    )


def _open(decision: Decision) -> Flags:
    """Checks in which a severe slowdown is neither told nor excluded, [N]."""
    settled = decision.same | decision.improved | decision.regressed | decision.cleared
    return np.asarray((~settled).any(axis=-1))


def _alerts(first: Decision, last: Decision) -> tuple[Flags, Flags]:
    """Whether anything alerts, [N], and which stages do by GPU or host time, [N, stage]."""
    asked = np.asarray(first.awaited.any(axis=-1))[:, None]
    told = np.where(asked, last.regressed, first.regressed)
    return np.asarray(told.any(axis=-1)), told[:, :COUNT] | told[:, COUNT : 2 * COUNT]


def _decided(rule: _Rule, summaries: Array, played: Played) -> tuple[Decision, Decision]:
    """After the first round, and after both. summaries: [N, side, round, Q, P]."""

    def measured(side: int, round_: int) -> Measured:
        return Measured(summaries[:, side, round_], played.sm_mhz[:, side, round_])

    def both(side: int) -> Measured:
        return Measured(
            np.concatenate([summaries[:, side, r] for r in range(ROUNDS)], axis=-1),
            np.concatenate([played.sm_mhz[:, side, r] for r in range(ROUNDS)], axis=-1),
        )

    start = both(BASELINE) if rule.stored else measured(BASELINE, 0)
    rounds = [
        (start, measured(CANDIDATE, 0)),
        (None if rule.stored else measured(BASELINE, 1), measured(CANDIDATE, 1)),
    ]
    typical_us = np.median(start.us, axis=-1)
    limits = limits_of(MEASURES, typical_us, rule.policy, session=rule.session)
    found = [
        decide(
            with_paces(MEASURES, rounds[:count]), limits, rule.policy, interleaved=not rule.stored
        )
        for count in (1, 2)
    ]
    return found[0], found[1]


def _summaries(busy_us: Array, host_us: Array) -> Array:
    """[N, side, round, Q, P] of iterations [N, side, round, P, stage, I]."""
    whole = _forward(busy_us, host_us)
    iterations = np.concatenate((busy_us, host_us, whole), axis=-2)
    typical_us = np.median(iterations, axis=(0, 1, 2, 3, 5))
    return np.moveaxis(summarise(iterations, typical_us), -1, -2)


def _slower(usual: Array, played: Played, stage: int, slowdown: float) -> Array:
    """The summaries with one stage of the candidate slower on the GPU."""
    busy_us = played.busy_us[:, CANDIDATE].copy()
    busy_us[..., stage, :] *= 1.0 + slowdown
    busy_us = ticked(busy_us)
    return _changed(usual, stage, busy_us, played.host_us[:, CANDIDATE], busy_us[..., stage, :])


def _later(usual: Array, played: Played, stage: int) -> Array:
    """The summaries with the host of the candidate slower in one stage."""
    host_us = played.host_us[:, CANDIDATE].copy()
    host_us[..., stage, :] += HOST_US
    busy_us = ticked(played.busy_us[:, CANDIDATE])
    return _changed(usual, COUNT + stage, busy_us, host_us, host_us[..., stage, :])


def _changed(usual: Array, place: int, busy_us: Array, host_us: Array, own_us: Array) -> Array:
    """``usual`` with the quantity at ``place`` of the candidate being ``own_us`` [..., I], and the
    forward what follows; everything else is kept."""
    places = [place, *range(2 * COUNT, len(MEASURES))]
    whole = _forward(busy_us, host_us)
    iterations = np.concatenate((own_us[..., None, :], whole), axis=-2)
    typical_us = np.median(usual, axis=(0, 1, 2, 4))[places]
    found = usual.copy()
    found[:, CANDIDATE][..., places, :] = np.moveaxis(summarise(iterations, typical_us), -1, -2)
    return found


def _forward(busy_us: Array, host_us: Array) -> Array:
    """Span, wall and orchestration of iterations [..., stage, I]: [..., 3, I].

    The GPU runs the stages in order, each no earlier than the host has launched it.
    """
    launched = np.cumsum(host_us, axis=-2) + LAUNCH_LATENCY_US
    free = np.zeros_like(launched[..., 0, :])
    waited = np.zeros_like(free)
    for stage in range(COUNT):
        begin = np.maximum(free, launched[..., stage, :])
        waited += begin - free
        free = begin + busy_us[..., stage, :] + QUEUED_GAP_US
    return np.stack((free, free + LEAVING_US, waited), axis=-2)


# ---------------------------------------------------------------- the others' rules


def _rival_rates(played: Played) -> Iterator[Rates]:
    """Every other rule, given one process a side and all of the first round."""
    for processes in (1, played.busy_us.shape[3]):
        for name, rule in RIVALS.items():
            still = _judged(rule, played, processes, 0.0)
            named = []
            for slowdown in SLOWDOWNS:
                hit = _judged(rule, played, processes, slowdown)
                others = still.sum(axis=-1, keepdims=True) - still > 0
                counts = (hit & ~others).sum(axis=0)
                named.append((slowdown, tuple(int(count) for count in counts)))
            yield Rates(
                rule=f"{name}, {processes} process{'es' if processes > 1 else ''}",
                checks=len(still),
                alarms=int(still.any(axis=-1).sum()),
                named=tuple(named),
            )


def _judged(rule: Rule, played: Played, processes: int, slowdown: float) -> Flags:
    """Which stages the rule calls slower if each were so by ``slowdown``, [N, stage]."""
    pooled = []
    for side, factor in ((BASELINE, 1.0), (CANDIDATE, 1.0 + slowdown)):
        busy_us = ticked(played.busy_us[:, side, 0, :processes] * factor)
        cycles = busy_us * played.sm_mhz[:, side, 0, :processes, None, None]
        for times in (busy_us, cycles):
            swapped = np.moveaxis(times, 1, 2)  # [N, stage, P, I]
            pooled.append(swapped.reshape(*swapped.shape[:2], -1))
    return rule(pooled[0], pooled[2], pooled[1], pooled[3])
