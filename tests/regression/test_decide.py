"""The rule of a check on hand-made summaries: what must hold whatever the numbers are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moeprof.regression.decide import Decision, decide
from moeprof.regression.limits import Limits, limits_of
from moeprof.regression.policy import Policy
from moeprof.regression.sides import Round

POLICY = Policy(quanta=0.0, host_floor_us=0.0)
AT_ONCE = replace(POLICY, confirm=False)
MEASURES = ("busy", "busy", "host")
US = np.array([100.0, 10.0, 30.0])


def rounds(baseline, candidate, again=None, paces=None, hosts=None) -> list[Round]:
    """One round, or two: (baseline, candidate) each, [Q, P]; paces, hosts: of both sides, [P]."""
    unknown = np.nan
    found = []
    for one, other in ((baseline, candidate), *([again] if again else [])):
        arrays = [np.full(np.shape(side), unknown) for side in (one, other)]
        if paces is not None:
            arrays = [
                np.broadcast_to(pace, np.shape(side))
                for pace, side in zip(paces, (one, other), strict=True)
            ]
        slow = hosts or [np.full(np.shape(side)[-1], unknown) for side in (one, other)]
        found.append(
            Round(np.asarray(other), arrays[1], slow[1], np.asarray(one), arrays[0], slow[0])
        )
    return found


def limits(policy: Policy = POLICY, **changes) -> Limits:
    return replace(limits_of(MEASURES, US, policy, gpu=False), **changes)


def drawn(seed: int, factor: float = 1.0, sd: float = 0.01, size: int = 6) -> np.ndarray:
    """[Q, P] of three quantities; the first takes ``factor`` times as long."""
    random = np.random.default_rng(seed)
    times = US[:, None] * np.exp(random.normal(0.0, sd, (3, size)))
    times[0] *= factor
    return times


def verdicts(decision: Decision) -> list[str]:
    return [
        "REGRESSED" if slower else "IMPROVED" if faster else "SAME" if same else "INCONCLUSIVE"
        for slower, faster, same in zip(
            decision.regressed, decision.improved, decision.same, strict=True
        )
    ]


MIRROR = {"REGRESSED": "IMPROVED", "IMPROVED": "REGRESSED"}
SEEDS = st.integers(0, 10**6)
FACTORS = st.floats(0.85, 1.2)
SPREADS = st.sampled_from([0.002, 0.01, 0.03])


@given(SEEDS, FACTORS, SPREADS, st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_swapping_the_sides_mirrors_the_verdict(seed, factor, sd, two, interleaved):
    baseline, candidate = drawn(seed, sd=sd), drawn(seed + 1, factor, sd)
    again = (drawn(seed + 2, sd=sd), drawn(seed + 3, factor, sd)) if two else None
    policy = POLICY if two else AT_ONCE
    there = decide(rounds(baseline, candidate, again), limits(), policy, interleaved)
    swapped = again[::-1] if again else None
    back = decide(rounds(candidate, baseline, swapped), limits(), policy, interleaved)
    assert verdicts(back) == [MIRROR.get(verdict, verdict) for verdict in verdicts(there)]
    assert np.allclose(back.ratio * there.ratio, 1.0)
    assert np.allclose(back.estimate.shift_us, -there.estimate.shift_us)


@given(SEEDS, FACTORS, SPREADS, st.floats(0.01, 100.0))
@settings(max_examples=100, deadline=None)
def test_ratios_and_verdicts_do_not_depend_on_the_unit(seed, factor, sd, unit):
    baseline, candidate = drawn(seed, sd=sd), drawn(seed + 1, factor, sd)
    plain = decide(rounds(baseline, candidate), limits(), AT_ONCE)
    scaled = decide(rounds(baseline * unit, candidate * unit), limits(), AT_ONCE)
    assert np.allclose(scaled.ratio, plain.ratio)
    assert np.allclose(scaled.estimate.shift_us, plain.estimate.shift_us * unit)
    assert np.allclose(scaled.p_holm, plain.p_holm)
    assert verdicts(scaled) == verdicts(plain)


@given(SEEDS, FACTORS, SPREADS)
@settings(max_examples=150, deadline=None)
def test_one_more_process_in_the_middle_never_turns_a_verdict_round(seed, factor, sd):
    baseline, candidate = drawn(seed, sd=sd), drawn(seed + 1, factor, sd)
    middle = np.median(candidate, axis=-1, keepdims=True)
    before = verdicts(decide(rounds(baseline, candidate), limits(), AT_ONCE))
    more = np.concatenate((candidate, middle), axis=-1)
    after = verdicts(decide(rounds(baseline, more), limits(), AT_ONCE))
    assert all(MIRROR.get(one) != other for one, other in zip(before, after, strict=True))


@given(SEEDS, FACTORS, SPREADS, st.floats(0.0, 0.1), st.floats(0.0, 20.0))
@settings(max_examples=150, deadline=None)
def test_nothing_regresses_below_either_floor(seed, factor, sd, relative, floor_us):
    policy = replace(AT_ONCE, relative_floor=relative, severe=0.5)
    floors = limits(policy, floor_us=np.full(3, floor_us))
    found = decide(rounds(drawn(seed, sd=sd), drawn(seed + 1, factor, sd)), floors, policy)
    told = found.regressed
    assert np.all(found.ratio[told] > 1.0 + relative)
    assert np.all(found.estimate.shift_us[told] > floor_us)
    assert np.all(found.ratio[told] - 1.0 > policy.noise_factor * 0.99 * found.estimate.noise[told])


def test_a_slowdown_is_told_after_two_rounds_and_awaited_after_one():
    first, again = (drawn(1), drawn(2, 1.06)), (drawn(3), drawn(4, 1.06))
    one = decide(rounds(*first), limits(), POLICY)
    assert one.awaited.tolist() == [True, False, False] and not one.regressed.any()
    both = decide(rounds(*first, again), limits(), POLICY)
    assert verdicts(both) == ["REGRESSED", "SAME", "SAME"]
    assert both.severe.tolist() == [True, False, False]
    assert not both.awaited.any() and both.cleared.tolist() == [False, True, True]


def test_a_second_round_that_does_not_show_it_refutes():
    first, again = (drawn(1), drawn(2, 1.06)), (drawn(3), drawn(4))
    both = decide(rounds(*first, again), limits(), POLICY)
    assert both.suspected[0] and not both.regressed.any()


def test_the_second_round_must_show_it_by_itself():
    """Both rounds together are far beyond luck and floors, the second one is not."""
    steady, slow = (
        np.full((3, 6), 100.0) + np.arange(6) * 0.1,
        np.array([97, 98, 99, 101, 106, 109]),
    )
    first, again = (steady, steady * 1.1), (steady, np.tile(slow, (3, 1)).astype(float))
    one_kind = limits(families=(0, 1, 2))
    both = decide(rounds(*first, again), one_kind, POLICY)
    assert np.all(both.p_holm <= POLICY.alert_alpha)
    assert np.all(both.ratio > 1.0 + both.relative_floor) and both.suspected.all()
    assert not both.regressed.any()
    assert decide(rounds(*first, first), one_kind, POLICY).regressed.all()


def test_a_policy_without_confirmation_tells_at_once():
    found = decide(rounds(drawn(1), drawn(2, 1.06)), limits(), AT_ONCE)
    assert verdicts(found) == ["REGRESSED", "SAME", "SAME"] and not found.awaited.any()


@pytest.mark.parametrize("sizes", [(6, 5), (5, 6), (2, 40)])
def test_too_few_processes_decide_nothing(sizes):
    baseline, candidate = drawn(1, size=sizes[0]), drawn(2, 1.5, size=sizes[1])
    for policy in (POLICY, AT_ONCE):
        found = decide(rounds(baseline, candidate), limits(), policy)
        assert found.few and verdicts(found) == ["INCONCLUSIVE"] * 3
        assert not found.awaited.any() and not found.cleared.any()


def test_a_stored_baseline_counts_once_however_many_rounds_follow():
    baseline = drawn(1, size=12)
    first = rounds(baseline, drawn(2, 1.06))[0]
    second = Round(drawn(4, 1.06), np.full((3, 6), np.nan), np.full(6, np.nan))
    found = decide([first, second], limits(), POLICY)
    assert verdicts(found)[0] == "REGRESSED"
    assert found.estimate.noise[2] == pytest.approx(0.01 * np.sqrt(2 / 12), rel=0.5)


def test_severe_is_of_the_span_for_what_only_the_host_does():
    """10 % of 30 us of host time is 3 us, of a forward of 110 us: not severe. Of a kernel it is."""
    same = [np.exp(np.random.default_rng(seed).normal(0.0, 0.05, 6)) for seed in (1, 2)]
    found = decide(rounds(*(US[:, None] * noise for noise in same)), limits(), AT_ONCE)
    assert found.cleared.tolist() == [False, False, True]
    assert np.all(found.slowest > 1.05)


def clocked(share: float, factor: float = 1.0, seed: int = 0, clock: float = 0.95):
    """Times [Q, P] and paces [P]: ``share`` of 12 processes run at ``clock`` of the SM clock."""
    slow = np.arange(12) < round(12 * share)
    pace = np.where(slow, 1.0 / clock, 1.0)
    return drawn(seed, factor, 0.003, 12) * pace, pace


def test_a_clock_that_differs_between_the_sides_is_no_regression():
    (baseline, pace_1), (candidate, pace_2) = clocked(0.0, seed=1), clocked(1.0, seed=2)
    found = decide(rounds(baseline, candidate, paces=(pace_1, pace_2)), limits(), AT_ONCE)
    assert not found.regressed.any() and found.by_pace.all()
    assert np.allclose(found.ratio_plain, 1 / 0.95, rtol=0.01)
    assert np.allclose(found.ratio_paced, 1.0, atol=0.01)
    blind = decide(rounds(baseline, candidate), limits(), AT_ONCE)
    assert blind.regressed.all()


def test_a_slowdown_is_found_through_two_clocks_on_both_sides():
    (baseline, pace_1), (candidate, pace_2) = clocked(0.4, seed=1), clocked(0.4, 1.03, seed=2)
    found = decide(rounds(baseline, candidate, paces=(pace_1, pace_2)), limits(), AT_ONCE)
    assert found.divided.all() and verdicts(found) == ["REGRESSED", "SAME", "SAME"]
    assert found.ratio[0] == pytest.approx(1.03, abs=0.005)
    blind = decide(rounds(baseline, candidate), limits(), AT_ONCE)
    assert verdicts(blind)[0] == "INCONCLUSIVE"


def test_a_higher_clock_does_not_hide_a_slowdown_as_sameness():
    (baseline, pace_1), (candidate, pace_2) = clocked(1.0, seed=1), clocked(0.0, 1 / 0.95, seed=2)
    found = decide(rounds(baseline, candidate, paces=(pace_1, pace_2)), limits(), AT_ONCE)
    assert abs(found.ratio_plain[0] - 1.0) < 0.01 and not found.same[0] and found.by_pace[0]


def test_a_change_with_the_opposite_sign_in_us_is_not_believed():
    """All of a process's host stages stretch but one: the one is not faster."""
    slow = np.r_[np.ones(6), np.full(6, 1.10)]
    pace = np.r_[1.0, 1.2, 0.9, 1.1, 1.0, 0.8] * 1.0
    baseline = US[:, None] * pace
    candidate = US[:, None] * pace * 1.02
    paces = (pace, pace * slow[6:] * 1.1)
    found = decide(rounds(baseline, candidate, paces=paces), limits(), AT_ONCE)
    assert found.divided.all() and (found.ratio_paced < 0.9).all() and (found.ratio_plain > 1).all()
    assert not found.improved.any() and found.by_pace.all()


