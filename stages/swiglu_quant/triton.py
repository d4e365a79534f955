"""SwiGLU and e4m3 quantisation in one Triton kernel: the bfloat16 product never reaches memory.

The seeds' kernel gives one program a whole row and walks its 16 groups one after the other. This
one gives a program a tile of a few groups, all in flight at once, so that eight rows (T=1) still
make 32 programs. The product stays in float32 until it is quantised; sgl's two-op form rounds it
to bfloat16 twice on the way.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.nn import functional

from moeprof.contract import BLOCK, E4M3_MAX, Step, leading_rows, problem_rows, stage
from stages.swiglu_quant.arithmetic import LEAST_AMAX, quantised_swiglu


@stage(
    Step.SWIGLU_QUANT,
    writes=("activated", "activated_scale"),
    rows=leading_rows("activated"),
    rows_if={"local_only": problem_rows("problem_sizes1")},
)
def swiglu_quant(
    gemm1_output,
    intermediate_size,
    buffers,
    expert_offsets=None,
    *,
    groups_per_program=4,
    local_only=False,
):
    """[M, 2I] bfloat16, up then gate -> [M, I] float8_e4m3fn, [M, I/128] float32.

    groups_per_program: groups of 128 values that one warp handles, a power of two.
    local_only: rows that no expert owns, from expert_offsets[-1] on, are neither read nor written.
    """
    rows, device = gemm1_output.shape[0], gemm1_output.device
    groups = intermediate_size // BLOCK
    activated = buffers.empty("activated", (rows, intermediate_size), torch.float8_e4m3fn, device)
    scale = buffers.empty("activated_scale", (rows, groups), torch.float32, device)
    swiglu_quant_kernel[(rows, triton.cdiv(groups, groups_per_program))](
        gemm1_output,
        activated,
        scale,
        expert_offsets if local_only else None,
        expert_offsets.shape[0] - 1 if local_only else 0,
        groups,
        LEAST_AMAX,
        E4M3_MAX,
        GROUPS=groups_per_program,
        GROUP_SIZE=BLOCK,
        OWNED_ROWS_ONLY=local_only,
        num_warps=1,
    )
    return activated, scale


@triton.jit
def swiglu_quant_kernel(
    source,  # [M, 2 * groups * 128] bfloat16, up then gate
    activated,  # [M, groups * 128] e4m3
    activated_scale,  # [M, groups] float32
    expert_offsets,  # [experts + 1] int32, read only for OWNED_ROWS_ONLY
    experts,
    groups,
    least_amax,
    largest,
    GROUPS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    OWNED_ROWS_ONLY: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    column = group[:, None] * GROUP_SIZE + tl.arange(0, GROUP_SIZE)[None, :]
    width = groups * GROUP_SIZE
    inside = column < width
    in_groups = group < groups
    if OWNED_ROWS_ONLY:
        # compared as vectors: the interpreter cannot spread the result of a scalar comparison
        rows_owned = tl.load(expert_offsets + experts)
        inside = inside & (row + 0 * column < rows_owned)
        in_groups = in_groups & (row + 0 * group < rows_owned)
    quantised, scales = quantised_swiglu(source, row, column, inside, width, least_amax, largest)
    tl.store(activated + row * width + column, quantised, mask=inside)
    tl.store(activated_scale + row * groups + group, scales, mask=in_groups)


def swiglu_quant_torch(gemm1_output):
    """What the kernel computes, in PyTorch."""
    up, gate = gemm1_output.to(torch.float32).chunk(2, dim=1)
    groups = (functional.silu(gate) * up).unflatten(1, (-1, BLOCK))
    amax = groups.abs().amax(dim=-1).clamp(min=LEAST_AMAX)
    quantised = (groups * (E4M3_MAX / amax).unsqueeze(-1)).clamp(-E4M3_MAX, E4M3_MAX)
    return quantised.flatten(1).to(torch.float8_e4m3fn), amax / E4M3_MAX
