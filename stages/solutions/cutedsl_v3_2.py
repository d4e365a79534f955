"""cutedsl_v3 with SwiGLU and quantisation in GEMM1's epilogue: e4m3 and scales, written once.

The seeds' own v3.2 quantises the product before SwiGLU and so keeps a second kernel, which reads,
activates and quantises again; here the epilogue holds both halves of a block, and that kernel and
one rounding disappear.
"""

from moeprof.contract import Solution
from stages.fused.cutedsl import gemm1_swiglu_quant
from stages.gather.triton import gather
from stages.gemm.cutedsl import gemm2
from stages.prepare_moe_input.aligned import prepare_moe_input
from stages.routing.triton import routing
from stages.shuffle_rows.aligned import shuffle_rows

SOLUTION = Solution(
    "cutedsl_v3_2",
    (routing, prepare_moe_input, shuffle_rows, gemm1_swiglu_quant, gemm2, gather),
    keeps_buffers=True,
    description="cutedsl_v3 with SwiGLU + quantisation in the epilogue of GEMM1",
)
