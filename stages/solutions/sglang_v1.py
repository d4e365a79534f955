"""The seeds' first sgl pipeline: a copy swaps SwiGLU's halves, PyTorch quantisation, 1 GB scratch.

Executes all T*8 pairs: experts of other ranks are clamped to a local one with weight 0.
"""

from moeprof.contract import Solution
from stages.gather.sgl import gather
from stages.gemm.sgl import gemm1, gemm2
from stages.prepare_moe_input.sgl import prepare_moe_input
from stages.routing.sgl import routing
from stages.shuffle_rows.sgl import shuffle_rows
from stages.swiglu_quant.torch import swiglu_quant

WORKSPACE_BYTES = 1 << 30  # per call; the GEMM needs about 90,000

SOLUTION = Solution(
    "sglang_v1",
    (
        routing,
        prepare_moe_input,
        shuffle_rows,
        gemm1.with_options(workspace_bytes=WORKSPACE_BYTES),
        swiglu_quant,
        gemm2.with_options(workspace_bytes=WORKSPACE_BYTES),
        gather,
    ),
    description="sgl ops, torch.cat + silu_and_mul, PyTorch quantisation, 1 GB workspace per call",
)
