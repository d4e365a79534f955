"""flashinfer-bench loads what moeprof exports, builds it and runs it right, without moeprof."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moeprof.checking.request import routing_asked
from moeprof.cli.main import run_command
from moeprof.fib.schema import parse_solution
from moeprof.problem.dataset import Dataset
from moeprof.problem.routing import make_routing, parse_spec

ROOT = Path(__file__).resolve().parents[2]
TINY = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e8_h256_i256"
REAL = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e32_h7168_i2048"
SIZES = (7, 1)
QUANTISED = 0.04  # relative L2 of twins and interpreted kernels: 0.021 to 0.029

ARGUMENTS = (
    "routing_logits, routing_bias, hidden_states, hidden_states_scale, gemm1_weights, "
    "gemm1_weights_scale, gemm2_weights, gemm2_weights_scale, local_expert_offset, "
    "routed_scaling_factor"
)
# a solution of stages, one of them its own, with options and a module beside it
COMPOSED = """
import my_gather as theirs
from moeprof.contract import Solution
from stages.solutions.triton_v2 import SOLUTION as BASE

STAGES = list(BASE.stages)
STAGES[3] = STAGES[3].with_options(per_call_views=False)
STAGES[5] = STAGES[5].with_options(per_call_views=False)
SOLUTION = Solution("composed", (*STAGES[:6], theirs.gather), keeps_buffers=True)
"""
GATHER = """
import torch
from moeprof.contract import Step, stage
from package.inner import rows_of  # and a package beside that

@stage(Step.GATHER, writes="output")
def gather(gemm2_output, output_permutation, local_weights):
    rows = rows_of(gemm2_output, output_permutation).view(*local_weights.shape, -1)
    return (rows * local_weights.unsqueeze(-1)).sum(dim=1).to(torch.bfloat16)
"""
INNER = """
from . import widths

def rows_of(values, index):
    return values[index.long()].to(widths.WIDE)
"""
# a forward of one's own: the reference, by a module beside it
OPAQUE = f"""
import torch, the_reference as other

def run({ARGUMENTS}):
    return other.run({ARGUMENTS})
