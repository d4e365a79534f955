"""How slow each process was, by hand: the clock, the host by its other stages, the whole."""

from __future__ import annotations

import numpy as np
import pytest

from moeprof.regression.paces import Measured, with_paces

MEASURES = ("busy", "busy", "host", "host", "host", "host", "span", "orchestration")


def measured(busy=(60.0, 20.0), host=(10.0, 20.0, 30.0, 40.0), span=100.0, mhz=1980.0, count=3):
    us = np.array([*busy, *host, span, 10.0])[:, None] * np.ones(count)
    return Measured(us, np.full(count, mhz))


def test_a_stage_goes_with_the_clock_and_the_span_as_far_as_the_gpu_is_busy():
    (found,) = with_paces(MEASURES, [(measured(), measured(mhz=1980.0 * 0.9))])
    slower = found.candidate_pace / found.baseline_pace
    assert np.allclose(slower[:2], 1 / 0.9)
    assert np.allclose(slower[6], (1 / 0.9) ** 0.8)  # 80 of 100 us
    assert np.isnan(slower[7]).all()


def test_a_hosts_pace_is_that_of_the_other_stages():
    """One stage takes twice as long: its own pace knows nothing of it."""
    (found,) = with_paces(MEASURES, [(measured(), measured(host=(20.0, 20.0, 30.0, 40.0)))])
    slower = found.candidate_pace / found.baseline_pace
    assert np.allclose(slower[2], 1.0)
    everywhere = measured(host=(15.0, 30.0, 45.0, 60.0))
    (found,) = with_paces(MEASURES, [(measured(), everywhere)])
    assert np.allclose((found.candidate_pace / found.baseline_pace)[2:6], 1.5)
    assert np.allclose(np.exp(found.candidate_host - found.baseline_host), 1.5)


def test_a_stages_own_slowness_is_no_part_of_its_pace():
    """Two of four stages take twice as long: each sees one slow and two steady others, the steady
    ones see two slow."""
    (found,) = with_paces(MEASURES, [(measured(), measured(host=(20.0, 40.0, 30.0, 40.0)))])
    slower = (found.candidate_pace / found.baseline_pace)[2:6, 0]
    assert np.allclose(slower, [1.0, 1.0, 2.0, 2.0])


def test_three_stages_are_too_few_for_a_pace():
    few = MEASURES[:2] + MEASURES[3:]
    us = measured().us[[0, 1, 3, 4, 5, 6, 7]]
    one = Measured(us, np.full(3, 1980.0))
    (found,) = with_paces(few, [(one, one)])
    assert np.isnan(found.candidate_pace[2:5]).all() and np.isnan(found.candidate_host).all()
    assert np.isfinite(found.candidate_pace[:2]).all()


def test_an_unknown_clock_is_an_unknown_pace():
    (found,) = with_paces(MEASURES, [(measured(), measured(mhz=float("nan")))])
    assert np.isnan(found.candidate_pace[[0, 1, 6]]).all()
    assert np.isfinite(found.candidate_pace[2:6]).all()


def test_each_process_keeps_its_own_pace_through_both_rounds():
    slow = measured(mhz=990.0, count=2)
    rounds = [(measured(count=5), measured(count=3)), (None, slow)]
    first, second = with_paces(MEASURES, rounds)
    assert second.baseline_us is None and second.baseline_pace is second.baseline_host is None
    assert [a.shape[-1] for a in (first.baseline_pace, first.candidate_pace)] == [5, 3]
    assert second.candidate_pace.shape == (8, 2) and second.candidate_us is slow.us
    assert np.allclose(second.candidate_pace[0] / first.candidate_pace[0, :2], 2.0)
    both = with_paces(MEASURES, [(measured(count=5), measured(count=3)), (slow, measured())])
    assert np.allclose(both[1].baseline_pace[0] / both[1].candidate_pace[0, :2], 2.0)


@pytest.mark.parametrize("span", [40.0, 80.0])
def test_the_gpu_is_busy_at_most_all_the_time(span):
    (found,) = with_paces(MEASURES, [(measured(span=span), measured(span=span, mhz=990.0))])
    assert np.allclose((found.candidate_pace / found.baseline_pace)[6], 2.0)
