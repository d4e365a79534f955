"""Tensors to ``Correctness``: the output against the reference, and each stage's tensor too.

The output is judged as FlashInfer-Bench's low-bit evaluator does (an element is wrong if both its
absolute and its relative error exceed the tolerance; a share of them may be) and, stricter, by the
relative L2 error. Outputs of random data span orders of magnitude, where the first alone passes
kernels with real defects.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from moeprof.contract import BLOCK, Solution
from moeprof.records import Correctness, Settings, StageCorrectness

CHUNK_ROWS = 2048

# tensor a stage writes -> (names its scale may have, the reference's tensor of the same meaning)
PAIR_TENSORS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "shuffled_hidden_states": (
        ("shuffled_scale", "shuffled_scale_by_expert"),
        "pair_hidden_states",
    ),
    "gemm1_output": ((), "pair_gemm1"),
    "activated": (("activated_scale", "activated_scale_by_expert"), "pair_activated"),
    "gemm2_output": ((), "pair_gemm2"),
}


def failed(problem: str) -> Correctness:
    """The verdict on a solution that produced no output to compare."""
    return Correctness(False, 0.0, 1.0, 0.0, 0.0, problem=problem)


def judge(output: Any, expected: torch.Tensor, settings: Settings) -> Correctness:
    """Compare ``output`` with ``expected`` [T, H] float32, the reference before its cast."""
    problem = _form_problem(output, expected)
    if problem is not None:
        return failed(problem)
    unwritten = _rows_without_number(output)
    if unwritten:
        return failed(
            f"output has NaN or infinity in {unwritten} of {len(output)} rows "
            "(rows never written hold the NaN they were poisoned with)"
        )
    sums = torch.zeros(4, dtype=torch.float64, device=output.device)
    wrong, largest, largest_relative = 0, 0.0, 0.0
    for rows in _chunks(len(output)):
        got, want = output[rows].float(), expected[rows].to(torch.bfloat16).float()
        error = (got - want).abs()
        relative = error / (want.abs() + 1e-8)
        wrong += int(((error > settings.atol) & (relative > settings.rtol)).sum())
        largest = max(largest, float(error.max()))
        largest_relative = max(largest_relative, float(relative.max()))
        terms = (error * error, want * want, got * got, got * want)
        sums += torch.stack([term.sum(dtype=torch.float64) for term in terms])
    error2, want2, got2, dot = sums.tolist()
    matched = 1.0 - wrong / output.numel()
    relative_l2 = math.sqrt(_ratio(error2, want2))
    problem = None
    if matched < settings.required_matched_ratio:
        problem = f"{matched:.1%} of the output matches, {settings.required_matched_ratio:.0%} must"
    elif relative_l2 > settings.max_relative_l2:
        problem = (
            f"relative L2 error {relative_l2:.3g}, at most {settings.max_relative_l2:g} allowed"
        )
    cosine = dot / math.sqrt(want2 * got2) if want2 * got2 > 0 else float(want2 == got2)
    return Correctness(
        problem is None,
        matched,
        relative_l2,
        cosine,
        largest,
        problem=problem,
        max_relative=largest_relative,
    )


def judge_stages(
    solution: Solution,
    tensors: Mapping[str, Any],
    reference: Mapping[str, Any],
    local_expert_offset: int,
    max_relative_l2: float,
) -> tuple[StageCorrectness, ...]:
    """Each stage's tensor against the reference's, over local pairs; stages that expose none are
    left out. Rows are matched through ``topk_ids`` and ``output_permutation``, since the order of
    rows within an expert is free."""
    found = []
    rows, kept = _matching_rows(tensors, reference, local_expert_offset)
    for stage in solution.stages:
        for name in stage.writes:
            if name == "topk_weights" and "topk_ids" in tensors:
                error = _routing_error(tensors, reference)
            elif name in PAIR_TENSORS and rows is not None and kept is not None:
                error = _pair_error(name, tensors, reference, rows, kept)
            else:
                continue
            passed = error <= max_relative_l2
            found.append(StageCorrectness(stage.name, name, error, passed))
    return tuple(found)


def _form_problem(output: Any, expected: torch.Tensor) -> str | None:
    if not isinstance(output, torch.Tensor):
        return f"output is {type(output).__name__}, expected a tensor"
    if output.shape != expected.shape:
        return f"output has shape {list(output.shape)}, expected {list(expected.shape)}"
    if output.dtype != torch.bfloat16:
        return f"output is {str(output.dtype).removeprefix('torch.')}, expected bfloat16"
    if output.device != expected.device:
        return f"output is on {output.device}, expected {expected.device}"
    return None


def _rows_without_number(output: torch.Tensor) -> int:
    return sum(int((~output[rows].isfinite()).any(dim=1).sum()) for rows in _chunks(len(output)))


def _chunks(rows: int) -> Iterator[slice]:
    return (slice(begin, begin + CHUNK_ROWS) for begin in range(0, rows, CHUNK_ROWS))


def _ratio(numerator: float, denominator: float) -> float:
    if denominator > 0:
        return numerator / denominator
    return 0.0 if numerator == 0 else float("1e30")


def _routing_error(tensors: Mapping[str, Any], reference: Mapping[str, Any]) -> float:
    """Relative L2 of the [T, E] matrix of weights: the order of a token's experts is free."""
    experts = int(max(int(tensors["topk_ids"].max()), int(reference["topk_ids"].max()))) + 1

    def dense(source: Mapping[str, Any]) -> torch.Tensor:
        weights = source["topk_weights"].double()
        empty = torch.zeros(len(weights), experts, dtype=torch.float64, device=weights.device)
        return empty.scatter_(1, source["topk_ids"].long(), weights)

    want = dense(reference)
    error = float((dense(tensors) - want).pow(2).sum())
    return math.sqrt(_ratio(error, float(want.pow(2).sum())))


def _matching_rows(
    tensors: Mapping[str, Any], reference: Mapping[str, Any], local_expert_offset: int
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """For each local pair of the reference the solution's row; and which pairs it has at all."""
    if tensors.get("topk_ids") is None or tensors.get("output_permutation") is None:
        return None, None
    token, expert = reference["pair_token"].long(), reference["pair_expert"].long()
    chosen = tensors["topk_ids"][token].long() - local_expert_offset == expert[:, None]
    kept = chosen.any(dim=1).nonzero().squeeze(1)
    slot = token * chosen.shape[1] + chosen.int().argmax(dim=1)
    return tensors["output_permutation"].long()[slot[kept]], kept


def _scales_of(scale: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """[rows, K/128] of scales [M, K/128] or, by expert, [E_l, K/128, M / E_l]."""
    if scale.ndim == 2:
        return scale[rows].float()
    capacity = scale.shape[2]
    return scale[rows // capacity, :, rows % capacity].float()


def _pair_error(
    name: str,
    tensors: Mapping[str, Any],
    reference: Mapping[str, Any],
    rows: torch.Tensor,
    kept: torch.Tensor,
) -> float:
    scale_names, reference_name = PAIR_TENSORS[name]
    scale = next((tensors[n] for n in scale_names if tensors.get(n) is not None), None)
    error = want2 = 0.0
    for part in _chunks(len(rows)):
        got = tensors[name][rows[part]].float()
        if scale is not None:
            got = got * _scales_of(scale, rows[part]).repeat_interleave(BLOCK, dim=1)
        want = reference[reference_name][kept[part]].float()
        error += float((got - want).pow(2).sum(dtype=torch.float64))
        want2 += float(want.pow(2).sum(dtype=torch.float64))
    return math.sqrt(_ratio(error, want2)) if len(rows) else 0.0
