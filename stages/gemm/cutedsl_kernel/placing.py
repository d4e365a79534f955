"""Where things lie: tensors and shared memory, the sides of a TMA copy, and a tile's place."""

import cutlass
from cutlass import Int32, cute
from cutlass.cute.nvgpu import cpasync, warpgroup

from stages.gemm.cutedsl_kernel.variant import BLOCK


def matrix(pointer, rows, columns):
    """A row-major tensor [rows, columns]."""
    return cute.make_tensor(pointer, cute.make_layout((rows, columns), stride=(columns, 1)))


def swizzled(dtype, rows, copies):
    """Shared memory of [rows, 128, copies], swizzled by 128 bytes as wgmma and TMA want it."""
    atom = warpgroup.make_smem_layout_atom(warpgroup.SmemLayoutAtomKind.K_SW128, dtype)
    return cute.tile_to_shape(atom, (rows, BLOCK, copies), order=(0, 1, 2))


def one_stage(layout):
    return cute.slice_(layout, (None, None, 0))


def pieces(atom, rank, ctas, shared, tensor, rows=BLOCK):
    """Both sides of a TMA copy of [rows, 128] pieces: shared memory by stage, tensor by piece."""
    tiles = cute.local_tile(tensor, (rows, BLOCK), (None, None))
    layout = cute.make_layout(ctas)
    flat = cute.group_modes(shared, 0, 2), cute.group_modes(tiles, 0, 2)
    return cpasync.tma_partition(atom, rank, layout, *flat)


def first_block(variant, n_tile, rank):
    """The first block of 128 columns that this CTA multiplies."""
    step = 1 if variant.gated else variant.halves
    return (n_tile * variant.cluster + rank) * step


@cute.jit
def locate(
    variant: cutlass.Constexpr, indptr: cute.Tensor, counts: cute.Tensor, tile: Int32, lane: Int32
):
    """tile -> its expert, its 128 rows and its N tile, and how many of its rows on are a pair's.

    The lanes of a warp look at an expert each; those whose tiles are all before this one count.
    """
    expert = Int32(0)
    for chunk in cutlass.range_constexpr((variant.experts + 31) // 32):
        index = cutlass.min(lane + chunk * 32, variant.experts - 1)
        end = indptr[index + 1] // BLOCK * variant.n_tiles
        passed = tile >= end and lane + chunk * 32 < variant.experts
        expert += cute.arch.popc(cute.arch.vote_ballot_sync(passed))
    expert = cute.arch.make_warp_uniform(expert)
    first = indptr[expert]
    m_tiles = (indptr[expert + 1] - first) // BLOCK
    local = tile - first // BLOCK * variant.n_tiles
    n_tile = local // m_tiles
    m_tile = local - n_tile * m_tiles
    uniform = cute.arch.make_warp_uniform
    left = counts[expert] - m_tile * BLOCK
    return expert, uniform(first // BLOCK + m_tile), uniform(n_tile), uniform(left)
