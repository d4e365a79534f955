"""Torch twins of the sgl_kernel 0.4.4 ops that the stages call: same arguments, same effects.

A twin honours what a caller can trip over: outputs written in place, dtypes refused, memory read
by address rather than by stride, rows outside the problem sizes left alone. Contents of scratch
tensors are not reproduced; nobody reads them. Compared with the real ops by tests/gpu/test_twins.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from moeprof.contract import BLOCK
from stages.block_scale import dequantise_rows, dequantise_weight, quantise_rows, take_rows


def moe_fused_gate(
    input_tensor,
    bias,
    num_expert_group,
    topk_group,
    topk,
    num_fused_shared_experts=0,
    routed_scaling_factor=0,
    apply_routed_scaling_factor_on_output=False,
):
    """[T, E] logits -> [weights [T, topk] float32, ids [T, topk] int32], best first.

    Weights are normalised to sum 1; the scaling factor is applied only if the flag asks for it.
    Ties: the lower expert wins. Computes in float32 (the op computes in the input's dtype).
    """
    tokens, experts = input_tensor.shape
    _require(input_tensor.dtype == bias.dtype, "input and bias must have one dtype")
    _require(experts & (experts - 1) == 0, "num_experts must be a power of two")
    _require(experts % num_expert_group == 0, "num_experts must divide into the groups")
    _require(experts // num_expert_group <= 32, "at most 32 experts a group")
    _require(num_fused_shared_experts == 0, "the twin has no fused shared experts")

    scores = torch.sigmoid(input_tensor.to(torch.float32))
    groups = (scores + bias.to(torch.float32)).view(tokens, num_expert_group, -1)
    group_scores = groups.topk(2, dim=-1).values.sum(dim=-1)
    order = group_scores.sort(dim=-1, descending=True, stable=True).indices
    dropped = torch.zeros_like(group_scores, dtype=torch.bool)
    dropped.scatter_(1, order[:, topk_group:], True)
    candidates = groups.masked_fill(dropped.unsqueeze(-1), torch.finfo(torch.float32).min)
    candidates = candidates.view(tokens, experts)
    ids = candidates.sort(dim=-1, descending=True, stable=True).indices[:, :topk]

    weights = scores.gather(1, ids)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    if apply_routed_scaling_factor_on_output:
        weights = weights * routed_scaling_factor
    return [weights, ids.to(torch.int32)]


def prepare_moe_input(
    topk_ids,
    expert_offsets,
    problem_sizes1,
    problem_sizes2,
    input_permutation,
    output_permutation,
    num_experts,
    n,
    k,
    blockscale_offsets=None,
):
    """Sort the slots of topk_ids [T, topk] int32 by expert; all outputs int32, filled in place.

    Ids outside 0..num_experts-1 match no expert: their slots of output_permutation, and the rows
    of input_permutation past the matching count, keep what was in them. Within an expert rows
    are in slot order here and in any order in the op.
    """
    _require(topk_ids.dtype == torch.int32, "topk_ids must be int32")
    _require(blockscale_offsets is None, "the twin has no blockscale offsets")
    topk = topk_ids.shape[1]
    flat = topk_ids.flatten().to(torch.int64)
    slots = torch.nonzero((flat >= 0) & (flat < num_experts)).flatten()
    slots = slots[torch.argsort(flat[slots], stable=True)]
    counts = torch.bincount(flat[slots], minlength=num_experts)

    expert_offsets[0] = 0
    expert_offsets[1 : num_experts + 1] = counts.cumsum(0)
    for sizes, columns, depth in ((problem_sizes1, 2 * n, k), (problem_sizes2, k, n)):
        sizes[:num_experts, 0] = counts
        sizes[:num_experts, 1] = columns
        sizes[:num_experts, 2] = depth
    input_permutation[: slots.numel()] = (slots // topk).to(torch.int32)
    output_permutation[slots] = torch.arange(
        slots.numel(), dtype=torch.int32, device=topk_ids.device
    )


def shuffle_rows(input_tensor, dst2src_map, output_tensor_shape):
    """A new tensor whose row r is row dst2src_map[r] of the input, read as contiguous memory."""
    _require(dst2src_map.dtype == torch.int32, "dst2src_map must be int32")
    rows, columns = output_tensor_shape
    source = input_tensor.as_strided((input_tensor.shape[0], columns), (columns, 1))
    return take_rows(source, dst2src_map[:rows].to(torch.int64))


def fp8_blockwise_scaled_grouped_mm(
    output,
    a_ptrs,
    b_ptrs,
    out_ptrs,
    a_scales_ptrs,
    b_scales_ptrs,
    a,
    b,
    scales_a,
    scales_b,
    stride_a,
    stride_b,
    stride_c,
    layout_sfa,
    layout_sfb,
    problem_sizes,
    expert_offsets,
    workspace,
):
    """For each expert e with (m, n, k): output rows = a rows @ b[e]^T, block scales applied.

    Addresses come from base pointers: expert e's rows start at expert_offsets[e], its weights at
    e*n*k as [n, k], its weight scales at e*n*k/128^2 as [n/128, k/128]. The strides of b and
    scales_b are never read.
    """
    for name, tensor, dtype in (
        ("a", a, torch.float8_e4m3fn),
        ("b", b, torch.float8_e4m3fn),
        ("scales_a", scales_a, torch.float32),
        ("scales_b", scales_b, torch.float32),
        ("stride_a", stride_a, torch.int64),
        ("stride_b", stride_b, torch.int64),
        ("stride_c", stride_c, torch.int64),
        ("layout_sfa", layout_sfa, torch.int32),
        ("layout_sfb", layout_sfb, torch.int32),
        ("problem_sizes", problem_sizes, torch.int32),
        ("expert_offsets", expert_offsets, torch.int32),
    ):
        _require(tensor.dtype == dtype, f"{name} must be {dtype}, not {tensor.dtype}")
    _require(output.dtype in (torch.bfloat16, torch.float16), "output must be bfloat16 or half")
    _require(b.dim() == 3 and scales_b.dim() == 3, "b and scales_b must be 3D")
    _require(problem_sizes.shape == (expert_offsets.shape[0], 3), "one (m, n, k) per expert")
    _require(workspace.dim() == 1, "workspace must be 1D")

    starts = expert_offsets.tolist()
    for expert, (m, n, k) in enumerate(problem_sizes.tolist()):
        if m == 0:
            continue
        start, blocks = starts[expert], k // BLOCK
        rows = dequantise_rows(
            _memory(a, start * k, (m, k), int(stride_a[expert])),
            _memory(scales_a, start * blocks, (m, blocks), blocks),
        )
        weight = dequantise_weight(
            _memory(b, expert * n * k, (n, k), int(stride_b[expert])),
            _memory(scales_b, expert * (n // BLOCK) * blocks, (n // BLOCK, blocks), blocks),
        )
        target = _memory(output, start * n, (m, n), int(stride_c[expert]))
        target.copy_(rows @ weight.T)


def silu_and_mul(input, out=None):
    """silu(first half) * second half, in float32, rounded to the input's dtype."""
    _require(input.shape[-1] * input.dtype.itemsize % 16 == 0, "rows must be multiples of 16 bytes")
    first, second = input.to(torch.float32).chunk(2, dim=-1)
    product = (functional.silu(first) * second).to(input.dtype)
    return product if out is None else out.copy_(product)


def sgl_per_token_group_quant_fp8(
    input,
    output_q,
    output_s,
    group_size,
    eps,
    fp8_min,
    fp8_max,
    scale_ue8m0=False,
    fuse_silu_and_mul=False,
    masked_m=None,
    enable_v2=None,
):
    """[M, K] -> output_q [M, K] float8_e4m3fn, output_s [M, K/128] float32, in place."""
    _require(group_size == BLOCK, "group_size must be 128")
    _require((fp8_min, fp8_max) == (-448.0, 448.0), "the range of e4m3 is -448 to 448")
    _require(abs(eps - 1e-10) < 1e-13, "eps must be 1e-10")
    _require(not scale_ue8m0 and not fuse_silu_and_mul, "the twin has neither ue8m0 nor fusion")
    _require(masked_m is None, "the twin has no masks")
    _require(input.is_contiguous() and output_q.is_contiguous(), "tensors must be contiguous")
    quantised, scale = quantise_rows(input, eps)
    output_q.copy_(quantised)
    output_s.copy_(scale)


def apply_shuffle_mul_sum(input, output, permutation, factors):
    """output[t] = sum_j factors[t, j] * input[permutation[t*topk + j]]; every row is written."""
    tokens = output.shape[0]
    _require(permutation.dtype == torch.int32 and permutation.dim() == 1, "permutation: int32, 1D")
    _require(factors.dtype == output.dtype, "factors must have the output's dtype")
    _require(permutation.numel() % tokens == 0, "one row per (token, choice)")
    _require(factors.numel() == permutation.numel(), "one factor per (token, choice)")
    choices = permutation.view(tokens, -1).to(torch.int64)
    weights = factors.reshape(choices.shape).to(torch.float32)
    total = torch.zeros(output.shape, dtype=torch.float32, device=output.device)
    for j in range(choices.shape[1]):
        total += weights[:, j, None] * input[choices[:, j]].to(torch.float32)
    output.copy_(total)


def _memory(tensor, offset, shape, row_stride):
    """The memory of ``tensor`` from element ``offset`` on as rows: what address arithmetic sees."""
    return tensor.as_strided(shape, (row_stride, 1), tensor.storage_offset() + offset)


def _require(condition, message):
    if not condition:
        raise RuntimeError(message)