def test_a_noisy_host_does_not_keep_a_forward_from_being_cleared():
    """The span varies by 8 % with the host, which a severe slowdown could hide in, and by 0.5 %
    beside it, which none of one stage could."""
    random = np.random.default_rng(8)
    hosts = [host - host.mean() for host in (random.normal(0.0, 0.1, n) for n in (12, 6))]
    span = limits_of(("span",), np.array([400.0]), POLICY, gpu=False)

    def sides(slower: float):
        noise = [random.normal(0.0, 0.005, host.shape) for host in hosts]
        factors = (1.0, slower)
        return [
            400.0 * factor * np.exp(0.8 * host + own)[None, :]
            for factor, host, own in zip(factors, hosts, noise, strict=True)
        ]

    blind = decide(rounds(*sides(1.0)), span, POLICY)
    assert blind.awaited[0] and not blind.cleared[0] and blind.slowest[0] > 1.05
    told = decide(rounds(*sides(1.0), hosts=hosts), span, POLICY)
    assert told.cleared[0] and not told.awaited[0] and told.slowest_hostless[0] < 1.015
    assert told.slowest[0] == pytest.approx(blind.slowest[0], rel=0.01) and not told.same[0]
    assert not decide(rounds(*sides(1.06), hosts=hosts), span, POLICY).cleared[0]


