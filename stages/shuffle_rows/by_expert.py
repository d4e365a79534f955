"""Row scatter in Triton to rows by expert, scales to the layout that TMA reads: one kernel.

A token's row is read once, and not at all where none of its experts is local (half of all tokens
with eight ranks). Scales go to [E_l, H/128, capacity], rows innermost: a tile of rows then finds
the scales of one block of K side by side.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from moeprof.contract import BLOCK, ROUTING, Step, slots_with_row, stage
from stages.prepare_moe_input.by_expert import capacity_of

BYTES_PER_PROGRAM = 2048  # 128 threads x 16 bytes; 16 scale blocks


@stage(
    Step.SHUFFLE_ROWS,
    writes=("shuffled_hidden_states", "shuffled_scale_by_expert"),
    rows=slots_with_row("output_permutation"),
)
def shuffle_rows(
    hidden_states, hidden_states_scale, output_permutation, num_local_experts, buffers
):
    """[T, H] float8_e4m3fn, [H/128, T] float32 -> [E_l * capacity, H] float8_e4m3fn,
    [E_l, H/128, capacity] float32."""
    tokens, width = hidden_states.shape
    capacity, blocks, device = capacity_of(tokens), width // BLOCK, hidden_states.device
    shuffled = buffers.empty(
        "shuffled_hidden_states", (num_local_experts * capacity, width), hidden_states.dtype, device
    )
    scale = buffers.empty(
        "shuffled_scale_by_expert", (num_local_experts, blocks, capacity), torch.float32, device
    )
    scatter_by_expert_kernel[(tokens, triton.cdiv(width, BYTES_PER_PROGRAM))](
        hidden_states,
        hidden_states_scale,
        output_permutation,
        shuffled,
        scale,
        tokens,
        width // 4,
        blocks,
        capacity,
        TOP_K=ROUTING.top_k,
        WORDS=BYTES_PER_PROGRAM // 4,
        SCALES=BYTES_PER_PROGRAM // BLOCK,
        num_warps=4,
    )
    return shuffled, scale


@triton.jit
def scatter_by_expert_kernel(
    source,  # [T, H] e4m3
    source_scale,  # [H/128, T] float32
    slot_to_row,  # [T * TOP_K] int32, -1: no row
    target,  # [E_l * capacity, H] e4m3
    target_scale,  # [E_l, H/128, capacity] float32
    tokens,
    row_words,  # H / 4
    row_scales,  # H / 128
    capacity,
    TOP_K: tl.constexpr,
    WORDS: tl.constexpr,
    SCALES: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    piece = tl.program_id(1)
    rows = tl.load(slot_to_row + token * TOP_K + tl.arange(0, TOP_K))
    if tl.max(rows, axis=0) >= 0:
        words = piece * WORDS + tl.arange(0, WORDS)
        scales = piece * SCALES + tl.arange(0, SCALES)
        in_row = words < row_words
        in_scales = scales < row_scales
        source_words = source.to(tl.pointer_type(tl.int32))
        target_words = target.to(tl.pointer_type(tl.int32))
        values = tl.load(source_words + token * row_words + words, mask=in_row)
        factors = tl.load(source_scale + scales.to(tl.int64) * tokens + token, mask=in_scales)
        for choice in tl.static_range(TOP_K):
            row = tl.load(slot_to_row + token * TOP_K + choice).to(tl.int64)
            if row >= 0:
                tl.store(target_words + row * row_words + words, values, mask=in_row)
                first = (row // capacity) * row_scales * capacity + row % capacity
                tl.store(target_scale + first + scales * capacity, factors, mask=in_scales)
