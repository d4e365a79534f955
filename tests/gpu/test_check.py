"""Regression checks on a real GPU: silent where nothing changed, right where something did.

Run on a GPU machine: python -m pytest tests/gpu/test_check.py -m gpu -s
How many checks without a change a size: MOEPROF_UNCHANGED_CHECKS (2); a check takes about a minute.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]
SLOWDOWNS = Path(__file__).with_name("slowdowns")
UNCHANGED = int(os.environ.get("MOEPROF_UNCHANGED_CHECKS", "2"))


def moeprof(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "moeprof", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=590, cwd=ROOT)


def recorded(traces: Path, solution: str, tokens: int) -> str:
    """The name of a new baseline."""
    began = time.monotonic()
    done = moeprof(
        *("baseline", "record", "--solution", solution, "--num-tokens", tokens),
        *("--name", f"{solution}-T{tokens}", "--traces", traces),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"\nbaseline {solution} T={tokens}: {time.monotonic() - began:.0f} s")
    return f"{solution}-T{tokens}"


def checked(traces: Path, solution: str | Path, baseline: str) -> tuple[int, dict[str, Any]]:
    """Exit code and document of a check; prints its first line and its cost."""
    began = time.monotonic()
    arguments = ("--solution", solution, "--baseline", baseline, "--traces", traces)
    done = moeprof("check", *arguments, "--format", "json")
    assert done.stdout, done.stderr[-2000:]
    document = json.loads(done.stdout)
    seconds = time.monotonic() - began
    print(f"\nexit {done.returncode} in {seconds:.0f} s: {document['headline']}")
    return done.returncode, document


@pytest.mark.parametrize("tokens", [7, 56, 901])
def test_no_alert_where_nothing_changed(tmp_path: Path, tokens: int) -> None:
    baseline = recorded(tmp_path, "triton_v2", tokens)
    codes = [checked(tmp_path, "triton_v2", baseline)[0] for _ in range(UNCHANGED)]
    print(f"T={tokens}: exit codes {codes}")
    assert 1 not in codes and 2 not in codes


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    traces = tmp_path_factory.mktemp("slowdowns")
    return traces, recorded(traces, "triton_v3", 56)


@pytest.mark.parametrize(
    ("name", "stage", "kinds"),
    [
        ("extra_copy", "swiglu_quant", {"kernel set", "launches"}),
        ("slower_tile", "gemm1", {"launch shape", "busy", "kernel set"}),
        ("python_in_routing", "routing", {"host", "host_late"}),
    ],
)
def test_a_slowdown_is_found_and_named(
    baseline: tuple[Path, str], name: str, stage: str, kinds: set[str]
) -> None:
    traces, known = baseline
    code, document = checked(traces, SLOWDOWNS / f"{name}.py", known)
    for cause in document["causes"]:
        print("   ", cause["stage"], cause["kind"], cause["sentence"])
    assert code == 1
    assert stage in {alert["stage"] for alert in document["alerts"]}
    assert kinds & {cause["kind"] for cause in document["causes"] if cause["stage"] == stage}


def test_a_lost_buffer_reuse_is_found_and_named(baseline: tuple[Path, str]) -> None:
    traces, known = baseline
    code, document = checked(traces, SLOWDOWNS / "lost_buffers.py", known)
    for cause in document["causes"]:
        print("   ", cause["stage"], cause["kind"], cause["sentence"])
    assert code == 1
    named = {(cause["stage"], cause["kind"]) for cause in document["causes"]}
    assert {stage for stage, _ in named} & {"routing", "prepare_moe_input", "shuffle_rows"}
    assert any(kind in ("allocator", "host") for _, kind in named)
