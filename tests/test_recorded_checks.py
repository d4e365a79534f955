"""Checks re-judged from committed records of an H200: silence where nothing changed, the right
stage and cause where something did. Needs no GPU: `traces/recorded/checks/h200` holds the records.

unchanged/<card>: triton_v2 in fresh processes on two H200s, three sizes a process, passes bare,
kernels and api. slowdowns: a baseline of triton_v3 and the four solutions of tests/gpu/slowdowns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from moeprof.records import Run
from moeprof.regression.judge import Confirmation, judge
from moeprof.regression.noise import noise_of
from moeprof.regression.policy import Policy
from moeprof.regression.values import Check
from moeprof.storage.store import load

RECORDED = Path(__file__).resolve().parents[1] / "traces" / "recorded" / "checks" / "h200"
POLICY = Policy()


@cache
def runs(folder: str) -> tuple[Run, ...]:
    return tuple(load(file) for file in sorted((RECORDED / folder).glob("*.json.gz")))


def checked(baseline: Sequence[Run], first: Sequence[Run], second: Sequence[Run]) -> Check:
    """As ``moeprof check`` does: a second round where the first makes suspicious."""
    noise = noise_of(baseline, POLICY)
    check = judge(baseline, first, POLICY, None, noise)
    if check.awaiting:
        check = judge(baseline, first, POLICY, Confirmation(second), noise)
    return check


@cache
def unchanged_checks(card: str, tokens: int) -> list[Check]:
    """Baselines of the first and of the last processes; rounds of the others are candidates."""
    found, size = runs(f"unchanged/{card}/triton_v2-T{tokens}"), POLICY.baseline_processes
    checks = []
    for baseline, others in ((found[:size], found[size:]), (found[-size:], found[:-size])):
        for at in range(0, len(others) - POLICY.processes + 1, POLICY.processes):
            first = others[at : at + POLICY.processes]
            second = [run for run in others if run not in first][: POLICY.processes]
            checks.append(checked(baseline, first, second))
    return checks


@pytest.mark.parametrize("tokens", [7, 56, 901])
@pytest.mark.parametrize("card", ["a", "b"])
def test_no_check_of_unchanged_code_alerts(card: str, tokens: int) -> None:
    """24 checks over two cards and three sizes: no alert, and at most a sixth without an answer."""
    checks = unchanged_checks(card, tokens)
    assert len(checks) == 4
    assert [check.verdict for check in checks if check.alerts] == []
    assert {check.exit_code for check in checks} <= {0, 3}


def test_most_checks_of_unchanged_code_have_an_answer() -> None:
    codes = [c.exit_code for card in "ab" for t in (56, 901) for c in unchanged_checks(card, t)]
    assert codes.count(0) >= 0.8 * len(codes)


@pytest.mark.parametrize(
    ("name", "stage", "kinds"),
    [
        ("extra_copy", "swiglu_quant", {"kernel set"}),
        ("slower_tile", "gemm1", {"launch shape"}),
        ("python_in_routing", "routing", {"host"}),
        ("lost_buffers", "routing", {"allocator"}),
    ],
)
def test_a_slowdown_is_named(name: str, stage: str, kinds: set[str]) -> None:
    found = runs(f"slowdowns/{name}")
    size = len(found) // 2
    check = checked(runs("slowdowns/triton_v3-T56"), found[:size], found[size:])
    assert check.exit_code == 1
    assert check.alerts[0].quantity.stage == stage
    assert kinds <= {cause.kind for cause in check.causes_of(stage)}


def test_two_cards_of_one_model_are_further_apart_than_the_floor() -> None:
    """Why a check refuses another card: gemm1 at T=56 takes 2.7 % longer on one of these two."""
    sides = [runs(f"unchanged/{card}/triton_v2-T56") for card in "ab"]
    check = judge(sides[0][:12], sides[1][:12], POLICY, None, noise_of(sides[0][:12], POLICY))
    finding = check.finding("gemm1", "busy")
    assert finding is not None and finding.ratio is not None
    assert 0.02 < finding.ratio - 1 < 0.035
