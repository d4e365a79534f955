"""flashinfer's fused MoE, by the path that this machine's architecture has.

Local pairs only, unlike the clamping solutions. The paths are told in ``stages.fused.flashinfer``.
"""

from moeprof.contract import Solution
from stages.fused.flashinfer import cutlass_experts, dequantise, routing, trtllm_moe
from stages.libraries.flashinfer import ARCHITECTURE

STAGES = {
    "sm90": (routing, dequantise, cutlass_experts),
    "sm100": (trtllm_moe,),
}

DESCRIPTIONS = {
    "sm90": "flashinfer cutlass_fused_moe with DeepSeek block scales (SM90), local pairs only",
    "sm100": "flashinfer trtllm_fp8_block_scale_moe (SM100), local pairs only",
}

SOLUTION = Solution("flashinfer_moe", STAGES[ARCHITECTURE], description=DESCRIPTIONS[ARCHITECTURE])
