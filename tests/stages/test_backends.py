"""Each backend of each step against its torch form or the reference, at shapes with ragged ends."""

import pytest
import torch
from torch.nn import functional

from moeprof.contract import Buffers, ContractError, Step
from stages.fused import flashinfer as fused
from stages.gather import sgl as gather_sgl
from stages.gather import triton as gather_triton
from stages.gemm import sgl as gemm_sgl
from stages.libraries import sgl_kernel
from stages.prepare_moe_input import sgl as prepare_sgl
from stages.routing import reference as routing_reference
from stages.routing import sgl as routing_sgl
from stages.shuffle_rows import sgl as shuffle_sgl
from stages.shuffle_rows import triton as shuffle_triton
from stages.swiglu_quant import sgl as swiglu_sgl
from stages.swiglu_quant import torch as swiglu_torch
from stages.swiglu_quant import triton as swiglu_triton

SWIGLU_BACKENDS = (swiglu_torch, swiglu_sgl, swiglu_triton)


@pytest.fixture
def buffers():
    return Buffers(keep=False)


def slots(tokens, device, seed=0):
    """A permutation of T*8 slots and its inverse mapped to tokens, as prepare_moe_input makes."""
    random = torch.Generator().manual_seed(seed)
    slot_to_row = torch.randperm(tokens * 8, generator=random)
    row_to_token = torch.argsort(slot_to_row) // 8
    return slot_to_row.int().to(device), row_to_token.int().to(device)


def gemm1_like(rows, groups, device, seed=0):
    """[rows, 2 * groups * 128] bfloat16 with groups of very different size, one all zero."""
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, 2 * groups, 128, generator=random)
    values *= torch.exp(2 * torch.randn(rows, 2 * groups, 1, generator=random))
    values[0, 0] = 0
    return values.flatten(1).bfloat16().to(device)


def call(stage, tensors):
    return stage(*[tensors[name] for name in stage.reads])


@pytest.mark.parametrize("offset", [0, 12, 56])
def test_sgl_routing_agrees_and_clamps(make_problem, offset):
    problem = make_problem(33, offset)
    wanted_weights, wanted_ids = call(routing_reference.routing, problem)
    weights, ids, clamped, local = call(routing_sgl.routing, problem)
    order, wanted_order = ids.argsort(dim=1), wanted_ids.argsort(dim=1)
    assert torch.equal(ids.gather(1, order), wanted_ids.gather(1, wanted_order))
    torch.testing.assert_close(weights.gather(1, order), wanted_weights.gather(1, wanted_order))
    is_local = (ids >= offset) & (ids < offset + 8)
    assert torch.equal(local, weights.where(is_local, torch.zeros_like(weights)))
    assert clamped.dtype == torch.int32
    assert torch.equal(clamped[is_local], ids[is_local] - offset)
    assert clamped[ids < offset].eq(0).all() and clamped[ids >= offset + 8].eq(7).all()


def test_flashinfer_routing_agrees(make_problem, buffers):
    problem = make_problem(33)
    wanted_weights, wanted_ids = call(routing_reference.routing, problem)
    weights, ids = call(fused.routing, {**problem, "buffers": buffers})
    order, wanted_order = ids.argsort(dim=1), wanted_ids.argsort(dim=1)
    assert torch.equal(ids.gather(1, order), wanted_ids.gather(1, wanted_order))
    torch.testing.assert_close(weights.gather(1, order), wanted_weights.gather(1, wanted_order))


