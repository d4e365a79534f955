"""The tests and estimates beside scipy's own, and those that scipy lacks by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from moeprof.errors import EnvironmentMissing
from moeprof.regression.statistics import (
    holm,
    median_ratio,
    paired,
    pairwise_median,
    rank_p,
    ratio_interval,
    scipy_stats,
    summarise,
    summarise_all,
    welch,
)

RANDOM = np.random.default_rng(5)
P_VALUES = arrays(float, st.integers(1, 9), elements=st.floats(0.0, 1.0))


def two_sides(size: int = 6, other: int = 9):
    return RANDOM.normal(0.0, 1.0, (40, size)), RANDOM.normal(0.4, 2.0, (40, other))


def test_welch_is_scipys_with_its_freedom_and_bound():
    baseline, candidate = two_sides()
    mine = welch(baseline, candidate)
    theirs = stats.ttest_ind(candidate, baseline, axis=-1, equal_var=False, alternative="greater")
    below = stats.ttest_ind(candidate, baseline, axis=-1, equal_var=False, alternative="less")
    assert np.allclose(mine.p_above(), theirs.pvalue) and np.allclose(mine.p_below(), below.pvalue)
    assert np.allclose(mine.freedom, theirs.df)
    assert np.allclose(mine.upper(0.05), below.confidence_interval(0.95).high)


def test_the_paired_test_is_scipys():
    baseline, candidate = two_sides(7, 7)
    theirs = stats.ttest_rel(candidate, baseline, axis=-1, alternative="greater")
    assert np.allclose(paired(baseline, candidate).p_above(), theirs.pvalue)


def test_equivalence_is_two_one_sided_tests():
    baseline, candidate = two_sides()
    margin = 0.8
    shifted = [
        stats.ttest_ind(candidate - move, baseline, axis=-1, equal_var=False, alternative=side)
        for move, side in ((margin, "less"), (-margin, "greater"))
    ]
    expected = np.maximum(shifted[0].pvalue, shifted[1].pvalue)
    assert np.allclose(welch(baseline, candidate).p_within(margin), expected)
    assert expected.min() < 0.2 < expected.max()  # of both kinds


def test_equal_readings_of_a_coarse_clock_are_no_certainty():
    baseline, candidate = np.zeros(6), np.full(6, 0.015)
    assert welch(baseline, candidate).p_above() < 1e-12
    assert welch(baseline, candidate, 0.05).p_above() > 0.2
    assert welch(baseline, baseline).p_above() == pytest.approx(0.5)


def test_holm_by_hand_and_by_family():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert np.allclose(holm(p), [0.03, 0.06, 0.06, 0.02])
    assert np.allclose(holm(p, [0, 1, 0, 1]), [0.02, 0.04, 0.03, 0.01])
    assert np.allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])


@given(P_VALUES)
def test_holm_keeps_the_order_and_lies_between_the_value_and_bonferronis(p):
    adjusted = holm(p)
    assert np.all(adjusted >= p) and np.all(adjusted <= np.minimum(1.0, p * len(p)) + 1e-12)
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(adjusted[order]) >= 0)


@given(P_VALUES, st.randoms())
def test_holm_does_not_depend_on_the_order_of_the_tests(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    assert np.allclose(holm(p)[order], holm(p[order]))


@given(P_VALUES, st.floats(0.0, 1.0))
def test_a_smaller_p_never_raises_another(p, factor):
    smaller = p.copy()
    smaller[0] *= factor
    assert np.all(holm(smaller) <= holm(p) + 1e-12)


def test_hodges_lehmann_by_hand():
    assert pairwise_median(np.array([1.0, 2.0]), np.array([4.0, 6.0])) == 3.5  # of 3, 5, 2, 4
    assert median_ratio(np.array([1.0, 2.0, 4.0]), np.array([8.0])) == pytest.approx(4.0)


def test_the_interval_draws_processes_and_covers_what_it_says():
    truth, hits, trials = 1.03, 0, 300
    for _ in range(trials // 50):  # fifty quantities at once
        baseline = np.exp(RANDOM.normal(0.0, 0.01, (50, 12)))
        candidate = truth * np.exp(RANDOM.normal(0.0, 0.01, (50, 12)))
        low, high = ratio_interval(baseline, candidate, 0.95, 400, 0)
        hits += int(((low <= truth) & (truth <= high)).sum())
    assert 0.88 <= hits / trials <= 0.99


def test_the_interval_of_neighbours_is_narrower_where_they_move_together():
    common = RANDOM.normal(0.0, 0.05, (1, 8))
    baseline, candidate = (np.exp(common + RANDOM.normal(0.0, 0.002, (1, 8))) for _ in range(2))
    widths = [
        np.diff(ratio_interval(baseline, candidate, 0.95, 500, 0, paired=together), axis=0)[0, 0]
        for together in (True, False)
    ]
    assert widths[0] < 0.2 * widths[1]


def test_the_interval_of_equal_readings_is_a_point():
    low, high = ratio_interval(np.full((1, 6), 2.0), np.full((1, 6), 2.1), 0.95, 200, 0)
    assert low == high == pytest.approx(1.05)


def test_ranks_are_exact_and_one_sided():
    low, high = np.arange(5.0), np.arange(5.0) + 10.0
    assert rank_p(low, high) == rank_p(high, low) == pytest.approx(1 / 252)


def test_short_times_are_trimmed_means_and_long_ones_medians():
    ticks = np.array([2.016, 2.048, 2.048, 2.048, 2.048, 2.080, 2.080, 2.080, 2.080, 9.0])
    assert summarise(ticks, 2.05) == pytest.approx(ticks[1:-1].mean())
    assert summarise(ticks, 5.0) == pytest.approx(np.median(ticks))
    both = summarise_all([ticks, ticks[:5], ticks], 2.05)
    assert np.allclose(both, [summarise(ticks, 2.05), ticks[:5].mean(), summarise(ticks, 2.05)])


@given(arrays(float, (3, 11), elements=st.floats(0.1, 1e4)), st.floats(0.01, 100.0))
@settings(max_examples=50)
def test_summaries_scale_with_the_times(times, factor):
    assert np.allclose(summarise(times * factor, 1.0), factor * summarise(times, 1.0))
    assert np.allclose(summarise(times * factor, 9.0), factor * summarise(times, 9.0))


def test_without_scipy_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(EnvironmentMissing, match=r"needs scipy.*--runs"):
        scipy_stats()


def test_an_old_scipy_is_named(monkeypatch):
    import scipy

    monkeypatch.setattr(scipy, "__version__", "1.11.4")
    with pytest.raises(EnvironmentMissing, match="scipy 1.11.4 is too old"):
        scipy_stats()
