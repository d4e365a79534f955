"""Foreign solutions on a GPU: stopped, caught, and told apart by step.

Run on a GPU machine: python -m pytest tests/gpu/test_foreign.py -m gpu
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from moeprof.analysis.rows import rows_of, stage_rows
from moeprof.cli.main import run_command
from moeprof.contract import STEPS
from moeprof.records import Run
from moeprof.storage import store
from tests.fib import tracesets

pytestmark = pytest.mark.gpu

KERNELS = """
import triton
import triton.language as tl

@triton.jit
def spin(flag, result):
    value = tl.load(flag, volatile=True)
    while value == 0:
        value = tl.load(flag, volatile=True)
    tl.store(result, value)

@triton.jit
def fill(start, count, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(start + place, 1.0, mask=place < count)

@triton.jit
def broken(start):
    tl.store(start, no_such_value)
"""


def run(folder: Path, name: str, *arguments: str) -> tuple[int, list[Run]]:
    traces = folder / "traces"
    code = run_command(
        ["run", "--solution", name, "--traces", str(traces), "--iterations", "10", *arguments]
    )
    return code, [store.load(path) for path in sorted((traces / "runs").rglob("*.json.gz"))]


def run_foreign(folder: Path, name: str, *arguments: str) -> tuple[int, list[Run]]:
    root = str(folder / "set")
    return run(folder, f"fib:{name}", "--dataset", root, "--trust", *arguments)


def put(folder: Path, name: str, main: str, language: str = "triton") -> None:
    root = folder / "set"
    if not root.exists():
        tracesets.make(root)
    document = tracesets.solution(name, main, {"kernels.py": KERNELS}, language=language)
    tracesets.put(root, document)


def test_a_kernel_without_end_is_stopped_and_the_gpu_is_free_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main = "from .kernels import spin\n" + tracesets.filling(
        "flag = torch.zeros(2, dtype=torch.int32, device=output.device)\nspin[(1,)](flag, flag[1:])"
    )
    put(tmp_path, "spins", main)
    begin = time.monotonic()
    code, records = run_foreign(tmp_path, "spins", "--num-tokens", "7", "--timeout", "30")
    assert code == 1 and not records
    assert "fib:spins did not come back within 30 s (pass first T=7)" in capfd.readouterr().err
    assert time.monotonic() - begin < 120
    assert float(torch.ones(1 << 20, device="cuda").sum()) == 1 << 20


def test_a_store_past_the_output_is_caught(tmp_path: Path) -> None:
    main = "from .kernels import fill\n" + tracesets.filling(
        "",
        "rows, columns = output.shape\n"
        "whole = output.as_strided((rows + 1, columns), (columns, 1))\n"
        "fill[(1,)](whole[rows], 8, 8)",
    )
    put(tmp_path, "strays", main)
    code, (record,) = run_foreign(tmp_path, "strays", "--num-tokens", "33", "--passes", "bare")
    assert code == 1 and not record.passes
    assert record.correctness.problem == (
        "the solution wrote outside its output: in 1 rows after it"
    )


@pytest.mark.parametrize(
    ("after", "problem"),
    [(1, "the result of an earlier call"), (12, "after the measurement its result is wrong")],
)
def test_a_remembered_result_is_caught_however_late(
    tmp_path: Path, after: int, problem: str
) -> None:
    main = tracesets.filling(
        "KEPT['calls'] = KEPT.get('calls', 0) + 1\n"
        f"if KEPT['calls'] > {after} and 'result' in KEPT:\n"
        "    output.copy_(KEPT['result'])\n    return",
        "KEPT['result'] = output.clone()",
    )
    put(tmp_path, "remembers", main, "python")
    code, (record,) = run_foreign(tmp_path, "remembers", "--num-tokens", "33", "--passes", "bare")
    assert code == 1 and not record.passes
    assert problem in (record.correctness.problem or "")


def test_a_fault_of_a_kernel_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main = "from .kernels import fill\n" + tracesets.filling(
        "", "fill[(1 << 20,)](output, 1 << 62, 1024)"
    )
    put(tmp_path, "faults", main)
    code, _ = run_foreign(tmp_path, "faults", "--num-tokens", "7", "--passes", "bare")
    told = capfd.readouterr().err
    assert code == 1 and "Traceback" not in told
    assert "made the GPU fault" in told or "ended the process" in told or "outside" in told


def test_a_kernel_that_does_not_compile_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main = "from .kernels import broken\n" + tracesets.filling("", "broken[(1,)](output)")
    put(tmp_path, "uncompiled", main)
    code, (record,) = run_foreign(tmp_path, "uncompiled", "--num-tokens", "7", "--passes", "bare")
    told = capfd.readouterr().err
    assert code == 1 and "Traceback" not in told
    problem = record.correctness.problem or ""
    assert "no_such_value" in problem and problem.isprintable()
    assert str(tmp_path) not in problem and "/tmp/" not in problem


@pytest.mark.parametrize("solution", ["triton_v2", "triton_v3"])
def test_an_exported_solution_comes_apart_into_the_steps_of_the_original(
    tmp_path: Path, solution: str
) -> None:
    root = str(tmp_path / "set")
    assert run_command(["export", "fib", "--solution", solution, "--dataset", root,
                        "--num-tokens", "56"]) == 0  # fmt: skip
    code, (foreign,) = run_foreign(tmp_path, solution, "--num-tokens", "56")
    assert code == 0 and foreign.correctness.passed
    assert foreign.solution.name == f"fib:{solution}" and foreign.solution.author == "moeprof"
    assert len(foreign.solution.fib_hash) == 40
    code, (own,) = run(
        tmp_path / "own", solution, "--num-tokens", "56", "--dataset", root,
        "--definition", foreign.workload.definition,
    )  # fmt: skip
    assert code == 0
    assert _operations_by_row(foreign) == _operations_by_row(own)
    rows = {row.name for row in stage_rows(foreign.solution.stages)}
    assert {str(step) for step in STEPS} <= rows
    assert any("told by" in text and "100.0 %" in text for text in foreign.warnings)


def _operations_by_row(record: Run) -> Counter[str]:
    """How many operations of one forward each step has; fills count for whoever reads them."""
    api = record.timeline("api")
    assert api is not None
    return Counter(rows_of(api.operation_sets[0], record.solution.stages))
