"""SwiGLU and e4m3 quantisation of rows by expert: only rows that hold a pair, one kernel.

A program walks every LANES-th row of one expert, so that the grid depends on the shape alone (a
replayed graph must do for any routing) and rows without a pair cost nothing. Otherwise as
``triton``: the product stays in float32 until it is quantised. Scales go to [E_l, I/128, capacity].
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from moeprof.contract import BLOCK, E4M3_MAX, Step, counted_rows, stage
from stages.swiglu_quant.arithmetic import LEAST_AMAX, quantised_swiglu

# programs along the rows of an expert. Under an even load an expert holds T/32 rows of capacity T;
# with one program a row of capacity most were empty (5.8 us at T=56)
FEWEST_LANES, MOST_LANES, CAPACITY_PER_LANE = 4, 128, 8
GROUPS_PER_PROGRAM = 4


@stage(
    Step.SWIGLU_QUANT,
    writes=("activated", "activated_scale_by_expert"),
    rows=counted_rows("expert_counts"),
)
def swiglu_quant(gemm1_output, expert_counts, intermediate_size, buffers):
    """[E_l * capacity, 2I] bfloat16, up then gate -> [E_l * capacity, I] float8_e4m3fn,
    [E_l, I/128, capacity] float32."""
    rows, device, experts = gemm1_output.shape[0], gemm1_output.device, expert_counts.shape[0]
    groups, capacity = intermediate_size // BLOCK, rows // experts
    activated = buffers.empty("activated", (rows, intermediate_size), torch.float8_e4m3fn, device)
    scale = buffers.empty(
        "activated_scale_by_expert", (experts, groups, capacity), torch.float32, device
    )
    lanes = max(FEWEST_LANES, min(MOST_LANES, triton.cdiv(capacity, CAPACITY_PER_LANE)))
    swiglu_by_expert_kernel[(lanes, triton.cdiv(groups, GROUPS_PER_PROGRAM), experts)](
        gemm1_output,
        activated,
        scale,
        expert_counts,
        groups,
        capacity,
        lanes,
        LEAST_AMAX,
        E4M3_MAX,
        GROUPS=GROUPS_PER_PROGRAM,
        GROUP_SIZE=BLOCK,
        num_warps=1,
    )
    return activated, scale


@triton.jit
def swiglu_by_expert_kernel(
    source,  # [E_l * capacity, 2 * groups * 128] bfloat16, up then gate
    activated,  # [E_l * capacity, groups * 128] e4m3
    activated_scale,  # [E_l, groups, capacity] float32
    counts,  # [E_l] int32
    groups,
    capacity,
    lanes,
    least_amax,
    largest,
    GROUPS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
):
    expert = tl.program_id(2).to(tl.int64)
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    column = group[:, None] * GROUP_SIZE + tl.arange(0, GROUP_SIZE)[None, :]
    width = groups * GROUP_SIZE
    inside = column < width
    count = tl.load(counts + expert)
    for rank in range(tl.program_id(0), count, lanes):
        row = expert * capacity + rank
        quantised, scales = quantised_swiglu(
            source, row, column, inside, width, least_amax, largest
        )
        tl.store(activated + row * width + column, quantised, mask=inside)
        scale_at = (expert * groups + group) * capacity + rank
        tl.store(activated_scale + scale_at, scales, mask=group < groups)
