"""sglang_v2 with SwiGLU and quantisation fused in one Triton kernel; buffers made at every call.

Executes all T*8 pairs: experts of other ranks are clamped to a local one with weight 0.
"""

from moeprof.contract import Solution
from stages.gather.sgl import gather
from stages.gemm.sgl import gemm1, gemm2
from stages.prepare_moe_input.sgl import prepare_moe_input
from stages.routing.sgl import routing
from stages.shuffle_rows.sgl import shuffle_rows
from stages.swiglu_quant.triton import swiglu_quant

SOLUTION = Solution(
    "triton_v1",
    (routing, prepare_moe_input, shuffle_rows, gemm1, swiglu_quant, gemm2, gather),
    description="sgl ops around a fused Triton SwiGLU + quantisation, buffers per call",
)