def test_sorting_covers_all_pairs(make_problem, buffers):
    problem = make_problem(13, 24) | {"buffers": buffers}
    problem["clamped_expert_ids"] = call(routing_sgl.routing, problem)[2]
    offsets, first, second, row_to_token, slot_to_row = call(prepare_sgl.prepare_moe_input, problem)
    ids = problem["clamped_expert_ids"].flatten()
    counts = torch.bincount(ids, minlength=8)
    assert offsets.tolist() == [0, *counts.cumsum(0).tolist()]
    assert first.tolist() == [[count, 512, 256] for count in counts.tolist()]
    assert second.tolist() == [[count, 256, 256] for count in counts.tolist()]
    assert sorted(slot_to_row.tolist()) == list(range(104))
    slot = torch.arange(104, device=ids.device)
    assert torch.equal(row_to_token[slot_to_row.long()], (slot // 8).int())
    rows = slot_to_row.long()
    assert (rows >= offsets[ids.long()]).all() and (rows < offsets[ids.long() + 1]).all()


@pytest.mark.parametrize(("tokens", "width"), [(1, 128), (7, 256), (5, 2176), (3, 4096)])
def test_triton_scatter_copies_values_and_scales(device, buffers, tokens, width):
    random = torch.Generator().manual_seed(width)
    values = torch.randn(tokens, width, generator=random).to(torch.float8_e4m3fn).to(device)
    scale = torch.rand(width // 128, tokens, generator=random).to(device)
    slot_to_row, row_to_token = slots(tokens, device)
    rows, row_scale = shuffle_triton.shuffle_rows(values, scale, slot_to_row, buffers)
    wanted, wanted_scale = shuffle_triton.scatter_rows_torch(values, scale, slot_to_row)
    assert torch.equal(rows.view(torch.uint8), wanted.view(torch.uint8))
    assert torch.equal(row_scale, wanted_scale)
    rows, row_scale = shuffle_sgl.shuffle_rows(values, scale, row_to_token)
    assert torch.equal(rows.view(torch.uint8), wanted.view(torch.uint8))
    assert torch.equal(row_scale, wanted_scale)


@pytest.mark.parametrize("groups", [1, 2, 3, 6, 16])
@pytest.mark.parametrize("groups_per_program", [1, 4])
def test_triton_swiglu_quant(device, buffers, groups, groups_per_program):
    source = gemm1_like(5, groups, device, seed=groups)
    stage = swiglu_triton.swiglu_quant.with_options(groups_per_program=groups_per_program)
    quantised, scale = stage(source, groups * 128, buffers)
    wanted, wanted_scale = swiglu_triton.swiglu_quant_torch(source)
    torch.testing.assert_close(scale, wanted_scale, rtol=1e-5, atol=0)
    # exp differs in the last bits, so a value next to a rounding boundary may take the other side
    same = quantised.view(torch.uint8) == wanted.view(torch.uint8)
    assert same.float().mean() > 0.995
    torch.testing.assert_close(quantised.float(), wanted.float(), rtol=0.126, atol=2**-9)


@pytest.mark.parametrize("module", SWIGLU_BACKENDS, ids=lambda module: module.__name__)
def test_swiglu_backends_activate_the_second_half(device, buffers, module, relative_l2):
    source = gemm1_like(9, 2, device)
    quantised, scale = module.swiglu_quant(source, 256, buffers)
    assert (quantised.dtype, scale.dtype) == (torch.float8_e4m3fn, torch.float32)
    assert quantised.is_contiguous() and scale.is_contiguous()
    assert tuple(scale.shape) == (9, 2)
    up, gate = source.double().chunk(2, dim=1)
    back = quantised.double() * scale.double().repeat_interleave(128, dim=1)
    assert relative_l2(back, (functional.silu(gate) * up).cpu()) < 0.03
    assert back[0, :128].count_nonzero() == 0  # the all-zero group of the fixture


@pytest.mark.parametrize(("tokens", "width"), [(1, 128), (7, 1024), (5, 1152)])
def test_triton_gather(device, tokens, width):
    random = torch.Generator().manual_seed(width)
    rows = torch.randn(tokens * 8, width, generator=random).bfloat16().to(device)
    weights = torch.rand(tokens, 8, generator=random).to(device)
    weights[:, 3] = 0
    slot_to_row, _ = slots(tokens, device)
    output = torch.full((tokens, width), torch.nan, dtype=torch.bfloat16, device=device)
    gather_triton.gather(rows, slot_to_row, weights, output)
    wanted = gather_triton.gather_torch(rows, slot_to_row, weights)
    torch.testing.assert_close(output, wanted, rtol=2**-7, atol=2**-9)
    if device != "cpu":  # the interpreter truncates to bfloat16, a GPU rounds
        assert (output == wanted).float().mean() > 0.98


def test_sgl_gather(device, relative_l2):
    rows = torch.randn(56, 256).bfloat16().to(device)
    weights = torch.rand(7, 8).to(device)
    slot_to_row, _ = slots(7, device)
    output = torch.full((7, 256), torch.nan, dtype=torch.bfloat16, device=device)
    gather_sgl.gather(rows, slot_to_row, weights, output)
    exact = torch.einsum(
        "tjh,tj->th", rows[slot_to_row.long()].view(7, 8, 256).double(), weights.double()
    )
    assert relative_l2(output, exact.cpu()) < 5e-3  # bfloat16 weights and output


def test_sgl_gemms_multiply_each_experts_rows(make_problem, naive, run, relative_l2):
    """Rows of the executed problem against float64; the rows of clamped pairs included."""
    from stages.solutions.sglang_v2 import SOLUTION

    problem = make_problem(7, 24)
    tensors = run(SOLUTION, problem)
    offsets = tensors["expert_offsets"].tolist()
    for rows, scale, step, result in (
        ("shuffled_hidden_states", "shuffled_scale", "gemm1", "gemm1_output"),
        ("activated", "activated_scale", "gemm2", "gemm2_output"),
    ):
        left = tensors[rows].double() * tensors[scale].double().repeat_interleave(128, dim=1)
        factors = tensors[f"{step}_weights_scale"].double()
        factors = factors.repeat_interleave(128, dim=1).repeat_interleave(128, dim=2)
        right = tensors[f"{step}_weights"].double() * factors
        wanted = [
            left[first:last] @ right[expert].T
            for expert, (first, last) in enumerate(zip(offsets[:-1], offsets[1:], strict=True))
        ]
        assert relative_l2(tensors[result], torch.cat(wanted).cpu()) < 3e-3


def test_dequantise_is_exact_to_bfloat16(make_problem, buffers):
    problem = make_problem(13)
    result = call(fused.dequantise, {**problem, "buffers": buffers})
    factors = problem["hidden_states_scale"].T.repeat_interleave(128, dim=1)
    wanted = problem["hidden_states"].float() * factors
    assert torch.equal(result, wanted.bfloat16())


def test_cutlass_path_refuses_an_offset_between_ranks(make_problem, buffers):
    problem = make_problem(3, 12) | {"buffers": buffers, "output": None}
    problem["topk_weights"], problem["topk_ids"] = call(fused.routing, problem)
    problem["dequantised_hidden_states"] = call(fused.dequantise, problem)
    with pytest.raises(ContractError, match="multiple of 8"):
        call(fused.cutlass_experts, problem)


def test_declarations():
    assert gemm_sgl.gemm1.name == "gemm1" and gemm_sgl.gemm1.backend == "sgl"
    assert gemm_sgl.gemm1.rows.tensor == "problem_sizes1"
    assert gemm_sgl.gemm1.option_names == ("workspace_bytes", "per_call_views")
    assert swiglu_torch.swiglu_quant.backend == "torch"
    assert swiglu_triton.swiglu_quant.library is None
    assert fused.dequantise.covers == () and fused.dequantise.why
    assert fused.trtllm_moe.covers == tuple(Step)


def test_a_stand_in_says_why(device):
    assert sgl_kernel.LIBRARY.name == "sgl_kernel"
    if device == "cpu":
        assert sgl_kernel.LIBRARY.stand_in in ("no CUDA device", "run on the CPU by request")
        assert sgl_kernel.LIBRARY.version is None
    elif sgl_kernel.LIBRARY.stand_in is None:
        assert sgl_kernel.LIBRARY.version


def test_kernel_rules_tell_the_kernels_of_the_fused_ops_apart():
    """Names as the sources and published traces spell them."""
    import re

    def steps(rules, names):
        seen, found = {}, []
        for name in names:
            rule = next((r for r in rules if re.search(r.pattern, name)), None)
            position = seen[rule] = seen.get(rule, -1) + 1
            found.append(rule and rule.steps[min(position, len(rule.steps) - 1)])
        return found

    assert steps(
        fused.CUTLASS_KERNELS,
        [
            "void tensorrt_llm::kernels::cutlass_kernels::fusedBuildExpertMapsSortFirstTokenKernel",
            "void tensorrt_llm::kernels::cutlass_kernels::expandInputRowsKernel<__nv_bfloat16>",
            "void tensorrt_llm::kernels::fp8_blockscale_gemm::scale_1x128_kernel<false>",
            "void deep_gemm::fp8_gemm_kernel_swapAB<4096u, 7168u>",
            "void tensorrt_llm::kernels::cutlass_kernels::doGatedActivationKernel<__nv_bfloat16>",
            "void tensorrt_llm::kernels::fp8_blockscale_gemm::scale_1x128_kernel<false>",
            "void deep_gemm::fp8_gemm_kernel_swapAB<7168u, 2048u>",
            "void tensorrt_llm::kernels::cutlass_kernels::finalizeMoeRoutingKernel<__nv_bfloat16>",
        ],
    ) == [
        "prepare_moe_input",
        "shuffle_rows",
        "shuffle_rows",
        "gemm1",
        "swiglu_quant",
        "swiglu_quant",
        "gemm2",
        "gather",
    ]
    assert steps(
        fused.TRTLLM_KERNELS,
        [
            "void moe::dev::routing::routingDeepSeek::routingMainKernel<KernelParams>",
            "void moe::dev::routing::routingDeepSeek::routingIndicesClusterKernel<KernelParams>",
            "bmm_E4m3_E4m3E4m3_Fp32_t128x8x128u2_s6_et64x8_m64x8x32",
            "void moe::dev::activation::activationDeepSeekKernel<KernelParams>",
            "bmm_Bfloat16_E4m3E4m3_Fp32_t128x8x128u2_s6_et64x8_m64x8x32",
            "void moe::dev::finalize::finalizeDeepSeekKernel<KernelParams>",
        ],
    ) == ["routing", "prepare_moe_input", "gemm1", "swiglu_quant", "gemm2", "gather"]
