"""``explain`` end to end on the CPU: the real command on the small definition, and its report."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from moeprof.cli.main import run_command
from moeprof.compare.compare import compare, explain_pair
from moeprof.interventions.interventions import Intervention, Kind
from moeprof.interventions.predictions import Prediction
from moeprof.interventions.sensitivity import SensitivityRow
from moeprof.interventions.verdicts import Explanation, Measurement, judge
from moeprof.reports.explain_json import explanation_document
from moeprof.reports.explain_text import render_explanation
from moeprof.storage import store
from tests.comparisons import fused, pipeline

QUICK = "--device cpu --num-tokens 7 --warmup 0 --trials 2 --iterations 2".split()
SAME = "same output, bit for bit"


@pytest.fixture(scope="module")
def traces(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("traces")


OTHER = """
from dataclasses import replace
from stages.solutions.sglang_v2 import SOLUTION as BASE
from stages.swiglu_quant.torch import swiglu_quant

GEMM1 = BASE.stages[3].with_options(workspace_bytes=180_000)
SOLUTION = replace(BASE.with_stage(3, GEMM1).with_stage(4, swiglu_quant), name="other")
"""
BROKEN = """
from dataclasses import replace
from moeprof.contract import Step, stage
from stages.gather.sgl import gather as right
from stages.solutions.sglang_v2 import SOLUTION as BASE

@stage(Step.GATHER, writes="output")
def gather(gemm2_output, output_permutation, local_weights, output, *, local_only=False):
    right(gemm2_output, output_permutation.clamp(min=0), local_weights, output)
    if local_only:
        output.mul_(2)

SOLUTION = replace(BASE.with_stage(6, gather), name="mine")
"""


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> dict[str, Any]:
    """A user's file whose gather is wrong once its option is set, with other workloads too."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "mine.py").write_text(BROKEN)
    return run_explain(folder / "mine.py", "sglang_v2", "--sensitivity", "--traces", folder)


@pytest.fixture(scope="module")
def document(traces) -> dict[str, Any]:
    """sglang_v2 against itself with two stages changed: no Triton, so quick without a GPU."""
    (traces / "other.py").write_text(OTHER)
    return run_explain("sglang_v2", traces / "other.py", "--traces", traces)


def run_explain(*arguments: object) -> dict[str, Any]:
    """The document of one run in a process of its own, two samples in each of two turns."""
    command = [sys.executable, "-m", "moeprof", "explain", *map(str, arguments), *QUICK, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.pop("schema") == "moeprof.explain/1"
    return found


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in document["interventions"]}


def test_every_intervention_is_measured_beside_its_prediction(document):
    found = by_name(document)
    assert list(found) == [
        "graph replay of sglang_v2", "graph replay of other", "local pairs only", "other gemm1",
        "other swiglu_quant", "kept buffers", "1 GB workspace", "views made once", "first call",
    ]  # fmt: skip
    for name, one in found.items():
        if name.startswith("graph"):
            assert (one["verdict"], one["measured_us"]) == ("impossible", None)
            assert "GPU" in one["why"]
            continue
        assert one["measured_us"] is not None and one["base_us"] > 0
        if name != "first call":
            assert one["verdict"] == "not judged on a CPU"
            assert one["predicted_us"] is not None and one["predicted_from"]
            assert one["noise_us"] >= 0
    assert found["first call"]["verdict"] == "reported"
    assert found["first call"]["predicted_us"] is None


def test_variants_compute_the_same_but_for_another_backend(document):
    found = by_name(document)
    swiglu = found.pop("other swiglu_quant")["output"]
    assert swiglu.startswith("output differs by relative L2 ")
    assert float(swiglu.split()[-1]) < 0.04
    assert {one["output"] for one in found.values()} - {None} == {SAME}
    assert found["local pairs only"]["output"] == SAME


def test_records_of_both_are_kept_and_say_what_the_document_says(document, traces):
    sides = [document["comparison"][side] for side in ("before", "after")]
    runs = [store.load(side["record"]) for side in sides]
    assert [run.solution.name for run in runs] == ["sglang_v2", "other"]
    assert len(store.find_runs(traces / "runs")) == 2
    for run in runs:
        assert run.correctness.passed
        assert run.settings.passes == ("first", "bare", "stages")
        assert [(bool(s.stamps_us), s.trial) for s in run.samples("bare")] == [
            (stamped, turn) for turn in (0, 1) for stamped in (False, True)
        ]
        assert len(run.samples("stages")) == 2
    assert compare(*explain_pair(*runs)).delta_ns == document["comparison"]["delta_ns"]
    median_us = statistics.median(sample.span_us for sample in runs[0].samples("bare"))
    assert by_name(document)["local pairs only"]["base_us"] == pytest.approx(median_us)


def test_bars_close_and_know_which_stages_are_the_same(document):
    comparison = document["comparison"]
    assert sum(bar["delta_ns"] for bar in document["bars"]) == comparison["delta_ns"]
    verdicts = {(bar["part"], bar["verdict"]) for bar in document["bars"]}
    expected = {
        **dict.fromkeys(("gemm1", "swiglu_quant"), "not judged on a CPU"),
        **dict.fromkeys(
            ("routing", "prepare_moe_input", "shuffle_rows", "gemm2", "gather"), "same stage"
        ),
    }
    assert verdicts == set(expected.items())


