"""Weighted sum with sgl's ``apply_shuffle_mul_sum``: float32 sums of bfloat16 weights and rows.

The seeds zero the output first although the op writes every row; kept, it is one launch.
"""

from __future__ import annotations

from moeprof.contract import Step, leading_rows, stage
from stages.libraries.sgl_kernel import LIBRARY, apply_shuffle_mul_sum


@stage(Step.GATHER, writes="output", rows=leading_rows("gemm2_output"), library=LIBRARY)
def gather(gemm2_output, output_permutation, local_weights, output):
    """[M, H] bfloat16, [M] int32, [T, 8] float32 -> output [T, H] bfloat16."""
    output.zero_()
    apply_shuffle_mul_sum(
        gemm2_output, output, output_permutation, local_weights.to(gemm2_output.dtype)
    )
