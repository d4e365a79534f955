"""Numbers to verdicts: the rule of a regression check, on arrays [..., Q, P] of process summaries.

This is the whole decision and nothing else: no records, no sentences. A real check gives it one
check, the simulation thousands at once; both get the same answer.

1. Times are divided by their process's pace (SM clock, host pace) where that removes at least half
   of the variance within the sides; a change must then have the same sign in plain us. Where the
   sides' paces differ and times were not divided, a change must also be there after the division;
   else it is a change of the clock.
2. The test is Welch's t on logarithms; the paired one where both sides were measured in turn and
   neighbours move together, which is seen from spreads as well, not from the difference.
3. Round one suspects: p at ``screening_alpha`` by Holm, and an estimate beyond ``screening_floor``
   of both floors. That is lax on purpose: a suspicion costs a second round and is not told. So does
   a severe slowdown that round one cannot exclude. What seems faster is suspected at
   ``alert_alpha``: it is no alert.
4. All rounds together alert: ``alert_alpha`` by Holm, the estimate beyond both floors, and the
   second round shows the change by itself at ``confirmation_alpha``.
5. What does not alert is the same if two one-sided tests place it within the plain floor, else
   inconclusive. ``cleared`` says whether a severe slowdown is excluded; of the forward it is enough
   that one is which is not a host slower in every stage alike, as that is what machines do.

After both rounds slower and faster are mirror images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.regression.limits import Limits
from moeprof.regression.policy import Policy
from moeprof.regression.sides import Flags, Round, Sides, sides_of
from moeprof.regression.statistics import (
    Array,
    MeanTest,
    either,
    holm,
    paired,
    pairwise_median,
    welch,
)

PACE_TOLERANCE = 0.01  # sides whose paces differ by more must show a change without the pace too


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What all rounds together show, [..., Q] each.

    divided: times were divided by the pace; pairs: neighbours were compared. test, log_ratio,
    shift_us: of the times as they were compared; log_plain, log_paced: not divided and divided
    (NaN where the pace is unknown). host_slope: by which power times go with the host as a whole;
    hostless_test: of what is left without that. noise: spread of the ratio if nothing had changed;
    floor: what log_ratio must exceed.
    """

    divided: Flags
    pairs: Flags
    test: MeanTest
    log_ratio: Array
    shift_us: Array
    log_plain: Array
    log_paced: Array
    host_slope: Array
    hostless_test: MeanTest
    noise: Array
    floor: Array


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """Verdicts, and what they stand on in ``estimate``; [..., Q] each.

    few: too few processes for any. final: no further round would be asked for. suspected: by the
    first round. awaited: a second one is needed. by_pace, by_host: a change that the pace of the
    processes, or the host as a whole, explains. cleared: a severe slowdown is excluded. p_holm: in
    the direction seen. slowest: no larger ratio is believed; slowest_hostless: nor, of the forward,
    this one unless the whole host got slower.
    """

    estimate: Estimate
    few: bool
    final: bool
    regressed: Flags
    improved: Flags
    same: Flags
    suspected: Flags
    awaited: Flags
    by_pace: Flags
    by_host: Flags
    cleared: Flags
    severe: Flags
    p_holm: Array
    p_same: Array
    slowest: Array
    slowest_hostless: Array

    @property
    def divided(self) -> Flags:
        return self.estimate.divided

    @property
    def ratio(self) -> Array:
        """Candidate / baseline, of the times as they were compared."""
        return np.exp(self.estimate.log_ratio)

    @property
    def ratio_plain(self) -> Array:
        return np.exp(self.estimate.log_plain)

    @property
    def ratio_paced(self) -> Array:
        """Divided by the pace; NaN where that is unknown."""
        return np.exp(self.estimate.log_paced)

    @property
    def p_value(self) -> Array:
        """One-sided, in the direction seen."""
        return np.minimum(self.estimate.test.p_above(), self.estimate.test.p_below())

    @property
    def relative_floor(self) -> Array:
        return np.expm1(self.estimate.floor)


def decide(
    rounds: Sequence[Round], limits: Limits, policy: Policy, interleaved: bool = False
) -> Decision:
    """The verdicts of one or two rounds; at least two processes a side.

    interleaved: both sides were measured in turn, so that sessions cannot differ.
    """
    whole, each = sides_of(rounds)
    found = _estimate(whole, limits, policy, interleaved)
    enough = min(min(sides.processes) for sides in each) >= policy.processes
    final = len(rounds) > 1 or not policy.confirm
    p_slower = holm(found.test.p_above(), limits.families)
    p_faster = holm(found.test.p_below(), limits.families)
    slower, faster = _changed(found, each, limits, policy, p_slower, p_faster)
    changed = slower | faster
    by_pace = _by_pace(found, whole, changed)
    by_host = changed & ~by_pace & _by_host(found, whole, limits, interleaved)
    real = changed & ~by_pace & ~by_host
    margin = np.log1p(np.maximum(limits.relative_floor, limits.floor_us / whole.typical_us))
    p_same = found.test.p_within(margin)
    equal = (p_same <= policy.same_alpha) & ~changed
    hidden = equal & ~found.divided & _paces_differ(whole) & (np.abs(found.log_paced) > margin)
    cleared = _cleared(found, whole, limits, policy) & ~by_host
    suspected = _suspected(each[0], found, limits, policy)
    asking = enough and not final
    return Decision(
        estimate=found,
        few=not enough,
        final=final,
        regressed=real & slower & final & enough,
        improved=real & faster & final & enough,
        same=equal & ~hidden & ~(suspected & asking) & enough,
        suspected=suspected & enough,
        awaited=(suspected | ~cleared) & asking,
        by_pace=(by_pace | hidden) & enough,
        by_host=by_host & enough,
        cleared=cleared & enough,
        severe=real & slower & (found.log_ratio > np.log1p(policy.severe)),
        p_holm=np.where(found.log_ratio >= 0, p_slower, p_faster),
        p_same=p_same,
        slowest=np.exp(found.test.upper(policy.same_alpha)),
        slowest_hostless=np.where(
            limits.of_forward, np.exp(found.hostless_test.upper(policy.same_alpha)), np.nan
        ),
    )