def test_a_slow_host_is_the_machines_unless_both_sides_were_measured_in_turn():
    random = np.random.default_rng(8)
    hosts = [random.normal(middle, 0.05, 6) for middle in (0.0, 0.3)]
    times = [400.0 * np.exp(0.8 * host + random.normal(0.0, 0.005, 6))[None, :] for host in hosts]
    span = limits_of(("span",), np.array([400.0]), POLICY, gpu=False)
    stored = decide(rounds(*times, hosts=hosts), span, AT_ONCE)
    assert stored.by_host[0] and not stored.regressed[0] and not stored.cleared[0]
    assert stored.estimate.host_slope[0] == pytest.approx(0.8, abs=0.1) and stored.ratio[0] > 1.15
    in_turn = decide(rounds(*times, hosts=hosts), span, AT_ONCE, interleaved=True)
    assert in_turn.regressed[0] and not in_turn.by_host[0]
    own = [times[0], times[1] * 1.2]  # beside the host something else got slower
    assert decide(rounds(*own, hosts=hosts), span, AT_ONCE).regressed[0]
    stage = limits_of(("busy",), np.array([400.0]), POLICY, gpu=False)
    assert decide(rounds(*times, hosts=hosts), stage, AT_ONCE).regressed[0]


def test_neighbours_that_move_together_are_compared_in_pairs():
    random = np.random.default_rng(3)
    common = np.exp(random.normal(0.0, 0.05, 6))
    noise = lambda: np.exp(random.normal(0.0, 0.003, (3, 6)))  # noqa: E731
    baseline = US[:, None] * common * noise()
    candidate = US[:, None] * common * noise() * np.array([1.04, 1.0, 1.0])[:, None]
    apart = decide(rounds(baseline, candidate), limits(), AT_ONCE)
    assert not apart.regressed.any() and not apart.estimate.pairs.any()
    together = decide(rounds(baseline, candidate), limits(), AT_ONCE, interleaved=True)
    assert (
        together.estimate.pairs.all() and together.estimate.noise[0] < 0.2 * apart.estimate.noise[0]
    )


