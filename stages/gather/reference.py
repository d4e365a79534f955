"""Weighted sum in float32, expert by expert, rounded to bfloat16 once at the end."""

from __future__ import annotations

import torch

from moeprof.contract import Step, leading_rows, stage


@stage(Step.GATHER, writes="output", rows=leading_rows("pair_gemm2"))
def gather(pair_gemm2, pair_token, pair_weight, expert_row_offsets, output):
    """output[t] = sum over the pairs of token t of weight * row; zero for tokens without any.

    A token occurs once per expert, so one index_add per expert has no collisions and the sum is
    the same bits at every run, on a GPU too.
    """
    total = torch.zeros(output.shape, dtype=torch.float32, device=output.device)
    offsets = expert_row_offsets.tolist()
    for first, last in zip(offsets[:-1], offsets[1:], strict=True):
        if first != last:
            weighted = pair_gemm2[first:last] * pair_weight[first:last, None]
            total.index_add_(0, pair_token[first:last], weighted)
    output.copy_(total)
