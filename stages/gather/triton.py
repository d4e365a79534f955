"""Weighted gather in Triton: each token sums its eight rows in float32.

Weights stay float32; sgl's op takes them in bfloat16. Every row of the output is written, so
nothing is zeroed before. Rows of weight 0 (experts of other ranks, clamped to a local one) are
read like all others: that is the solution's wiring, not a decision of this kernel. A slot without
a row (-1) adds nothing and reads nothing.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from moeprof.contract import ROUTING, Step, slots_with_row, stage

COLUMNS_PER_PROGRAM = 1024  # 128 threads x 16 bytes of bfloat16


@stage(Step.GATHER, writes="output", rows=slots_with_row("output_permutation"))
def gather(gemm2_output, output_permutation, local_weights, output):
    """[M, H] bfloat16, [M] int32, [T, 8] float32 -> output [T, H] bfloat16."""
    tokens, width = output.shape
    gather_kernel[(tokens, triton.cdiv(width, COLUMNS_PER_PROGRAM))](
        gemm2_output,
        output_permutation,
        local_weights,
        output,
        width,
        TOP_K=ROUTING.top_k,
        COLUMNS=COLUMNS_PER_PROGRAM,
        num_warps=4,
    )


@triton.jit
def gather_kernel(
    source,  # [M, H] bfloat16
    slot_to_row,  # [T * TOP_K] int32, -1: no row
    weights,  # [T, TOP_K] float32
    target,  # [T, H] bfloat16
    width,
    TOP_K: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    total = tl.zeros((COLUMNS,), dtype=tl.float32)
    for choice in tl.static_range(TOP_K):
        row = tl.load(slot_to_row + token * TOP_K + choice).to(tl.int64)
        weight = tl.load(weights + token * TOP_K + choice)
        # to float32 right after the load: the interpreter does bfloat16 arithmetic on raw bits
        # compared as a vector: the interpreter cannot spread the result of a scalar comparison
        present = (tl.broadcast_to(row, (COLUMNS,)) >= 0) & inside
        values = tl.load(source + row * width + columns, mask=present, other=0.0).to(tl.float32)
        total += weight * values
    tl.store(target + token * width + columns, total.to(tl.bfloat16), mask=inside)


def gather_torch(gemm2_output, output_permutation, local_weights):
    """What the kernel computes, in PyTorch, where every slot has a row."""
    rows = gemm2_output[output_permutation.long()].to(torch.float32)
    rows = rows.view(*local_weights.shape, -1)
    return (rows * local_weights.unsqueeze(-1)).sum(dim=1).to(torch.bfloat16)
