"""How far differences of samples can be trusted."""

from __future__ import annotations

import random

import pytest

from moeprof.analysis.noise import difference_by_turn, median_noise


def test_a_change_that_all_turns_show_is_found_with_its_interval() -> None:
    base = {turn: [100.0 + turn] * 3 for turn in range(6)}
    changed = {turn: [110.0 + turn + (turn % 2)] * 3 for turn in range(6)}
    found = difference_by_turn(base, changed)
    assert found is not None
    assert found == (10.5, pytest.approx(2.57 * 0.5477 / 6**0.5, rel=1e-3))


def test_a_slow_spell_of_the_host_is_noise_and_not_a_change() -> None:
    """Half of the turns ran their variant in a slow spell: pooled samples see 100 +- 20 us."""
    source = random.Random(1)
    base = {turn: [source.gauss(600, 5) for _ in range(10)] for turn in range(6)}
    changed = {
        turn: [source.gauss(600 + (turn < 3) * 200, 5) for _ in range(10)] for turn in range(6)
    }
    found = difference_by_turn(base, changed)
    assert found is not None
    change_us, noise_us = found
    assert abs(change_us) <= noise_us
    pooled = [value for samples in base.values() for value in samples]
    assert median_noise(pooled) < 5 < noise_us


def test_two_turns_are_too_few_and_only_shared_turns_count() -> None:
    base = {0: [1.0], 1: [1.0], 2: [1.0]}
    assert difference_by_turn(base, {0: [2.0], 1: [2.0], 7: [2.0]}) is None
    assert difference_by_turn(base, {0: [2.0], 1: [2.0], 2: [2.0], 9: [90.0]}) == (1.0, 0.0)
