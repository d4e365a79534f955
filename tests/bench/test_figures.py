"""Latencies, spreads and speedups of single cells, from raw samples by hand."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.bench.cells import assemble
from moeprof.bench.figures import (
    first_call_ms,
    geometric_mean,
    latency_us,
    launches,
    ratio,
    speedup,
    spread,
    why_no_graph,
)
from moeprof.records import PassResult, Sample
from tests.bench.hand import BASE, bench, timed
from tests.builders import make_run

LATENCY = st.floats(min_value=0.5, max_value=1e6)


def cell(run):
    return assemble([run], (), [run.solution.name]).cells[0][0]


def test_the_spread_of_a_pass():
    found = spread(cell(timed("a", 1, [10, 12, 11, 30, 31, 32, 20, 21, 22], trials=3)), "eager")
    values = [10, 12, 11, 30, 31, 32, 20, 21, 22]
    assert (found.count, found.median_us) == (9, 21.0)
    assert found.mean_us == pytest.approx(189 / 9)
    assert (found.least_us, found.most_us) == (10.0, 32.0)
    assert found.variation == pytest.approx(statistics.stdev(values) / 21.0)
    assert found.trials_us == (11.0, 31.0, 21.0)
    # 1.4826 x the median distance of 10 from the median 21, times 1.96 x 1.2533 / sqrt(9)
    assert found.noise_us == pytest.approx(1.96 * 1.2533 * 1.4826 * 9 / 3)


def test_one_sample_has_no_variation_and_no_noise():
    found = spread(cell(timed("a", 1, 10.0)), "eager")
    assert (found.variation, found.noise_us, found.trials_us) == (None, 0.0, (10.0,))


def test_stamped_samples_of_the_bare_pass_count_only_alone():
    stamped = [Sample(50.0, 55.0, stamps_us=(1.0, 2.0)) for _ in range(3)]
    plain = Sample(10.0, 15.0)
    for samples, expected in (((*stamped, plain), 10.0), (tuple(stamped), 50.0)):
        run = replace(timed("a", 1), passes=(PassResult("bare", samples),))
        assert latency_us(cell(run), "eager") == expected


def test_both_kinds_of_speedup_are_over_the_eager_reference():
    runs = [timed("a", 1, 20.0, 5.0), timed("reference", 1, 100.0, 80.0)]
    found = assemble(runs, (), ["a"])
    own, reference = found.cells[0][0], found.references[0]
    assert speedup(own, reference, "eager") == 5.0
    assert speedup(own, reference, "graph") == 20.0


def test_a_ratio_is_by_the_same_timer():
    found = assemble([timed("a", 1, 20.0, 5.0), timed("b", 1, 10.0, 4.0)], (), ["a", "b"])
    first, second = found.cells[0]
    assert (ratio(second, first, "eager"), ratio(second, first, "graph")) == (2.0, 1.25)
    assert ratio(first, second, "eager") == 0.5


def test_nothing_is_made_up_where_a_figure_is_missing():
    found = assemble([timed("a", 1, 20.0), timed("b", 7, 1.0)], (), ["a", "b"])
    own, lost = found.cells[0]
    assert spread(own, "graph") is None and latency_us(lost, "eager") is None
    assert speedup(own, found.references[0], "eager") is None
    assert ratio(own, lost, "eager") is None and ratio(lost, own, "eager") is None


def test_launches_are_the_operations_of_one_forward():
    run = make_run()  # seven stages of three kernels
    assert launches(run) == 21
    timeline = run.timeline("kernels")
    short = replace(timeline.iterations[0], operation_set=1,
                    start_ns=timeline.iterations[0].start_ns[:20],
                    end_ns=timeline.iterations[0].end_ns[:20])  # fmt: skip
    sets = (timeline.operation_sets[0], timeline.operation_sets[0][:20])
    changed = replace(timeline, operation_sets=sets, iterations=(timeline.iterations[1], short))
    assert launches(replace(run, timelines=(changed,))) == 20.5
    assert launches(BASE) is None


def test_first_call_and_why_there_is_no_graph():
    run = replace(timed("a", 1, 5.0), passes=(PassResult("graph", unavailable="not capturable"),))
    assert first_call_ms(timed("a", 1, 5.0)) == 7.0 and first_call_ms(run) is None
    assert why_no_graph(run) == "not capturable" and why_no_graph(timed("a", 1, 5.0, 4.0)) == ""


@settings(max_examples=60, deadline=None)
@given(LATENCY, LATENCY, LATENCY)
def test_speedups_agree_with_ratios(first_us, second_us, reference_us):
    found = bench({"a": {1: first_us}, "b": {1: second_us}, "reference": {1: reference_us}})
    first, second = found.cells[0]
    over = [speedup(one, found.references[0], "eager") for one in (first, second)]
    assert over[1] / over[0] == pytest.approx(ratio(second, first, "eager"))
    assert geometric_mean(over) == pytest.approx((over[0] * over[1]) ** 0.5)
