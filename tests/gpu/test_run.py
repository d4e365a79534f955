"""`moeprof run` on a GPU: what a live run must show, and what a bad solution must get.

Run on a GPU machine: python -m pytest tests/gpu/test_run.py -m gpu
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch

from moeprof.analysis.attribution import attribute, profile
from moeprof.analysis.rows import rows_of, stage_rows
from moeprof.cli.main import run_command
from moeprof.records import PASSES, Run
from moeprof.storage import store

pytestmark = pytest.mark.gpu


def run(tmp_path: Path, solution: str, *arguments: str) -> tuple[int, list[Run]]:
    code = run_command(["run", "--solution", solution, "--traces", str(tmp_path), *arguments])
    files = sorted((tmp_path / "runs").rglob("*.json.gz"))
    return code, [store.load(file) for file in files]


def users_solution(tmp_path: Path, body: str) -> str:
    """triton_v2 with a stage of the user's own before it."""
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent(
            """
            import torch
            from dataclasses import replace
            from moeprof.contract import stage
            from stages.solutions.triton_v2 import SOLUTION as BASE
            """
        )
        + textwrap.dedent(body)
    )
    return str(file)


@pytest.mark.parametrize("solution", ["triton_v2", "flashinfer_moe"])
def test_a_live_run_keeps_its_books(tmp_path: Path, solution: str) -> None:
    code, records = run(tmp_path, solution, "--num-tokens", "56", "--trials", "1")
    assert code == 0
    (record,) = records
    api = record.timeline("api")
    assert api is not None
    rows = [row.name for row in stage_rows(record.solution.stages)]
    for iteration in api.iterations:
        operations = api.operation_sets[iteration.operation_set]
        assert all(operation.stage for operation in operations)
        book = attribute(operations, iteration, rows_of(operations, record.solution.stages), rows)
        assert book.residual_ns == 0
        assert min(iteration.start_ns) > 0 and iteration.dropped == 0
    assert {p.name for p in record.passes} | {t.name for t in record.timelines} == set(PASSES)
    check = profile(record).span_check
    assert check is not None
    assert abs(check.predicted_us - check.measured_us) <= max(3.0, 0.05 * check.measured_us)
    assert record.calibration is not None and 1_000 < (record.calibration.launch_latency_ns or 0)
    assert record.ceilings is not None and 3e12 < record.ceilings.copy_bytes_per_second < 4.9e12


def test_a_synchronising_stage_is_named_and_nothing_hangs(tmp_path: Path) -> None:
    file = users_solution(
        tmp_path,
        """
        @stage(writes="peek", name="peeking", why="shows what a synchronisation does")
        def peek(routing_logits):
            return routing_logits.sum().item()

        SOLUTION = replace(BASE, name="peeking", stages=(peek, *BASE.stages))
        """,
    )
    code, (record,) = run(tmp_path, file, "--num-tokens", "7", "--iterations", "5")
    assert code == 0
    why = {p.name: p.unavailable for p in record.passes}
    assert "stage peeking waits for the GPU" in (why["blocked"] or "")
    assert "not capturable" in (why["graph"] or "")
    assert profile(record).source == "reconstructed"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("output[: len(output) // 2] = 0", "NaN"),
        ("output.fill_(float('inf'))", "NaN or infinity"),
        ("gemm2_weights.view(torch.uint8).zero_(); output.zero_()", "changed its input"),
        ("raise ValueError('no such tile')", "no such tile"),
        ("return output.float()", "float32"),
        ("return output[:1]", "shape"),
    ],
)
def test_a_wrong_solution_is_told_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, words: str
) -> None:
    names = (
        "routing_logits, routing_bias, hidden_states, hidden_states_scale, gemm1_weights, "
        "gemm1_weights_scale, gemm2_weights, gemm2_weights_scale, local_expert_offset, "
        "routed_scaling_factor, output"
    )
    file = tmp_path / "wrong.py"
    file.write_text(f"import torch\ndef run({names}):\n    {body}\n")
    code, (record,) = run(tmp_path, str(file), "--num-tokens", "7")
    assert code == 1
    assert words in (record.correctness.problem or "")
    assert not record.timelines and not any(p.samples for p in record.passes)
    assert "Traceback" not in capsys.readouterr().err


def test_out_of_memory_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.04)
    try:
        code, records = run(tmp_path, "triton_v2", "--num-tokens", "14107")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and not records
    assert "out of GPU memory" in error and "Traceback" not in error