def test_a_variant_with_a_wrong_result_is_shown_and_not_timed(broken):
    found = by_name(broken)
    assert found["local pairs only"]["verdict"] == "failed"
    assert "the variant's result is wrong" in found["local pairs only"]["why"]
    assert found["local pairs only"]["measured_us"] is None
    assert found["other gather"]["output"] == SAME


def test_sensitivity_varies_one_thing_at_a_time(broken):
    rows = broken["sensitivity"]
    assert {row["solution"] for row in rows} == {"mine", "sglang_v2"}
    mine = [row for row in rows if row["solution"] == "mine"]
    assert [row["varied"] for row in mine] == ["routing"] * 4 + ["offset"] * 3 + ["tokens"] * 3
    routings = [row["routing"].removeprefix("synthetic ") for row in mine]
    assert routings[:4] == ["uniform", "zipf:1.2", "balanced", "single"]
    assert [row["num_tokens"] for row in mine] == [7] * 7 + [2, 4, 14]
    offsets = [row["local_expert_offset"] for row in mine]
    assert len(set(offsets[:4])) == 1 and len(set(offsets[3:7])) == 4
    single = mine[3]
    assert (single["active_experts"], single["local_pairs"], single["busiest_expert"]) == (2, 14, 7)
    assert max(row["busiest_expert"] for row in mine[:3]) < 7
    for row in rows:
        assert row["span_us"] > 0 and not row["problem"]
        assert len(row["busy_us"]) == 7


# ---------------------------------------------------------------- what can go wrong


def test_a_solution_with_a_wrong_result_is_exit_code_1(tmp_path, capfd):
    path = tmp_path / "wrong.py"
    parameters = "logits, bias, x, x_scale, w1, w1_scale, w2, w2_scale, offset, factor"
    path.write_text(
        f"import torch\ndef run({parameters}):\n    return torch.zeros_like(x).bfloat16()\n"
    )
    assert run_command(["explain", "sglang_v2", str(path), *QUICK, "--traces", str(tmp_path)]) == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "the result of wrong is wrong: " in error
    assert store.find_runs(tmp_path / "runs") == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sglang_v2"], "takes 2 values"),
        (["sglang_v2", "sglang_v2"], "sglang_v2 twice; expected two solutions"),
        (["sglang_v2", "sglang_v9"], "there is no solution 'sglang_v9'; did you mean sglang_v"),
        (["sglang_v1", "sglang_v2", "--num-tokens", "0", "--device", "cpu"], "0 tokens"),
        (["sglang_v1", "sglang_v2", "--routing", "zipf:x"], "zipf:S with S from"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_one_line_and_exit_code_2(arguments, message, capfd):
    assert run_command(["explain", *arguments]) == 2
    printed = capfd.readouterr()
    assert printed.err.count("\n") == 1 and message in printed.err
    assert printed.out == ""


# ---------------------------------------------------------------- the report


def explanation() -> Explanation:
    """The figures of an H200 in miniature: one proven, one missed, one impossible."""
    comparison = compare(*explain_pair(pipeline(), fused()))
    steps = ("routing", "prepare_moe_input", "shuffle_rows", "gemm1", "gemm2")
    local = Intervention(Kind.LOCAL_ONLY, "triton_v2", "local pairs only", "no other pair", steps)
    views = Intervention(Kind.VIEWS, "triton_v2", "views made once", "once", ("gemm1",))
    opaque = Intervention(
        Kind.SWAP, "triton_v2", "other gemm1", "x", ("gemm1",), impossible="one call"
    )
    outcomes = (
        judge(
            local,
            Prediction(-9_700.0, "shares of busy time"),
            Measurement(-9_400.0, 12.5, 13_900.0, remark=SAME),
            "cuda",
        ),
        judge(views, Prediction(-12.0, "host code"), Measurement(-1.0, 2.0, 13_900.0), "cuda"),
        judge(opaque, None, Measurement(), "cuda"),
    )
    row = SensitivityRow(
        "triton_v2", "routing", "synthetic zipf:1.2", 14107, 32, 9_000, 32, 4_000, 13_000.0,
        {"gemm1": 7_000.0},
    )  # fmt: skip
    failed = SensitivityRow(
        "triton_v2", "offset", "uniform", 14107, 64, 0, 0, 0, problem="no token came here"
    )
    return Explanation(comparison, outcomes, (row, failed), ("the driver differs",))


def rendered(width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))
    console.print(render_explanation(explanation()))
    return console.export_text()


def test_the_report_puts_predicted_beside_measured():
    text = rendered(140)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "! the driver differs" in lines
    assert "local pairs only triton_v2 13,900.0 -9,700.0 -9,400.0 12.5 proven" in lines
    assert "views made once triton_v2 13,900.0 -12.0 -1.0 2.0 unproven" in lines
    assert "the prediction misses by 11.0 us" in text
    assert "other gemm1 one call" in lines
    assert any(line.startswith("gemm1: amplification [proven]") for line in lines)
    assert any(line.startswith("gemm1: efficiency [not tested]") for line in lines)
    assert any("zipf:1.2 14,107 32 9,000 32" in line for line in lines)
    assert any("no token came here" in line for line in lines)
    assert "CPU timings" not in text


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width):
    assert max(len(line) for line in rendered(width).splitlines()) <= width


def test_the_document_is_json_without_nan_and_keeps_what_is_unknown_null():
    document = explanation_document(explanation(), ("a", "b"))
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text)["interventions"][2]["predicted_us"] is None
    local = document["interventions"][0]
    assert (local["tolerance_us"], local["verdict"]) == (970.0, "proven")
    assert document["interventions"][2]["why"] == "one call"
