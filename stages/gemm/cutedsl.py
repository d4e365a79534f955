"""Both products with a grouped GEMM written in CuTe DSL: flat, aligned rows, persistent, SM90.

The kernel finds the expert of a tile of 128 rows by ``m_indptr`` on the device, so one compiled
kernel and one graph do for any routing and any number of rows. It reads scales of rows as they lie
beside the rows; half tiles of padding alone are not multiplied. Compiled at first use, 0.3 to 0.8 s
a kernel, and kept on disk for later processes. Times stand in ``cutedsl_kernel.grouped_gemm``.
"""

from __future__ import annotations

import torch

from moeprof.contract import Step, counted_rows, stage
from stages.libraries.cutedsl import LIBRARY, grouped_gemm

NARROW, WIDE = 128, 256  # columns of a tile
# GEMM2 with 14,250 rows: 407 us with the wide tile, 423 with the narrow one. With few rows there
# are too few tiles for it: 14 us where the narrow one takes 12 (1 row), 131 and 126 (900 rows)
MANY_TOKENS = 2048


@stage(Step.GEMM1, writes="gemm1_output", rows=counted_rows("expert_counts"), library=LIBRARY)
def gemm1(
    shuffled_hidden_states,
    shuffled_scale,
    gemm1_weights,
    gemm1_weights_scale,
    m_indptr,
    expert_counts,
    buffers,
    *,
    columns=NARROW,
):
    """[capacity, H] x [E_l, 2I, H] -> gemm1_output [capacity, 2I] bfloat16.

    columns: of a tile, 128 or 256; the wide one is 1 % slower here at 14,250 rows.
    """
    operands = (shuffled_hidden_states, shuffled_scale, gemm1_weights, gemm1_weights_scale)
    return _product("gemm1_output", (*operands, m_indptr, expert_counts), columns, buffers)


@stage(Step.GEMM2, writes="gemm2_output", rows=counted_rows("expert_counts"), library=LIBRARY)
def gemm2(
    activated,
    activated_scale,
    gemm2_weights,
    gemm2_weights_scale,
    m_indptr,
    expert_counts,
    seq_len,
    buffers,
    *,
    columns=None,
):
    """[capacity, I] x [E_l, H, I] -> gemm2_output [capacity, H] bfloat16.

    columns: of a tile, 128 or 256; None: by the number of tokens.
    """
    operands = (activated, activated_scale, gemm2_weights, gemm2_weights_scale)
    columns = columns or (WIDE if seq_len >= MANY_TOKENS else NARROW)
    return _product("gemm2_output", (*operands, m_indptr, expert_counts), columns, buffers)


def _product(name, operands, columns, buffers):
    """rows [capacity, K] e4m3, weights [E, N, K] e4m3 -> [capacity, N] bfloat16."""
    rows, weights = operands[0], operands[2]
    shape = (rows.shape[0], weights.shape[1])
    output = buffers.empty(name, shape, torch.bfloat16, rows.device)
    grouped_gemm(*operands, output, columns)
    return output
