"""``moeprof explain`` on a GPU: the claim that matters most is proven, the others are reported.

Run on a GPU machine: python -m pytest tests/gpu/test_explain.py -m gpu -s   (-s prints the figures)
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moeprof.storage import store

pytestmark = pytest.mark.gpu

JUDGED = {"proven", "unproven", "no effect seen"}
SAME = "same output, bit for bit"


def explained(traces: Path, *arguments: object) -> dict[str, Any]:
    """The document of one explanation, in a process of its own: CUPTI slows it for good."""
    # not at import: without a GPU the interpreter must be on before any stage is imported
    from stages.libraries import flashinfer, sgl_kernel

    for library in (sgl_kernel.LIBRARY, flashinfer.LIBRARY):
        if library.stand_in:
            pytest.skip(library.stand_in)
    command = [sys.executable, "-m", "moeprof", "explain", *map(str, arguments), "--json"]
    done = subprocess.run(
        [*command, "--traces", str(traces)], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    for one in document["interventions"]:
        print(*(one[key] for key in ("solution", "name", "verdict", "why")), sep=" | ")
        print(*("    ", one["base_us"], one["predicted_us"], one["measured_us"], one["noise_us"]))
    return document


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Those on the first solution, and graph replay of both."""
    return {one["name"]: one for one in reversed(document["interventions"])}


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("large")
    return explained(folder, "triton_v2", "flashinfer_moe", "--num-tokens", 14107)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("small")
    return explained(folder, "sglang_v1", "sglang_v2", "--num-tokens", 7)


def test_work_amplification_is_proven_by_dropping_the_rows(large):
    local = by_name(large)["local pairs only"]
    assert local["output"] == SAME
    assert local["measured_us"] < -5_000
    assert abs(local["predicted_us"] - local["measured_us"]) <= local["tolerance_us"]
    assert local["verdict"] == "proven"
    proven = {
        bar["part"]
        for bar in large["bars"]
        if bar["cause"] == "amplification" and bar["verdict"] == "proven"
    }
    assert {"gemm1", "gemm2"} <= proven
    assert "amplification" in large["comparison"]["largest_cause"].lower()


def test_what_cannot_be_swapped_says_why_and_the_other_way_round_is_tried(large):
    impossible = {
        one["name"]: one["why"]
        for one in large["interventions"]
        if one["verdict"] == "impossible" and one["solution"] == "triton_v2"
    }
    assert "clamped_expert_ids" in impossible["other routing"]
    assert any("one call" in why for why in impossible.values())
    turned = next(
        one
        for one in large["interventions"]
        if one["name"] == "other routing" and one["solution"] == "flashinfer_moe"
    )
    assert turned["verdict"] in JUDGED


def test_a_graph_saves_what_the_timeline_says_it_should(small):
    for solution in ("sglang_v1", "sglang_v2"):
        found = by_name(small)[f"graph replay of {solution}"]
        assert found["measured_us"] < -50  # launches of some 30 kernels
        assert found["predicted_us"] == pytest.approx(found["measured_us"], rel=0.25)
        assert found["verdict"] in JUDGED


def test_every_other_effect_is_reported(small):
    found = by_name(small)
    for name in ("90 KB workspace", "kept buffers", "views made once", "other swiglu_quant"):
        one = found[name]
        assert one["verdict"] in JUDGED, one["why"]
        assert one["noise_us"] > 0 and one["predicted_us"] is not None
    for name in ("90 KB workspace", "kept buffers", "views made once", "local pairs only"):
        assert found[name]["output"] == SAME
    assert found["first call"]["measured_us"] > 0


def test_records_of_both_sides_are_whole(small):
    for side in ("before", "after"):
        run = store.load(small["comparison"][side]["record"])
        assert {p.name for p in run.passes} == {"first", "bare", "blocked", "graph"}
        assert {t.name for t in run.timelines} == {"kernels", "api", "graph"}
        assert run.calibration is not None and run.calibration.graph_gap_ns is not None
    assert small["comparison"]["residual_ns"] == 0


def test_sensitivity_has_busy_time_by_step(tmp_path):
    """T=901, few iterations: the busiest expert grows as routing gets uneven."""
    document = explained(
        tmp_path, "triton_v2", "flashinfer_moe", "--num-tokens", 901, "--sensitivity",
        "--iterations", 6, "--trials", 1,
    )  # fmt: skip
    rows = [row for row in document["sensitivity"] if row["solution"] == "triton_v2"]
    assert len(rows) == 10 and not any(row["problem"] for row in rows)
    assert all(row["busy_us"]["gemm1"] > 50 for row in rows)
    by_routing = {row["routing"].removeprefix("synthetic "): row for row in rows[:4]}
    assert by_routing["balanced"]["busiest_expert"] < by_routing["zipf:1.2"]["busiest_expert"]
    tokens = sorted(
        (row["num_tokens"], row["span_us"]) for row in rows if row["varied"] == "tokens"
    )
    assert tokens[0][1] < tokens[-1][1]
