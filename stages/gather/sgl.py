"""Weighted sum with sgl's ``apply_shuffle_mul_sum``: float32 sums of bfloat16 weights and rows.

The seeds zero the output first although the op writes every row; kept, it is one launch. The op
reads a row for every slot, so with ``local_only`` slots without one (-1) read row 0 with weight 0:
one launch more, and right only where row 0 holds numbers, that is where any pair is local.
"""

from __future__ import annotations

from moeprof.contract import Step, leading_rows, stage
from stages.libraries.sgl_kernel import LIBRARY, apply_shuffle_mul_sum


@stage(Step.GATHER, writes="output", rows=leading_rows("gemm2_output"), library=LIBRARY)
def gather(gemm2_output, output_permutation, local_weights, output, *, local_only=False):
    """[M, H] bfloat16, [M] int32, [T, 8] float32 -> output [T, H] bfloat16."""
    output.zero_()
    if local_only:
        output_permutation = output_permutation.clamp(min=0)
    apply_shuffle_mul_sum(
        gemm2_output, output, output_permutation, local_weights.to(gemm2_output.dtype)
    )
