"""Torch twin of the sgl-deep-gemm 0.1.5 op that the stages call: same arguments, same effects."""

from __future__ import annotations

import torch

from stages.block_scale import dequantise_rows, dequantise_weight


def fp8_m_grouped_gemm_nt_masked(a, b, d, masked_m, expected_m):
    """a: (rows [E, M, K] e4m3, scale [E, M, K/128]); b: (weights [E, N, K] e4m3, scale
    [E, N/128, K/128]); d [E, M, N] bfloat16. Of expert e only the first masked_m[e] rows of ``d``
    are written. expected_m is a hint for tiles and changes no result.
    """
    (rows, scale), (weights, weights_scale) = a, b
    if scale.stride(-2) != 1:
        raise ValueError("the twin takes scales with rows innermost: others are transposed first")
    for expert, count in enumerate(masked_m.tolist()):
        if count == 0:
            continue
        x = dequantise_rows(rows[expert, :count], scale[expert, :count])
        w = dequantise_weight(weights[expert], weights_scale[expert])
        d[expert, :count] = (x @ w.T).to(torch.bfloat16)
