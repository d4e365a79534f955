"""Means over workloads: by hand, and what a missing cell does to them."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.bench.summary import mean, measured_metrics, ratios, regimes, speedups, summaries
from moeprof.bench.winners import verdicts
from tests.bench.hand import bench

TABLE = {
    "a": {1: 10.0, 7: 20.0, 901: 50.0, 11948: 400.0},
    "b": {1: 20.0, 7: 10.0, 901: 100.0},
    "reference": {1: 100.0, 7: 400.0, 901: 1000.0, 11948: 4000.0},
}


def test_regimes_hold_what_they_have():
    found = regimes(bench({"a": {t: 1.0 for t in (1, 7, 14, 32, 52, 80, 901, 11948, 14107)}}))
    assert [(one.name, one.rows, one.span) for one in found] == [
        ("tiny", (0, 1), "T=1-7"), ("small", (2, 3), "T=14-32"), ("medium", (4, 5), "T=52-80"),
        ("large", (6,), "T=901"), ("very large", (7, 8), "T=11,948-14,107"),
    ]  # fmt: skip


def test_means_are_over_the_workloads_that_a_solution_has():
    found = bench(TABLE)
    assert speedups(found, "a", "eager") == (10.0, 20.0, 20.0, 10.0)
    assert speedups(found, "b", "eager") == (5.0, 40.0, 10.0)
    assert speedups(found, "b", "eager", (0, 1)) == (5.0, 40.0)
    whole = mean(speedups(found, "b", "eager"), 4)
    assert (whole.count, whole.among, whole.whole) == (3, 4, False)
    assert whole.arithmetic == pytest.approx(55 / 3)
    assert whole.geometric == pytest.approx((5 * 40 * 10) ** (1 / 3))
    assert mean((), 4) is None


def test_ratios_are_over_workloads_that_both_have():
    found = bench(TABLE)
    assert found.baseline == "a"
    assert ratios(found, "b", "eager") == (0.5, 2.0, 0.5)
    assert ratios(found, "a", "eager") == (1.0,) * 4


def test_a_line_a_solution():
    found = bench(TABLE)
    a, b = summaries(found, "eager", verdicts(found)["eager"])
    assert (a.measured, a.among, a.wins, a.ties) == (4, 4, 2, 0)
    assert (b.measured, b.wins, b.minimum, b.maximum, b.median) == (3, 1, 5.0, 40.0, 10.0)
    spread = statistics.stdev([5.0, 40.0, 10.0]) / statistics.fmean([5.0, 40.0, 10.0])
    assert b.variation == pytest.approx(spread)
    assert b.ratio.geometric == pytest.approx(0.5 ** (1 / 3))


def test_without_a_reference_there_are_ratios_only():
    found = bench({name: TABLE[name] for name in "ab"})
    a, b = summaries(found, "eager", verdicts(found)["eager"])
    assert a.speedup is b.speedup is a.median is a.minimum is a.variation is None
    assert b.ratio.count == 3 and b.wins == 1


def test_timers_without_any_figure_are_not_shown():
    assert measured_metrics(bench(TABLE)) == ("eager",)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(min_value=1.0, max_value=1e5)] * 3), min_size=1, max_size=6),
    st.floats(min_value=0.1, max_value=10.0),
)
def test_the_geometric_mean_of_ratios_does_not_hang_on_the_reference(rows, factor):
    tokens = [2**i for i in range(len(rows))]
    columns = list(zip(*rows, strict=True))
    table = {n: dict(zip(tokens, c, strict=True)) for n, c in zip("ab", columns, strict=False)}
    for scale in (1.0, factor):
        base = {t: us * scale for t, us in zip(tokens, columns[2], strict=True)}
        found = bench({**table, "reference": base})
        own = [mean(speedups(found, name, "eager"), len(rows)).geometric for name in "ab"]
        pairs = mean(ratios(found, "b", "eager"), len(rows)).geometric
        assert own[1] / own[0] == pytest.approx(pairs, rel=1e-6)
