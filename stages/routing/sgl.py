"""Routing with sgl's ``moe_fused_gate``, then eight small ops that make the ids local.

Ids of experts that live on other ranks are clamped to the first or last local expert and get
weight 0: the result is right and all T*8 pairs are executed, of which 1/8 are needed under an
even load. Kept because it is what the measured solutions do; with ``local_only`` such pairs get id
-1 instead, which matches no expert, in as many launches.
"""

from __future__ import annotations

import torch

from moeprof.contract import ROUTING, Step, stage
from stages.libraries.sgl_kernel import LIBRARY, moe_fused_gate


@stage(
    Step.ROUTING,
    writes=("topk_weights", "topk_ids", "clamped_expert_ids", "local_weights"),
    library=LIBRARY,
)
def routing(
    routing_logits,
    routing_bias,
    routed_scaling_factor,
    local_expert_offset,
    num_local_experts,
    *,
    local_only=False,
):
    """[T, E] logits -> weights [T, 8] float32, global ids [T, 8] int32 and their clamped forms.

    The op wants logits and bias of one dtype. It normalises the weights to sum 1 and leaves the
    scaling factor to the caller unless apply_routed_scaling_factor_on_output is set.
    local_only: clamped_expert_ids is -1 for experts elsewhere; later stages must be told as well.
    """
    bias = routing_bias.to(routing_logits.dtype)
    normalised, topk_ids = moe_fused_gate(
        routing_logits, bias, ROUTING.num_groups, ROUTING.topk_groups, ROUTING.top_k
    )
    topk_weights = normalised * routed_scaling_factor
    last = local_expert_offset + num_local_experts
    is_local = (topk_ids >= local_expert_offset) & (topk_ids < last)
    local_ids = topk_ids - local_expert_offset
    if local_only:
        clamped_expert_ids = torch.where(is_local, local_ids, -1).to(torch.int32)
    else:
        clamped_expert_ids = local_ids.clamp(0, num_local_experts - 1).to(torch.int32)
    local_weights = topk_weights * is_local
    return topk_weights, topk_ids, clamped_expert_ids, local_weights
