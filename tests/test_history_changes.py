"""Change points of a history: hand-made steps, and how often noise and true steps are reported.

The figures in docs/history.md are of ``rates`` below with more series:
``python -m tests.test_history_changes 2000``.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from moeprof.history.changes import (
    FEWEST_CHECKS,
    SeriesNoise,
    changes_of,
    noise_of_series,
    penalty,
)

PROCESSES = 6
WANDERING = "checks 1 %, correlation 0.5"


def make_checks(generator, checks, process=0.02, session=0.0, kind="normal", processes=PROCESSES):
    """Times of ``processes`` processes in each of ``checks`` checks of unchanged code."""
    shape = (checks, processes)
    if kind == "heavy tails":
        luck = generator.standard_t(4, shape) / math.sqrt(2)
    elif kind == "two modes":
        luck = np.where(generator.random(shape) < 0.2, 2.0, -0.5)
    else:
        luck = generator.normal(size=shape)
    between = generator.normal(size=checks)
    if kind == "drift":  # each check knows of the last
        for i in range(1, checks):
            between[i] = 0.5 * between[i - 1] + math.sqrt(0.75) * between[i]
    return 100.0 * np.exp(process * luck + session * between[:, None])


def found(checks, process=0.0, known_session=None):
    rows = [tuple(row) for row in checks]
    return changes_of(rows, noise_of_series(rows, process, known_session))


def rates(series, seed=0):
    """Share of series of each kind of noise, by length, in which any change is reported."""
    generator = np.random.default_rng(seed)
    kinds = {
        "processes 2 %": {},
        "processes 0.5 %": {"process": 0.005},
        "and checks 1 %": {"session": 0.01},
        "heavy tails, checks 0.5 %": {"kind": "heavy tails", "session": 0.005},
        "two modes": {"kind": "two modes"},
        WANDERING: {"kind": "drift", "session": 0.01},
    }
    return {
        name: {
            length: np.mean(
                [bool(found(make_checks(generator, length, **how))) for _ in range(series)]
            )
            for length in (4, 6, 10, 20, 50, 100)
        }
        for name, how in kinds.items()
    }


def detection(series, step, length=20, at=12, seed=1, **how):
    """Share of series with a step whose only change is reported within one check of it."""
    generator = np.random.default_rng(seed)
    hits = 0
    for _ in range(series):
        checks = make_checks(generator, length, **how)
        checks[at:] *= 1 + step
        changes = found(checks)
        hits += len(changes) == 1 and abs(changes[0].at - at) <= 1
    return hits / series


def test_a_step_is_found_where_it_is_and_as_large_as_it_is():
    before = [(100.0, 101.0, 99.0)] * 6
    after = [(110.0, 111.1, 108.9)] * 5
    rows = before + after
    (change,) = changes_of(rows, noise_of_series(rows))
    assert change.at == 6
    assert change.ratio == pytest.approx(1.1, rel=1e-6)
    back = rows + before
    first, second = changes_of(back, noise_of_series(back))
    assert (first.at, second.at) == (6, 11)
    assert second.ratio == pytest.approx(1 / 1.1, rel=1e-6)


def test_one_odd_check_is_no_change_and_two_are():
    rows = [(100.0, 101.0, 99.0)] * 12
    odd = (120.0, 121.0, 119.0)
    one = [*rows[:6], odd, *rows[6:]]
    assert changes_of(one, noise_of_series(one)) == ()
    two = [*rows[:6], odd, odd, *rows[6:]]
    assert [change.at for change in changes_of(two, noise_of_series(two))] == [6, 8]
    newest = [*rows, odd]
    assert changes_of(newest, noise_of_series(newest)) == ()
    newest = [*rows, odd, odd]
    assert [change.at for change in changes_of(newest, noise_of_series(newest))] == [12]


def test_a_step_too_small_to_matter_is_none_however_sure():
    rows = [(100.0, 100.001, 99.999)] * 10 + [(100.4, 100.401, 100.399)] * 10
    assert changes_of(rows, noise_of_series(rows)) == ()
    larger = [(100.0, 100.001, 99.999)] * 10 + [(100.6, 100.601, 100.599)] * 10
    assert len(changes_of(larger, noise_of_series(larger))) == 1


def test_too_few_checks_have_no_change():
    rows = [(100.0,), (100.0,), (200.0,), (200.0,)]
    assert len(changes_of(rows, SeriesNoise(0.01, 0.0))) == 1
    assert changes_of(rows[: FEWEST_CHECKS - 1], SeriesNoise(0.01, 0.0)) == ()


def test_the_noise_has_both_parts():
    generator = np.random.default_rng(5)
    quiet = noise_of_series([tuple(row) for row in make_checks(generator, 200)])
    assert quiet.process == pytest.approx(0.02, rel=0.1)
    assert quiet.check < 0.005
    loud = noise_of_series([tuple(row) for row in make_checks(generator, 200, session=0.03)])
    assert loud.check == pytest.approx(0.03, rel=0.2)
    assert loud.believed(6) > loud.of_mean(6)
    told = noise_of_series([(100.0, 100.1)] * 3, process=0.05, session=0.01)
    assert (told.process, told.check, told.few) == (0.05, 0.01, 1.0)
    assert told.of_mean(5) == pytest.approx(math.sqrt(0.05**2 / 5 + 0.01**2))
    one = noise_of_series([(100.0, 101.0)])
    assert one.check == 0.0
    assert penalty(100) > penalty(4) > 6


def test_a_step_does_not_hide_in_the_noise_that_it_makes():
    """The noise between checks is taken from neighbours, which a step moves but once."""
    generator = np.random.default_rng(6)
    checks = make_checks(generator, 20)
    before = noise_of_series([tuple(row) for row in checks])
    checks[10:] *= 1.5
    after = noise_of_series([tuple(row) for row in checks])
    assert after.process == pytest.approx(before.process, rel=1e-6)
    assert after.of_mean(6) < 1.5 * before.of_mean(6)


def test_pure_noise_reports_a_change_in_at_most_one_series_in_a_hundred():
    for name, by_length in rates(200).items():
        share = np.mean(list(by_length.values()))
        if name == WANDERING:  # its level does change, though no code did
            assert share < 0.25
        else:  # 1200 series of a kind: three standard errors of 1 % above it
            assert share <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 1200), (name, by_length)


def test_three_per_cent_are_found_within_one_check():
    assert detection(300, 0.03) >= 0.9
    assert detection(300, 0.03, session=0.005) >= 0.75
    assert detection(300, 0.03, at=18) >= 0.5, "two checks after the step"
    assert detection(300, 0.03, process=0.005) >= 0.97


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for kind, shares in rates(count).items():
        print(kind, {length: f"{100 * share:.2f} %" for length, share in shares.items()})
    for steps in (0.03, 0.05):
        for at in (12, 18):
            print(
                "step",
                steps,
                "at",
                at,
                {
                    str(how): detection(count, steps, at=at, **how)
                    for how in (
                        {},
                        {"session": 0.005},
                        {"session": 0.01},
                        {"session": 0.02},
                        {"kind": "heavy tails", "session": 0.005},
                        {"processes": 1},
                    )
                },
            )
