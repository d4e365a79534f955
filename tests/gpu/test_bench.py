"""`moeprof bench` on a GPU: what its records hold, and kernels that hang, fault or want too much.

Run on a GPU machine: python -m pytest tests/gpu/test_bench.py -m gpu -s
Takes about four minutes, most of it processes that start again after one was ended.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from moeprof.analysis.attribution import profile
from moeprof.problem.dataset import own_root
from moeprof.records import PASSES, Run
from moeprof.storage import store
from moeprof.storage.benches import BenchFolder, benches
from tests.benches import write_right

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).resolve().parents[2]
DSV3 = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e32_h7168_i2048"
SIZES = (7, 56, 901)
GOOD = ("triton_v3", "triton_v2", "reference")

STORES_NOWHERE = """
import torch, triton
import triton.language as tl

@triton.jit
def store(pointer, offset):
    tl.store(pointer + offset, 1.0)

def nowhere():
    store[(1,)](torch.zeros(1, device="cuda"), 1 << 44)
"""


def dataset(folder: Path) -> Path:
    """The full definition with the workloads of SIZES alone."""
    (folder / "workloads/moe").mkdir(parents=True)
    shutil.copytree(own_root() / "definitions/moe", folder / "definitions/moe")
    lines = (own_root() / f"workloads/moe/{DSV3}.jsonl").read_text().splitlines()
    chosen = [line for line in lines if json.loads(line)["workload"]["axes"]["seq_len"] in SIZES]
    assert len(chosen) == len(SIZES)
    (folder / f"workloads/moe/{DSV3}.jsonl").write_text("\n".join(chosen) + "\n")
    return folder


def moeprof(folder: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """Exit code, stdout and lines of stderr of a command in ``folder``."""
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    places = os.pathsep.join([str(ROOT), *map(os.path.abspath, given)])
    done = subprocess.run(
        [sys.executable, "-m", "moeprof", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=900,
    )
    print(done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr.splitlines()


def bench(folder: Path, solutions: tuple[str, ...], *arguments: str) -> tuple[int, BenchFolder]:
    asked = ("--solutions", ",".join(solutions), "--dataset", "data", "--traces", "traces")
    code, _, _ = moeprof(folder, "bench", *asked, "--all-workloads", *arguments)
    return code, benches(folder / "traces")[0]


def median_us(run: Run, name: str) -> float:
    return statistics.median(sample.span_us for sample in run.samples(name))


def test_three_solutions_on_three_workloads(tmp_path: Path) -> None:
    dataset(tmp_path / "data")
    begin = time.monotonic()
    code, found = bench(tmp_path, GOOD, "--trials", "2", "-o", "t.md", "-o", "t.json")
    print(f"{time.monotonic() - begin:.0f} s")
    assert code == 0 and found.failures() == ()
    runs = {(run.solution.name, run.workload.seq_len): run for run in found.runs()}
    assert set(runs) == {(name, size) for name in GOOD for size in SIZES}
    cards = {run.environment.card for run in runs.values()}
    assert len(cards) == 1 and None not in cards
    for (name, size), run in runs.items():
        assert run.correctness.passed, (name, size)
        measured = {p.name for p in run.passes} | {t.name for t in run.timelines}
        assert measured >= set(PASSES), (name, size)
        assert [s.trial for s in run.samples("bare")] == [0] * 20 + [1] * 20
        assert run.calibration is not None and run.ceilings is not None
    for size in SIZES:  # the reference waits for the GPU; that says nothing of the others
        for name in ("triton_v3", "triton_v2"):
            run = runs[name, size]
            assert not [p.unavailable for p in run.passes if p.unavailable], (name, size)
            check = profile(run).span_check
            assert check is not None
            off_us = abs(check.predicted_us - check.measured_us)
            assert off_us <= max(3.0, 0.05 * check.measured_us), (name, size)
        assert len({runs[name, size].routing.histogram_hash for name in GOOD}) == 1
    assert "triton\\_v3" in (tmp_path / "t.md").read_text()  # as Markdown escapes it
    cells = json.loads((tmp_path / "t.json").read_text())["cells"]
    assert {cell["kind"] for cell in cells} == {"measured"}
    # beside each other as by itself
    code, _, _ = moeprof(tmp_path, "run", "--solution", "triton_v3", "--num-tokens", "901",
                         "--traces", "alone", "--passes", "bare,graph")  # fmt: skip
    assert code == 0
    (file,) = store.find_runs(tmp_path / "alone/runs")
    alone, beside = store.load(file.path), runs["triton_v3", 901]
    for name in ("bare", "graph"):
        one, other = median_us(alone, name), median_us(beside, name)
        print(f"triton_v3 T=901 {name}: alone {one:.1f} us, beside the others {other:.1f} us")
    assert abs(median_us(alone, "graph") / median_us(beside, "graph") - 1) <= 0.05


def test_kernels_that_hang_fault_or_want_too_much_cost_their_cells_alone(tmp_path: Path) -> None:
    dataset(tmp_path / "data")
    gpu = "import torch"
    bad = (
        write_right(tmp_path, "hangs", "tokens == 56 and torch.cuda._sleep(1 << 62)", gpu),
        write_right(tmp_path, "faults", "tokens == 7 and nowhere()", STORES_NOWHERE),
        write_right(
            tmp_path,
            "asserts",
            "tokens == 901 and given[0][:, torch.full((1,), 1 << 30, device='cuda')]",
            gpu,
        ),
        write_right(
            tmp_path,
            "greedy",
            "tokens == 56 and torch.empty(1 << 50, dtype=torch.uint8, device='cuda')",
            gpu,
        ),
    )
    names = tuple(f"./{Path(path).name}" for path in bad)
    begin = time.monotonic()
    code, found = bench(
        tmp_path,
        (*names, *GOOD),
        *("--timeout", "60", "--preset", "quick", "--passes", "bare,kernels"),
    )
    print(f"{time.monotonic() - begin:.0f} s")
    assert code == 4
    why = {(one.solution, one.seq_len): (one.kind, one.message) for one in found.failures()}
    assert set(why) == {("hangs", 56), ("faults", 7), ("asserts", 901), ("greedy", 56)}
    assert why["hangs", 56] == (
        "timeout",
        "it did not come to an end within 60 s in pass first",
    )
    assert why["faults", 7][0] == "crashed" and "made the GPU fault" in why["faults", 7][1]
    assert why["asserts", 901][0] == "crashed" and "device-side assert" in why["asserts", 901][1]
    assert why["greedy", 56][0] == "error" and "out of memory" in why["greedy", 56][1]
    runs = {(run.solution.name, run.workload.seq_len): run for run in found.runs()}
    every = {(name, size) for name in found.plan.names for size in SIZES}
    assert set(runs) == every - set(why)
    for key, run in runs.items():
        assert run.correctness.passed and run.timeline("kernels") is not None, key
    free, total = torch.cuda.mem_get_info()
    assert free > 0.9 * total, "a killed process still holds the GPU"
    assert torch.ones(8, device="cuda").sum().item() == 8


def test_a_fault_in_a_later_pass_is_a_crash_too(tmp_path: Path) -> None:
    """The first process checks everything, then dies; the second one measures the rest."""
    dataset(tmp_path / "data")
    # samples are taken with Python's collector off, first calls and warm-ups with it on
    body = "tokens == 7 and not gc.isenabled() and nowhere()"
    bad = write_right(tmp_path, "late", body, f"import gc{STORES_NOWHERE}")
    options = ("--preset", "quick", "--passes", "bare", "--iterations", "20")
    code, found = bench(tmp_path, (f"./{Path(bad).name}", "triton_v3"), *options)
    assert code == 4
    (failure,) = found.failures()
    assert (failure.solution, failure.seq_len, failure.kind) == ("late", 7, "crashed")
    assert "in pass bare" in failure.message
    assert len(found.runs()) == 3 * 3 - 1
