"""The definition in float32, local pairs only, expert by expert: what results are judged against.

Every intermediate stays available by name for checks of single stages. Peak memory beyond the
inputs is about P * (2H + 3I) * 4 bytes, T * H * 4 bytes for the sum and one expert's weights:
1.7 GB at T=14107 under an even load (P about 14,000), most of it growing with P.
"""

from moeprof.contract import Solution
from stages.gather.reference import gather
from stages.gemm.reference import gemm1, gemm2
from stages.prepare_moe_input.reference import prepare_moe_input
from stages.routing.reference import routing
from stages.shuffle_rows.reference import shuffle_rows
from stages.swiglu_quant.reference import swiglu_quant

SOLUTION = Solution(
    "reference",
    (routing, prepare_moe_input, shuffle_rows, gemm1, swiglu_quant, gemm2, gather),
    description="PyTorch float32 by the definition, local pairs only, expert by expert",
)
