"""The figures of docs/findings.md, recomputed from the committed H200 records."""

from __future__ import annotations

import statistics
from functools import cache
from pathlib import Path

import pytest

from moeprof.analysis.attribution import profile
from moeprof.analysis.profiles import Profile, StageProfile
from moeprof.records import Run
from moeprof.storage import store

ROOT = Path(__file__).resolve().parents[1]
FINDINGS = (ROOT / "docs" / "findings.md").read_text()


@cache
def explained(solution: str, tokens: int) -> tuple[Run, Profile]:
    folder = ROOT / "traces" / "recorded" / "h200" / solution
    (file,) = folder.rglob(f"T{tokens}-*.json.gz")
    run = store.load(file)
    return run, profile(run)


def row(solution: str, tokens: int, stage: str) -> StageProfile:
    found = explained(solution, tokens)[1].stage(stage)
    assert found is not None
    return found


def stage_us(solution: str, tokens: int, stage: str) -> float:
    """Busy time and gaps of one row."""
    return row(solution, tokens, stage).time_ns / 1e3


def share(solution: str, tokens: int, *stages: str) -> float:
    span_us = explained(solution, tokens)[1].span_ns / 1e3
    return sum(stage_us(solution, tokens, stage) for stage in stages) / span_us


@pytest.mark.parametrize(
    ("solution", "launches"),
    [("sglang_v1", 37), ("sglang_v2", 30), ("triton_v1", 28), ("triton_v2", 20)],
)
def test_launches(solution: str, launches: int) -> None:
    assert sum(stage.operations for stage in explained(solution, 56)[1].stages) == launches
    assert f"{solution} {launches}" in FINDINGS.replace("\n", " ")


@pytest.mark.parametrize(("tokens", "saved"), [(14107, 16.9), (11948, 16.8), (901, 11.6)])
def test_what_the_native_quantisation_saves(tokens: int, saved: float) -> None:
    before, after = (stage_us(s, tokens, "swiglu_quant") for s in ("sglang_v1", "sglang_v2"))
    span_us = explained("sglang_v1", tokens)[1].span_ns / 1e3
    assert 100 * (before - after) / span_us == pytest.approx(saved, abs=0.05)
    assert f"{saved} %" in FINDINGS


def test_times_of_the_activation() -> None:
    for solution, expected in (("sglang_v1", "3,870.8"), ("sglang_v2", "1,463.1"),
                               ("triton_v1", "285.9")):  # fmt: skip
        assert f"{stage_us(solution, 14107, 'swiglu_quant'):,.1f}" == expected
        assert expected in FINDINGS


@pytest.mark.parametrize(
    ("solution", "tokens", "per_cent"),
    [("triton_v2", 1, 72), ("triton_v2", 7, 62), ("triton_v2", 901, 13),
     ("flashinfer_moe", 1, 78), ("flashinfer_moe", 7, 62)],
)  # fmt: skip
def test_shares_of_orchestration(solution: str, tokens: int, per_cent: int) -> None:
    _, found = explained(solution, tokens)
    assert round(100 * found.orchestration_ns / found.span_ns) == per_cent


@pytest.mark.parametrize(
    ("tokens", "per_cent"), [(1, 21.1), (901, 8.1), (11948, 4.9), (14107, 4.8)]
)
def test_shares_of_shuffle_and_prepare(tokens: int, per_cent: float) -> None:
    found = 100 * share("triton_v2", tokens, "prepare_moe_input", "shuffle_rows")
    assert found == pytest.approx(per_cent, abs=0.05)


def test_gemms_at_large_t() -> None:
    figures = [
        f"{row(solution, 14107, stage).busy_ns / 1e3:,.0f}"
        for solution in ("triton_v2", "flashinfer_moe")
        for stage in ("gemm1", "gemm2")
    ]
    assert figures == ["5,821", "3,138", "849", "471"]
    assert "5,821 and 3,138 us in triton_v2, 849 and 471 us in flashinfer_moe" in FINDINGS


def test_gpu_time_follows_the_active_experts() -> None:
    points = []
    for tokens in (*range(52, 60), 62, 80):
        run, found = explained("triton_v2", tokens)
        busy_us = sum(stage.busy_ns for stage in found.stages) / 1e3
        points.append((run.routing.active_experts, busy_us))
    experts, times = zip(*points, strict=True)
    assert statistics.correlation(experts, times) == pytest.approx(0.93, abs=0.005)
    assert statistics.linear_regression(experts, times).slope == pytest.approx(11.2, abs=0.05)


def test_first_calls() -> None:
    ms = {t: explained("triton_v2", t)[0].samples("first")[0].wall_us / 1e3 for t in (1, 7, 16, 32)}
    assert [round(ms[t]) for t in (1, 7, 16)] == [2302, 317, 80] and ms[32] < 1