def _estimate(whole: Sides, limits: Limits, policy: Policy, interleaved: bool) -> Estimate:
    divided = whole.gains_by_pace
    pairs = np.zeros_like(divided)
    if interleaved:
        pairs = whole.gains_by_pairs(divided, limits.families)
    test = _test(whole, divided, pairs, limits)
    noise = _noise(test, whole, limits, interleaved)
    log_plain = whole.log_ratio(False)
    log_paced = np.where(whole.pace_known, whole.log_ratio(True), np.nan)
    slope = whole.host_slope(divided)
    return Estimate(
        divided=divided,
        pairs=pairs,
        test=test,
        log_ratio=np.where(divided, log_paced, log_plain),
        shift_us=pairwise_median(*whole.times_us(divided)),
        log_plain=log_plain,
        log_paced=log_paced,
        host_slope=slope,
        hostless_test=welch(*whole.logs_without_host(divided, slope), limits.deviation),
        noise=noise,
        floor=np.log1p(np.maximum(limits.relative_floor, policy.noise_factor * noise)),
    )


def _changed(
    found: Estimate,
    each: Sequence[Sides],
    limits: Limits,
    policy: Policy,
    p_slower: Array,
    p_faster: Array,
) -> tuple[Flags, Flags]:
    """What became slower and faster, before paces have their say."""
    slower = (found.log_ratio > found.floor) & (found.shift_us > limits.floor_us)
    faster = (found.log_ratio < -found.floor) & (found.shift_us < -limits.floor_us)
    slower &= p_slower <= policy.alert_alpha
    faster &= p_faster <= policy.alert_alpha
    if len(each) > 1:
        again = _test(each[1], found.divided, found.pairs, limits)
        slower &= again.p_above() <= policy.confirmation_alpha
        faster &= again.p_below() <= policy.confirmation_alpha
    return slower, faster


def _by_pace(found: Estimate, whole: Sides, changed: Flags) -> Flags:
    """Changes that the pace explains: gone once it is divided out, or of the other sign before."""
    agree = found.log_plain * found.log_paced > 0
    left = agree & (np.abs(found.log_paced) > found.floor)
    return np.asarray(changed & np.where(found.divided, ~agree, _paces_differ(whole) & ~left))


def _paces_differ(whole: Sides) -> Flags:
    return np.asarray(whole.pace_known & (np.abs(whole.pace_gap) > PACE_TOLERANCE))


def _by_host(found: Estimate, whole: Sides, limits: Limits, interleaved: bool) -> Flags:
    """Changes of the forward that the host as a whole can explain, where that may be the machine's:
    it may not if both sides were measured in turn. They go with the host's change at least one to
    one: how far it reaches beyond the spread within the sides is not known."""
    gap = whole.host_gap[..., None]
    if interleaved:
        return np.zeros_like(found.divided)
    explained = np.maximum(found.host_slope, 1.0) * np.abs(gap)
    small = np.abs(found.log_ratio) - explained <= found.floor
    agree = found.log_ratio * gap > 0
    return np.asarray(limits.of_forward & (np.abs(gap) > PACE_TOLERANCE) & agree & small)


def _noise(test: MeanTest, whole: Sides, limits: Limits, interleaved: bool) -> Array:
    """Spread of the ratio if nothing had changed: what is known of old, or what is seen here."""
    sizes = whole.processes
    between = np.square(limits.process) * (1 / sizes[0] + 1 / sizes[1])
    # the mean of a baseline's sessions, at least two, and the candidate's own
    sessions = 0.0 if interleaved else 1.5 * np.square(limits.session)
    return np.maximum(test.error, np.sqrt(between + sessions))


def _suspected(first: Sides, found: Estimate, limits: Limits, policy: Policy) -> Flags:
    """What round one suspects to have become slower or faster."""
    test = _test(first, found.divided, found.pairs, limits)
    log_ratio = first.log_ratio(found.divided)
    shift_us = pairwise_median(*first.times_us(found.divided))
    part = policy.screening_floor
    slower = log_ratio > np.log1p(part * limits.relative_floor)
    slower &= shift_us > part * limits.floor_us
    slower &= holm(test.p_above(), limits.families) <= limits.screening_alpha
    faster = log_ratio < -np.log1p(limits.relative_floor)
    faster &= shift_us < -limits.floor_us
    faster &= holm(test.p_below(), limits.families) <= policy.alert_alpha
    return np.asarray(slower | faster)


def _test(sides: Sides, divided: Flags, pairs: Flags, limits: Limits) -> MeanTest:
    """Of the logarithms of both sides."""
    logs = sides.logs(divided)
    strangers = welch(*logs, limits.deviation)
    if not pairs.any():
        return strangers
    return either(pairs, paired(*logs, limits.deviation), strangers)


def _cleared(found: Estimate, whole: Sides, limits: Limits, policy: Policy) -> Flags:
    """Whether a severe slowdown is excluded, or any that is more than the absolute floor; of the
    forward, whether one is that is not the whole host's."""
    allowed_us = np.maximum(policy.severe * limits.severe_us, limits.floor_us)
    plain, hostless = (
        whole.typical_us * np.expm1(test.upper(policy.same_alpha)) <= allowed_us
        for test in (found.test, found.hostless_test)
    )
    return np.asarray(plain | (limits.of_forward & hostless))
