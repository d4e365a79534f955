"""The whole of routing in one Triton kernel, one warp a token: choice, weights, local ids.

What the other backends do in a dozen launches. Experts of other ranks get local id -1 and weight 0,
so that no later stage runs a row for them. Ties go to the lower group and the lower expert.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from moeprof.contract import ROUTING, Step, stage


@stage(
    Step.ROUTING,
    writes=("topk_weights", "topk_ids", "local_expert_ids", "local_weights"),
)
def routing(
    routing_logits,
    routing_bias,
    routed_scaling_factor,
    local_expert_offset,
    num_local_experts,
    buffers,
):
    """[T, E] float32 logits -> weights [T, 8] float32, global ids [T, 8] int32, best first;

    local_expert_ids [T, 8] int32, -1 where the expert is another rank's; local_weights [T, 8].
    """
    tokens, experts = routing_logits.shape
    shape, device = (tokens, ROUTING.top_k), routing_logits.device
    weights = buffers.empty("topk_weights", shape, torch.float32, device)
    ids = buffers.empty("topk_ids", shape, torch.int32, device)
    local_ids = buffers.empty("local_expert_ids", shape, torch.int32, device)
    local_weights = buffers.empty("local_weights", shape, torch.float32, device)
    routing_kernel[(tokens,)](
        routing_logits,
        routing_bias,
        weights,
        ids,
        local_ids,
        local_weights,
        routed_scaling_factor,
        local_expert_offset,
        num_local_experts,
        GROUPS=ROUTING.num_groups,
        GROUP_SIZE=experts // ROUTING.num_groups,
        KEPT_GROUPS=ROUTING.topk_groups,
        TOP_K=ROUTING.top_k,
        num_warps=1,
    )
    return weights, ids, local_ids, local_weights


@triton.jit
def routing_kernel(
    logits,  # [T, E] float32
    bias,  # [E] bfloat16
    topk_weights,  # [T, TOP_K] float32
    topk_ids,  # [T, TOP_K] int32
    local_ids,  # [T, TOP_K] int32
    local_weights,  # [T, TOP_K] float32
    scaling,
    first_local,
    num_local,
    GROUPS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    KEPT_GROUPS: tl.constexpr,
    TOP_K: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    group = tl.arange(0, GROUPS)
    member = tl.arange(0, GROUP_SIZE)
    expert = group[:, None] * GROUP_SIZE + member[None, :]
    score = 1.0 / (1.0 + tl.exp(-tl.load(logits + token * GROUPS * GROUP_SIZE + expert)))
    # to float32 right after the load: the interpreter does bfloat16 arithmetic on raw bits
    biased = score + tl.load(bias + expert).to(tl.float32)

    lowest = -3.0e38
    best = tl.max(biased, axis=1)
    first_best = tl.min(tl.where(biased == best[:, None], member[None, :], GROUP_SIZE), axis=1)
    others = tl.where(member[None, :] == first_best[:, None], lowest, biased)
    group_score = best + tl.max(others, axis=1)
    # how many groups go before this one
    rivals = group_score + 0.0 * group
    before = (rivals[None, :] > group_score[:, None]) | (
        (rivals[None, :] == group_score[:, None]) & (group[None, :] < group[:, None])
    )
    rank = tl.sum(before.to(tl.int32), axis=1)
    candidates = tl.where(rank[:, None] < KEPT_GROUPS, biased, lowest)

    choice = tl.arange(0, TOP_K)
    chosen = tl.zeros((TOP_K,), dtype=tl.int32)
    weight = tl.zeros((TOP_K,), dtype=tl.float32)
    for place in tl.static_range(TOP_K):
        highest = tl.max(tl.max(candidates, axis=1), axis=0)
        found = tl.where(candidates == highest, expert, GROUPS * GROUP_SIZE)
        winner = tl.min(tl.min(found, axis=1), axis=0)
        own = tl.sum(tl.sum(tl.where(expert == winner, score, 0.0), axis=1), axis=0)
        chosen = tl.where(choice == place, winner, chosen)
        weight = tl.where(choice == place, own, weight)
        candidates = tl.where(expert == winner, lowest, candidates)
    weight = weight / (tl.sum(weight, axis=0) + 1e-20) * scaling
    local = chosen - first_local
    here = (local >= 0) & (local < num_local)
    slot = token * TOP_K + choice
    tl.store(topk_weights + slot, weight)
    tl.store(topk_ids + slot, chosen)
    tl.store(local_ids + slot, tl.where(here, local, -1))
    tl.store(local_weights + slot, tl.where(here, weight, 0.0))
