"""Rows of experts, each expert's on a multiple of 128, times their expert's weights: one launch.

A persistent kernel of one producer warp, which loads by TMA, and two math groups of 64 rows. A
cluster's tile is 128 rows of one expert; ``m_indptr`` tells the kernel which expert, so that a new
routing needs neither the host nor another kernel. Tiles go along the rows of an expert first, then
along N, then to the next expert: weights of an expert stay in L2 while its rows pass.

On an H200 with 14,250 rows (padding included 16,512), graph replay: GEMM1 824 us with 128 columns
and 832 with 256 (1016, 1006 TFLOP/s); GEMM2 423 and 407 us (989, 1028); GEMM1 with SwiGLU and
quantisation inside 827 us. One math group a CTA and two CTAs an SM took 979 us, no cluster 929.
"""

import cutlass
from cutlass import BFloat16, Float8E4M3FN, Float32, Int32, cute
from cutlass.cute.nvgpu import cpasync
from cutlass.memory import SmemAllocator
from cutlass.torch import cuda  # the driver's bindings, as the DSL itself uses them

from stages.gemm.cutedsl_kernel.epilogue import (
    GROUP_THREADS,
    Store,
    store_bfloat16,
    store_gated,
)
from stages.gemm.cutedsl_kernel.placing import (
    first_block,
    locate,
    matrix,
    one_stage,
    pieces,
    swizzled,
)
from stages.gemm.cutedsl_kernel.product import (
    GROUP_ROWS,
    STAGES,
    advance,
    multiply,
    skip,
    tiled_mma,
)
from stages.gemm.cutedsl_kernel.variant import BLOCK

GROUPS = 2  # that multiply; one more loads
THREADS = (GROUPS + 1) * GROUP_THREADS


