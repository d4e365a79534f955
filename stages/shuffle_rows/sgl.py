"""Copying rows into expert order with sgl's ``shuffle_rows``, once for values, once for scales.

The transposition of the scales, [H/128, T] to [T, H/128], belongs to this stage: nothing else
needs it. The op allocates its outputs itself, so ``buffers`` has no say here.
"""

from __future__ import annotations

from moeprof.contract import Step, leading_rows, stage
from stages.libraries.sgl_kernel import LIBRARY
from stages.libraries.sgl_kernel import shuffle_rows as copy_rows


@stage(
    Step.SHUFFLE_ROWS,
    writes=("shuffled_hidden_states", "shuffled_scale"),
    rows=leading_rows("shuffled_hidden_states"),
    library=LIBRARY,
)
def shuffle_rows(hidden_states, hidden_states_scale, input_permutation):
    """[T, H] float8_e4m3fn, [H/128, T] float32 -> [M, H] float8_e4m3fn, [M, H/128] float32."""
    rows = input_permutation.shape[0]
    token_scale = hidden_states_scale.T.contiguous()
    shuffled = copy_rows(hidden_states, input_permutation, (rows, hidden_states.shape[1]))
    shuffled_scale = copy_rows(token_scale, input_permutation, (rows, token_scale.shape[1]))
    return shuffled, shuffled_scale
