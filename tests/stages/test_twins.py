"""The torch twins against what the ops' contracts say, traps included. Always on the CPU.

tests/gpu/test_twins.py compares the same twins with the real ops.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.libraries import flashinfer_twin, sgl_kernel_twin


def int32(*shape, fill=-7):
    return torch.full(shape, fill, dtype=torch.int32)


def test_gate_breaks_ties_towards_the_lower_expert():
    weights, ids = sgl_kernel_twin.moe_fused_gate(torch.zeros(2, 64), torch.zeros(64), 8, 4, 8)
    assert ids.tolist() == [list(range(8))] * 2
    assert weights.tolist() == [[0.125] * 8] * 2


def test_gate_scales_only_when_asked_to():
    logits, bias = torch.randn(5, 64), torch.randn(64)
    plain, ids = sgl_kernel_twin.moe_fused_gate(logits, bias, 8, 4, 8, 0, 2.5)
    scaled, same_ids = sgl_kernel_twin.moe_fused_gate(logits, bias, 8, 4, 8, 0, 2.5, True)
    assert torch.equal(ids, same_ids)
    torch.testing.assert_close(plain.sum(dim=1), torch.ones(5))
    torch.testing.assert_close(scaled, 2.5 * plain)


def test_gate_refuses_two_dtypes():
    with pytest.raises(RuntimeError, match="one dtype"):
        sgl_kernel_twin.moe_fused_gate(torch.zeros(1, 64), torch.zeros(64).bfloat16(), 8, 4, 8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-1, 4), min_size=3, max_size=3), min_size=1, max_size=9))
def test_sorting_pairs(rows):
    """Four experts; ids of -1 and 4 match none and must leave their slots alone."""
    ids = torch.tensor(rows, dtype=torch.int32)
    offsets, first, second = int32(5), int32(4, 3), int32(4, 3)
    row_to_token, slot_to_row = int32(ids.numel()), int32(ids.numel())
    sgl_kernel_twin.prepare_moe_input(
        ids, offsets, first, second, row_to_token, slot_to_row, 4, 256, 384
    )
    flat = [expert for row in rows for expert in row]
    counts = [flat.count(expert) for expert in range(4)]
    assert first.tolist() == [[count, 512, 384] for count in counts]
    assert second.tolist() == [[count, 384, 256] for count in counts]
    assert offsets.tolist() == [sum(counts[:expert]) for expert in range(5)]
    used = set()
    for slot, expert in enumerate(flat):
        row = slot_to_row[slot].item()
        if not 0 <= expert < 4:
            assert row == -7
            continue
        assert offsets[expert] <= row < offsets[expert + 1]
        assert row_to_token[row] == slot // 3
        used.add(row)
    assert used == set(range(sum(counts)))
    assert row_to_token[sum(counts) :].eq(-7).all()


def test_shuffling_rows_copies_bytes():
    rows = torch.randn(5, 256).to(torch.float8_e4m3fn)
    order = torch.tensor([4, 0, 0, 3], dtype=torch.int32)
    shuffled = sgl_kernel_twin.shuffle_rows(rows, order, (4, 256))
    assert shuffled.dtype == torch.float8_e4m3fn
    assert shuffled.view(torch.uint8).tolist() == [
        rows.view(torch.uint8)[source].tolist() for source in (4, 0, 0, 3)
    ]


class GroupedProblem:
    """Three experts, the middle one empty, and one row that belongs to nobody."""

    def __init__(self):
        random = torch.Generator().manual_seed(3)
        self.sizes = (2, 0, 3)
        self.rows = torch.randn(6, 256, generator=random).to(torch.float8_e4m3fn)
        self.scale = torch.rand(6, 2, generator=random) + 0.5
        self.weights = torch.randn(3, 384, 256, generator=random).to(torch.float8_e4m3fn)
        self.weights_scale = torch.rand(3, 3, 2, generator=random) + 0.5
        self.output = torch.full((6, 384), -99.0, dtype=torch.bfloat16)

    def call(self, weights, **changes):
        experts = len(self.sizes)
        pointers = [torch.empty(experts, dtype=torch.int64) for _ in range(5)]
        stride_k = torch.full((experts,), 256, dtype=torch.int64)
        sizes = [[m, 384, 256] for m in self.sizes]
        arguments = {
            "a": self.rows,
            "b": weights,
            "scales_a": self.scale,
            "scales_b": self.weights_scale.transpose(1, 2),
            "stride_a": stride_k,
            "stride_b": stride_k,
            "stride_c": torch.full((experts,), 384, dtype=torch.int64),
            "layout_sfa": int32(experts, 5),
            "layout_sfb": int32(experts, 5),
            "problem_sizes": torch.tensor(sizes, dtype=torch.int32),
            "expert_offsets": torch.tensor([0, 2, 2], dtype=torch.int32),
            "workspace": torch.empty(90_000, dtype=torch.uint8),
        } | changes
        sgl_kernel_twin.fp8_blockwise_scaled_grouped_mm(self.output, *pointers, **arguments)
        return self.output

    def expected(self):
        """Element by element in float64, scales looked up by index."""
        result = torch.full((6, 384), -99.0, dtype=torch.float64)
        for row, expert in ((0, 0), (1, 0), (2, 2), (3, 2), (4, 2)):
            factors = self.scale[row].double().repeat_interleave(128)
            left = self.rows[row].double() * factors
            for column in range(384):
                factors = self.weights_scale[expert, column // 128].double().repeat_interleave(128)
                right = self.weights[expert, column].double() * factors
                result[row, column] = left @ right
        return result


def test_grouped_mm_multiplies_by_block_and_leaves_other_rows(relative_l2):
    problem = GroupedProblem()
    output = problem.call(problem.weights.transpose(1, 2))
    assert relative_l2(output, problem.expected()) < 3e-3
    assert output[5].eq(-99).all()


def test_grouped_mm_reads_memory_not_strides(relative_l2):
    """A contiguous [E, K, N] tensor has the right shape and the wrong memory, as for the op."""
    problem = GroupedProblem()
    contiguous = problem.weights.view(torch.uint8).transpose(1, 2).contiguous()
    output = problem.call(contiguous.view(torch.float8_e4m3fn))
    assert relative_l2(output, problem.expected()) > 0.5


@pytest.mark.parametrize(
    ("name", "dtype"), [("stride_a", torch.int32), ("problem_sizes", torch.int64)]
)
def test_grouped_mm_refuses_wrong_dtypes(name, dtype):
    problem = GroupedProblem()
    wrong = torch.full((3, 3) if name == "problem_sizes" else (3,), 256, dtype=dtype)
    with pytest.raises(RuntimeError, match=f"{name} must be"):
        problem.call(problem.weights.transpose(1, 2), **{name: wrong})


def test_silu_and_mul_activates_the_first_half():
    out = torch.empty(1, 8, dtype=torch.bfloat16)
    row = torch.cat((torch.full((1, 8), 2.0), torch.full((1, 8), 3.0)), dim=1).bfloat16()
    sgl_kernel_twin.silu_and_mul(row, out)
    silu = 2.0 / (1.0 + torch.tensor(-2.0).exp())
    torch.testing.assert_close(out, torch.full((1, 8), 3.0 * silu.item()).bfloat16())


def quantise(values):
    quantised = torch.empty(values.shape, dtype=torch.float8_e4m3fn)
    scale = torch.empty(values.shape[0], values.shape[1] // 128)
    sgl_kernel_twin.sgl_per_token_group_quant_fp8(
        values, quantised, scale, 128, 1e-10, -448.0, 448.0, enable_v2=False
    )
    return quantised, scale


def test_quantiser_scales_each_group_to_448():
    values = torch.randn(3, 384).bfloat16()
    values[1, 128:256] = 0
    quantised, scale = quantise(values)
    for row in range(3):
        for group in range(3):
            part = values[row, group * 128 : (group + 1) * 128].float()
            wanted = max(part.abs().max().item(), 1e-10) / 448
            assert scale[row, group].item() == pytest.approx(wanted, rel=1e-6)
            back = quantised[row, group * 128 : (group + 1) * 128].float() * wanted
            # half a step: 2^-4 of the value, 2^-10 in units of the scale for subnormals
            assert ((back - part).abs() <= part.abs() / 16 + wanted / 1024 * 1.01).all()
    assert quantised[1, 128:256].float().count_nonzero() == 0


def test_quantiser_refuses_what_the_op_refuses():
    values = torch.zeros(1, 256, dtype=torch.bfloat16)
    quantised, scale = values.to(torch.float8_e4m3fn), torch.empty(1, 2)
    with pytest.raises(RuntimeError, match="eps"):
        sgl_kernel_twin.sgl_per_token_group_quant_fp8(
            values, quantised, scale, 128, 1e-6, -448.0, 448.0
        )


def test_weighted_sum_writes_every_row_and_wants_weights_of_the_outputs_dtype():
    rows = torch.tensor([[1.0], [10.0], [100.0], [1000.0]]).bfloat16()
    output = torch.full((2, 1), torch.nan, dtype=torch.bfloat16)
    order = torch.tensor([2, 0, 3, 1], dtype=torch.int32)
    factors = torch.tensor([[1.0, 2.0], [0.0, 0.5]])
    sgl_kernel_twin.apply_shuffle_mul_sum(rows, output, order, factors.bfloat16())
    assert output.tolist() == [[102.0], [5.0]]
    with pytest.raises(RuntimeError, match="dtype"):
        sgl_kernel_twin.apply_shuffle_mul_sum(rows, output, order, factors)


def test_cutlass_moe_takes_bfloat16_only_and_skips_other_ranks():
    weights = torch.randn(2, 256, 128).to(torch.float8_e4m3fn)
    down = torch.randn(2, 128, 128).to(torch.float8_e4m3fn)
    scales = [torch.ones(2, 2, 1), torch.ones(2, 1, 1)]
    hidden = torch.randn(3, 128)
    ids = torch.tensor([[0, 1], [2, 3], [3, 5]], dtype=torch.int32)
    call = dict(
        token_selected_experts=ids,
        token_final_scales=torch.ones(3, 2),
        fc1_expert_weights=weights,
        fc2_expert_weights=down,
        output_dtype=torch.bfloat16,
        quant_scales=scales,
        ep_size=3,
        ep_rank=1,  # experts 2 and 3
        use_deepseek_fp8_block_scale=True,
    )
    with pytest.raises(RuntimeError, match="bfloat16"):
        flashinfer_twin.cutlass_fused_moe(hidden, **call)
    output = flashinfer_twin.cutlass_fused_moe(hidden.bfloat16(), **call)
    assert [row.any().item() for row in output] == [False, True, True]
