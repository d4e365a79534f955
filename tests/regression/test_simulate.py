"""The simulation: that the promises hold on a slice of it, and that its parts do what they say."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moeprof.cli.main import run_command
from moeprof.regression.noise_models import (
    BASELINE,
    CANDIDATE,
    LARGE,
    SCENARIOS,
    STAGES,
    Scenario,
    draw,
    ticked,
)
from moeprof.regression.policy import Policy
from moeprof.regression.rivals import RIVALS
from moeprof.regression.simulate import ALL, OWN, _forward, _slower, _summaries, simulate
from moeprof.regression.simulated import CASES, Simulated, chosen_cases

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "regression.md"
CHECKS = 40
QUIET = Scenario("quiet", "nothing varies", process=0.0, iteration=0.0, outliers=0.0,
                 host_pace=0.0, host_stage=0.0, host_iteration=0.0)  # fmt: skip


def worst(rate: float, size: int) -> float:
    """Four standard deviations: a slice fails by chance once in 30,000."""
    return 4.0 * math.sqrt(rate * (1.0 - rate) / size)


@pytest.mark.parametrize("name", ["drift", "two clocks", "all at once"])
def test_the_promises_hold_on_a_slice(name):
    """Of the table in docs/regression.md, with the seed of no line of it."""
    (case,) = chosen_cases([name])
    found = simulate(case.scenario, Policy(), CHECKS, 77, rivals=False)
    own = found.rates[0]
    assert own.rule == OWN and own.checks == CHECKS
    assert own.alarms <= 1 + CHECKS * (0.01 + worst(0.01, CHECKS))
    slowdowns = CHECKS * len(STAGES)
    assert own.named_at(0.03) >= 0.80 - worst(0.80, slowdowns)
    assert own.named_at(0.05) >= 0.99 - worst(0.99, slowdowns)
    assert sum(own.host_named) >= slowdowns * (0.99 - worst(0.99, slowdowns))


def test_without_noise_every_slowdown_is_named_and_nothing_else():
    (own,) = simulate(QUIET, Policy(), 4, 1, rivals=False).rates
    assert own.alarms == own.second == own.undecided == 0
    assert all(count == 4 for _, counts in own.named for count in counts)
    assert own.host_named == (4,) * len(STAGES)


def test_a_slowdown_is_not_named_if_another_stage_alerts_too(monkeypatch):
    from moeprof.regression import simulate as module

    everything = np.ones(3, dtype=bool), np.ones((3, len(STAGES)), dtype=bool)
    monkeypatch.setattr(module, "_alerts", lambda first, last: everything)
    (own,) = simulate(QUIET, Policy(), 3, 1, rivals=False).rates
    assert own.alarms == 3 and own.named_at(0.05) == 0.0 and sum(own.host_named) == 0


def test_pooled_iterations_raise_false_alarms_in_most_checks():
    rates = {r.rule: r for r in simulate(SCENARIOS[0], Policy(), 40, 3).rates}
    pooled = rates["Mann-Whitney on iterations, 6 processes"]
    assert pooled.alarms > 20 and pooled.host_named is None and pooled.second is None
    assert rates["pytest-benchmark min:5%, 6 processes"].named_at(0.03) < 0.4
    assert set(rates) == {OWN} | {
        f"{name}, {count}" for name in RIVALS for count in ("1 process", "6 processes")
    }


def test_the_same_seed_gives_the_same_counts_and_another_does_not():
    first, again, other = (
        simulate(SCENARIOS[-1], Policy(), 8, seed, rivals=False).rates[0] for seed in (5, 5, 6)
    )
    assert first == again and first != other


def test_batches_add_up(monkeypatch):
    from moeprof.regression import simulate as module

    monkeypatch.setattr(module, "BATCH", 7)
    done = []
    own = simulate(QUIET, Policy(), 18, 1, rivals=False, progress=done.append).rates[0]
    assert done == [7, 7, 4] and own.checks == 18 and dict(own.named)[0.05] == (18,) * len(STAGES)


# ---------------------------------------------------------------- the noise


def drawn(checks: int = 200, **changes):
    return draw(replace(QUIET, **changes), LARGE, checks, 6, 8, 11)


def logs(played) -> np.ndarray:
    """Logarithms of process means over the nominal time, [N, side, round, P, stage]."""
    return np.log(played.busy_us.mean(axis=-1) / np.array(LARGE.busy_us))


def test_the_sizes_span_2_us_to_2_ms():
    assert min(LARGE.busy_us) == 2.0 and max(LARGE.busy_us) == 2000.0
    assert np.allclose(drawn(1).busy_us[0, 0, 0, 0, :, 0], LARGE.busy_us)


@pytest.mark.parametrize("tail", [None, 3.0])
def test_processes_vary_as_told(tail):
    spread = logs(drawn(process=0.01, tail=tail)).std()
    assert spread == pytest.approx(0.01, rel=0.3)
    extreme = np.abs(logs(drawn(process=0.01, tail=tail))).max()
    assert (extreme > 0.08) == (tail is not None)


def test_a_drift_is_a_line_over_each_round_that_both_sides_share():
    times = logs(drawn(drift=0.02))
    assert 0.015 < np.abs(times).max() <= 0.02 + 1e-9
    means = times.mean(axis=3)
    assert np.abs(means[:, BASELINE] - means[:, CANDIDATE]).max() < 0.005  # measured in turn


def test_neighbours_know_of_each_other():
    times = logs(drawn(process=0.01, wander=0.7))
    order = np.stack((times[:, BASELINE, 0, 0], times[:, CANDIDATE, 0, 0]))
    correlation = np.corrcoef(order[0].ravel(), order[1].ravel())[0, 1]
    assert correlation == pytest.approx(0.7, abs=0.08)
    inside = drawn(iteration=0.02, memory=0.6)
    series = np.log(inside.busy_us)
    lagged = np.corrcoef(series[..., 1:].ravel(), series[..., :-1].ravel())[0, 1]
    assert lagged > 0.5  # stages differ in size, so the correlation is at least that of the noise


def test_a_low_clock_stretches_what_goes_by_the_clock():
    played = drawn(low_clock=0.3, clock_ratio=0.95)
    low = played.sm_mhz < 1900
    assert low.mean() == pytest.approx(0.3, abs=0.05)
    times = logs(played)
    assert np.allclose(times[..., STAGES.index("gemm1")], np.where(low, -np.log(0.95), 0.0))
    assert np.allclose(times[..., STAGES.index("gather")], 0.0)


def test_two_forms_sessions_and_a_slow_host():
    forms = logs(drawn(modes={"gemm2": 0.1}))[..., STAGES.index("gemm2")]
    assert set(np.round(np.expm1(forms), 6).ravel()) == {0.0, 0.1}
    played = draw(replace(QUIET, session=0.01), LARGE, 300, 6, 4, 3, stored=True)
    day = logs(played)
    assert np.all(day[:, CANDIDATE] == 0.0) and np.std(day[:, BASELINE, 0, 0]) == pytest.approx(
        0.01, rel=0.1
    )
    assert np.all(logs(draw(replace(QUIET, session=0.01), LARGE, 9, 6, 4, 3)) == 0.0)
    host = drawn(host_pace=0.2).host_us / np.array(LARGE.host_us)[:, None]
    assert np.allclose(host, host[..., :1, :1])  # every stage alike


def test_times_are_whole_ticks_and_the_forward_follows_its_stages():
    assert np.allclose(ticked(np.array([0.001, 2.0, 2.05])), [0.032, 1.984, 2.048])
    busy, host = np.full((7, 1), 10.0), np.full((7, 1), 1.0)
    span, wall, orchestration = _forward(busy, host)[:, 0]
    assert span == pytest.approx(1.0 + 2.4 + 7 * 11.1) and wall == span + 20.0
    assert orchestration == pytest.approx(3.4)
    late = _forward(busy, np.full((7, 1), 100.0))[:, 0]
    assert late[0] == pytest.approx(700.0 + 2.4 + 11.1)


def test_a_slowdown_changes_its_stage_and_the_forward_only():
    played = drawn(3, process=0.01)
    usual = _summaries(ticked(played.busy_us), played.host_us)
    changed = _slower(usual, played, 3, 0.05)
    ratio = changed[:, CANDIDATE] / usual[:, CANDIDATE]
    assert np.allclose(ratio[..., 3, :], 1.05, atol=0.001)
    untouched = [place for place in range(14) if place != 3]
    assert np.all(ratio[..., untouched, :] == 1.0) and np.all(ratio[..., 14, :] > 1.01)
    assert np.array_equal(changed[:, BASELINE], usual[:, BASELINE])


# ---------------------------------------------------------------- the other tools' rules


def judged(rule: str, baseline, candidate, mhz=(1980.0, 1980.0)) -> bool:
    sides = [np.asarray(side, dtype=float).reshape(1, 1, -1) for side in (baseline, candidate)]
    cycles = [side * clock for side, clock in zip(sides, mhz, strict=True)]
    return bool(RIVALS[rule](*sides, *cycles)[0, 0])


STEADY = [100.0, 101.0, 102.0, 103.0, 104.0, 105.0, 106.0, 107.0]


@pytest.mark.parametrize(
    ("rule", "factor", "slower"),
    [
        ("3 % threshold on medians", 1.029, False),
        ("3 % threshold on medians", 1.031, True),
        ("pytest-benchmark min:5%", 1.049, False),
        ("pytest-benchmark min:5%", 1.051, True),
        ("Mann-Whitney on iterations", 1.0, False),
        ("Mann-Whitney on iterations", 1.04, True),
        ("Welch t on iterations", 1.0, False),
        ("Welch t on iterations", 1.04, True),
        ("nvbench-compare", 1.02, False),  # the relative deviation is 2.37 %
        ("nvbench-compare", 1.025, True),
        ("nvbench-compare-robust", 1.055, False),  # third quartile 105.25
        ("nvbench-compare-robust", 1.06, True),
    ],
)
def test_the_rules_of_other_tools_by_hand(rule, factor, slower):
    assert judged(rule, STEADY, [factor * time for time in STEADY]) == slower


def test_a_gap_must_show_in_cycles_too():
    slower = [1.06 * time for time in STEADY]
    assert not judged("nvbench-compare-robust", STEADY, slower, mhz=(1980.0, 1868.0))


# ---------------------------------------------------------------- the command and the table


def test_the_command_prints_one_document(capsys):
    arguments = ["noise", "--simulate", "--checks", "3", "--scenario", "drift", "--format", "json"]
    assert run_command(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    (line,) = document["scenarios"]
    assert document["schema"] == "moeprof.simulation/1" and document["checks"] == 3
    assert line["name"] == "drift" and line["promised"] and line["rules"][0]["rule"] == OWN
    assert len(line["rules"][0]["named"]["0.03"]) == len(document["stages"]) == 7
    assert document["policy"]["processes"] == Policy().processes


@pytest.mark.parametrize("form", ["text", "md"])
def test_the_command_prints_a_table(capsys, form):
    arguments = ["noise", "--simulate", "--checks", "2", "--scenario", "another day"]
    assert run_command([*arguments, "--format", form]) == 0
    out, err = capsys.readouterr()
    assert "another day" in out and "none made" in out and "1 of 1: another day" in err
    assert ("| another day |" in out) == (form == "md")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "nothing to look at"),
        (["--simulate", "{folder}"], "both --simulate and records"),
        (["--simulate", "--scenario", "drfit"], "did you mean drift"),
        (["{folder}", "--scenario", "drift"], "--scenario without --simulate"),
        (["{folder}"], "there is no record in"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, error, tmp_path, capsys):
    assert run_command(["noise", *(a.format(folder=tmp_path) for a in arguments)]) == 2
    out, err = capsys.readouterr()
    assert error in err and err.count("\n") == 1 and not out


def test_the_noise_of_records(tmp_path, capsys):
    from moeprof.storage import store
    from tests.regression.processes import processes

    for run in processes(5):
        store.save(run, tmp_path)
    assert run_command(["noise", str(tmp_path)]) == 0
    assert "gemm1 busy" in capsys.readouterr().out
    assert run_command(["noise", str(tmp_path), "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "moeprof.noise/1" and len(document["noise"]) == 17


def test_the_command_needs_no_torch_and_help_no_scipy():
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'triton', 'pynvml', 'cupti'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from moeprof.cli.main import run_command\n"
        "code = run_command(['noise', '--help'])\n"
        "assert 'scipy' not in sys.modules and 'numpy' not in sys.modules\n"
        "sys.exit(code or run_command(['noise', '--simulate', '--checks', '2',"
        " '--scenario', 'another day, known']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_documents_table_has_every_case_and_keeps_every_promise():
    text = DOCS.read_text()
    rows = [row for row in text.splitlines() if row.endswith(("| kept |", "| none made |"))]
    assert len(rows) == len(CASES) and "NOT KEPT" not in text
    for case, row in zip(CASES, rows, strict=True):
        assert row.startswith(f"| {case.name} |") and row.endswith("| kept |") == case.promised
        alarms, three, five = (float(cell.split()[0]) for cell in row.split("|")[2:5])
        assert not case.promised or (alarms <= 1.0 and three >= 80.0 and five >= 99.0)
    for rule in RIVALS:
        assert f"| {rule}, 1 process |" in text and f"| {rule}, 6 processes |" in text
    assert "moeprof noise --simulate" in text and "policy as by default" in text


def test_a_promise_that_is_not_kept_is_said():
    (case,) = chosen_cases(["independent"])
    found = simulate(case.scenario, replace(Policy(), processes=3), 60, 2, rivals=False)
    assert not Simulated(case, found).kept
    assert found.rates[0].named_at(0.03, [0]) == dict(found.rates[0].named)[0.03][0] / 60
    assert list(ALL) == list(range(7))
