"""Both products with DeepGEMM's grouped GEMM, ``fp8_m_grouped_gemm_nt_masked``, for many rows.

Rows by expert is its masked layout: it reads each expert's count on the device and runs tiles of
those rows only, so one graph does for any routing. Its contiguous layout needs the number of rows
on the host: with the bound T*8 it would load, though not multiply, eight times the tiles. Scales
of rows are already as its TMA wants them, rows innermost; any other layout it would transpose in a
launch of its own. Compiles with nvcc at the first call, about 7 s. On an H200 with 14,275 rows:
792 us in GEMM1 (1058 TFLOP/s), 457 us in GEMM2 (916), the same whatever rows it is told to expect.
"""

from __future__ import annotations

import torch

from moeprof.contract import ROUTING, Step, counted_rows, stage
from stages.libraries.deep_gemm import LIBRARY, fp8_m_grouped_gemm_nt_masked


@stage(Step.GEMM1, writes="gemm1_output", rows=counted_rows("expert_counts"), library=LIBRARY)
def gemm1(
    shuffled_hidden_states,
    shuffled_scale_by_expert,
    gemm1_weights,
    gemm1_weights_scale,
    expert_counts,
    num_experts,
    seq_len,
    buffers,
):
    """[E_l * capacity, H] x [E_l, 2I, H] -> gemm1_output [E_l * capacity, 2I] bfloat16."""
    return masked_product(
        "gemm1_output",
        shuffled_hidden_states,
        shuffled_scale_by_expert,
        gemm1_weights,
        gemm1_weights_scale,
        expert_counts,
        expected_rows(seq_len, num_experts),
        buffers,
    )


@stage(Step.GEMM2, writes="gemm2_output", rows=counted_rows("expert_counts"), library=LIBRARY)
def gemm2(
    activated,
    activated_scale_by_expert,
    gemm2_weights,
    gemm2_weights_scale,
    expert_counts,
    num_experts,
    seq_len,
    buffers,
):
    """[E_l * capacity, I] x [E_l, H, I] -> gemm2_output [E_l * capacity, H] bfloat16."""
    return masked_product(
        "gemm2_output",
        activated,
        activated_scale_by_expert,
        gemm2_weights,
        gemm2_weights_scale,
        expert_counts,
        expected_rows(seq_len, num_experts),
        buffers,
    )


def expected_rows(seq_len: int, num_experts: int) -> int:
    """Rows an expert gets under an even load: what the library chooses its tiles by."""
    return max(1, -(-seq_len * ROUTING.top_k // num_experts))


def masked_product(name, rows, scale, weights, weights_scale, counts, expected, buffers):
    """rows [E * capacity, K] e4m3, weights [E, N, K] e4m3 -> [E * capacity, N] bfloat16."""
    experts, n, k = weights.shape
    capacity = rows.shape[0] // experts
    output = buffers.empty(name, (rows.shape[0], n), torch.bfloat16, rows.device)
    fp8_m_grouped_gemm_nt_masked(
        (rows.view(experts, capacity, k), scale.transpose(1, 2)),
        (weights, weights_scale),
        output.view(experts, capacity, n),
        counts,
        expected,
    )
    return output
