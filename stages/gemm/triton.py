"""Both products in Triton for few rows an expert: weights are the operand with many rows.

With a handful of tokens an expert the product is a stream of weights through the SMs. ``tl.dot``
of a [128, 128] weight tile with the transposed rows fills the tensor cores' 64-row instructions
with weights, which are many, and leaves the narrow side to the tokens, which are few; the other
way round a tile of 16 tokens would not reach them at all. Each program owns 64 or 128 outputs of
one expert, walks K in scale blocks (one weight scale a step, one activation scale a row) and keeps
several steps of weights in flight. Experts without rows cost an empty program.

On an H200 the weights of 25 experts pass in 177 us in GEMM1 and 92 us in GEMM2 (T=56), which is 95
and 91 % of what a plain read of them takes. TMA loads and a persistent grid gain nothing there
(176 to 178 us), and pointers do without descriptors on the host.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from moeprof.contract import BLOCK, Step, counted_rows, stage

LARGEST_TILE = 64  # rows at a time: beyond, weights would be read again
# (weight rows a program owns, steps in flight) for few and for many rows at a time. Fastest of 64
# and 128 rows with 4, 6 and 8 steps at T = 1, 7, 56, 80 and at T = 901.
FEW_ROWS, MANY_ROWS = (64, 8), (128, 4)


@stage(Step.GEMM1, writes="gemm1_output", rows=counted_rows("expert_counts"))
def gemm1(
    shuffled_hidden_states,
    shuffled_scale_by_expert,
    gemm1_weights,
    gemm1_weights_scale,
    expert_counts,
    seq_len,
    buffers,
    *,
    weight_rows=None,
    steps_in_flight=None,
):
    """[E_l * capacity, H] x [E_l, 2I, H] -> gemm1_output [E_l * capacity, 2I] bfloat16.

    weight_rows: of a tile, 64 or 128; steps_in_flight: of K. None: by the rows at a time.
    """
    return stream_weights(
        "gemm1_output",
        shuffled_hidden_states,
        shuffled_scale_by_expert,
        gemm1_weights,
        gemm1_weights_scale,
        expert_counts,
        seq_len,
        buffers,
        weight_rows,
        steps_in_flight,
    )


@stage(Step.GEMM2, writes="gemm2_output", rows=counted_rows("expert_counts"))
def gemm2(
    activated,
    activated_scale_by_expert,
    gemm2_weights,
    gemm2_weights_scale,
    expert_counts,
    seq_len,
    buffers,
    *,
    weight_rows=None,
    steps_in_flight=None,
):
    """[E_l * capacity, I] x [E_l, H, I] -> gemm2_output [E_l * capacity, H] bfloat16.

    Options: see gemm1.
    """
    return stream_weights(
        "gemm2_output",
        activated,
        activated_scale_by_expert,
        gemm2_weights,
        gemm2_weights_scale,
        expert_counts,
        seq_len,
        buffers,
        weight_rows,
        steps_in_flight,
    )


def tile_of_rows(seq_len: int) -> int:
    """Rows at a time: twice the mean of an even load over 32 experts, so that most fit in one."""
    return max(16, min(LARGEST_TILE, triton.next_power_of_2(triton.cdiv(seq_len, 16))))


def stream_weights(
    name,
    rows,
    scale,
    weights,
    weights_scale,
    counts,
    seq_len,
    buffers,
    weight_rows=None,
    steps_in_flight=None,
):
    """rows [E * capacity, K] e4m3, weights [E, N, K] e4m3 -> [E * capacity, N] bfloat16."""
    experts, n, k = weights.shape
    output = buffers.empty(name, (rows.shape[0], n), torch.bfloat16, rows.device)
    tile = tile_of_rows(seq_len)
    fastest = MANY_ROWS if tile == LARGEST_TILE else FEW_ROWS
    columns, steps = weight_rows or fastest[0], steps_in_flight or fastest[1]
    stream_kernel[(n // columns, experts)](
        rows,
        scale,
        weights,
        weights_scale,
        counts,
        output,
        rows.shape[0] // experts,
        n,
        K=k,
        EDGE=BLOCK,
        COLUMNS=columns,
        ROWS=tile,
        STEPS_IN_FLIGHT=steps,
        num_warps=4,
    )
    return output


@triton.jit
def stream_kernel(
    rows,  # [E * capacity, K] e4m3
    row_scale,  # [E, K/128, capacity] float32
    weights,  # [E, N, K] e4m3
    weight_scale,  # [E, N/128, K/128] float32
    counts,  # [E] int32
    output,  # [E * capacity, N] bfloat16
    capacity,
    n,
    K: tl.constexpr,
    EDGE: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    STEPS_IN_FLIGHT: tl.constexpr,
):
    block = tl.program_id(0)
    expert = tl.program_id(1).to(tl.int64)
    count = tl.load(counts + expert)
    blocks_of_k: tl.constexpr = K // EDGE
    column = block * COLUMNS + tl.arange(0, COLUMNS)
    inner = tl.arange(0, EDGE)
    weight_tile = weights + (expert * n + column[:, None]) * K + inner[None, :]
    weight_scales = weight_scale + (expert * (n // EDGE) + block * COLUMNS // EDGE) * blocks_of_k
    for first in range(0, count, ROWS):
        rank = first + tl.arange(0, ROWS)
        row = expert * capacity + rank
        row_tile = rows + row[None, :] * K + inner[:, None]
        row_scales = row_scale + expert * blocks_of_k * capacity + rank
        total = tl.zeros((COLUMNS, ROWS), dtype=tl.float32)
        # rows past the expert's count hold anything: they spoil their own column only, and
        # capacity is a multiple of ROWS, so that they are inside the tensor
        # asked of this loop: num_stages of the launch left GEMM1 at 228 us where this takes 173
        for step in tl.range(blocks_of_k, num_stages=STEPS_IN_FLIGHT):
            w = tl.load(weight_tile + step * EDGE, eviction_policy="evict_first")
            x = tl.load(row_tile + step * EDGE)
            factor = tl.load(weight_scales + step) * tl.load(row_scales + step * capacity)
            total += tl.dot(w, x) * factor[None, :]
        target = output + row[None, :] * n + column[:, None]
        tl.store(target, total.to(tl.bfloat16), mask=(rank < count)[None, :])