def test_known_noise_raises_the_floor_and_sessions_only_where_they_can_differ():
    times = rounds(drawn(1), drawn(2, 1.05))
    free = decide(times, limits(), AT_ONCE)
    known = limits(process=np.full(3, 0.05))
    assert free.regressed[0]
    raised = decide(times, known, AT_ONCE)
    assert not raised.regressed[0]
    assert raised.relative_floor[0] == pytest.approx(3 * 0.05 * np.sqrt(2 / 6))
    session = limits(session=np.full(3, 0.05))
    assert not decide(times, session, AT_ONCE).regressed[0]
    assert decide(times, session, AT_ONCE, interleaved=True).regressed[0]


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_stack_of_checks_is_each_check_by_itself(seed):
    """What the simulation relies on."""
    assume(seed % 7)
    several = [(drawn(seed + i), drawn(seed + 50 + i, 1.0 + 0.02 * i)) for i in range(4)]
    stacked = rounds(*(np.stack(side) for side in zip(*several, strict=True)))
    wide = limits_of(MEASURES, np.broadcast_to(US, (4, 3)), POLICY, gpu=False)
    together = decide(stacked, wide, AT_ONCE)
    for i, (baseline, candidate) in enumerate(several):
        alone = decide(rounds(baseline, candidate), limits(), AT_ONCE)
        assert np.allclose(together.p_holm[i], alone.p_holm)
        assert np.array_equal(together.regressed[i], alone.regressed)
        assert np.array_equal(together.same[i], alone.same)
