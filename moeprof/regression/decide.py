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
class Decision:
    """Verdicts and what they stand on, [..., Q] each.

    few: too few processes for any. final: no further round would be asked for. suspected: by the
    first round. awaited: a second one is needed. clock: a change that the pace explains.
    divided: times were divided by the pace; pairs: neighbours were compared. ratio, shift_us: of
    the times as they were compared; ratio_plain, ratio_paced: not divided and divided (NaN where
    the pace is unknown). slowest: no larger ratio is believed; slowest_paced: nor, of the forward,
    this one unless the whole host got slower (NaN where unknown).
    """

    few: bool
    final: bool
    regressed: Flags
    improved: Flags
    same: Flags
    suspected: Flags
    awaited: Flags
    clock: Flags
    cleared: Flags
    severe: Flags
    divided: Flags
    pairs: Flags
    ratio: Array
    ratio_plain: Array
    ratio_paced: Array
    shift_us: Array
    p_value: Array
    p_holm: Array
    p_same: Array
    relative_floor: Array
    noise: Array
    slowest: Array
    slowest_paced: Array


def decide(
    rounds: Sequence[Round], limits: Limits, policy: Policy, interleaved: bool = False
) -> Decision:
    """The verdicts of one or two rounds; at least two processes a side.

    interleaved: both sides were measured in turn, so that sessions cannot differ.
    """
    whole, each = sides_of(rounds)
    few = min(min(sides.processes) for sides in each) < policy.processes
    final = len(rounds) > 1 or not policy.confirm
    divided = whole.gains_by_pace
    pairs = np.zeros_like(divided)
    if interleaved:
        pairs = whole.gains_by_pairs(divided, limits.families)
    test = _test(whole, divided, pairs, limits)
    log_plain = whole.log_ratio(False)
    log_paced = np.where(whole.pace_known, whole.log_ratio(True), 0.0)
    log_ratio = np.where(divided, log_paced, log_plain)
    shift_us = pairwise_median(*whole.times_us(divided))
    noise = _noise(test, whole, limits, interleaved)
    floor = np.log1p(np.maximum(limits.relative_floor, policy.noise_factor * noise))

    p_slower = holm(test.p_above(), limits.families)
    p_faster = holm(test.p_below(), limits.families)
    slower = (log_ratio > floor) & (shift_us > limits.floor_us)
    faster = (log_ratio < -floor) & (shift_us < -limits.floor_us)
    slower &= p_slower <= policy.alert_alpha
    faster &= p_faster <= policy.alert_alpha
    if len(rounds) > 1:
        again = _test(each[1], divided, pairs, limits)
        slower &= again.p_above() <= policy.confirmation_alpha
        faster &= again.p_below() <= policy.confirmation_alpha

    unexplained = ~whole.pace_known | (np.abs(whole.pace_gap) <= PACE_TOLERANCE)
    changed = slower | faster
    left = (np.abs(log_paced) > floor) & (log_paced * log_plain > 0)
    real = changed & np.where(divided, log_plain * log_paced > 0, unexplained | left)
    margin = np.log1p(np.maximum(limits.relative_floor, limits.floor_us / whole.typical_us))
    p_same = test.p_within(margin)
    equal = (p_same <= policy.same_alpha) & ~changed
    same = equal & (divided | unexplained | (np.abs(log_paced) <= margin))
    cleared = _cleared(test, whole, limits, policy)
    paced_test = welch(*whole.logs_without_host(divided), limits.deviation)
    cleared |= limits.of_forward & _cleared(paced_test, whole, limits, policy)
    slowest_paced = np.exp(paced_test.upper(policy.same_alpha))
    suspected = _suspected(each[0], divided, pairs, limits, policy)
    open_ = not (final or few)
    return Decision(
        few=few,
        final=final,
        regressed=real & slower & final & (not few),
        improved=real & faster & final & (not few),
        same=same & ~(suspected & open_) & (not few),
        suspected=suspected & (not few),
        awaited=(suspected | ~cleared) & open_,
        clock=((changed & ~real) | (equal & ~same)) & (not few),
        cleared=cleared & (not few),
        severe=real & slower & (log_ratio > np.log1p(policy.severe)),
        divided=divided,
        pairs=pairs,
        ratio=np.exp(log_ratio),
        ratio_plain=np.exp(log_plain),
        ratio_paced=np.where(whole.pace_known, np.exp(log_paced), np.nan),
        shift_us=shift_us,
        p_value=np.minimum(test.p_above(), test.p_below()),
        p_holm=np.where(log_ratio >= 0, p_slower, p_faster),
        p_same=p_same,
        relative_floor=np.expm1(floor),
        noise=noise,
        slowest=np.exp(test.upper(policy.same_alpha)),
        slowest_paced=np.where(limits.of_forward, slowest_paced, np.nan),
    )


def _noise(test: MeanTest, whole: Sides, limits: Limits, interleaved: bool) -> Array:
    """Spread of the ratio if nothing had changed: what is known of old, or what is seen here."""
    sizes = whole.processes
    between = np.square(limits.process) * (1 / sizes[0] + 1 / sizes[1])
    # the mean of a baseline's sessions, at least two, and the candidate's own
    sessions = 0.0 if interleaved else 1.5 * np.square(limits.session)
    return np.maximum(test.error, np.sqrt(between + sessions))


def _suspected(first: Sides, divided: Flags, pairs: Flags, limits: Limits, policy: Policy) -> Flags:
    """What round one suspects to have become slower or faster."""
    test = _test(first, divided, pairs, limits)
    log_ratio = first.log_ratio(divided)
    shift_us = pairwise_median(*first.times_us(divided))
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


def _cleared(test: MeanTest, whole: Sides, limits: Limits, policy: Policy) -> Flags:
    """Whether a severe slowdown is excluded, or any that is more than the absolute floor."""
    reach_us = whole.typical_us * np.expm1(test.upper(policy.same_alpha))
    allowed_us = np.maximum(policy.severe * limits.severe_us, limits.floor_us)
    return np.asarray(reach_us <= allowed_us)
