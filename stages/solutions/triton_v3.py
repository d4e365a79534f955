"""What moeprof's findings ask for: local pairs only, one kernel a step, no casts or views per call.

Routing, counting, scatter, SwiGLU + quantisation and gather are one Triton kernel each (counting
zeroes its counts before); nothing waits for the GPU, so that the forward can be captured. The
GEMMs stream weights in Triton while experts have few rows, and are DeepGEMM's once they have many.
"""

from moeprof.contract import Solution
from stages.gather.triton import gather
from stages.gemm.by_size import gemm1, gemm2
from stages.prepare_moe_input.by_expert import prepare_moe_input
from stages.routing.triton import routing
from stages.shuffle_rows.by_expert import shuffle_rows
from stages.swiglu_quant.by_expert import swiglu_quant

SOLUTION = Solution(
    "triton_v3",
    (routing, prepare_moe_input, shuffle_rows, gemm1, swiglu_quant, gemm2, gather),
    keeps_buffers=True,
    description="Local pairs only, one Triton kernel a step, GEMM backend by size, kept buffers",
)
