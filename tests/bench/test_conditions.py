"""Cells measured under different conditions are grouped, named and marked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moeprof.bench.cells import assemble
from moeprof.bench.conditions import conditions, doubts, letter, letters, sm_clocks, stand_ins
from moeprof.records import ClockSample
from moeprof.reports import bench_phrases as phrases
from tests.bench.hand import explained, timed
from tests.comparisons import named


def moved(run, **changes):
    return replace(run, environment=replace(run.environment, **changes))


def test_one_group_has_no_letter():
    bench = assemble([timed("a", 1, 5.0), timed("b", 1, 6.0)], (), ["a", "b"])
    (group,) = conditions(bench)
    assert (group.letter, group.differing, group.solutions, group.cells) == ("", (), ("a", "b"), 2)
    assert dict(phrases.header(bench, [group]))["card"] == "d7bede8a"
    assert letters(bench, [group]) == {"a": "", "b": "", "reference": ""}
    assert not any("conditions" in sentence for sentence in phrases.warnings(bench, [group]))


@pytest.mark.parametrize(
    ("change", "fact", "values"),
    [
        (lambda r: moved(r, card="47b6c551"), "card", ["d7bede8a", "47b6c551"]),
        (lambda r: moved(r, card=None), "card", ["d7bede8a", "not read"]),
        (lambda r: moved(r, driver="590.1"), "driver", ["580.1", "590.1"]),
        (
            lambda r: moved(r, versions={**r.environment.versions, "torch": "2.12.0"}),
            "torch",
            ["2.11.0", "2.12.0"],
        ),
        (
            lambda r: replace(r, settings=replace(r.settings, l2="warm")),
            "L2 before each iteration",
            ["flush", "warm"],
        ),
        (
            lambda r: replace(r, settings=replace(r.settings, iterations=100)),
            "iterations",
            ["20", "100"],
        ),
        (lambda r: replace(r, routing=replace(r.routing, seed=3)), "seed", ["0", "3"]),
    ],
)
def test_what_differs_is_named_and_marked(change, fact, values):
    runs = [timed("a", t, 5.0) for t in (1, 7)] + [timed("b", 1, 6.0)]
    bench = assemble([*runs, change(timed("b", 7, 6.0))], (), ["a", "b"])
    groups = conditions(bench)
    assert [group.letter for group in groups] == ["a", "b"]
    assert [group.differing for group in groups] == [((fact, value),) for value in values]
    assert letters(bench, groups) == {"a": "a", "b": "ab", "reference": ""}
    assert [letter(cell, groups) for cell in bench.column("b")] == ["a", "b"]
    sentence = phrases.warnings(bench, groups)[0]
    assert f"[a] {fact} {values[0]}: a, b; [b] {fact} {values[1]}: b" in sentence
    assert doubts(bench) == (), "what the groups say is not said again"


def test_a_clock_that_something_held_down_is_a_doubt_and_told_once():
    fast, slow = ClockSample("bare", 1980, 3201, 300.0, 44), ClockSample(
        "bare", 1500, 3201, 300.0, 44, ("hw_thermal_slowdown",)
    )  # fmt: skip
    runs = []
    for tokens in (1, 7, 14, 32, 52):
        runs += [timed("a", tokens, 5.0, clocks=(fast,)), timed("b", tokens, 6.0, clocks=(slow,))]
    bench = assemble(runs, (), ["b", "a"])
    (sentence,) = doubts(bench)
    assert "1,980 MHz for a at T = 1, 1,500 MHz for b at T = 1" in sentence
    assert "hw_thermal_slowdown" in sentence and "4 more like it" in sentence
    assert sm_clocks(bench) == (1500, 1740, 1980)
    assert doubts(assemble([r for r in runs if r.solution.name == "a"], (), ["a"])) == ()


def test_stand_ins_are_told_by_solution():
    run = explained()[0]
    stage = replace(run.solution.stages[0], library="sgl_kernel",
                    stand_in="it does not load")  # fmt: skip
    stages = (stage, *run.solution.stages[1:])
    run = replace(run, solution=replace(run.solution, stages=stages))
    bench = assemble([run, named(run, "other")], (), [run.solution.name])
    assert stand_ins(bench) == (
        "torch twins stand in for sgl_kernel: it does not load (in triton_v2, other)",
    )


def test_without_a_reference_the_header_says_why_there_are_no_speedups():
    bench = assemble([timed("a", 1, 5.0), timed("b", 1, 6.0)], (), ["a", "b"])
    told = "no speedups: reference has no latency here to compare with"
    assert told in phrases.warnings(bench, conditions(bench))
    assert dict(phrases.header(bench, conditions(bench)))["speedup"] == told
