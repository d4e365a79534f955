"""Torch twins of the grouped GEMMs that are written in CuTe DSL: same arguments, same effects."""

from __future__ import annotations

import torch
from torch.nn import functional

from stages.block_scale import dequantise_rows, dequantise_weight, quantise_rows

LEAST_AMAX = 1e-10


def grouped_gemm(
    rows, row_scale, weights, weights_scale, m_indptr, expert_counts, output, columns=128
):
    """Expert e's rows, from m_indptr[e] on and expert_counts[e] in number, times weights[e]^T.

    rows [M, K] e4m3, row_scale [M, K/128], weights [E, N, K] e4m3, weights_scale [E, N/128, K/128]
    -> output [M, N] bfloat16, in place. Rows of padding hold anything afterwards; here NaN.
    columns: of a tile, 128 or 256; changes no result.
    """
    output[: int(m_indptr[-1])] = torch.nan
    for part, product in _products(
        rows, row_scale, weights, weights_scale, m_indptr, expert_counts
    ):
        output[part] = product.to(torch.bfloat16)


def grouped_gemm_swiglu_quant(
    rows, row_scale, weights, weights_scale, m_indptr, expert_counts, output, output_scale
):
    """The same with weights [E, 2I, K], up then gate: silu(gate) * up in float32, quantised.

    output [M, I] e4m3, output_scale [M, I/128] float32, in place.
    """
    for part, product in _products(
        rows, row_scale, weights, weights_scale, m_indptr, expert_counts
    ):
        up, gate = product.chunk(2, dim=1)
        quantised, scale = quantise_rows(functional.silu(gate) * up, LEAST_AMAX)
        output[part] = quantised
        output_scale[part] = scale


def _products(rows, row_scale, weights, weights_scale, m_indptr, expert_counts):
    """The rows of each expert that has any, and their float32 product."""
    starts = m_indptr.tolist()
    if any(start % 128 for start in starts):
        raise ValueError("m_indptr must hold multiples of 128: a tile of rows is one expert's")
    for expert, count in enumerate(expert_counts.tolist()):
        if count:
            part = slice(starts[expert], starts[expert] + count)
            values = dequantise_rows(rows[part], row_scale[part])
            yield part, values @ dequantise_weight(weights[expert], weights_scale[expert]).T
