"""Routing by the definition, in float32: DeepSeek-V3's group-limited top-k."""

from __future__ import annotations

import torch

from moeprof.contract import ROUTING, Step, stage


@stage(Step.ROUTING, writes=("topk_weights", "topk_ids"))
def routing(routing_logits, routing_bias, routed_scaling_factor):
    """[T, E] logits -> weights [T, 8] float32 times the scaling factor, global ids [T, 8] int32.

    The bias takes part in the choice, not in the weights. A group's score is the sum of its two
    best biased scores; experts outside the four best groups cannot be chosen.
    """
    tokens, experts = routing_logits.shape
    scores = torch.sigmoid(routing_logits.to(torch.float32))
    biased = scores + routing_bias.to(torch.float32)

    groups = biased.view(tokens, ROUTING.num_groups, experts // ROUTING.num_groups)
    group_scores = groups.topk(2, dim=-1).values.sum(dim=-1)  # [T, 8]
    kept = torch.zeros_like(group_scores, dtype=torch.bool)
    kept.scatter_(1, group_scores.topk(ROUTING.topk_groups, dim=-1).indices, True)
    lowest = torch.finfo(torch.float32).min
    candidates = groups.masked_fill(~kept.unsqueeze(-1), lowest).view(tokens, experts)

    topk_ids = candidates.topk(ROUTING.top_k, dim=-1).indices  # [T, 8]
    chosen = scores.gather(1, topk_ids)
    weights = chosen / (chosen.sum(dim=-1, keepdim=True) + 1e-20) * routed_scaling_factor
    return weights, topk_ids.to(torch.int32)
