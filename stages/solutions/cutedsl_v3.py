"""The seeds' cutedsl_v3 on SM90: flat, aligned rows and a persistent grouped GEMM in CuTe DSL.

Each expert's rows begin on a multiple of 128, which costs padding but lets the GEMM find a tile's
expert by itself. The other steps are one Triton kernel each (placing rows takes two beyond 64
tokens) for local pairs only; SwiGLU and quantisation are a kernel of their own.
"""

from moeprof.contract import Solution
from stages.gather.triton import gather
from stages.gemm.cutedsl import gemm1, gemm2
from stages.prepare_moe_input.aligned import prepare_moe_input
from stages.routing.triton import routing
from stages.shuffle_rows.aligned import shuffle_rows
from stages.swiglu_quant.aligned import swiglu_quant

SOLUTION = Solution(
    "cutedsl_v3",
    (routing, prepare_moe_input, shuffle_rows, gemm1, swiglu_quant, gemm2, gather),
    keeps_buffers=True,
    description="Aligned rows, grouped GEMM in CuTe DSL, separate SwiGLU + quantisation",
)
