"""The better of two backends by the number of tokens, known on the host: Triton's stream of
weights while an expert has few rows, DeepGEMM's tiles once it has many."""

from __future__ import annotations

from moeprof.contract import Step, counted_rows, stage
from stages.gemm.deepgemm import expected_rows, masked_product
from stages.gemm.triton import stream_weights
from stages.libraries.deep_gemm import LIBRARY


@stage(Step.GEMM1, writes="gemm1_output", rows=counted_rows("expert_counts"), library=LIBRARY)
def gemm1(
    shuffled_hidden_states,
    shuffled_scale_by_expert,
    gemm1_weights,
    gemm1_weights_scale,
    expert_counts,
    num_experts,
    seq_len,
    buffers,
    *,
    many_tokens=2048,
):
    """[E_l * capacity, H] x [E_l, 2I, H] -> gemm1_output [E_l * capacity, 2I] bfloat16.

    many_tokens: from how many tokens on DeepGEMM multiplies.
    """
    operands = (shuffled_hidden_states, shuffled_scale_by_expert, gemm1_weights)
    operands = (*operands, gemm1_weights_scale, expert_counts)
    return _product("gemm1_output", operands, num_experts, seq_len, buffers, many_tokens)


@stage(Step.GEMM2, writes="gemm2_output", rows=counted_rows("expert_counts"), library=LIBRARY)
def gemm2(
    activated,
    activated_scale_by_expert,
    gemm2_weights,
    gemm2_weights_scale,
    expert_counts,
    num_experts,
    seq_len,
    buffers,
    *,
    many_tokens=2048,
):
    """[E_l * capacity, I] x [E_l, H, I] -> gemm2_output [E_l * capacity, H] bfloat16."""
    operands = (activated, activated_scale_by_expert, gemm2_weights)
    operands = (*operands, gemm2_weights_scale, expert_counts)
    return _product("gemm2_output", operands, num_experts, seq_len, buffers, many_tokens)


def _product(name, operands, num_experts, seq_len, buffers, many_tokens):
    if seq_len < many_tokens:
        return stream_weights(name, *operands, seq_len, buffers)
    return masked_product(name, *operands, expected_rows(seq_len, num_experts), buffers)
