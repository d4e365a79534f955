"""Both products in float32, expert by expert, one expert's weights dequantised at a time.

Needs float32 products at full precision (torch's default; TF32 stays off).
"""

from __future__ import annotations

import torch

from moeprof.contract import Step, leading_rows, stage
from stages.block_scale import dequantise_weight


@stage(Step.GEMM1, writes="pair_gemm1", rows=leading_rows("pair_gemm1"))
def gemm1(pair_hidden_states, expert_row_offsets, gemm1_weights, gemm1_weights_scale):
    """[P, H] float32, [E_l, 2I, H] float8_e4m3fn -> pair_gemm1 [P, 2I] float32 (up, then gate)."""
    return _products(pair_hidden_states, expert_row_offsets, gemm1_weights, gemm1_weights_scale)


@stage(Step.GEMM2, writes="pair_gemm2", rows=leading_rows("pair_gemm2"))
def gemm2(pair_activated, expert_row_offsets, gemm2_weights, gemm2_weights_scale):
    """[P, I] float32, [E_l, H, I] float8_e4m3fn -> pair_gemm2 [P, H] float32."""
    return _products(pair_activated, expert_row_offsets, gemm2_weights, gemm2_weights_scale)


def _products(rows, expert_row_offsets, weights, weights_scale):
    """Row r of expert e: weights[e] @ rows[r]. Experts without rows cost nothing."""
    product = rows.new_empty((rows.shape[0], weights.shape[1]))
    offsets = expert_row_offsets.tolist()
    for expert, (first, last) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        if first == last:
            continue
        weight = dequantise_weight(weights[expert], weights_scale[expert])
        torch.mm(rows[first:last], weight.T, out=product[first:last])
    return product
