"""The dequantised hidden states of each local pair, in float32."""

from __future__ import annotations

from moeprof.contract import Step, leading_rows, stage
from stages.block_scale import dequantise_rows, take_rows


@stage(Step.SHUFFLE_ROWS, writes="pair_hidden_states", rows=leading_rows("pair_hidden_states"))
def shuffle_rows(hidden_states, hidden_states_scale, pair_token):
    """[T, H] float8_e4m3fn, [H/128, T] float32, [P] int64 -> pair_hidden_states [P, H] float32."""
    scale = hidden_states_scale.T[pair_token]
    return dequantise_rows(take_rows(hidden_states, pair_token), scale)
