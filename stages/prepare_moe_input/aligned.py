"""Flat rows in expert order, each expert's on a multiple of 128: a tile of rows is one expert's.

``m_indptr`` tells where each expert begins; a GEMM finds the expert of a tile of 128 rows by it
alone, on the device, so that a new routing needs neither the host nor a new kernel. What is paid is
padding, up to 127 rows an expert that has any. Rows are in order of tokens within an expert, the
same at every run. One launch up to 512 pairs, else two: counts of pieces, then places.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from moeprof.contract import Step, stage

ALIGNMENT = 128
PAIRS_PER_PROGRAM = 512
PIECES_AT_ONCE = 16  # of counts that are summed in one step


def capacity_of(pairs: int, experts: int) -> int:
    """Rows of the layout that any routing of so many pairs fits in."""
    return (pairs + (ALIGNMENT - 1) * min(pairs, experts)) // ALIGNMENT * ALIGNMENT


@stage(
    Step.PREPARE_MOE_INPUT,
    writes=("expert_counts", "m_indptr", "row_token", "output_permutation"),
)
def prepare_moe_input(local_expert_ids, num_local_experts, buffers):
    """[T, 8] int32 ids, -1 for none -> expert_counts [E_l] int32;

    m_indptr [E_l + 1] int32: the first row of each expert, a multiple of 128, and the last one's
    end; row_token [capacity] int32: the token of a row, -1 in padding, undefined past the end;
    output_permutation [T*8] int32: token*8 + j -> its row, or -1.
    """
    device, pairs = local_expert_ids.device, local_expert_ids.numel()
    top_k = local_expert_ids.shape[1]
    capacity = capacity_of(pairs, num_local_experts)

    def int32(name, *shape):
        return buffers.empty(name, shape, torch.int32, device)

    counts = int32("expert_counts", num_local_experts)
    indptr = int32("m_indptr", num_local_experts + 1)
    row_token = int32("row_token", capacity)
    slot_to_row = int32("output_permutation", pairs)
    pieces = triton.cdiv(pairs, PAIRS_PER_PROGRAM)
    experts = triton.next_power_of_2(num_local_experts)
    piece_counts = int32("piece_counts", pieces, experts)
    if pieces > 1:
        count_kernel[(pieces,)](
            local_expert_ids,
            piece_counts,
            pairs,
            EXPERTS=experts,
            PAIRS=PAIRS_PER_PROGRAM,
            num_warps=4,
        )
    place_kernel[(pieces,)](
        local_expert_ids,
        piece_counts,
        counts,
        indptr,
        row_token,
        slot_to_row,
        pairs,
        pieces,
        top_k,
        num_local_experts,
        EXPERTS=experts,
        PAIRS=min(PAIRS_PER_PROGRAM, triton.next_power_of_2(pairs)),
        PIECES=PIECES_AT_ONCE,
        ALONE=pieces == 1,
        EDGE=ALIGNMENT,
        num_warps=4,
    )
    return counts, indptr, row_token, slot_to_row


@triton.jit
def chosen_experts(ids, pairs, piece, EXPERTS: tl.constexpr, PAIRS: tl.constexpr):
    """Which expert each pair of a piece chose: [PAIRS, EXPERTS] of 0 and 1, and the pairs."""
    slot = piece * PAIRS + tl.arange(0, PAIRS)
    expert = tl.load(ids + slot, mask=slot < pairs, other=-1)
    return slot, expert, (expert[:, None] == tl.arange(0, EXPERTS)[None, :]).to(tl.int32)


@triton.jit
def count_kernel(
    ids,  # [pairs] int32, -1: no local expert
    piece_counts,  # [pieces, EXPERTS] int32
    pairs,
    EXPERTS: tl.constexpr,
    PAIRS: tl.constexpr,
):
    piece = tl.program_id(0)
    _, _, chosen = chosen_experts(ids, pairs, piece, EXPERTS, PAIRS)
    tl.store(piece_counts + piece * EXPERTS + tl.arange(0, EXPERTS), tl.sum(chosen, axis=0))


@triton.jit
def place_kernel(
    ids,  # [pairs] int32, -1: no local expert
    piece_counts,  # [pieces, EXPERTS] int32, not read by a piece ALONE
    counts,  # [experts] int32
    indptr,  # [experts + 1] int32
    row_token,  # [capacity] int32
    slot_to_row,  # [pairs] int32
    pairs,
    pieces,
    top_k,
    experts,
    EXPERTS: tl.constexpr,
    PAIRS: tl.constexpr,
    PIECES: tl.constexpr,
    ALONE: tl.constexpr,
    EDGE: tl.constexpr,
):
    piece = tl.program_id(0)
    expert_index = tl.arange(0, EXPERTS)
    slot, expert, chosen = chosen_experts(ids, pairs, piece, EXPERTS, PAIRS)
    if ALONE:
        total = tl.sum(chosen, axis=0)
        before = tl.zeros((EXPERTS,), dtype=tl.int32)
    else:
        total = tl.zeros((EXPERTS,), dtype=tl.int32)
        before = tl.zeros((EXPERTS,), dtype=tl.int32)
        for first in range(0, pieces, PIECES):
            other = first + tl.arange(0, PIECES)
            found = tl.load(
                piece_counts + other[:, None] * EXPERTS + expert_index[None, :],
                mask=other[:, None] < pieces,
                other=0,
            )
            total += tl.sum(found, axis=0)
            before += tl.sum(tl.where(other[:, None] < piece, found, 0), axis=0)
    aligned = (total + EDGE - 1) // EDGE * EDGE
    start = tl.cumsum(aligned, axis=0) - aligned
    rank = tl.cumsum(chosen, axis=0) - 1
    row = tl.sum(chosen * (rank + (start + before)[None, :]), axis=1)
    here = expert >= 0
    tl.store(slot_to_row + slot, tl.where(here, row, -1), mask=slot < pairs)
    tl.store(row_token + row, slot // top_k, mask=here)
    if piece == 0:
        real = expert_index < experts
        tl.store(counts + expert_index, total, mask=real)
        tl.store(indptr + expert_index, start, mask=real)
        tl.store(indptr + experts + 0 * expert_index, tl.sum(aligned, axis=0) + 0 * expert_index)
        padding = total[:, None] + tl.arange(0, EDGE)[None, :]
        pad_row = start[:, None] + padding
        tl.store(row_token + pad_row, -1 + 0 * padding, mask=padding < aligned[:, None])


def prepare_aligned_torch(local_expert_ids, num_local_experts):
    """What the kernels compute, in PyTorch; rows past the end of the layout are -1 as well."""
    ids, top_k = local_expert_ids.flatten().long(), local_expert_ids.shape[1]
    chosen = ids[:, None] == torch.arange(num_local_experts, device=ids.device)
    counts = chosen.sum(dim=0)
    indptr = torch.zeros(num_local_experts + 1, dtype=torch.int64, device=ids.device)
    indptr[1:] = ((counts + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT).cumsum(0)
    rank = (chosen.cumsum(dim=0) - 1).gather(1, ids.clamp(min=0)[:, None]).squeeze(1)
    row = torch.where(ids >= 0, indptr[ids.clamp(min=0)] + rank, -1)
    capacity = capacity_of(ids.numel(), num_local_experts)
    row_token = torch.full((capacity,), -1, dtype=torch.int32, device=ids.device)
    slots = (ids >= 0).nonzero().squeeze(1)
    row_token[row[slots]] = (slots // top_k).int()
    return counts.int(), indptr.int(), row_token, row.int()
