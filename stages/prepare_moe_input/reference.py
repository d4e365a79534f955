"""Local pairs only, sorted by (local expert, token): the order the reference computes in."""

from __future__ import annotations

import torch

from moeprof.contract import Step, stage


@stage(
    Step.PREPARE_MOE_INPUT,
    writes=("pair_token", "pair_expert", "pair_weight", "expert_row_offsets"),
)
def prepare_moe_input(topk_ids, topk_weights, local_expert_offset, num_local_experts):
    """[T, 8] ids and weights -> pair_token, pair_expert [P] int64 (local id), pair_weight [P].

    expert_row_offsets: [E_l + 1] int64 on the CPU; expert e owns rows offsets[e] to offsets[e + 1].
    Synchronises with the device: P is data.
    """
    local_ids = topk_ids.to(torch.int64) - local_expert_offset
    token, slot = ((local_ids >= 0) & (local_ids < num_local_experts)).nonzero(as_tuple=True)
    expert = local_ids[token, slot]
    order = torch.argsort(expert, stable=True)  # nonzero is in token order already
    counts = torch.bincount(expert, minlength=num_local_experts).cpu()
    offsets = torch.zeros(num_local_experts + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=offsets[1:])
    return token[order], expert[order], topk_weights[token, slot][order], offsets
