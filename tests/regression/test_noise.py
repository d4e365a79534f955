"""How much times vary by themselves, and whether the slowdown said to be found is found."""

from __future__ import annotations

import numpy as np
import pytest

from moeprof.errors import UsageError
from moeprof.regression.noise import _spreads, detectable, noise_of
from moeprof.regression.noise_models import LARGE, STAGES, Scenario, draw, ticked
from moeprof.regression.policy import Policy
from moeprof.regression.simulate import _alerts, _decided, _Rule, _slower, _summaries
from moeprof.regression.values import Quantity
from tests.builders import make_cpu_run
from tests.regression.processes import processes

POLICY = Policy()


def test_the_spread_of_processes_is_that_of_their_summaries():
    found = {noise.quantity: noise for noise in noise_of(processes(40, kernel_sd=0.02), POLICY)}
    gemm = found[Quantity("gemm1", "busy")]
    assert gemm.process == pytest.approx(0.02, rel=0.3) and gemm.processes == 40
    assert gemm.session is None
    assert found[Quantity("", "span")].process > 0.0 and len(found) == 2 * 7 + 3


def test_a_common_pace_is_not_a_stages_noise():
    found = {n.quantity: n for n in noise_of(processes(12, host_sd=0.15), POLICY)}
    assert found[Quantity("gemm1", "host")].process < 0.01
    assert found[Quantity("", "orchestration")].process > 0.08


def test_sessions_are_told_from_processes():
    monday = processes(8, seed=1)
    tuesday = processes(8, seed=2, busy={"gemm1": 1.06})
    wednesday = processes(8, seed=3, busy={"gemm1": 0.95})
    runs, days = [*monday, *tuesday, *wednesday], [day for day in "mtw" for _ in range(8)]
    found = {n.quantity: n for n in noise_of(runs, POLICY, days)}
    gemm1, gemm2 = (found[Quantity(stage, "busy")] for stage in ("gemm1", "gemm2"))
    assert gemm1.session == pytest.approx(0.055, rel=0.2) and gemm1.process < 0.01
    assert gemm2.session < 0.005
    assert gemm1.detectable > 3 * gemm2.detectable
    blind = {n.quantity: n for n in noise_of(runs, POLICY)}
    assert blind[Quantity("gemm1", "busy")].process > 0.04


def test_sessions_do_not_count_what_their_processes_explain():
    random = np.random.default_rng(2)
    days = [day for day in "abc" for _ in range(4)]
    alike = random.normal(0.0, 0.01, (400, 12))
    process, session = _spreads(alike, days)
    assert np.median(session) == 0.0 and process.mean() == pytest.approx(0.01, rel=0.05)
    moved = alike + np.repeat(random.normal(0.0, 0.03, (400, 3)), 4, axis=1)
    process, session = _spreads(moved, days)
    assert process.mean() == pytest.approx(0.01, rel=0.05)
    assert np.sqrt(np.mean(np.square(session))) == pytest.approx(0.03, rel=0.1)


def test_noise_needs_processes():
    with pytest.raises(UsageError, match="2 runs; expected at least 3"):
        noise_of(processes(2), POLICY)
    with pytest.raises(UsageError, match="2 sessions of 3 runs"):
        noise_of(processes(3), POLICY, ["a", "b"])


def test_a_cpu_has_noise_too():
    found = noise_of([make_cpu_run() for _ in range(4)], POLICY)
    assert {str(noise.quantity) for noise in found} == {"span", *(f"{s} busy" for s in STAGES)}
    assert all(noise.process == 0.0 for noise in found)


@pytest.mark.parametrize("spread", [0.01, 0.02])
def test_the_slowdown_said_to_be_found_is_found_about_8_times_in_10(spread):
    scenario = Scenario("x", "x", process=spread, iteration=0.0, outliers=0.0)
    played = draw(scenario, LARGE, 300, POLICY.processes, 20, 4, stored=True)
    usual = _summaries(ticked(played.busy_us), played.host_us)
    slowdown = detectable(POLICY, "busy", spread)
    stage = STAGES.index("gemm1")
    changed = _slower(usual, played, stage, slowdown)
    _, stages = _alerts(*_decided(_Rule(POLICY, True, 0.0), changed, played))
    assert 0.70 <= float(np.mean(stages[:, stage])) <= 0.95


def test_what_is_found_follows_noise_floors_and_processes():
    assert detectable(POLICY, "busy", 0.0) == pytest.approx(0.02, abs=1e-9)
    assert detectable(POLICY, "host", 0.0) == pytest.approx(0.05, abs=1e-9)
    assert detectable(POLICY, "busy", 0.0, absolute_floor=0.3) == pytest.approx(0.3)
    more = Policy(processes=20, baseline_processes=40)
    assert detectable(more, "busy", 0.03) < 0.6 * detectable(POLICY, "busy", 0.03)
    alone, with_days = detectable(POLICY, "busy", 0.01), detectable(POLICY, "busy", 0.01, 0.01)
    assert with_days > 1.5 * alone
