"""The judge of results: each kind of wrong is found, and what is right passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from moeprof.measure.numerics import judge, judge_stages
from tests.builders import make_run

SETTINGS = replace(make_run().settings, rtol=0.2, atol=0.1, required_matched_ratio=0.85)


@pytest.fixture
def expected() -> torch.Tensor:
    return torch.randn(40, 256, generator=torch.Generator().manual_seed(0)) * 5


def test_the_reference_itself_is_right(expected: torch.Tensor) -> None:
    verdict = judge(expected.bfloat16(), expected, SETTINGS)
    assert verdict.passed and verdict.relative_l2 == 0 and verdict.matched_ratio == 1
    assert verdict.cosine == pytest.approx(1)


def test_an_error_of_known_size_is_read_as_that(expected: torch.Tensor) -> None:
    want = expected.bfloat16().float()
    verdict = judge((want * 1.03125).bfloat16(), want, SETTINGS)
    assert verdict.relative_l2 == pytest.approx(0.03125, rel=0.02) and verdict.passed
    verdict = judge((want * 1.0625).bfloat16(), want, SETTINGS)
    assert not verdict.passed and "relative L2" in (verdict.problem or "")


def test_elements_beyond_both_tolerances_are_counted(expected: torch.Tensor) -> None:
    want = torch.full((10, 100), 2.0)
    got = want.clone()
    got[:, :20] = 3.0  # off by 50 % and by 1
    verdict = judge(got.bfloat16(), want, SETTINGS)
    assert verdict.matched_ratio == pytest.approx(0.8)
    assert not verdict.passed and "80.0%" in (verdict.problem or "")


def test_a_large_relative_error_of_a_small_element_is_let_pass() -> None:
    want = torch.zeros(10, 100)
    verdict = judge(torch.full((10, 100), 0.05).bfloat16(), want, SETTINGS)
    assert verdict.matched_ratio == 1 and not verdict.passed, "but zero rows must be zero"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (torch.zeros(40, 255, dtype=torch.bfloat16), "shape [40, 255], expected [40, 256]"),
        (torch.zeros(40, 256), "float32, expected bfloat16"),
        ("no tensor", "str, expected a tensor"),
        (None, "NoneType, expected a tensor"),
    ],
)
def test_the_wrong_form_is_named(output: object, words: str, expected: torch.Tensor) -> None:
    verdict = judge(output, expected, SETTINGS)
    assert not verdict.passed and words in (verdict.problem or "")


def test_rows_that_were_never_written_are_counted(expected: torch.Tensor) -> None:
    output = expected.bfloat16()
    output[3] = float("nan")
    output[7, 5] = float("inf")
    verdict = judge(output, expected, SETTINGS)
    assert not verdict.passed and "2 of 40 rows" in (verdict.problem or "")


def test_stage_tensors_are_matched_through_the_solutions_own_rows() -> None:
    """Two tokens, two local experts; the solution keeps its rows in another order."""
    from stages.solutions.sglang_v2 import SOLUTION

    ids = torch.tensor([[9, 8, 1], [8, 2, 3]], dtype=torch.int32)  # local experts are 8 and 9
    weights = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.3, 0.2]])
    reference = {
        "topk_ids": ids.flip(1),
        "topk_weights": weights.flip(1),
        "pair_token": torch.tensor([0, 1, 0]),
        "pair_expert": torch.tensor([0, 0, 1]),
        "pair_gemm1": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
    }
    rows = torch.zeros(6, 2)
    rows[4], rows[1], rows[5] = reference["pair_gemm1"]
    tensors = {
        "topk_ids": ids,
        "topk_weights": weights,
        "output_permutation": torch.tensor([5, 4, 0, 1, 2, 3], dtype=torch.int32),
        "gemm1_output": rows.bfloat16(),
    }
    kept = tuple(stage for stage in SOLUTION.stages if stage.name in ("routing", "gemm1"))
    solution = replace(SOLUTION, stages=kept)
    found = {c.tensor: c for c in judge_stages(solution, tensors, reference, 8, 0.04)}
    assert set(found) == {"topk_weights", "gemm1_output"}
    assert found["topk_weights"].relative_l2 == 0 and found["gemm1_output"].relative_l2 == 0
    tensors["gemm1_output"][1] = 0  # the pair (token 1, expert 8)
    found = {c.tensor: c for c in judge_stages(solution, tensors, reference, 8, 0.04)}
    assert found["gemm1_output"].relative_l2 == pytest.approx((25 / 91) ** 0.5)
    assert not found["gemm1_output"].passed
