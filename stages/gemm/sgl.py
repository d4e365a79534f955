"""Both products with sgl's grouped CUTLASS GEMM, ``fp8_blockwise_scaled_grouped_mm``.

The op computes addresses from base pointers and problem sizes and never reads the strides of its
weight arguments: it is given [E, K, N] views of the physical [E, N, K] weights, and a contiguous
[E, K, N] tensor would be silently wrong. Per call the seeds take the views, ask for float32 scales
(they are float32 already) and make the pointer, stride and layout scratch; so does this backend.
Without ``per_call_views`` the views are made once. Two launches: the pointer set-up and the GEMM.
"""

from __future__ import annotations

import torch

from moeprof.contract import Step, problem_rows, stage
from stages.libraries.sgl_kernel import LIBRARY, fp8_blockwise_scaled_grouped_mm

POINTERS = ("a_pointers", "b_pointers", "out_pointers", "a_scale_pointers", "b_scale_pointers")
LAYOUT_INTS = 5  # one CuTe layout of a scale tensor


@stage(
    Step.GEMM1,
    writes="gemm1_output",
    rows=problem_rows("problem_sizes1"),
    library=LIBRARY,
)
def gemm1(
    shuffled_hidden_states,
    shuffled_scale,
    gemm1_weights,
    gemm1_weights_scale,
    problem_sizes1,
    expert_offsets,
    buffers,
    *,
    workspace_bytes=90_000,
    per_call_views=True,
):
    """[M, H] x [E_l, 2I, H] -> gemm1_output [M, 2I] bfloat16, rows in expert order.

    workspace_bytes: scratch for per-SM tensor maps; 132 SMs need 67,584.
    per_call_views: transpose weights and scales, and cast the latter, at every call.
    """
    return _grouped_mm(
        "gemm1",
        shuffled_hidden_states,
        shuffled_scale,
        gemm1_weights,
        gemm1_weights_scale,
        problem_sizes1,
        expert_offsets,
        buffers,
        workspace_bytes,
        per_call_views,
    )


@stage(
    Step.GEMM2,
    writes="gemm2_output",
    rows=problem_rows("problem_sizes2"),
    library=LIBRARY,
)
def gemm2(
    activated,
    activated_scale,
    gemm2_weights,
    gemm2_weights_scale,
    problem_sizes2,
    expert_offsets,
    buffers,
    *,
    workspace_bytes=90_000,
    per_call_views=True,
):
    """[M, I] x [E_l, H, I] -> gemm2_output [M, H] bfloat16. Options: see gemm1."""
    return _grouped_mm(
        "gemm2",
        activated,
        activated_scale,
        gemm2_weights,
        gemm2_weights_scale,
        problem_sizes2,
        expert_offsets,
        buffers,
        workspace_bytes,
        per_call_views,
    )


def _grouped_mm(
    step,
    rows,
    scale,
    weights,
    weights_scale,
    problem_sizes,
    expert_offsets,
    buffers,
    workspace_bytes,
    per_call_views,
):
    """One grouped product. rows [M, K] e4m3, weights [E, N, K] e4m3 -> [M, N] bfloat16."""
    device = rows.device
    experts, n, k = weights.shape
    output = buffers.empty(f"{step}_output", (rows.shape[0], n), torch.bfloat16, device)
    pointers = [
        buffers.empty(f"{step}_{name}", (experts,), torch.int64, device) for name in POINTERS
    ]
    stride_ab = buffers.full(f"{step}_stride_ab", (experts,), k, torch.int64, device)
    stride_c = buffers.full(f"{step}_stride_c", (experts,), n, torch.int64, device)
    layout_a, layout_b = (
        buffers.empty(f"{step}_layout_{side}", (experts, LAYOUT_INTS), torch.int32, device)
        for side in "ab"
    )
    workspace = buffers.empty(f"{step}_workspace", (workspace_bytes,), torch.uint8, device)
    if per_call_views:
        weights_view, scale_view = _transposed(weights), _transposed_float32(weights_scale)
    else:
        weights_view = buffers.once("weights_view", weights, _transposed)
        scale_view = buffers.once("scale_view", weights_scale, _transposed_float32)
    fp8_blockwise_scaled_grouped_mm(
        output,
        *pointers,
        rows,
        weights_view,
        scale,
        scale_view,
        stride_ab,
        stride_ab,
        stride_c,
        layout_a,
        layout_b,
        problem_sizes,
        expert_offsets[:-1],
        workspace,
    )
    return output


def _transposed(weights):
    """The [E, K, N] view of [E, N, K]."""
    return weights.transpose(1, 2)


def _transposed_float32(scale):
    """The [E, K/128, N/128] view of [E, N/128, K/128]; the cast changes nothing here."""
    return scale.to(torch.float32).transpose(1, 2)
