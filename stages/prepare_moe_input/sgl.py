"""Sorting with sgl's ``prepare_moe_input``: problem sizes, offsets and both permutations.

Four launches: a memset, a count (each of E_l blocks scans all T*8 ids), a prefix sum by a single
thread, and an atomic sort whose row order within an expert differs from run to run.

With ``local_only`` ids may be -1, which matches no expert and leaves its slot of the permutations
as it was: these are filled first, two launches more.
"""

from __future__ import annotations

import torch

from moeprof.contract import Step, stage
from stages.libraries.sgl_kernel import LIBRARY
from stages.libraries.sgl_kernel import prepare_moe_input as sort_pairs


@stage(
    Step.PREPARE_MOE_INPUT,
    writes=(
        "expert_offsets",
        "problem_sizes1",
        "problem_sizes2",
        "input_permutation",
        "output_permutation",
    ),
    library=LIBRARY,
)
def prepare_moe_input(
    clamped_expert_ids,
    num_local_experts,
    intermediate_size,
    hidden_size,
    buffers,
    *,
    local_only=False,
):
    """[T, 8] int32 local ids, all in range unless local_only -> int32 tensors:

    expert_offsets [E_l + 1]; problem_sizes1 [E_l, 3] of (m, 2I, H); problem_sizes2 [E_l, 3] of
    (m, H, I); input_permutation [T*8], row -> token; output_permutation [T*8], token*8 + j -> row.
    local_only: rows past the matching pairs copy token 0, slots of other pairs have row -1.
    """
    device, pairs = clamped_expert_ids.device, clamped_expert_ids.numel()

    def int32(name, *shape):
        return buffers.empty(name, shape, torch.int32, device)

    expert_offsets = int32("expert_offsets", num_local_experts + 1)
    problem_sizes1 = int32("problem_sizes1", num_local_experts, 3)
    problem_sizes2 = int32("problem_sizes2", num_local_experts, 3)
    input_permutation = int32("input_permutation", pairs)
    output_permutation = int32("output_permutation", pairs)
    if local_only:
        input_permutation.zero_()
        output_permutation.fill_(-1)
    sort_pairs(
        clamped_expert_ids,
        expert_offsets,
        problem_sizes1,
        problem_sizes2,
        input_permutation,
        output_permutation,
        num_local_experts,
        intermediate_size,
        hidden_size,
    )
    return expert_offsets, problem_sizes1, problem_sizes2, input_permutation, output_permutation
