"""Steps inside an opaque call: the recorded runs taken apart again, and kernels of anybody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.analysis.named_steps import steps_of, tell_steps
from moeprof.analysis.rows import rows_of, stage_rows
from moeprof.contract import STEPS
from moeprof.records import StageInfo
from moeprof.storage.store import load
from moeprof.timelines import Iteration, Operation, TimelinePass

ROOT = Path(__file__).resolve().parents[1]
OPAQUE = StageInfo("forward", tuple(map(str, STEPS)), "cuda", (), ("output",))


def as_opaque(timelines: tuple[TimelinePass, ...]) -> tuple[TimelinePass, ...]:
    """The same operations as if one stage had launched them all."""
    return tuple(
        replace(
            timeline,
            operation_sets=tuple(
                tuple(replace(operation, stage="forward") for operation in operations)
                for operations in timeline.operation_sets
            ),
        )
        for timeline in timelines
    )


def timeline(*names: str, stage: str = "forward") -> TimelinePass:
    """One iteration; every operation takes 100 ns."""
    operations = tuple(Operation(name, "kernel", stage, 7) for name in names)
    starts = tuple(100 * n + 100 for n in range(len(names)))
    return TimelinePass(
        "kernels", (operations,), (Iteration(0, starts, tuple(s + 100 for s in starts)),)
    )


def told(*names: str) -> list[str]:
    """The row of each kernel of a forward with these kernels."""
    (stage,), _ = tell_steps((OPAQUE,), (timeline(*names),))
    return list(rows_of(timeline(*names).operation_sets[0], (stage,)))


@pytest.mark.parametrize(
    "solution",
    ["triton_v1", "triton_v2", "triton_v3", "sglang_v1", "sglang_v2", "flashinfer_moe",
     "cutedsl_v3", "cutedsl_v3_2", "reference"],
)  # fmt: skip
@pytest.mark.parametrize("tokens", ["T1", "T80", "T14107"])
def test_every_operation_of_a_recorded_run_is_told_as_the_run_itself_did(
    solution: str, tokens: str
) -> None:
    folder = ROOT / "traces" / "recorded" / "h200-bench" / solution / "dsv3"
    (path,) = folder.glob(f"{tokens}-*")
    run = load(path)
    told_apart = [t for t in run.timelines if t.name != "kernels"]  # which knows no stages
    timelines = as_opaque(tuple(told_apart))
    found = steps_of("forward", timelines)
    assert found is not None
    stage = replace(OPAQUE, kernel_rules=found.kernel_rules)
    compared = 0
    for known, opaque in zip(told_apart, timelines, strict=True):
        for truth, operations in zip(known.operation_sets, opaque.operation_sets, strict=True):
            # what performs no step is the opaque call's own
            expected = [
                "forward" if row == "dequantise" else row
                for row in rows_of(truth, run.solution.stages)
            ]
            assert list(rows_of(operations, (stage,))) == expected
            compared += len(expected)
    assert compared >= 7
    assert found.share == pytest.approx(1.0) or solution == "flashinfer_moe"


def test_kernels_are_told_by_what_people_call_them() -> None:
    assert told(
        "fused_routing_kernel", "count_tokens_kernel", "permute_rows", "moe_gemm1_kernel",
        "silu_quant", "moe_gemm2_kernel", "finalize_kernel", "mystery",
    ) == [*map(str, STEPS), "forward"]  # fmt: skip


def test_a_fused_kernel_is_one_row_of_both_steps() -> None:
    names = ("topk_gate", "gemm1_swiglu_kernel", "gemm2_scatter_reduce")
    (stage,), (note,) = tell_steps((OPAQUE,), (timeline(*names),))
    rows = {row.name: row.covers for row in stage_rows((stage,))}
    assert rows["gemm1+swiglu_quant"] == ("gemm1", "swiglu_quant")
    assert rows["gemm2+gather"] == ("gemm2", "gather")
    assert rows["forward"] == ("prepare_moe_input", "shuffle_rows")
    assert list(rows)[:3] == ["routing", "gemm1+swiglu_quant", "gemm2+gather"]
    assert "kernel names, which name 100.0 % of its GPU time" in note


def test_gemms_without_a_number_are_told_by_the_activation_between_them() -> None:
    assert told("grouped_gemm", "grouped_gemm", "silu_and_mul", "grouped_gemm") == [
        "gemm1", "gemm1", "swiglu_quant", "gemm2",
    ]  # fmt: skip
    # two without one between them are the two, the activation inside the first
    assert told("topk", "grouped_gemm", "grouped_gemm", "combine") == [
        "routing", "gemm1+swiglu_quant", "gemm2", "gather",
    ]  # fmt: skip
    # three could be anything, and nothing is claimed of them
    assert told("grouped_gemm", "grouped_gemm", "grouped_gemm") == ["forward"] * 3


def test_a_kernel_that_is_told_only_where_it_stands_is_the_calls_own_elsewhere() -> None:
    assert told("my_quant", "gemm1_k", "my_quant", "gemm2_k", "my_quant") == [
        "forward", "gemm1", "swiglu_quant", "gemm2", "forward",
    ]  # fmt: skip


def test_libraries_may_be_mixed() -> None:
    assert told(
        "moe_fused_gate_kernel", "compute_expert_offsets", "my_permute",
        "void deep_gemm::sm90_fp8_gemm(deep_gemm::GemmType)1", "act_and_mul_kernel",
        "void deep_gemm::sm90_fp8_gemm(deep_gemm::GemmType)1", "finalizeMoeRoutingKernel",
    ) == [str(step) for step in STEPS]  # fmt: skip


def test_nothing_is_told_of_kernels_that_say_nothing() -> None:
    (stage,), notes = tell_steps((OPAQUE,), (timeline("a", "b"),))
    assert stage.kernel_rules == ()
    assert "0.0 % of its GPU time" in notes[0]
    assert told("a", "b") == ["forward", "forward"]


def test_a_stage_with_steps_or_rules_of_its_own_is_left_alone() -> None:
    some = replace(OPAQUE, covers=("gemm1",))
    ruled = replace(OPAQUE, kernel_rules=(("x", ("gemm1",)),))
    for stage in (some, ruled):
        assert tell_steps((stage,), (timeline("moe_gemm1"),)) == ((stage,), ())
    assert tell_steps((OPAQUE,), ()) == ((OPAQUE,), ())
    assert tell_steps((OPAQUE,), (timeline("moe_gemm1", stage="other"),)) == ((OPAQUE,), ())


def test_names_with_signs_of_regular_expressions_match_only_themselves() -> None:
    names = ("gemm1<(a+b)*[c]>", "silu", "gemm2$^", "gemm2xx")
    (stage,), _ = tell_steps((OPAQUE,), (timeline(*names),))
    assert list(rows_of(timeline(*names).operation_sets[0], (stage,))) == [
        "gemm1", "swiglu_quant", "gemm2", "gemm2",
    ]  # fmt: skip
    other = timeline("xgemm1<(a+b)*[c]>", "gemm1<(a+b)*[c]>x")
    assert list(rows_of(other.operation_sets[0], (stage,))) == ["forward", "forward"]
