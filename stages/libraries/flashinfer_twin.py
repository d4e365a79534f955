"""Torch twins of the flashinfer 0.6.13 ops that the stages call: same arguments, same effects.

They follow the numerics of the real paths where these differ from the definition: the SM90 path
quantises its bfloat16 activations inside, the SM100 path stores GEMM1's output as e4m3 with
scales before SwiGLU. Compared with the real SM90 op by tests/gpu/test_twins.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from moeprof.contract import BLOCK
from stages.block_scale import dequantise_rows, dequantise_weight, quantise_rows, take_rows
from stages.libraries.sgl_kernel_twin import moe_fused_gate

LEAST_AMAX = 1e-10
DEEPSEEK_V3_ROUTING = 2


def fused_topk_deepseek(
    scores,
    bias,
    n_group,
    topk_group,
    topk,
    routed_scaling_factor,
    topk_values,
    topk_indices,
    launch_with_pdl=True,
    routing_replay_out=None,
):
    """[T, E] logits -> topk_values [T, topk] times the scaling factor, topk_indices, in place."""
    _require(topk_values.dtype == scores.dtype, "topk_values must have the dtype of scores")
    _require(topk_indices.dtype == torch.int32, "topk_indices must be int32")
    weights, ids = moe_fused_gate(
        scores.to(torch.float32), bias.to(torch.float32), n_group, topk_group, topk
    )
    topk_values.copy_(weights * routed_scaling_factor)
    topk_indices.copy_(ids)


def cutlass_fused_moe(
    input,
    token_selected_experts,
    token_final_scales,
    fc1_expert_weights,
    fc2_expert_weights,
    output_dtype,
    quant_scales,
    *,
    ep_size=1,
    ep_rank=0,
    output=None,
    use_deepseek_fp8_block_scale=False,
    tune_max_num_tokens=8192,
):
    """bfloat16 [T, H] -> output [T, H]: the local experts' share, by expert.

    Weights are [E_l, 2I, H] with up before gate and [E_l, H, I]; quant_scales holds their scales.
    Pairs of experts outside ep_rank's range are not computed. Both products round to bfloat16.
    """
    _require(use_deepseek_fp8_block_scale, "the twin has only the FP8 block-scale path")
    _require(input.dtype == torch.bfloat16, "block scaling takes bfloat16 activations only")
    _require(output_dtype == torch.bfloat16, "block scaling writes bfloat16 only")
    _require(token_selected_experts.dtype == torch.int32, "expert ids must be int32")
    rows, scale = quantise_rows(input, LEAST_AMAX)
    experts = fc1_expert_weights.shape[0]
    _require(ep_rank < ep_size, "ep_rank must be below ep_size")
    total = torch.zeros(input.shape, dtype=torch.float32, device=input.device)
    for expert in range(experts):
        chosen = token_selected_experts == ep_rank * experts + expert
        token, slot = chosen.nonzero(as_tuple=True)
        if not token.numel():
            continue
        first = _product(
            take_rows(rows, token), scale[token], fc1_expert_weights, quant_scales[0], expert
        )
        activated, activated_scale = quantise_rows(_swiglu(first), LEAST_AMAX)
        second = _product(activated, activated_scale, fc2_expert_weights, quant_scales[1], expert)
        weighted = second.to(torch.float32) * token_final_scales[token, slot, None]
        total.index_add_(0, token, weighted)
    result = torch.empty(input.shape, dtype=output_dtype, device=input.device)
    return (result if output is None else output).copy_(total)


def trtllm_fp8_block_scale_moe(
    routing_logits,
    routing_bias,
    hidden_states,
    hidden_states_scale,
    gemm1_weights,
    gemm1_weights_scale,
    gemm2_weights,
    gemm2_weights_scale,
    num_experts,
    top_k,
    n_group,
    topk_group,
    intermediate_size,
    local_expert_offset,
    local_num_experts,
    routed_scaling_factor,
    routing_method_type=0,
    use_shuffled_weight=False,
    weight_layout=0,
    tune_max_num_tokens=8192,
):
    """The whole operation from logits to a new [T, H] bfloat16 tensor, local pairs only."""
    _require(routing_method_type == DEEPSEEK_V3_ROUTING, "the twin routes as DeepSeek-V3 only")
    _require(not use_shuffled_weight and weight_layout == 0, "the twin takes K-major weights only")
    tokens, width = hidden_states.shape
    _require(hidden_states_scale.shape == (width // BLOCK, tokens), "scales must be [H/128, T]")
    _require(gemm1_weights.shape[1] == 2 * intermediate_size, "gemm1_weights must be [E_l, 2I, H]")
    weights, ids = moe_fused_gate(
        routing_logits, routing_bias.to(routing_logits.dtype), n_group, topk_group, top_k
    )
    total = torch.zeros((tokens, width), dtype=torch.float32, device=hidden_states.device)
    for expert in range(local_num_experts):
        token, slot = (ids == local_expert_offset + expert).nonzero(as_tuple=True)
        if not token.numel():
            continue
        rows, scale = take_rows(hidden_states, token), hidden_states_scale.T[token]
        first = _product(rows, scale, gemm1_weights, gemm1_weights_scale, expert)
        first = dequantise_rows(*quantise_rows(first, LEAST_AMAX))
        activated = quantise_rows(_swiglu(first), LEAST_AMAX)
        second = _product(*activated, gemm2_weights, gemm2_weights_scale, expert)
        factors = weights[token, slot, None] * routed_scaling_factor
        total.index_add_(0, token, second.to(torch.float32) * factors)
    return total.to(torch.bfloat16)


def _product(rows, scale, weights, weights_scale, expert):
    """rows @ weights[expert]^T with block scales, rounded to bfloat16."""
    weight = dequantise_weight(weights[expert], weights_scale[expert])
    return (dequantise_rows(rows, scale) @ weight.T).to(torch.bfloat16)


def _swiglu(first):
    """[P, 2I], up then gate -> [P, I] bfloat16."""
    up, gate = first.to(torch.float32).chunk(2, dim=1)
    return (functional.silu(gate) * up).to(torch.bfloat16)


def _require(condition, message):
    if not condition:
        raise RuntimeError(message)
