"""flashinfer's fused MoE. Two architectures, two paths; which one ran shows in the stage names.

SM90: ``fused_topk_deepseek``, then ``cutlass_fused_moe`` with DeepSeek block scales. The latter
takes bfloat16 activations only, so the FP8 hidden states are dequantised first, in a stage of its
own that covers no step, and requantised inside.
SM100: ``trtllm_fp8_block_scale_moe`` takes the definition's inputs as they are, logits included.

Both compute local pairs only. The kernel rules name the kernels of flashinfer 0.6.13's sources.
"""

from __future__ import annotations

import torch

from moeprof.contract import (
    BLOCK,
    ROUTING,
    STEPS,
    ContractError,
    KernelRule,
    Step,
    declared_local_rows,
    stage,
)
from stages.libraries.flashinfer import (
    LIBRARY,
    cutlass_fused_moe,
    fused_topk_deepseek,
    trtllm_fp8_block_scale_moe,
)

DEEPSEEK_V3_ROUTING = 2  # flashinfer's RoutingMethodType.DeepSeekV3

CUTLASS_KERNELS = (
    KernelRule("BuildExpertMaps|ExpertPrefixSum", (Step.PREPARE_MOE_INPUT,)),
    KernelRule("expandInputRows", (Step.SHUFFLE_ROWS,)),
    # quantises the rows GEMM1 reads, then the activation GEMM2 reads
    KernelRule("scale_1x128", (Step.SHUFFLE_ROWS, Step.SWIGLU_QUANT)),
    KernelRule("fp8_gemm_kernel", (Step.GEMM1, Step.GEMM2)),  # also fp8_gemm_kernel_swapAB
    KernelRule("doGatedActivation|doActivation", (Step.SWIGLU_QUANT,)),
    KernelRule("finalizeMoeRouting", (Step.GATHER,)),
)

TRTLLM_KERNELS = (
    KernelRule("routingMain|ScoresKernel", (Step.ROUTING,)),
    KernelRule("routing", (Step.PREPARE_MOE_INPUT,)),
    KernelRule("permuteKernel", (Step.SHUFFLE_ROWS,)),  # not launched: GEMM1 gathers its rows
    KernelRule("^bmm_", (Step.GEMM1, Step.GEMM2)),
    KernelRule("activation", (Step.SWIGLU_QUANT,)),
    KernelRule("finalize", (Step.GATHER,)),
)


@stage(Step.ROUTING, writes=("topk_weights", "topk_ids"), library=LIBRARY)
def routing(routing_logits, routing_bias, routed_scaling_factor, buffers):
    """[T, E] logits -> weights [T, 8] float32 times the scaling factor, global ids [T, 8] int32.

    One launch: the op has an instance for float32 logits with a bfloat16 bias.
    """
    shape = (routing_logits.shape[0], ROUTING.top_k)
    device = routing_logits.device
    topk_weights = buffers.empty("topk_weights", shape, torch.float32, device)
    topk_ids = buffers.empty("topk_ids", shape, torch.int32, device)
    fused_topk_deepseek(
        routing_logits,
        routing_bias,
        ROUTING.num_groups,
        ROUTING.topk_groups,
        ROUTING.top_k,
        routed_scaling_factor,
        topk_weights,
        topk_ids,
    )
    return topk_weights, topk_ids


@stage(
    writes="dequantised_hidden_states",
    why="cutlass_fused_moe takes bfloat16 activations only and quantises them again inside",
)
def dequantise(hidden_states, hidden_states_scale, buffers):
    """[T, H] float8_e4m3fn, [H/128, T] float32 -> [T, H] bfloat16. e4m3 in bfloat16 is exact."""
    values = hidden_states.to(torch.bfloat16)
    result = buffers.empty(
        "dequantised_hidden_states", values.shape, torch.bfloat16, hidden_states.device
    )
    torch.mul(
        values.unflatten(1, (-1, BLOCK)),
        hidden_states_scale.T.unsqueeze(-1),
        out=result.unflatten(1, (-1, BLOCK)),
    )
    return result


@stage(
    Step.PREPARE_MOE_INPUT,
    Step.SHUFFLE_ROWS,
    Step.GEMM1,
    Step.SWIGLU_QUANT,
    Step.GEMM2,
    Step.GATHER,
    writes="output",
    rows=declared_local_rows(),
    library=LIBRARY,
    kernel_rules=CUTLASS_KERNELS,
    name="cutlass_fused_moe",
)
def cutlass_experts(
    dequantised_hidden_states,
    topk_ids,
    topk_weights,
    gemm1_weights,
    gemm1_weights_scale,
    gemm2_weights,
    gemm2_weights_scale,
    local_expert_offset,
    num_experts,
    num_local_experts,
    output,
    *,
    tune_max_num_tokens=8192,
):
    """Everything after routing, on SM90. [T, H] bfloat16 -> output [T, H] bfloat16.

    The op numbers ranks, so the local experts must begin at a multiple of their count.
    tune_max_num_tokens: upper end of flashinfer's tuning range; block-scale GEMMs are not tuned.
    """
    rank, remainder = divmod(local_expert_offset, num_local_experts)
    if remainder:
        raise ContractError(
            f"cutlass_fused_moe cannot start at expert {local_expert_offset}",
            f"local_expert_offset to be a multiple of {num_local_experts}",
        )
    cutlass_fused_moe(
        dequantised_hidden_states,
        topk_ids,
        topk_weights,
        gemm1_weights,
        gemm2_weights,
        torch.bfloat16,
        quant_scales=[gemm1_weights_scale, gemm2_weights_scale],
        ep_size=num_experts // num_local_experts,
        ep_rank=rank,
        output=output,
        use_deepseek_fp8_block_scale=True,
        tune_max_num_tokens=tune_max_num_tokens,
    )


@stage(
    *STEPS,
    writes="output",
    rows=declared_local_rows(),
    library=LIBRARY,
    kernel_rules=TRTLLM_KERNELS,
    name="trtllm_fp8_block_scale_moe",
)
def trtllm_moe(
    routing_logits,
    routing_bias,
    hidden_states,
    hidden_states_scale,
    gemm1_weights,
    gemm1_weights_scale,
    gemm2_weights,
    gemm2_weights_scale,
    local_expert_offset,
    routed_scaling_factor,
    num_experts,
    num_local_experts,
    intermediate_size,
    output,
    *,
    tune_max_num_tokens=16384,
):
    """All seven steps, on SM100. The op allocates its result; the copy into ``output`` is ours.

    tune_max_num_tokens: flashinfer's default of 8192 leaves the two largest workloads outside.
    """
    result = trtllm_fp8_block_scale_moe(
        routing_logits,
        routing_bias,
        hidden_states,
        hidden_states_scale,
        gemm1_weights,
        gemm1_weights_scale,
        gemm2_weights,
        gemm2_weights_scale,
        num_experts,
        ROUTING.top_k,
        ROUTING.num_groups,
        ROUTING.topk_groups,
        intermediate_size,
        local_expert_offset,
        num_local_experts,
        routed_scaling_factor,
        routing_method_type=DEEPSEEK_V3_ROUTING,
        use_shuffled_weight=False,
        weight_layout=0,
        tune_max_num_tokens=tune_max_num_tokens,
    )
    output.copy_(result)
