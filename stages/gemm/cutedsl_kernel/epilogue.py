"""From a tile's sums to memory: to bfloat16, or SwiGLU and e4m3 with a scale a row. By TMA.

Each math group has 64 x 128 of shared memory for its piece of the output. A piece is a whole scale
block wide, so that the largest magnitude of a row lies in the four threads that hold it.
"""

from dataclasses import dataclass
from typing import Any

import cutlass
from cutlass import BFloat16, Float8E4M3FN, Float32, Int32, cute
from cutlass.cute.nvgpu import warp

LEAST_AMAX = 1e-10
E4M3_MAX = 448.0
LOG2_E = 1.4426950408889634
GROUP_THREADS = 128


@dataclass(frozen=True)
class Store:
    """Where a math group's pieces leave from: the MMA of one group, [64, 128, groups] in shared
    memory, the TMA atom with its partitions of both sides, and who the thread is in its group."""

    mma: Any
    shared: Any
    atom: Any
    source: Any
    target: Any
    group: Any
    thread: Any
    warp: Any
    lane: Any


@cute.jit
def store_bfloat16(store: cutlass.Constexpr, total: cute.Tensor, m_piece: Int32, block: Int32):
    """Round a piece [64, 128] of sums and write it at (m_piece, block)."""
    copy = cute.make_tiled_copy_C(
        cute.make_copy_atom(warp.StMatrix8x8x16bOp(False, 4), BFloat16), store.mma
    )
    mine = copy.get_slice(store.thread)
    rounded = cute.make_rmem_tensor(total.shape, BFloat16)
    rounded.store(total.load().to(BFloat16))
    begin(store)
    target = mine.partition_D(store.shared)[(None, None, None, store.group)]
    cute.copy(copy, mine.retile(rounded), target)
    end(store, m_piece, block)


@cute.jit
def store_gated(
    store: cutlass.Constexpr,
    up: cute.Tensor,
    gate: cute.Tensor,
    out_scale: cute.Tensor,
    row: Int32,
    m_piece: Int32,
    block: Int32,
):
    """silu(gate) * up in float32, quantised by rows of 128; row: the thread's first of two."""
    upper = Float32(LEAST_AMAX)
    lower = Float32(LEAST_AMAX)
    for i in cutlass.range_constexpr(cute.size(up)):
        exponential = cute.math.exp2(gate[i] * -LOG2_E, fastmath=True)
        product = up[i] * gate[i] * cute.arch.rcp_approx(1.0 + exponential)
        up[i] = product
        if cutlass.const_expr((i // 2) % 2 == 0):
            upper = cute.arch.fmax(upper, cute.arch.fmax(product, -product))
        else:
            lower = cute.arch.fmax(lower, cute.arch.fmax(product, -product))
    for bit in cutlass.range_constexpr(2):
        upper = cute.arch.fmax(upper, cute.arch.shuffle_sync_bfly(upper, 1 << bit))
        lower = cute.arch.fmax(lower, cute.arch.shuffle_sync_bfly(lower, 1 << bit))
    to_upper = E4M3_MAX / upper
    to_lower = E4M3_MAX / lower
    for i in cutlass.range_constexpr(cute.size(up)):
        up[i] = up[i] * (to_upper if (i // 2) % 2 == 0 else to_lower)
    if store.lane % 4 == 0:
        out_scale[row, block] = upper * (1.0 / E4M3_MAX)
        out_scale[row + 8, block] = lower * (1.0 / E4M3_MAX)
    rounded = cute.make_rmem_tensor(up.shape, Float8E4M3FN)
    rounded.store(up.load().to(Float8E4M3FN))
    mine = store.mma.get_slice(store.thread).partition_C(store.shared)
    begin(store)
    cute.autovec_copy(rounded, mine[(None, None, None, store.group)])
    end(store, m_piece, block)


@cute.jit
def begin(store: cutlass.Constexpr):
    """Wait until the group's last piece has been read out of shared memory."""
    if store.warp == 0:
        cute.arch.cp_async_bulk_wait_group(0, read=True)
    cute.arch.barrier(barrier_id=1 + store.group, number_of_threads=GROUP_THREADS)


@cute.jit
def end(store: cutlass.Constexpr, m_piece: Int32, block: Int32):
    """Once all of the group have written: let the TMA take the piece, and go on."""
    cute.arch.fence_proxy("async.shared", space="cta")
    cute.arch.barrier(barrier_id=1 + store.group, number_of_threads=GROUP_THREADS)
    if store.warp == 0:
        cute.copy(
            store.atom, store.source[(None, store.group)], store.target[(None, m_piece, block)]
        )
        cute.arch.cp_async_bulk_commit_group()
