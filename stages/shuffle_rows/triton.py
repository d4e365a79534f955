"""Row scatter in Triton: values and scales of each token to its eight rows, in one kernel.

Each program reads a piece of one token's row once and writes it to the token's eight rows, so
inputs are read once instead of eight times. Scales are read in the definition's own [H/128, T]
layout, which saves the transposition that sgl's op needs. e4m3 moves as 32-bit words. A slot
without a row (-1) is passed over.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from moeprof.contract import BLOCK, ROUTING, Step, slots_with_row, stage

BYTES_PER_PROGRAM = 2048  # 128 threads x 16 bytes; 16 scale blocks


@stage(
    Step.SHUFFLE_ROWS,
    writes=("shuffled_hidden_states", "shuffled_scale"),
    rows=slots_with_row("output_permutation"),
)
def shuffle_rows(hidden_states, hidden_states_scale, output_permutation, buffers):
    """[T, H] float8_e4m3fn, [H/128, T] float32 -> [M, H] float8_e4m3fn, [M, H/128] float32."""
    tokens, width = hidden_states.shape
    rows, blocks, device = output_permutation.shape[0], width // BLOCK, hidden_states.device
    shuffled = buffers.empty("shuffled_hidden_states", (rows, width), torch.float8_e4m3fn, device)
    scale = buffers.empty("shuffled_scale", (rows, blocks), torch.float32, device)
    scatter_rows_kernel[(tokens, triton.cdiv(width, BYTES_PER_PROGRAM))](
        hidden_states,
        hidden_states_scale,
        output_permutation,
        shuffled,
        scale,
        tokens,
        width // 4,
        blocks,
        TOP_K=ROUTING.top_k,
        WORDS=BYTES_PER_PROGRAM // 4,
        SCALES=BYTES_PER_PROGRAM // BLOCK,
        num_warps=4,
    )
    return shuffled, scale


@triton.jit
def scatter_rows_kernel(
    source,  # [T, H] e4m3
    source_scale,  # [H/128, T] float32
    slot_to_row,  # [T * TOP_K] int32, -1: no row
    target,  # [M, H] e4m3
    target_scale,  # [M, H/128] float32
    tokens,
    row_words,  # H / 4
    row_scales,  # H / 128
    TOP_K: tl.constexpr,
    WORDS: tl.constexpr,
    SCALES: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    piece = tl.program_id(1)
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
        # compared as vectors: the interpreter cannot spread the result of a scalar comparison
        to_words = (tl.broadcast_to(row, (WORDS,)) >= 0) & in_row
        to_scales = (tl.broadcast_to(row, (SCALES,)) >= 0) & in_scales
        tl.store(target_words + row * row_words + words, values, mask=to_words)
        tl.store(target_scale + row * row_scales + scales, factors, mask=to_scales)


def scatter_rows_torch(hidden_states, hidden_states_scale, output_permutation):
    """What the kernel computes, in PyTorch, where every slot has a row."""
    token = torch.arange(output_permutation.shape[0], device=hidden_states.device) // ROUTING.top_k
    row_to_token = torch.empty_like(token)
    row_to_token[output_permutation.long()] = token
    values = hidden_states.view(torch.uint8)[row_to_token].view(torch.float8_e4m3fn)
    return values, hidden_states_scale.T[row_to_token]