class GroupedGemm:
    """The host function of one variant; ``cute.compile`` takes an instance."""

    def __init__(self, variant):
        self.variant = variant
        self.out_type = Float8E4M3FN if variant.gated else BFloat16

    @cute.jit
    def __call__(
        self,
        rows_pointer: cute.Pointer,
        row_scale_pointer: cute.Pointer,
        weights_pointer: cute.Pointer,
        weights_scale_pointer: cute.Pointer,
        out_pointer: cute.Pointer,
        out_scale_pointer: cute.Pointer,
        indptr_pointer: cute.Pointer,
        counts_pointer: cute.Pointer,
        rows: Int32,
        ctas: Int32,
        stream: cuda.CUstream,
    ):
        """rows: of the tensors, a multiple of 128. Arguments otherwise as the torch twin's; the
        scale of the output is touched by the gated kernel alone. ctas: multiple of a cluster."""
        v, out_type = self.variant, self.out_type
        weight_rows = v.experts * v.n
        a = matrix(rows_pointer, rows, v.k)
        b = matrix(weights_pointer, weight_rows, v.k)
        out = matrix(out_pointer, rows, v.out_columns)
        row_scale = matrix(row_scale_pointer, rows, v.k_blocks)
        weight_scale = matrix(weights_scale_pointer, weight_rows // BLOCK, v.k_blocks)
        out_scale = matrix(out_scale_pointer, rows, v.out_columns // BLOCK)
        indptr = cute.make_tensor(indptr_pointer, cute.make_layout(v.experts + 1))
        counts = cute.make_tensor(counts_pointer, cute.make_layout(v.experts))

        a_layout = swizzled(Float8E4M3FN, BLOCK, STAGES)
        b_layout = swizzled(Float8E4M3FN, BLOCK, STAGES * v.halves)
        out_layout = swizzled(out_type, GROUP_ROWS, GROUPS)
        load = cpasync.CopyBulkTensorTileG2SOp()
        share = cpasync.CopyBulkTensorTileG2SMulticastOp() if v.cluster > 1 else load
        edge = (BLOCK, BLOCK)
        load_a, a = cpasync.make_tiled_tma_atom(
            share, a, one_stage(a_layout), edge, num_multicast=v.cluster
        )
        load_b, b = cpasync.make_tiled_tma_atom(load, b, one_stage(b_layout), edge)
        write = cpasync.CopyBulkTensorTileS2GOp()
        write_out, out = cpasync.make_tiled_tma_atom(
            write, out, one_stage(out_layout), (GROUP_ROWS, BLOCK)
        )

        @cute.struct
        class Shared:
            full: cute.struct.MemRange[cutlass.Int64, STAGES]
            empty: cute.struct.MemRange[cutlass.Int64, STAGES]
            a: cute.struct.Align[cute.struct.MemRange[Float8E4M3FN, cute.cosize(a_layout)], 1024]
            b: cute.struct.Align[cute.struct.MemRange[Float8E4M3FN, cute.cosize(b_layout)], 1024]
            out: cute.struct.Align[
                cute.struct.MemRange[self.out_type, cute.cosize(out_layout)], 1024
            ]

        self.Shared = Shared
        self.grouped_gemm(
            load_a,
            a,
            load_b,
            b,
            write_out,
            out,
            row_scale,
            weight_scale,
            out_scale,
            indptr,
            counts,
            a_layout,
            b_layout,
            out_layout,
        ).launch(
            grid=(ctas, 1, 1),
            block=(THREADS, 1, 1),
            cluster=(v.cluster, 1, 1),
            min_blocks_per_mp=1,
            stream=stream,
        )

    @cute.kernel
    def grouped_gemm(
        self,
        load_a: cute.CopyAtom,
        a: cute.Tensor,
        load_b: cute.CopyAtom,
        b: cute.Tensor,
        write_out: cute.CopyAtom,
        out: cute.Tensor,
        row_scale: cute.Tensor,
        weight_scale: cute.Tensor,
        out_scale: cute.Tensor,
        indptr: cute.Tensor,
        counts: cute.Tensor,
        a_layout: cute.ComposedLayout,
        b_layout: cute.ComposedLayout,
        out_layout: cute.ComposedLayout,
    ):
        v = self.variant
        thread = cute.arch.thread_idx()[0]
        warp_index = cute.arch.make_warp_uniform(cute.arch.warp_idx())
        lane = thread % 32
        group = warp_index // 4
        rank = Int32(0)
        if cutlass.const_expr(v.cluster > 1):
            rank = cute.arch.make_warp_uniform(cute.arch.block_idx_in_cluster())
        shared = SmemAllocator().allocate(self.Shared)
        full = shared.full.data_ptr()
        empty = shared.empty.data_ptr()
        shared_a = shared.a.get_tensor(a_layout.outer, swizzle=a_layout.inner)
        shared_b = shared.b.get_tensor(b_layout.outer, swizzle=b_layout.inner)
        shared_out = shared.out.get_tensor(out_layout.outer, swizzle=out_layout.inner)
        if warp_index == 0:
            cpasync.prefetch_descriptor(load_a)
            cpasync.prefetch_descriptor(load_b)
            cpasync.prefetch_descriptor(write_out)
            with cute.arch.elect_one():
                for s in cutlass.range_constexpr(STAGES):
                    cute.arch.mbarrier_init(full + s, 1)
                    cute.arch.mbarrier_init(empty + s, GROUPS * 4 * v.cluster)
            cute.arch.mbarrier_init_fence()
        if cutlass.const_expr(v.cluster > 1):
            cute.arch.cluster_arrive_relaxed()
            cute.arch.cluster_wait()
        else:
            cute.arch.sync_threads()

        step = cute.arch.grid_dim()[0] // v.cluster
        tile = cute.arch.block_idx()[0] // v.cluster
        tiles = indptr[v.experts] // BLOCK * v.n_tiles
        stage = Int32(0)
        phase = Int32(0)
        if group == GROUPS:
            cute.arch.setmaxregister_decrease(v.registers[1])
            if warp_index == GROUPS * 4:
                to_a, from_a = pieces(load_a, rank, v.cluster, shared_a, a)
                to_b, from_b = pieces(load_b, 0, 1, shared_b, b)
                while tile < tiles:
                    expert, m_block, n_tile, _ = locate(v, indptr, counts, tile, lane)
                    n_block = expert * v.n_blocks + first_block(v, n_tile, rank)
                    for k in cutlass.range(v.k_blocks, unroll=1):
                        cute.arch.mbarrier_wait(empty + stage, phase ^ 1)
                        with cute.arch.elect_one():
                            cute.arch.mbarrier_arrive_and_expect_tx(
                                full + stage, BLOCK * BLOCK * (1 + v.halves)
                            )
                        target = to_a[(None, stage)]
                        if cutlass.const_expr(v.cluster > 1):
                            cute.copy(
                                load_a,
                                from_a[(None, m_block, k)],
                                target,
                                tma_bar_ptr=full + stage,
                                mcast_mask=cutlass.Int16((1 << v.cluster) - 1),
                            )
                        else:
                            cute.copy(
                                load_a, from_a[(None, m_block, k)], target, tma_bar_ptr=full + stage
                            )
                        for half in cutlass.range_constexpr(v.halves):
                            cute.copy(
                                load_b,
                                from_b[(None, n_block + half * v.second_half, k)],
                                to_b[(None, stage * v.halves + half)],
                                tma_bar_ptr=full + stage,
                            )
                        stage, phase = advance(stage, phase)
                    tile += step
        else:
            cute.arch.setmaxregister_increase(v.registers[0])
            one_group = tiled_mma(1, True)
            adding = tiled_mma(GROUPS, True)
            mma = adding.get_slice(group * GROUP_THREADS)
            operands = (
                adding,
                tiled_mma(GROUPS, False),
                adding.make_fragment_A(mma.partition_A(shared_a)),
                adding.make_fragment_B(mma.partition_B(shared_b)),
            )
            shape = one_group.partition_shape_C((GROUP_ROWS, BLOCK))
            sums = [cute.make_rmem_tensor(shape, Float32) for _ in range(v.halves)]
            part = cute.make_rmem_tensor(shape, Float32)
            warp_in_group = warp_index % 4
            row_in_tile = group * GROUP_ROWS + warp_in_group * 16 + lane // 4
            source, target = pieces(write_out, 0, 1, shared_out, out, GROUP_ROWS)
            store = Store(
                one_group,
                shared_out,
                write_out,
                source,
                target,
                group,
                thread % GROUP_THREADS,
                warp_in_group,
                lane,
            )
            while tile < tiles:
                expert, m_block, n_tile, left = locate(v, indptr, counts, tile, lane)
                block = first_block(v, n_tile, rank)
                row = m_block * BLOCK + row_in_tile
                if left > group * GROUP_ROWS:
                    stage, phase = multiply(
                        v,
                        operands,
                        sums,
                        part,
                        row_scale,
                        weight_scale,
                        row,
                        expert * v.n_blocks + block,
                        full,
                        empty,
                        stage,
                        phase,
                        lane,
                    )
                    piece = m_block * GROUPS + group
                    if cutlass.const_expr(v.gated):
                        store_gated(store, sums[0], sums[1], out_scale, row, piece, block)
                    else:
                        for half in cutlass.range_constexpr(v.halves):
                            store_bfloat16(store, sums[half], piece, block + half)
                else:
                    stage, phase = skip(v, full, empty, stage, phase, lane)
                tile += step
            if warp_in_group == 0:
                cute.arch.cp_async_bulk_wait_group(0)
        if cutlass.const_expr(v.cluster > 1):
            # a CTA's shared memory must outlive its neighbour's stores and arrivals
            cute.arch.cluster_arrive_relaxed()
            cute.arch.cluster_wait()