"""


def export(root: Path, *arguments: object) -> int:
    return run_command(["export", "fib", "--dataset", str(root), *map(str, arguments)])


def run_exported(root: Path, cache: Path, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """What ``run_exported.py`` says of every solution of the dataset."""
    program = str(ROOT / "tests" / "fib" / "run_exported.py")
    environment = {**os.environ, "FIB_CACHE_PATH": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, program, str(root), ",".join(map(str, sizes))],
        env=environment,
        capture_output=True,
        text=True,
        cwd=cache.parent,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def users_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two solutions of a user, and what lies beside them."""
    folder = tmp_path_factory.mktemp("mine")
    own = json.loads((ROOT / "traces" / "definitions" / "moe" / f"{TINY}.json").read_text())
    (folder / "package").mkdir()
    for name, text in (
        ("composed.py", COMPOSED),
        ("my_gather.py", GATHER),
        ("package/inner.py", INNER),
        ("package/widths.py", "import torch\n\nWIDE = torch.float32\n"),
        ("opaque-forward.py", OPAQUE),
        ("the_reference.py", own["reference"]),
    ):
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def results(
    users_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """Solutions of both styles in one dataset, and what flashinfer-bench made of them."""
    folder = tmp_path_factory.mktemp("fib")
    root = folder / "dataset"
    shared = ("--definition", "tiny")
    names = f"triton_v2,triton_v3,cutedsl_v3_2,{users_files / 'composed.py'}"
    assert export(root, "--solution", names, *shared) == 0
    names = f"reference,sglang_v1,flashinfer_moe,{users_files / 'opaque-forward.py'}"
    assert export(root, "--solution", names, *shared, "--style", "value", "--author", "b") == 0
    return root, run_exported(root, folder / "cache")


EXACT = ("reference", "opaque-forward")
# how each is called and in which language it is said to be
STYLES = {
    "triton_v2": (True, "triton"),
    "triton_v3": (True, "triton"),
    "cutedsl_v3_2": (True, "triton"),
    "composed": (True, "triton"),
    "reference": (False, "python"),
    "sglang_v1": (False, "python"),
    "flashinfer_moe": (False, "python"),
    "opaque-forward": (False, "python"),
}


def test_flashinfer_bench_finds_every_solution(results):
    assert set(results[1]) == set(STYLES)


@pytest.mark.parametrize("name", STYLES)
def test_is_right_at_every_shape_and_after_other_shapes(results, name):
    """Kept memory of one shape does not reach into the next, nor one call's result into another."""
    limit = 1e-6 if name in EXACT else 0.06 if name == "flashinfer_moe" else QUANTISED
    found = results[1][name]
    assert len(found["errors"]) == len(SIZES) + 2
    for call, error in found["errors"].items():
        assert error < limit, f"{name}, {call}"
    assert found["first_again"] < limit


@pytest.mark.parametrize("name", STYLES)
def test_holds_no_weights_between_calls(results, name):
    """flashinfer-bench clones 1.4 GB of weights for every call."""
    assert not results[1][name]["holds_weights"]


@pytest.mark.parametrize("name", STYLES)
def test_reads_back_as_it_was_and_hashes_as_theirs(results, name):
    root, found = results
    in_place, language = STYLES[name]
    author = "moeprof" if in_place else "b"
    path = root / "solutions" / author / "moe" / TINY / f"{name}.json"
    solution = parse_solution(path.read_text(), str(path))
    assert solution.spec.destination_passing_style is in_place
    assert solution.hash == found[name]["hash"]
    assert found[name]["build_type"] == solution.spec.language == language


def test_the_users_modules_lie_beside_his_own(results):
    root, _ = results
    folder = root / "solutions" / "moeprof" / "moe" / TINY
    solution = parse_solution((folder / "composed.json").read_text(), "composed")
    paths = [source.path for source in solution.sources]
    assert "solution/composed.py" in paths and "solution/package/widths.py" in paths
    assert "from . import my_gather as theirs" in solution.source("solution/composed.py")
    assert solution.spec.dependencies == ("sgl_kernel", "torch", "triton")


def test_the_routing_is_the_one_that_run_makes(tmp_path):
    export(tmp_path / "ds", "--solution", "reference", "--num-tokens", "56,33", "--seed", "3")
    dataset = Dataset(tmp_path / "ds")
    definition = dataset.definition("dsv3")
    workloads = dataset.workloads(definition)
    assert [workload.seq_len for workload in workloads] == [56, 33]
    for workload in workloads:
        recorded, drawn = (
            make_routing(parse_spec(kind), definition, workload, 3, dataset=dataset)
            for kind in ("recorded", "uniform")
        )
        assert np.array_equal(recorded.logits, drawn.logits)
        assert np.array_equal(recorded.bias, drawn.bias)
        # nobody recorded it: a report says so
        assert recorded.label == "recorded (synthetic uniform, seed 3)"
        assert routing_asked(recorded.label) == "recorded"


def test_only_what_moeprof_wrote_is_called_synthetic(tmp_path):
    """A header is a stranger's text: it neither enters a record nor is it believed."""
    from moeprof.problem.blobs import routing_blob

    export(tmp_path, "--solution", "reference", "--definition", "tiny")
    dataset = Dataset(tmp_path)
    definition = dataset.definition("tiny")
    workload = dataset.workloads(definition)[1]
    files = dataset.recorded_routing(workload)
    routing = make_routing(parse_spec("recorded"), definition, workload, 0, dataset=dataset)
    for notes in (None, {"routing": "mine", "made_by": "me"}, {"made_by": "moeprof 0.1.0"}):
        blob = routing_blob(routing.logits, routing.bias, notes)
        files["routing_logits"].path.write_bytes(blob)
        again = make_routing(parse_spec("auto"), definition, workload, 0, dataset=dataset)
        assert again.label == "recorded"


def test_all_of_dsv3_loads_and_every_workload_has_its_blob(tmp_path, capsys):
    from flashinfer_bench.bench.utils import load_safetensors
    from flashinfer_bench.data import TraceSet

    assert export(tmp_path, "--solution", "all", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    traces = TraceSet.from_path(str(tmp_path))
    definition = traces.definitions[REAL]
    assert [w.workload.axes["seq_len"] for w in traces.workloads[REAL]].count(14107) == 1
    for trace in traces.workloads[REAL]:
        tensors = load_safetensors(definition, trace.workload, tmp_path)
        assert set(tensors) == {"routing_logits", "routing_bias"}
    theirs = {solution.name: solution for solution in traces.solutions[REAL]}
    assert set(theirs) == {solution["name"] for solution in document["solutions"]}
    for solution in document["solutions"]:
        assert theirs[solution["name"]].hash() == solution["hash"]
        assert solution["source_hash"] in theirs[solution["name"]].description
    assert document["warnings"] == []
