"""Who wins, and when nobody does."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.bench.cells import Failure, assemble
from moeprof.bench.winners import ties, verdict, verdicts, wins
from tests.bench.hand import timed, uuid

STEADY = [100.0, 100.2, 99.8, 100.1, 99.9, 100.0] * 2


def scaled(factor):
    return [factor * us for us in STEADY]


def judged(*runs, metric="eager"):
    names = [run.solution.name for run in runs]
    return verdict(assemble(runs, (), names).cells[0], metric)


def test_the_lowest_median_wins_beyond_the_noise():
    found = judged(timed("a", 1, scaled(1.5)), timed("b", 1, STEADY), timed("c", 1, scaled(2)))
    assert (found.winner, found.names) == ("b", ("b",))


@pytest.mark.parametrize(("factor", "tied"), [(1.009, True), (1.02, False)])
def test_what_two_processes_of_one_code_differ_by_is_a_tie(factor, tied):
    found = judged(timed("a", 1, scaled(factor)), timed("b", 1, STEADY))
    assert found.names == (("b", "a") if tied else ("b",))
    assert (found.winner is None) == tied


@pytest.mark.parametrize("card", [None, "47b6c551"])
def test_across_cards_more_is_asked(card):
    other = timed("a", 1, scaled(1.02))
    moved = replace(other, environment=replace(other.environment, card=card))
    assert judged(other, timed("b", 1, STEADY)).winner == "b"
    assert judged(moved, timed("b", 1, STEADY)).winner is None
    far = replace(timed("a", 1, scaled(1.04)), environment=moved.environment)
    assert judged(far, timed("b", 1, STEADY)).winner == "b"


def test_cards_that_nobody_read_are_not_known_to_be_the_same():
    runs = [timed("a", 1, scaled(1.02)), timed("b", 1, STEADY)]
    unread = [replace(r, environment=replace(r.environment, card=None)) for r in runs]
    assert judged(*unread).winner is None
    on_cpu = [replace(r, environment=replace(r.environment, device_kind="cpu")) for r in unread]
    assert judged(*on_cpu).winner == "b"


def test_medians_within_the_interval_of_their_difference_tie():
    noisy = [80.0, 120.0] * 6  # 95 %: +- 21 us of the median
    assert judged(timed("a", 1, [us + 15 for us in noisy]), timed("b", 1, noisy)).winner is None
    assert judged(timed("a", 1, [us + 60 for us in noisy]), timed("b", 1, noisy)).winner == "b"


def test_every_trial_must_be_slower_than_every_other_one():
    slow_spell = [*scaled(0.99)[:4], *scaled(1.5)[:4], *scaled(1.5)[:4]]
    fast = scaled(1.0)
    assert judged(timed("a", 1, slow_spell, trials=3), timed("b", 1, fast, trials=3)).winner is None
    apart = [*scaled(1.1)[:4], *scaled(1.5)[:4], *scaled(1.5)[:4]]
    assert judged(timed("a", 1, apart, trials=3), timed("b", 1, fast, trials=3)).winner == "b"


def test_each_timer_has_its_own_winner():
    runs = [timed("a", 1, scaled(1.5), STEADY), timed("b", 1, STEADY, scaled(1.5))]
    assert (judged(*runs).winner, judged(*runs, metric="graph").winner) == ("b", "a")


def test_one_alone_and_failures_win_nothing():
    runs = [timed("a", 1, STEADY), timed("b", 1, scaled(0.5)), timed("a", 7, STEADY)]
    failed = Failure("b", uuid(1), 1, "wrong result", "it is wrong")
    found = verdicts(assemble(runs, [failed], ["a", "b"]))["eager"]
    assert found == (None, None)


def test_wins_and_ties_are_counted():
    runs = []
    for tokens, (first, second) in {1: (1, 2), 7: (1, 1), 14: (2, 1), 15: (3, 1)}.items():
        runs += [timed("a", tokens, scaled(first)), timed("b", tokens, scaled(second))]
    found = verdicts(assemble(runs, (), ["a", "b"]))["eager"]
    assert [wins(found, name) for name in "ab"] == [1, 2]
    assert [ties(found, name) for name in "ab"] == [1, 1]


def test_the_reference_has_no_say():
    runs = [timed("a", 1, STEADY), timed("b", 1, scaled(2))]
    with_reference = [*runs, timed("reference", 1, scaled(0.1))]
    for every in (runs, with_reference):
        assert verdicts(assemble(every, (), ["a", "b"]))["eager"][0].names == ("a",)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.floats(min_value=1.0, max_value=1.2), min_size=2, max_size=6),
    st.randoms(use_true_random=False),
)
def test_neither_order_nor_names_decide(factors, shuffled):
    names = [f"s{position}" for position in range(len(factors))]
    runs = [timed(n, 1, scaled(f), trials=3) for n, f in zip(names, factors, strict=True)]
    before = verdict(assemble(runs, (), names).cells[0], "eager")
    shuffled.shuffle(runs)
    shuffled.shuffle(names)
    after = verdict(assemble(runs, (), names).cells[0], "eager")
    assert before == after
    lowest = min(range(len(factors)), key=lambda i: (factors[i], i))
    assert f"s{lowest}" in before.names
    # whoever ties is at least as fast as whoever does not
    inside = [factors[int(name[1:])] for name in before.names]
    outside = [f for i, f in enumerate(factors) if f"s{i}" not in before.names]
    assert max(inside) <= min(outside, default=2.0)


def test_equal_code_seldom_wins():
    """Three trials that share a slow or fast spell each: by samples alone half would be wins."""
    source = random.Random(7)
    false_wins = 0
    for _ in range(200):
        runs = []
        for name in "ab":
            spells = [source.gauss(100, 8) for _ in range(3)]
            values = [spell + source.gauss(0, 2) for spell in spells for _ in range(10)]
            runs.append(timed(name, 1, values, trials=3))
        false_wins += judged(*runs).winner is not None
    assert false_wins <= 24  # 10 % by luck
