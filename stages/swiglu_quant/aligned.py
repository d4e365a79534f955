"""SwiGLU and e4m3 quantisation of flat, aligned rows: only rows that hold a pair, one kernel.

A fixed number of programs walks the rows of the layout, whose end is read on the device, and passes
padding over. Otherwise as ``triton``: the product stays in float32 until it is quantised.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from moeprof.contract import BLOCK, E4M3_MAX, Step, counted_rows, stage
from stages.swiglu_quant.arithmetic import LEAST_AMAX, quantised_swiglu

MOST_PROGRAMS = 2048  # along the rows: 16 an SM on 132 SMs
GROUPS_PER_PROGRAM = 8


@stage(
    Step.SWIGLU_QUANT,
    writes=("activated", "activated_scale"),
    rows=counted_rows("expert_counts"),
)
def swiglu_quant(gemm1_output, row_token, m_indptr, expert_counts, intermediate_size, buffers):
    """[capacity, 2I] bfloat16, up then gate -> [capacity, I] float8_e4m3fn,
    [capacity, I/128] float32. Rows of padding keep what was in them."""
    capacity, device = gemm1_output.shape[0], gemm1_output.device
    groups = intermediate_size // BLOCK
    activated = buffers.empty(
        "activated", (capacity, intermediate_size), torch.float8_e4m3fn, device
    )
    scale = buffers.empty("activated_scale", (capacity, groups), torch.float32, device)
    programs = min(capacity, MOST_PROGRAMS)
    swiglu_aligned_kernel[(programs, triton.cdiv(groups, GROUPS_PER_PROGRAM))](
        gemm1_output,
        activated,
        scale,
        row_token,
        m_indptr,
        groups,
        m_indptr.shape[0] - 1,
        programs,
        LEAST_AMAX,
        E4M3_MAX,
        GROUPS=GROUPS_PER_PROGRAM,
        GROUP_SIZE=BLOCK,
        num_warps=2,
    )
    return activated, scale


@triton.jit
def swiglu_aligned_kernel(
    source,  # [capacity, 2 * groups * 128] bfloat16, up then gate
    activated,  # [capacity, groups * 128] e4m3
    activated_scale,  # [capacity, groups] float32
    row_token,  # [capacity] int32, -1: padding
    indptr,  # [experts + 1] int32
    groups,
    experts,
    programs,
    least_amax,
    largest,
    GROUPS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
):
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    column = group[:, None] * GROUP_SIZE + tl.arange(0, GROUP_SIZE)[None, :]
    width = groups * GROUP_SIZE
    inside = column < width
    end = tl.load(indptr + experts)
    for place in range(tl.program_id(0), end, programs):
        if tl.load(row_token + place) >= 0:
            row = tl.cast(place, tl.int64)
            quantised, scales = quantised_swiglu(
                source, row, column, inside, width, least_amax, largest
            )
            tl.store(activated + row * width + column, quantised, mask=inside)
            tl.store(activated_scale + row * groups + group, scales, mask=group < groups)
