"""flashinfer-bench itself runs what moeprof exports, on a GPU, with the contest's tolerances.

Run on a GPU machine: python -m pytest tests/gpu/test_fib.py -m gpu -s
Takes about four minutes: a process for each solution and workload, and the Python reference timed.
"""

import json
import os
import subprocess
import sys

import pytest

from moeprof.cli.main import run_command

pytestmark = pytest.mark.gpu

DEFINITION = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e32_h7168_i2048"
SOLUTIONS = ("triton_v2", "triton_v3", "cutedsl_v3_2")
SIZES = (7, 56, 901, 14107)
TOLERANCES = ("--atol", "1.0", "--rtol", "0.3", "--required-matched-ratio", "0.9")
CLI = "from flashinfer_bench.cli.main import cli; cli()"  # a script may not be installed with it


def export(root, solutions, sizes):
    names, tokens = ",".join(solutions), ",".join(map(str, sizes))
    done = run_command(
        ["export", "fib", "--solution", names, "--dataset", str(root), "--num-tokens", tokens]
    )
    assert done == 0


def python_path(*first):
    """PYTHONPATH for a process that starts in another folder."""
    places = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return os.pathsep.join([*map(str, first), *map(os.path.abspath, places)])


def bench(root, solutions, cache, *options, **variables):
    """The traces that ``flashinfer-bench run`` leaves, by solution and tokens."""
    command = [sys.executable, "-c", CLI, "run", "--local", str(root), "--definitions", DEFINITION]
    command += ["--solutions", *solutions, "--use-isolated-runner", *TOLERANCES, *options]
    variables = {"FIB_CACHE_PATH": str(cache), "PYTHONPATH": python_path(), **variables}
    environment = {**os.environ, **variables}
    # elsewhere than in the checkout: an export needs nothing of it
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=cache)
    traces = [
        json.loads(line)
        for path in sorted((root / "traces").rglob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert traces, done.stderr[-3000:]
    found = {}
    for trace in traces:
        key = (trace["solution"], trace["workload"]["axes"]["seq_len"])
        assert key not in found, "two traces of one solution and workload"
        found[key] = trace["evaluation"]
    return found


@pytest.fixture(autouse=True, scope="module")
def flashinfer_bench():
    return pytest.importorskip("flashinfer_bench")


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    root = tmp_path_factory.mktemp("dataset")
    export(root, SOLUTIONS, SIZES)
    found = bench(root, SOLUTIONS, tmp_path_factory.mktemp("cache"))
    print()
    for (solution, tokens), evaluation in sorted(found.items()):
        performance = evaluation["performance"] or {}
        correctness = evaluation["correctness"] or {}
        print(
            f"{solution:14} T={tokens:<6} {evaluation['status']:20}"
            f" {1e3 * performance.get('latency_ms', 0):9.1f} us"
            f" reference {1e3 * performance.get('reference_latency_ms', 0):9.1f} us"
            f" matched {(correctness.get('extra') or {}).get('matched_ratio', 0):.4f}"
        )
    return found


@pytest.mark.parametrize("tokens", SIZES)
@pytest.mark.parametrize("solution", SOLUTIONS)
def test_passes_in_flashinfer_bench(evaluations, solution, tokens):
    evaluation = evaluations[solution, tokens]
    assert evaluation["status"] == "PASSED", evaluation["log"][-3000:]
    performance = evaluation["performance"]
    assert 0 < performance["latency_ms"] < performance["reference_latency_ms"]


def test_a_twin_never_stands_in_on_a_gpu(tmp_path):
    """Where sgl_kernel cannot be imported the solution does not build; it is not merely slow."""
    shadow = tmp_path / "shadow" / "sgl_kernel"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("raise ImportError('broken on purpose')\n")
    cache = tmp_path / "cache"
    cache.mkdir()
    export(tmp_path / "dataset", ["triton_v2"], [7])
    few = ("--iterations", "1", "--warmup-runs", "1", "--num-trials", "1")
    found = bench(
        tmp_path / "dataset", ["triton_v2"], cache, *few, PYTHONPATH=python_path(shadow.parent)
    )
    evaluation = found["triton_v2", 7]
    assert evaluation["status"] == "COMPILE_ERROR"
    assert "triton_v2 needs sgl_kernel" in evaluation["log"]
