"""Rules files: what is refused and how, how rules are applied, and what the shipped ones know."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.contract import STEPS as ALL_STEPS
from moeprof.errors import UsageError
from moeprof.importing.fit import apply, best_fit
from moeprof.importing.iterations import walked_forwards
from moeprof.importing.placed import place_operations
from moeprof.importing.rules import (
    RuleSet,
    compiled,
    load_rules,
    parse_rules,
    searched,
    shipped_rules,
)
from moeprof.importing.walk import match, walk
from moeprof.storage.store import load
from tests.importing.made_traces import FLUSH, RECORDED, TraceBuilder, of_run

SHIPPED = {rules.name: rules for rules in shipped_rules()}
OF_SOLUTION = {
    "flashinfer_moe": "FlashInfer CUTLASS fused MoE",
    "reference": "moeprof reference",
    "triton_v3": "rows by expert",
    "cutedsl_v3": "aligned rows",
    "cutedsl_v3_2": "aligned rows, gated GEMM1",
}


def labels_of(rules: RuleSet, kernels: list[str], **called: str) -> list[str]:
    """The label of each kernel, launched one after the other."""
    builder = TraceBuilder()
    for number, kernel in enumerate(kernels):
        builder.call(100 * number, 100 * number + 5, number, name=called.get(kernel, "launch"))
        builder.operation(kernel, 100 * number + 20, 100 * number + 90, number)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    found = walk(rules, match(rules, trace, placed))
    return [found.labels[number] if number >= 0 else "" for number in found.label.tolist()]


def rules(text: str) -> RuleSet:
    return parse_rules(text, "mine.toml")


# ---------------------------------------------------------------- files

GOOD = '[[rule]]\nkernel = "a"\nstep = "gemm1"\n'
BAD_FILES = [
    ("", "holds no [[rule]]"),
    ("rule = 3", "holds no [[rule]]"),
    ("rule = [3]", "line 0, rule 1 is no table"),
    ("[[rule]\n", "is no TOML (Expected"),
    (GOOD + 'kernal = "a"\n', "line 1, rule 1: unknown key 'kernal'; did you mean kernel or call?"),
    ("names = 1\n" + GOOD, "mine.toml: unknown key 'names'; did you mean name or needs?"),
    (GOOD + '\n[[rule]]\nstep = "gemm2"\n', "line 5, rule 2 matches nothing"),
    ('[[rule]]\nkernel = "a"\n', "rule 1 gives no step; expected step, steps or joins"),
    (GOOD + 'joins = "next"\n', "rule 1 gives step and joins"),
    ('[[rule]]\nkernel = "a"\nstep = "gemm3"\n', "'gemm3' is no step"),
    ('[[rule]]\nkernel = "a"\nstep = "gemm1+swiglu"\n', "'swiglu' is no step"),
    ('[[rule]]\nkernel = "a"\nsteps = []\n', "steps is empty"),
    ('[[rule]]\nkernel = "a"\nsteps = "gemm1"\n', "steps is 'gemm1'; expected a list"),
    ('[[rule]]\nkernel = "a"\njoins = "last"\n', "joins is 'last'; expected 'next'"),
    (GOOD + 'after = "gem"\n', "after is 'gem'; expected a step; did you mean gemm2 or gemm1"),
    (GOOD + "at_most = 0\n", "at_most is 0; expected a whole number"),
    (GOOD + "at_most = true\n", "at_most is True"),
    ('[[rule]]\nkernel = 3\nstep = "gemm1"\n', "kernel is 3; expected text"),
    ('[[rule]]\nkernel = ""\nstep = "gemm1"\n', "kernel is 0 characters"),
    ('[[rule]]\nkernel = "("\nstep = "gemm1"\n', "'(' is no regular expression"),
    ('[[rule]]\nkernel = "(a+)+$"\nstep = "gemm1"\n', "kernel repeats a repeat"),
    ('needs = ["gather"]\n' + GOOD, "no rule gives the needed 'gather'"),
    ("needs = 3\n" + GOOD, "needs is 3; expected a list"),
    ('others = ["a\\tb"]\n' + GOOD, "others is ['a\\tb']"),
    ('name = ""\n' + GOOD, "name is ''"),
    (GOOD * 61, "holds 61 rules; expected at most 60"),
]


@pytest.mark.parametrize("text, said", BAD_FILES)
def test_what_is_wrong_with_a_file_is_said_in_one_line_with_the_place(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        rules(text)
    assert said in str(caught.value)
    assert str(caught.value).startswith("mine.toml") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content, said",
    [(b"\xff\xfe", "is not text"), (b"#" * (1 << 20) + b"\n", "larger than"), (None, "cannot be")],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        load_rules(path)


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=60)
    | st.dictionaries(
        st.sampled_from(("kernel", "call", "range", "step", "steps", "joins", "after", "at_most")),
        st.sampled_from(('"gemm1"', '["gemm1"]', '"next"', "1", "-1", '"a*b*c*"', "[[]]", "{}")),
    ).map(lambda table: "[[rule]]\n" + "".join(f"{key} = {v}\n" for key, v in table.items()))
)
def test_any_text_is_rules_or_is_refused_in_one_line(text: str) -> None:
    try:
        assert rules(text).rules
    except UsageError as error:
        assert "\n" not in str(error) and len(str(error)) < 400


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+$", "(a|a)*b", "(a?){30}a", "a?" * 30 + "a" * 30, "(a|a)" * 50, "a*a*a*b"),
        *(r"(a)\1", "(?:a{2,3}){4}", "[", "", "a" * 301, "((a*)b)*", "(?P<x>a)?(?(x)b|c)"),
    ],
)
def test_patterns_that_could_run_away_are_refused(pattern: str) -> None:
    with pytest.raises(UsageError):
        compiled(pattern, "--iteration")


def test_the_worst_pattern_that_is_allowed_ends_soon_on_the_worst_name() -> None:
    began = time.monotonic()
    assert not searched(compiled("a*a*b", "kernel"), "a" * 100_000)
    assert not searched(compiled(".*a.*b", "kernel"), "a" * 100_000)
    assert time.monotonic() - began < 20


# ---------------------------------------------------------------- application


def test_the_first_rule_that_applies_decides_and_needs_all_that_it_gives() -> None:
    mine = rules(
        '[[rule]]\nkernel = "gemm"\ncall = "Ex$"\nstep = "gemm2"\n'
        '[[rule]]\nkernel = "gemm"\nstep = "gemm1"\n'
        '[[rule]]\ncall = "^cudaMemcpy"\nstep = "gather"\n'
    )
    kernels = ["a gemm", "my gemm", "copy", "other"]
    called = {"my gemm": "cuLaunchKernelEx", "copy": "cudaMemcpyAsync"}
    assert labels_of(mine, kernels, **called) == ["gemm1", "gemm2", "gather", ""]


def test_a_rule_may_ask_for_the_text_of_a_range_around_the_launch() -> None:
    mine = rules('[[rule]]\nkernel = "gemm"\nrange = "down_proj"\nstep = "gemm2"\n')
    builder = TraceBuilder()
    builder.range("layers.0.down_proj", 0, 500, domain="")
    builder.launch("gemm", 10, 20, 40)
    builder.launch("norm", 50, 60, 70)
    builder.launch("gemm", 600, 620, 640)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    assert walk(mine, match(mine, trace, placed)).label.tolist() == [0, -1, -1]


def test_the_ith_match_of_a_pass_has_the_ith_step_and_further_ones_the_last() -> None:
    gemms = (
        '[[rule]]\nkernel = "route"\nstep = "routing"\n'
        '[[rule]]\nkernel = "gemm"\nsteps = ["gemm1", "gemm2"]\n'
    )
    kernels = ["route", "gemm", "gemm", "gemm", "route", "gemm", "gemm"]
    expected = ["routing", "gemm1", "gemm2", "gemm2", "routing", "gemm1", "gemm2"]
    whole = rules(gemms + '[[rule]]\nkernel = "sum"\nstep = "gather"\n')
    assert labels_of(whole, [*kernels, "sum"]) == [*expected, "gather"]
    # where nothing comes after the second GEMM a third one is the first of another chunk
    expected[3] = "gemm1"
    assert labels_of(rules(gemms), kernels) == expected


def test_after_and_before_are_of_the_step_last_seen() -> None:
    mine = rules(
        '[[rule]]\nkernel = "route"\nstep = "routing"\n'
        '[[rule]]\nkernel = "gemm"\nsteps = ["gemm1", "gemm2"]\n'
        '[[rule]]\nkernel = "quant"\nstep = "swiglu_quant"\nafter = "gemm1"\nbefore = "gemm2"\n'
        '[[rule]]\nkernel = "quant"\nstep = "shuffle_rows"\nafter = "routing"\nbefore = "gemm1"\n'
        '[[rule]]\nkernel = "sum"\nstep = "gather"\nafter = "gemm2"\nat_most = 1\n'
    )
    kernels = ["quant", "sum", "route", "quant", "gemm", "sum", "quant", "gemm", "quant"]
    expected = ["", "", "routing", "shuffle_rows", "gemm1", "", "swiglu_quant", "gemm2", ""]
    assert labels_of(mine, [*kernels, "sum", "sum"]) == [*expected, "gather", ""]


def test_what_joins_belongs_to_its_neighbour_and_to_nothing_further_away() -> None:
    mine = rules(
        '[[rule]]\nkernel = "route"\nstep = "routing"\n'
        '[[rule]]\nkernel = "gemm"\nstep = "gemm1"\n'
        '[[rule]]\nkernel = "fill"\njoins = "next"\n'
        '[[rule]]\nkernel = "mul"\njoins = "previous"\n'
    )
    kernels = ["mul", "fill", "fill", "route", "mul", "mul", "other", "mul", "fill", "other"]
    expected = ["", "routing", "routing", "routing", "routing", "routing", "", "", "", ""]
    assert labels_of(mine, kernels) == expected
    assert labels_of(mine, ["fill", "other", "route"]) == ["", "", "routing"]
    kernels = ["route", "fill", "gemm", "mul", "fill", "route"]  # the fill begins a forward
    expected = ["routing", "gemm1", "gemm1", "gemm1", "routing", "routing"]
    assert labels_of(mine, kernels) == expected


def test_rows_for_work_that_is_no_step() -> None:
    mine = rules(
        'others = ["my cast"]\n[[rule]]\nkernel = "cast"\nstep = "my cast"\n'
        '[[rule]]\nkernel = "gemm"\nsteps = ["gemm1", "gemm2"]\n'
    )
    kernels = ["gemm", "cast", "gemm"]
    assert labels_of(mine, kernels) == ["gemm1", "my cast", "gemm2"]
    assert mine.labels == ("gemm1", "gemm2", "my cast") and mine.needs == ("gemm1", "gemm2")


def test_joined_steps_stand_for_all_of_them() -> None:
    mine = rules(
        '[[rule]]\nkernel = "sort"\nstep = "routing+prepare_moe_input"\n'
        '[[rule]]\nkernel = "up"\nstep = "gemm1+swiglu_quant"\n'
        '[[rule]]\nkernel = "down"\nstep = "gemm2+gather"\n'
    )
    kernels = ["sort", "up", "down"] * 3
    builder = TraceBuilder()
    for number, kernel in enumerate(kernels):
        builder.launch(kernel, 100 * number, 100 * number + 20, 100 * number + 90)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    fitted = apply(mine, trace, placed)
    assert fitted.walk.forwards == 3 and fitted.whole.all()
    forwards = walked_forwards(placed, fitted)
    assert forwards is not None and forwards.of.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_of_sets_that_fit_the_one_that_names_most_time_wins_and_doubt_is_said() -> None:
    builder = TraceBuilder()
    for number, kernel in enumerate(["route", "gemm", "act", "gemm", "add"] * 4):
        builder.launch(kernel, 100 * number, 100 * number + 20, 100 * number + 90)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    base = (
        '[[rule]]\nkernel = "route"\nstep = "routing"\n'
        '[[rule]]\nkernel = "gemm"\nsteps = ["gemm1", "gemm2"]\n'
    )
    little = parse_rules('name = "little"\n' + base, "l")
    much = '[[rule]]\nkernel = "act"\nstep = "swiglu_quant"\n[[rule]]\nkernel = "add"\nstep = '
    most = parse_rules('name = "most"\n' + base + much + '"gather"\n', "m")
    otherwise = parse_rules('name = "other"\n' + base + much + '"swiglu_quant"\n', "o")
    alien = parse_rules('name = "alien"\n[[rule]]\nkernel = "nobody"\nstep = "gemm1"\n', "a")
    found = best_fit((alien, little, most), trace, placed)
    assert found is not None and found.walk.rules.name == "most" and found.notes == ()
    found = best_fit((little, otherwise, most), trace, placed)
    assert found is not None and found.walk.rules.name == "most"  # as much time, one label more
    (note,) = found.notes
    assert "'other' fit nearly as well (100 % of the time" in note
    assert best_fit((alien,), trace, placed) is None


# ---------------------------------------------------------------- the shipped files


def test_the_shipped_files_are_sound_and_cover_the_two_gemms() -> None:
    assert len(SHIPPED) == 9
    for shipped in SHIPPED.values():
        named = {part for label in shipped.labels for part in label.split("+")}
        assert {"gemm1", "gemm2", "swiglu_quant", "routing", "gather"} <= named
        assert named <= {*map(str, ALL_STEPS), *shipped.others}
        assert shipped.needs == ("gemm1", "gemm2")


BENCH = RECORDED.with_name("h200-bench")
OF_BENCH = ("triton_v3", "cutedsl_v3", "cutedsl_v3_2")


@pytest.mark.parametrize("solution", [*sorted(path.name for path in RECORDED.iterdir()), *OF_BENCH])
def test_rules_name_every_operation_of_the_recorded_runs_as_the_run_itself_did(
    solution: str,
) -> None:
    """All workloads, operation by operation; the fill that empties the L2 cache is in no stage."""
    expected_rules = OF_SOLUTION.get(solution, "sgl_kernel grouped GEMM")
    compared, wrong = 0, Counter[tuple[str, str, str]]()
    folder = BENCH if solution in OF_BENCH else RECORDED
    for path in sorted((folder / solution).rglob("*.json.gz")):
        trace, stages = of_run(load(path), iterations=3)
        placed = place_operations(trace, 0)
        fitted = best_fit(tuple(SHIPPED.values()), trace, placed)
        assert fitted is not None and fitted.walk.rules.name == expected_rules
        assert fitted.walk.forwards == 3 and fitted.whole.all() and fitted.notes == ()
        labels = [fitted.walk.labels[n] if n >= 0 else "" for n in fitted.walk.label.tolist()]
        for stage, label, number in zip(stages, labels, placed.description, strict=True):
            compared += 1
            inside = stage == "cutlass_fused_moe" and label in ALL_STEPS and label != "routing"
            if label != stage and not inside:
                wrong[stage, label, trace.operations.descriptions[number].name[:80]] += 1
    assert not wrong and compared > 19 * 3 * 6


def test_rules_name_the_operations_of_triton_v3() -> None:
    """Of its recorded processes at T=56."""
    folder = RECORDED.parent / "checks" / "h200" / "slowdowns" / "triton_v3-T56"
    for path in sorted(folder.glob("*.json.gz"))[:3]:
        trace, stages = of_run(load(path), iterations=3)
        fitted = best_fit(tuple(SHIPPED.values()), trace, place_operations(trace, 0))
        assert fitted is not None and fitted.walk.rules.name == "rows by expert"
        labels = [fitted.walk.labels[n] if n >= 0 else "" for n in fitted.walk.label.tolist()]
        assert labels == list(stages) and sum(map(bool, labels)) == 3 * 8


def of_flow(*kernels: str) -> tuple[str, Counter[str], int]:
    """The rules chosen for 6 layers of attention and ``kernels``; labels; how many forwards."""
    attention = ["rmsnorm", "per_token_group_quant_8bit_kernel<bf16>", "nvjet_qkv", "flash::fwd"]
    attention += ["void deep_gemm::sm90_fp8_gemm_1d2d_impl<7168u, (deep_gemm::GemmType)0>(int*)"]
    attention += [
        "at::native::reduce_kernel<512, sum_functor<c10::BFloat16>>",
        "act_and_mul_kernel",
    ]
    builder = TraceBuilder()
    now = 0
    for _ in range(6):
        for kernel in (*attention, *kernels):
            builder.launch(kernel, now, now + 20, now + 90)
            now += 100
    trace = builder.trace()
    placed = place_operations(trace, 0)
    fitted = best_fit(tuple(SHIPPED.values()), trace, placed)
    assert fitted is not None
    labels = [fitted.walk.labels[n] for n in fitted.walk.label.tolist() if n >= 0]
    forwards = walked_forwards(placed, fitted)
    assert forwards is not None
    return fitted.walk.rules.name, Counter(labels), len(forwards)


FLOWS = {
    "Triton fused_moe": [
        (  # SGLang
            ("void moe_fused_gate_kernel<float, 32>(void*)", "routing"),
            ("void moe_align_block_size_kernel<int>(int const*)", "prepare_moe_input"),
            ("void count_and_sort_expert_tokens_kernel<int>(int const*)", "prepare_moe_input"),
            ("void per_token_group_quant_8bit_kernel<__nv_bfloat16>()", "shuffle_rows"),
            ("fused_moe_kernel", "gemm1"),
            ("void sglang::act_and_mul_kernel<bf16>()", "swiglu_quant"),
            ("void per_token_group_quant_8bit_kernel<__nv_bfloat16>()", "swiglu_quant"),
            ("fused_moe_kernel", "gemm2"),
            ("void moe_sum_reduce_kernel_warp_token_topk<8>()", "gather"),
        ),
        (  # vLLM: quantised before the rows are sorted, summed up by torch
            ("void vllm::moe::grouped_topk_fused_kernel<float, bf16>()", "routing"),
            ("_per_token_group_quant_fp8", "shuffle_rows"),
            ("void vllm::moe::moe_align_block_size_kernel<int>()", "prepare_moe_input"),
            ("void vllm::moe::count_and_sort_expert_tokens_kernel<int>()", "prepare_moe_input"),
            ("fused_moe_kernel", "gemm1"),
            ("void vllm::act_and_mul_kernel<bf16, silu>()", "swiglu_quant"),
            ("_per_token_group_quant_fp8", "swiglu_quant"),
            ("fused_moe_kernel", "gemm2"),
            ("at::native::reduce_kernel<128, at::native::sum_functor<bf16>>", "gather"),
        ),
    ],
    "DeepGEMM grouped": [
        (  # vLLM, contiguous
            ("void vllm::moe::grouped_topk_fused_kernel<float, bf16>()", "routing"),
            ("_per_token_group_quant_fp8", "shuffle_rows"),
            ("_fwd_kernel_ep_scatter_1", "prepare_moe_input"),
            ("_fwd_kernel_ep_scatter_2", "shuffle_rows"),
            ("void deep_gemm::sm90_fp8_gemm_1d2d_impl<4096u, (deep_gemm::GemmType)1>()", "gemm1"),
            ("_silu_mul_per_token_group_quant_fp8_colmajor", "swiglu_quant"),
            ("void deep_gemm::sm90_fp8_gemm_1d2d_impl<7168u, (deep_gemm::GemmType)1>()", "gemm2"),
            ("_fwd_kernel_ep_gather", "gather"),
        ),
        (  # SGLang, masked
            ("void moe_fused_gate_kernel<float, 32>(void*)", "routing"),
            ("compute_masked_m_triton_kernel", "prepare_moe_input"),
            ("deepgemm_compute_src2dst_triton_kernel", "prepare_moe_input"),
            ("void per_token_group_quant_8bit_kernel<__nv_bfloat16>()", "shuffle_rows"),
            ("fill_gateup_input_triton_kernel", "shuffle_rows"),
            ("void deep_gemm::sm90_fp8_gemm_1d2d_impl<4096u, (deep_gemm::GemmType)2>()", "gemm1"),
            ("_silu_and_mul_post_quant_kernel", "swiglu_quant"),
            ("void deep_gemm::sm90_fp8_gemm_1d2d_impl<7168u, (deep_gemm::GemmType)2>()", "gemm2"),
            ("post_reorder_triton_kernel", "gather"),
        ),
    ],
    "FlashInfer TRTLLM-gen MoE": [
        (
            ("void moe::dev::routing::routingDeepSeek::routingMainKernel<Params>()", "routing"),
            (
                "void moe::dev::routing::routingDeepSeek::routingIndicesClusterKernel<Params>()",
                "prepare_moe_input",
            ),
            ("bmm_E4m3_E4m3E4m3_Fp32_t128x8x128_s6_et128x8_sm100f", "gemm1"),
            ("void moe::dev::activation::activationDeepSeekKernel<Params>()", "swiglu_quant"),
            ("bmm_Bfloat16_E4m3E4m3_Fp32_t128x8x128_s6_sm100f", "gemm2"),
            ("void moe::dev::finalize::finalizeKernelVecLoad<Params>()", "gather"),
        ),
    ],
    "FlashInfer CUTLASS fused MoE": [
        (  # as vLLM calls it, behind its own router
            ("void vllm::moe::topkGating<8, 256, 4>()", "routing"),
            (
                "void tensorrt_llm::kernels::cutlass_kernels::blockExpertPrefixSumKernel<256>()",
                "prepare_moe_input",
            ),
            (
                "void tensorrt_llm::kernels::cutlass_kernels::mergeExpertPrefixSumKernel()",
                "prepare_moe_input",
            ),
            (
                "void tensorrt_llm::kernels::cutlass_kernels::expandInputRowsKernel<bf16>()",
                "shuffle_rows",
            ),
            ("void tensorrt_llm::fp8_blockscale_gemm::scale_1x128_kernel<0>()", "shuffle_rows"),
            ("void deep_gemm::fp8_gemm_kernel_swapAB<4096u, 7168u>()", "gemm1"),
            ("void tensorrt_llm::cutlass_kernels::doActivationKernel<bf16>()", "swiglu_quant"),
            ("void tensorrt_llm::fp8_blockscale_gemm::scale_1x128_kernel<0>()", "swiglu_quant"),
            ("void deep_gemm::fp8_gemm_kernel_swapAB<7168u, 2048u>()", "gemm2"),
            ("void tensorrt_llm::cutlass_kernels::finalizeMoeRoutingKernel<bf16>()", "gather"),
        ),
    ],
}


@pytest.mark.parametrize(
    "name, flow", [(name, flow) for name, flows in FLOWS.items() for flow in flows]
)
def test_shipped_rules_tell_the_layers_of_servers_from_their_attention(
    name: str, flow: tuple[tuple[str, str], ...]
) -> None:
    chosen, labels, forwards = of_flow(*(kernel for kernel, _ in flow))
    assert (chosen, forwards) == (name, 6)
    assert labels == Counter({k: 6 * v for k, v in Counter(step for _, step in flow).items()})


def test_emptying_the_l2_cache_is_in_no_forward() -> None:
    for shipped in SHIPPED.values():
        assert set(labels_of(shipped, [FLUSH] * 3)) == {""}
