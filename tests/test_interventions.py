"""What can be tried on which solution, read off the solutions alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moeprof.contract import STEPS, Solution, Step, stage
from moeprof.interventions.interventions import (
    LARGE_WORKSPACE,
    SMALL_WORKSPACE,
    Intervention,
    Kind,
    plan_interventions,
    same_stage,
)
from moeprof.solutions.catalog import FORWARD_INPUTS, load_solution

AXES = (
    "num_experts num_local_experts hidden_size intermediate_size gemm1_out_size "
    "num_hidden_blocks num_intermediate_blocks num_gemm1_out_blocks"
).split()
GIVEN = (*FORWARD_INPUTS, *AXES, "seq_len", "output", "buffers")


def solution(name: str) -> Solution:
    return load_solution(name, "cpu").solution


def planned(first: str, second: str, pairs: int = 9, device: str = "cuda") -> list[Intervention]:
    return list(plan_interventions(solution(first), solution(second), GIVEN, pairs, device))


def by_name(found: list[Intervention]) -> dict[str, Intervention]:
    """Those on the first solution; a swap that only fits the other way round is on the second."""
    assert len({(one.solution, one.name) for one in found}) == len(found)
    return {one.name: one for one in reversed(found)}


def options(one: Intervention) -> dict[str, dict[str, object]]:
    assert one.variant is not None
    return {s.name: dict(s.options) for s in one.variant.stages if s.options}


def test_the_seeds_pipeline_against_the_fused_kernel():
    found = by_name(planned("triton_v2", "flashinfer_moe"))
    local = found["local pairs only"]
    steps = ("routing", "prepare_moe_input", "swiglu_quant")
    assert options(local) == {step: {"local_only": True} for step in steps}
    assert local.stages == steps
    assert "'clamped_expert_ids'" in found["other routing"].impossible
    (turned,) = [
        one
        for one in planned("triton_v2", "flashinfer_moe")
        if one.kind == Kind.SWAP and one.solution == "flashinfer_moe"
    ]
    assert turned.name == "other routing" and turned.variant is not None
    assert turned.variant.stages[0].backend == "sgl"
    opaque = found["other prepare_moe_input to gather"]
    assert opaque.stages == tuple(STEPS[1:])
    assert "6 steps in one call, cutlass_fused_moe" in opaque.impossible
    fresh = found["fresh buffers"].variant
    assert fresh is not None and not fresh.keeps_buffers
    large = {"workspace_bytes": LARGE_WORKSPACE}
    assert options(found["1 GB workspace"]) == {"gemm1": large, "gemm2": large}
    once = {"per_call_views": False}
    assert options(found["views made once"]) == {"gemm1": once, "gemm2": once}
    possible = {name for name, one in found.items() if not one.impossible}
    assert possible >= {"graph replay of triton_v2", "graph replay of flashinfer_moe", "first call"}


def test_the_fused_kernel_is_opaque_and_says_so():
    found = by_name(planned("flashinfer_moe", "triton_v2"))
    assert "local pairs only, on its own word" in found["local pairs only"].impossible
    assert found["1 GB workspace"].impossible and found["views made once"].impossible
    kept = found["kept buffers"].variant
    assert kept is not None and kept.keeps_buffers
    assert found["other cutlass_fused_moe"].impossible.startswith("flashinfer_moe performs 6 steps")
    assert found["other routing"].variant is not None


def test_swaps_where_both_have_a_stage_of_those_steps():
    found = by_name(planned("sglang_v1", "sglang_v2"))
    swaps = {name: one for name, one in found.items() if one.kind == Kind.SWAP}
    assert set(swaps) == {"other gemm1", "other swiglu_quant", "other gemm2"}
    gemm1 = swaps["other gemm1"]
    assert "another workspace_bytes" in gemm1.changes
    assert options(gemm1) == {"gemm2": {"workspace_bytes": LARGE_WORKSPACE}}
    assert "sgl for torch" in swaps["other swiglu_quant"].changes
    small = {"workspace_bytes": SMALL_WORKSPACE}
    assert options(found["90 KB workspace"]) == {"gemm1": small, "gemm2": small}


def test_stages_that_are_the_same_are_not_swapped():
    first, second = solution("sglang_v1").stages, solution("sglang_v2").stages
    same = [a.name for a, b in zip(first, second, strict=True) if same_stage(a, b)]
    assert same == ["routing", "prepare_moe_input", "shuffle_rows", "gather"]
    assert not any(one.kind == Kind.SWAP for one in planned("sglang_v2", "sglang_v2"))


def test_without_a_gpu_there_is_no_graph():
    found = by_name(planned("sglang_v1", "sglang_v2", device="cpu"))
    assert "need a GPU" in found["graph replay of sglang_v1"].impossible


@pytest.mark.parametrize(("name", "possible"), [("sglang_v2", False), ("triton_v2", True)])
def test_without_local_pairs_only_a_gather_that_skips_slots_can_drop_them(name, possible):
    """sgl's sum reads a row for every slot, and no expert writes row 0 there."""
    found = by_name(planned(name, "reference", pairs=0))["local pairs only"]
    assert (not found.impossible) is possible
    assert by_name(planned(name, "reference"))["local pairs only"].variant is not None


def test_what_runs_local_pairs_only_already_says_so():
    dropped = by_name(planned("triton_v2", "sglang_v2"))["local pairs only"].variant
    assert dropped is not None
    again = plan_interventions(dropped, solution("sglang_v2"), GIVEN, 9, "cuda")
    assert "already" in next(o.impossible for o in again if o.kind == Kind.LOCAL_ONLY)


def test_a_solution_without_options_or_buffers():
    found = by_name(planned("reference", "sglang_v2"))
    for name in ("local pairs only", "kept buffers", "1 GB workspace", "views made once"):
        assert "no stage of reference" in found[name].impossible


def test_a_swap_that_breaks_the_wiring_names_the_tensor():
    @stage(Step.GATHER, writes="output", name="gather")
    def gather(somewhere_else, output):
        """Reads a tensor that only its own solution makes."""

    base = solution("sglang_v2")
    other = replace(base.with_stage(6, gather), name="other")
    found = by_name(list(plan_interventions(base, other, GIVEN, 9, "cuda")))
    assert found["other gather"].variant is None
    assert "'somewhere_else', which nothing writes" in found["other gather"].impossible
