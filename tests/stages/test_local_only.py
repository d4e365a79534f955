"""The exact repair of the clamp: same output from local pairs only, and honest row counts."""

import importlib
from dataclasses import replace

import pytest
import torch

from moeprof.contract import Buffers, leading_rows, problem_rows, stage
from moeprof.measure.work import executed_work
from moeprof.records import RoutingIdentity
from stages.swiglu_quant import triton as swiglu_triton

CLAMPING = ("sglang_v1", "sglang_v2", "triton_v1", "triton_v2")
OPTIONS = ("workspace_bytes", "per_call_views")


def solution(name, **options):
    """A solution with options set in every stage that has them."""
    found = importlib.import_module(f"stages.solutions.{name}").SOLUTION
    stages = tuple(
        one.with_options(**{k: v for k, v in options.items() if k in one.option_names})
        for one in found.stages
    )
    return replace(found, stages=stages)


def bits(tensor):
    return tensor.view(torch.int16)


@pytest.mark.parametrize("name", CLAMPING)
@pytest.mark.parametrize(("tokens", "offset"), [(1, 56), (7, 0), (13, 24), (33, 56)])
def test_the_output_keeps_every_bit(name, tokens, offset, make_problem, run):
    problem = make_problem(tokens, offset)
    clamped = run(solution(name), problem)["output"]
    assert torch.equal(bits(run(solution(name, local_only=True), problem)["output"]), bits(clamped))


@pytest.mark.parametrize("name", CLAMPING)
def test_empty_experts_and_memory_that_holds_no_numbers(name, make_problem, run):
    """The first and last expert of the rank are empty: the clamp fills just these two."""
    problem = make_problem(13, 40, banned=(40, 43, 44, 47))
    clamped = run(solution(name), problem)["output"]
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills fresh memory with NaN
    try:
        dropped = run(solution(name, local_only=True), problem)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(bits(dropped["output"]), bits(clamped))
    counts = dropped["problem_sizes1"][:, 0]
    assert counts[[0, 3, 4, 7]].eq(0).all() and 0 < counts.sum() < 13 * 8
    assert dropped["gemm1_output"][int(counts.sum()) :].isnan().all()


@pytest.mark.parametrize("name", CLAMPING)
def test_kept_buffers_do_not_carry_rows_from_one_call_to_the_next(name, make_problem, run):
    kept = Buffers(keep=True)
    for offset in (0, 24, 40):
        problem = make_problem(13, offset)
        dropped = run(solution(name, local_only=True), problem, kept)["output"]
        assert torch.equal(bits(dropped), bits(run(solution(name), problem)["output"]))


def test_a_rank_without_any_work(make_problem, run):
    """Triton's gather reads no row for such a slot; sgl's must, and row 0 is no one's here."""
    problem = make_problem(7, 16, banned=tuple(range(16, 24)))
    assert run(solution("triton_v2", local_only=True), problem)["output"].count_nonzero() == 0


def executed(name, problem, run, **options):
    """Rows executed by stage, as a record has them."""
    chosen = solution(name, **options)
    tensors = run(chosen, problem)
    local = (tensors["topk_ids"] // 8 == problem["local_expert_offset"] // 8).sum()
    counts = torch.bincount(tensors["topk_ids"].flatten().long(), minlength=64)
    offset = problem["local_expert_offset"]
    counts = tuple(counts[offset : offset + 8].tolist())
    active = sum(count > 0 for count in counts)
    routing = RoutingIdentity("made", "made", 0, "", int(local), active, 0, counts)
    constants = {key: value for key, value in problem.items() if type(value) is int}
    return {
        one.name: executed_work(one, tensors, constants, routing).rows for one in chosen.stages
    }, int(local)


def test_rows_are_counted_as_they_run(make_problem, run):
    problem, whole = make_problem(33, 24), 33 * 8
    steps = ("shuffle_rows", "gemm1", "swiglu_quant", "gemm2", "gather")
    for name in ("sglang_v2", "triton_v2"):
        rows, local = executed(name, problem, run)
        assert 0 < local < whole
        assert [rows[step] for step in steps] == [whole] * 5
    rows, _ = executed("triton_v2", problem, run, local_only=True)
    assert [rows[step] for step in steps] == [local] * 5
    # sgl's copies and sums have no bound on the device: they go on over all T*8 rows
    rows, _ = executed("sglang_v2", problem, run, local_only=True)
    assert [rows[step] for step in steps] == [whole, local, whole, local, whole]
    rows, _ = executed("triton_v1", problem, run, local_only=True)
    assert [rows[step] for step in steps] == [whole, local, local, local, whole]


def test_rows_are_counted_by_expert(make_problem, run):
    """Clamped: ids below the rank's experts run on the first, those above on the last."""
    problem = make_problem(33, 24)
    for local_only in (False, True):
        chosen = solution("triton_v2", local_only=local_only)
        tensors = run(chosen, problem)
        ids = tensors["topk_ids"].flatten().long() - 24
        ids = ids[(ids >= 0) & (ids < 8)] if local_only else ids.clamp(0, 7)
        expected = tuple(torch.bincount(ids, minlength=8).tolist())
        constants = {key: value for key, value in problem.items() if type(value) is int}
        routing = RoutingIdentity("made", "made", 0, "", 0, 0, 0, (0,) * 8)
        found = {
            one.name: executed_work(one, tensors, constants, routing).rows_per_expert
            for one in chosen.stages
        }
        assert found["gemm1"] == found["gemm2"] == expected
        assert found["routing"] is None


def test_swiglu_leaves_rows_that_no_expert_owns_alone(device):
    source = torch.randn(9, 512).bfloat16().to(device)
    offsets = torch.tensor([0, 2, 2, 5], dtype=torch.int32, device=device)
    kept = Buffers(keep=True)
    bounded = swiglu_triton.swiglu_quant.with_options(local_only=True)
    whole = [t.clone() for t in swiglu_triton.swiglu_quant(source, 256, kept, offsets)]
    for tensor in swiglu_triton.swiglu_quant(source, 256, kept, offsets):
        tensor.view(torch.uint8).fill_(0x7F)
    found = bounded(source, 256, kept, offsets)
    for got, want in zip(found, whole, strict=True):
        assert torch.equal(got[:5].view(torch.uint8), want[:5].view(torch.uint8))
        assert got[5:].contiguous().view(torch.uint8).eq(0x7F).all()


@pytest.mark.parametrize("name", ["sglang_v2", "triton_v2"])
def test_views_made_once_change_nothing_and_are_made_once(name, make_problem, run):
    problem, buffers = make_problem(7), Buffers(keep=False)
    chosen = solution(name, per_call_views=False)
    expected = run(solution(name), problem)["output"]
    for _ in range(2):
        assert torch.equal(bits(run(chosen, problem, buffers)["output"]), bits(expected))
    made = []
    for _ in range(2):
        made.append(buffers.once("weights_view", problem["gemm1_weights"], lambda _: None))
    assert made[0] is made[1] is not None
    other = problem["gemm1_weights"].clone()
    assert buffers.once("weights_view", other, lambda source: source) is other


def test_an_option_may_change_what_counts_as_rows():
    @stage(writes="x", rows=leading_rows("x"), rows_if={"bounded": problem_rows("sizes")})
    def made(*, bounded=False):
        return None

    assert made.rows_run == leading_rows("x")
    assert made.with_options(bounded=True).rows_run == problem_rows("sizes")
    assert made.with_options(bounded=True).with_options(bounded=False).rows_run == made.rows
