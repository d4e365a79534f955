"""GEMM1 with SwiGLU and e4m3 quantisation in its epilogue: the bfloat16 product never exists.

A tile holds 128 columns of ``up`` and the same 128 of ``gate``, which is one scale block of the
activation: its row's largest magnitude needs no second pass. What is saved is the write and the
read of 16 KB a row and a launch; it quantises float32 sums, where the separate kernel quantises
what was rounded to bfloat16 between. On an H200 with 14,250 rows 827 us, GEMM1 alone takes 824.
"""

from __future__ import annotations

import torch

from moeprof.contract import BLOCK, Step, counted_rows, stage
from stages.libraries.cutedsl import LIBRARY, grouped_gemm_swiglu_quant


@stage(
    Step.GEMM1,
    Step.SWIGLU_QUANT,
    writes=("activated", "activated_scale"),
    rows=counted_rows("expert_counts"),
    library=LIBRARY,
)
def gemm1_swiglu_quant(
    shuffled_hidden_states,
    shuffled_scale,
    gemm1_weights,
    gemm1_weights_scale,
    m_indptr,
    expert_counts,
    intermediate_size,
    buffers,
):
    """[capacity, H] x [E_l, 2I, H] -> activated [capacity, I] float8_e4m3fn,
    activated_scale [capacity, I/128] float32. Rows of padding hold anything."""
    capacity, device = shuffled_hidden_states.shape[0], shuffled_hidden_states.device
    activated = buffers.empty(
        "activated", (capacity, intermediate_size), torch.float8_e4m3fn, device
    )
    scale = buffers.empty(
        "activated_scale", (capacity, intermediate_size // BLOCK), torch.float32, device
    )
    grouped_gemm_swiglu_quant(
        shuffled_hidden_states,
        shuffled_scale,
        gemm1_weights,
        gemm1_weights_scale,
        m_indptr,
        expert_counts,
        activated,
        scale,
    )
    return activated, scale
