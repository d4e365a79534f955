"""Rows by expert, each with room for all tokens: a count an expert is all the sorting there is.

Row ``expert * capacity + rank``, where rank is the order in which pairs happened to count up
(it differs from run to run; no result depends on it). Nothing has to know where the expert before
ended, so there is no prefix sum and no second pass; what is paid is address space, not traffic: of
``E_l * capacity`` rows only those of local pairs are ever touched. Two operations: the counts are
zeroed, then one kernel.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from moeprof.contract import Step, stage

PAIRS_PER_PROGRAM = 256
SMALL_TILE, LARGE_TILE = 16, 128  # of rows in the GEMMs: capacity is a multiple of them


def capacity_of(tokens: int) -> int:
    """Rows an expert has room for: no token chooses an expert twice."""
    tile = SMALL_TILE if tokens <= LARGE_TILE else LARGE_TILE
    return triton.cdiv(tokens, tile) * tile


@stage(Step.PREPARE_MOE_INPUT, writes=("expert_counts", "output_permutation"))
def prepare_moe_input(local_expert_ids, num_local_experts, buffers):
    """[T, 8] int32 ids, -1 for none -> expert_counts [E_l] int32;

    output_permutation [T*8] int32: token*8 + j -> its row, expert*capacity + rank, or -1.
    """
    device, pairs = local_expert_ids.device, local_expert_ids.numel()
    counts = buffers.empty("expert_counts", (num_local_experts,), torch.int32, device)
    slot_to_row = buffers.empty("output_permutation", (pairs,), torch.int32, device)
    counts.zero_()
    count_kernel[(triton.cdiv(pairs, PAIRS_PER_PROGRAM),)](
        local_expert_ids,
        counts,
        slot_to_row,
        pairs,
        capacity_of(local_expert_ids.shape[0]),
        PAIRS=PAIRS_PER_PROGRAM,
        num_warps=4,
    )
    return counts, slot_to_row


@triton.jit
def count_kernel(
    ids,  # [pairs] int32, -1: no local expert
    counts,  # [E_l] int32, zeros
    slot_to_row,  # [pairs] int32
    pairs,
    capacity,
    PAIRS: tl.constexpr,
):
    slot = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    expert = tl.load(ids + slot, mask=slot < pairs, other=-1)
    here = expert >= 0
    rank = tl.atomic_add(counts + tl.where(here, expert, 0), 1, mask=here, sem="relaxed")
    row = tl.where(here, expert * capacity + rank, -1)
    tl.store(slot_to_row + slot, row, mask=slot < pairs)


def prepare_by_expert_torch(local_expert_ids, num_local_experts):
    """What the kernel computes, in PyTorch, ranks in order of tokens."""
    ids = local_expert_ids.flatten().long()
    chosen = ids[:, None] == torch.arange(num_local_experts, device=ids.device)
    rank = (chosen.cumsum(dim=0) - 1).gather(1, ids.clamp(min=0)[:, None]).squeeze(1)
    row = ids * capacity_of(local_expert_ids.shape[0]) + rank
    return chosen.sum(dim=0).int(), torch.where(ids >= 0, row, -1).int()
