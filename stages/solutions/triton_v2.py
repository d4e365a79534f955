"""Triton scatter, SwiGLU + quantisation and gather around sgl's grouped GEMM; buffers are kept.

Executes all T*8 pairs: experts of other ranks are clamped to a local one with weight 0. The
weight views and the request for float32 scales are made at every call, as in the seeds.
"""

from moeprof.contract import Solution
from stages.gather.triton import gather
from stages.gemm.sgl import gemm1, gemm2
from stages.prepare_moe_input.sgl import prepare_moe_input
from stages.routing.sgl import routing
from stages.shuffle_rows.triton import shuffle_rows
from stages.swiglu_quant.triton import swiglu_quant

SOLUTION = Solution(
    "triton_v2",
    (routing, prepare_moe_input, shuffle_rows, gemm1, swiglu_quant, gemm2, gather),
    keeps_buffers=True,
    description="Triton scatter, SwiGLU + quantisation and gather around sgl's GEMM, kept buffers",
)
