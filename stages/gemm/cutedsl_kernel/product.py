"""One tile's product: FP8 wgmma over a block of K, then promotion to float32 with both scales.

The tensor cores add FP8 products with fewer bits than float32 has, and the scales change with every
128 of K: so each block of K starts from zero, and CUDA cores multiply it by its scales and add it.
The two math groups of a CTA take turns at that by themselves. Scales of the next block are read
while this one is multiplied. A second set of partial sums, so that a group overlaps with itself,
gained nothing (926 us where one set took 928) and lost 2 % with clusters.
"""

import cutlass
from cutlass import Float8E4M3FN, Float32, Int32, cute
from cutlass.cute.nvgpu import OperandMajorMode, warpgroup

from stages.gemm.cutedsl_kernel.variant import BLOCK

GROUP_ROWS = 64  # of a math group: wgmma's M
MMA_K = 32  # of one FP8 wgmma
STAGES = 4  # blocks of K in flight; six were 3 % slower in GEMM1


def tiled_mma(groups, accumulate):
    """wgmma of ``groups`` warp groups below each other; not ``accumulate``: overwrites its sums."""
    operation = warpgroup.MmaF8Op(
        Float8E4M3FN,
        Float8E4M3FN,
        Float32,
        (GROUP_ROWS, BLOCK, MMA_K),
        warpgroup.OperandSource.SMEM,
        OperandMajorMode.K,
        OperandMajorMode.K,
    )
    mma = cute.make_tiled_mma(cute.make_mma_atom(operation), (groups, 1, 1))
    mma.set(warpgroup.Field.ACCUMULATE, accumulate)
    return mma


@cute.jit
def release(variant: cutlass.Constexpr, barrier: cute.Pointer, lane: Int32):
    """This warp has read the stage, whose rows every CTA of the cluster fills: tell each."""
    if cutlass.const_expr(variant.cluster > 1):
        if lane < variant.cluster:
            cute.arch.mbarrier_arrive(barrier, lane)
    else:
        with cute.arch.elect_one():
            cute.arch.mbarrier_arrive(barrier)


@cute.jit
def advance(stage: Int32, phase: Int32):
    """The next stage of the ring, and the parity its barriers have in this turn."""
    stage += 1
    if stage == STAGES:
        stage = Int32(0)
        phase ^= 1
    return stage, phase


@cute.jit
def multiply(
    variant: cutlass.Constexpr,
    operands: cutlass.Constexpr,  # wgmma that adds, wgmma that overwrites, fragments of A and B
    sums: cutlass.Constexpr,  # float32 registers, one tensor a half
    part: cute.Tensor,
    row_scale: cute.Tensor,
    weight_scale: cute.Tensor,
    row: Int32,
    n_block: Int32,
    full: cute.Pointer,
    empty: cute.Pointer,
    stage: Int32,
    phase: Int32,
    lane: Int32,
):
    """Fill ``sums`` with rows x weights over all of K; returns where the ring of stages is."""
    for half in cutlass.range_constexpr(variant.halves):
        sums[half].fill(0.0)
    upper, lower, first, second = scales(variant, row_scale, weight_scale, row, n_block, 0)
    for k in cutlass.range(variant.k_blocks, unroll=1):
        cute.arch.mbarrier_wait(full + stage, phase)
        for half in cutlass.range_constexpr(variant.halves):
            issue(operands, part, stage, stage * variant.halves + half)
            if cutlass.const_expr(half == 0):
                following = cutlass.min(k + 1, variant.k_blocks - 1)
                next_upper, next_lower, next_first, next_second = scales(
                    variant, row_scale, weight_scale, row, n_block, following
                )
            warpgroup.wait_group(0)
            if cutlass.const_expr(half == variant.halves - 1):
                release(variant, empty + stage, lane)
            weight = first if half == 0 else second
            promote(sums[half], part, upper * weight, lower * weight)
        upper, lower, first, second = next_upper, next_lower, next_first, next_second
        stage, phase = advance(stage, phase)
    return stage, phase


@cute.jit
def skip(
    variant: cutlass.Constexpr,
    full: cute.Pointer,
    empty: cute.Pointer,
    stage: Int32,
    phase: Int32,
    lane: Int32,
):
    """Let a tile's stages pass by a group whose 64 rows are all padding."""
    for _ in cutlass.range(variant.k_blocks, unroll=1):
        cute.arch.mbarrier_wait(full + stage, phase)
        release(variant, empty + stage, lane)
        stage, phase = advance(stage, phase)
    return stage, phase


@cute.jit
def scales(
    variant: cutlass.Constexpr,
    row_scale: cute.Tensor,
    weight_scale: cute.Tensor,
    row: Int32,
    n_block: Int32,
    k,
):
    """Scales of block k: of the thread's two rows, eight apart, and of its halves of B."""
    first = weight_scale[n_block, k]
    second = first
    if cutlass.const_expr(variant.halves > 1):
        second = weight_scale[n_block + variant.second_half, k]
    return row_scale[row, k], row_scale[row + 8, k], first, second


@cute.jit
def issue(operands: cutlass.Constexpr, part: cute.Tensor, a_stage: Int32, b_stage: Int32):
    """Start the four wgmma of one block of K."""
    adding, overwriting, a, b = operands
    warpgroup.fence()
    for k in cutlass.range_constexpr(BLOCK // MMA_K):
        cute.gemm(
            overwriting if k == 0 else adding,
            part,
            cute.append_ones(a[(None, 0, k, a_stage)], up_to_rank=2),
            b[(None, None, k, b_stage)],
            part,
        )
    warpgroup.commit_group()


@cute.jit
def promote(total: cute.Tensor, part: cute.Tensor, upper: Float32, lower: Float32):
    """Registers of a wgmma result go two and two to the thread's upper and lower row."""
    for i in cutlass.range_constexpr(cute.size(total)):
        total[i] = total[i] + part[i] * (upper if (i // 2) % 2 == 0 else lower)
