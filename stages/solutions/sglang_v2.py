"""The seeds' second sgl pipeline: SwiGLU on the halves in place, native quantiser, 90 KB scratch.

Executes all T*8 pairs: experts of other ranks are clamped to a local one with weight 0.
"""

from moeprof.contract import Solution
from stages.gather.sgl import gather
from stages.gemm.sgl import gemm1, gemm2
from stages.prepare_moe_input.sgl import prepare_moe_input
from stages.routing.sgl import routing
from stages.shuffle_rows.sgl import shuffle_rows
from stages.swiglu_quant.sgl import swiglu_quant

SOLUTION = Solution(
    "sglang_v2",
    (routing, prepare_moe_input, shuffle_rows, gemm1, swiglu_quant, gemm2, gather),
    description="sgl ops, F.silu on halves, native quantiser, 90,000-byte workspace per call",
)
