"""Row copy in Triton to flat, aligned rows: a program takes rows of the layout, not tokens.

Only rows that hold a pair are read and written, each once: a token without a local expert is not
touched, one with two is read twice. The grid is bounded by the capacity of the layout, and programs
past its end leave at once. Scales go to [rows, H/128], as the GEMM reads them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from moeprof.contract import BLOCK, Step, counted_rows, stage

MOST_PROGRAMS = 2048  # 16 an SM on 132 SMs; each then walks its share of the rows
WORDS_PER_STEP = 1024  # 4-byte words of e4m3: 128 threads x 2 x 16 bytes


@stage(
    Step.SHUFFLE_ROWS,
    writes=("shuffled_hidden_states", "shuffled_scale"),
    rows=counted_rows("expert_counts"),
)
def shuffle_rows(hidden_states, hidden_states_scale, row_token, m_indptr, expert_counts, buffers):
    """[T, H] float8_e4m3fn, [H/128, T] float32 -> [capacity, H] float8_e4m3fn,
    [capacity, H/128] float32. Rows of padding keep what was in them."""
    tokens, width = hidden_states.shape
    capacity, blocks, device = row_token.shape[0], width // BLOCK, hidden_states.device
    shuffled = buffers.empty(
        "shuffled_hidden_states", (capacity, width), torch.float8_e4m3fn, device
    )
    scale = buffers.empty("shuffled_scale", (capacity, blocks), torch.float32, device)
    programs = min(capacity, MOST_PROGRAMS)
    copy_rows_kernel[(programs,)](
        hidden_states,
        hidden_states_scale,
        row_token,
        m_indptr,
        shuffled,
        scale,
        tokens,
        m_indptr.shape[0] - 1,
        programs,
        WORDS=width // 4,
        STEP=WORDS_PER_STEP,
        SCALES=blocks,
        SCALES_POWER=triton.next_power_of_2(blocks),
        num_warps=4,
    )
    return shuffled, scale


@triton.jit
def copy_rows_kernel(
    source,  # [T, H] e4m3
    source_scale,  # [H/128, T] float32
    row_token,  # [capacity] int32, -1: padding
    indptr,  # [experts + 1] int32
    target,  # [capacity, H] e4m3
    target_scale,  # [capacity, H/128] float32
    tokens,
    experts,
    programs,
    WORDS: tl.constexpr,  # H / 4
    STEP: tl.constexpr,
    SCALES: tl.constexpr,  # H / 128
    SCALES_POWER: tl.constexpr,
):
    source_words = source.to(tl.pointer_type(tl.int32))
    target_words = target.to(tl.pointer_type(tl.int32))
    scales = tl.arange(0, SCALES_POWER)
    end = tl.load(indptr + experts)
    for row in range(tl.program_id(0), end, programs):
        token = tl.load(row_token + row).to(tl.int64)
        if token >= 0:
            at = tl.cast(row, tl.int64)
            for first in tl.static_range(0, WORDS, STEP):
                words = first + tl.arange(0, STEP)
                values = tl.load(source_words + token * WORDS + words, mask=words < WORDS)
                tl.store(target_words + at * WORDS + words, values, mask=words < WORDS)
            factors = tl.load(source_scale + scales * tokens + token, mask=scales < SCALES)
            tl.store(target_scale + at * SCALES + scales, factors, mask=scales < SCALES)


def copy_rows_torch(hidden_states, hidden_states_scale, row_token):
    """What the kernel writes, in PyTorch; rows of padding are those of token 0."""
    token = row_token.long().clamp(min=0)
    values = hidden_states.view(torch.uint8)[token].view(torch.float8_e4m3fn)
    return values, hidden_states_scale.T[token]
