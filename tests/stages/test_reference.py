"""Each step of the reference against the operation written out in float64, pair by pair."""

import numpy as np
import pytest
import torch

from stages.solutions.reference import SOLUTION


@pytest.fixture(scope="module", params=[(1, 56), (13, 24), (33, 8)], ids=str)
def both(request, make_problem, naive, run):
    """(tensors of the reference, the same in float64), with two experts that nobody chooses."""
    tokens, offset = request.param
    problem = make_problem(tokens, offset, banned=(offset + 1, offset + 6))
    return run(SOLUTION, problem), naive(problem)


def stacked(pairs, position):
    return np.stack([pair[position] for pair in pairs])


def test_routing(both):
    tensors, expected = both
    rows = zip(tensors["topk_ids"].tolist(), tensors["topk_weights"].tolist(), strict=True)
    for (ids, weights), choice in zip(rows, expected.choices, strict=True):
        assert set(ids) == set(choice)
        assert weights == pytest.approx([choice[expert] for expert in ids], rel=1e-5)
        assert sum(weights) == pytest.approx(2.5, rel=1e-5)


def test_routing_dtypes(both):
    tensors, _ = both
    assert tensors["topk_ids"].dtype == torch.int32
    assert tensors["topk_weights"].dtype == torch.float32


def test_pairs_are_local_and_sorted_by_expert_then_token(both):
    tensors, expected = both
    pairs = list(zip(tensors["pair_token"].tolist(), tensors["pair_expert"].tolist(), strict=True))
    assert pairs == [(token, expert) for token, expert, *_ in expected.pairs]
    weights = [pair[2] for pair in expected.pairs]
    assert tensors["pair_weight"].tolist() == pytest.approx(weights, rel=1e-5)


def test_offsets_count_the_rows_of_each_expert_empty_ones_too(both):
    tensors, expected = both
    counts = [sum(pair[1] == expert for pair in expected.pairs) for expert in range(8)]
    assert tensors["expert_row_offsets"].diff().tolist() == counts
    assert counts[1] == counts[6] == 0


@pytest.mark.parametrize(
    ("name", "position"),
    [("pair_hidden_states", 3), ("pair_gemm1", 4), ("pair_activated", 5), ("pair_gemm2", 6)],
)
def test_rows_of_each_step(both, relative_l2, name, position):
    tensors, expected = both
    assert tensors[name].dtype == torch.float32
    assert relative_l2(tensors[name], stacked(expected.pairs, position)) < 1e-5


def test_output_is_the_weighted_sum_in_bfloat16(both, relative_l2):
    tensors, expected = both
    assert tensors["output"].dtype == torch.bfloat16
    assert relative_l2(tensors["output"], expected.output) < 3e-3  # half a bfloat16 step: 2e-3


def test_tokens_without_local_experts_are_exactly_zero(both):
    tensors, expected = both
    idle = [t for t in range(len(expected.output)) if not expected.output[t].any()]
    assert tensors["output"][idle].count_nonzero() == 0


def test_a_rank_without_any_work_writes_zeros(make_problem, run):
    tensors = run(SOLUTION, make_problem(7, 16, banned=tuple(range(16, 24))))
    assert tensors["pair_token"].numel() == 0
    assert tensors["output"].count_nonzero() == 0


def test_two_runs_give_the_same_bits(make_problem, run):
    problem = make_problem(33, 8)
    first, second = run(SOLUTION, problem), run(SOLUTION, problem)
    assert torch.equal(first["output"], second["output"])


def test_the_bias_chooses_but_does_not_weigh(make_problem, run):
    """A bias equal for all experts changes nothing; a large one for some decides the choice."""
    problem = make_problem(13)
    shifted = {**problem, "routing_bias": torch.full_like(problem["routing_bias"], 4.0)}
    neutral = {**problem, "routing_bias": torch.zeros_like(problem["routing_bias"])}
    ids = run(SOLUTION, shifted)["topk_ids"], run(SOLUTION, neutral)["topk_ids"]
    assert torch.equal(ids[0].sort(dim=1).values, ids[1].sort(dim=1).values)

    wanted = [0, 9, 18, 27, 1, 10, 19, 28]  # two in each of four groups
    forced = torch.zeros_like(problem["routing_bias"])
    forced[wanted] = 2.0
    tensors = run(SOLUTION, {**problem, "routing_bias": forced})
    assert tensors["topk_ids"].sort(dim=1).values.tolist() == [sorted(wanted)] * 13
    scores = problem["routing_logits"].sigmoid().gather(1, tensors["topk_ids"].long())
    torch.testing.assert_close(
        tensors["topk_weights"], 2.5 * scores / scores.sum(dim=1, keepdim=True)
    )
