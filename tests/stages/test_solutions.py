"""Every solution end to end on a tiny problem, and proof that the check notices mistakes."""

import importlib
from dataclasses import replace

import pytest
import torch

from moeprof.contract import STEPS, Buffers, ContractError, Solution, check_wiring
from stages.fused.flashinfer import trtllm_moe
from stages.solutions import flashinfer_moe, triton_v2

NAMES = (
    *("reference", "sglang_v1", "sglang_v2", "triton_v1", "triton_v2", "triton_v3"),
    *("cutedsl_v3", "cutedsl_v3_2", "flashinfer_moe"),
)
MAX_RELATIVE_L2 = 0.04  # rounding the intermediate to e4m3 alone costs about 0.026


def solution(name):
    return importlib.import_module(f"stages.solutions.{name}").SOLUTION


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("tokens", "offset"), [(1, 56), (7, 0), (13, 24), (33, 56)])
def test_result(name, tokens, offset, make_problem, naive, run, relative_l2):
    problem = make_problem(tokens, offset)
    output = run(solution(name), problem)["output"]
    assert output.dtype == torch.bfloat16 and tuple(output.shape) == (tokens, 256)
    assert relative_l2(output, naive(problem).output) < MAX_RELATIVE_L2


@pytest.mark.parametrize("name", NAMES)
def test_a_rank_with_empty_experts(name, make_problem, naive, run, relative_l2):
    problem = make_problem(13, 40, banned=(40, 43, 44, 47))
    output = run(solution(name), problem)["output"]
    assert relative_l2(output, naive(problem).output) < MAX_RELATIVE_L2


@pytest.mark.parametrize("name", NAMES)
def test_a_rank_without_any_work(name, make_problem, run):
    problem = make_problem(7, 16, banned=tuple(range(16, 24)))
    assert run(solution(name), problem)["output"].count_nonzero() == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "flashinfer_moe"])
def test_an_offset_between_two_groups(name, make_problem, naive, run, relative_l2):
    problem = make_problem(13, 20)
    output = run(solution(name), problem)["output"]
    assert relative_l2(output, naive(problem).output) < MAX_RELATIVE_L2


@pytest.mark.parametrize("offset", [0, 24, 20])
def test_the_sm100_path(offset, device, make_problem, naive, run, relative_l2):
    if device != "cpu" and flashinfer_moe.ARCHITECTURE != "sm100":
        pytest.skip("the real op needs SM100")
    problem = make_problem(13, offset)
    output = run(Solution("sm100", (trtllm_moe,)), problem)["output"]
    # GEMM1's output is rounded to e4m3 as well
    assert relative_l2(output, naive(problem).output) < 0.06


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_left_alone(name, make_problem, run):
    problem = make_problem(7)
    before = {key: value.clone() for key, value in problem.items() if torch.is_tensor(value)}
    run(solution(name), problem)
    for key, value in before.items():
        assert torch.equal(value.view(torch.uint8), problem[key].view(torch.uint8)), key


@pytest.mark.parametrize(
    "scale", ["hidden_states_scale", "gemm1_weights_scale", "gemm2_weights_scale"]
)
@pytest.mark.parametrize("name", NAMES)
def test_one_wrong_scale_is_noticed(name, scale, make_problem, naive, run, relative_l2):
    """Doubles one scale that a local pair uses; the same check as above must now fail."""
    problem = make_problem(7)
    expected = naive(problem)
    token, expert = expected.pairs[0][:2]
    wrong = {**problem, scale: problem[scale].clone()}
    wrong[scale][(0, token) if scale == "hidden_states_scale" else (expert, 0, 0)] *= 4
    assert relative_l2(run(solution(name), wrong)["output"], expected.output) > MAX_RELATIVE_L2


def test_swapped_halves_are_noticed(make_problem, naive, run, relative_l2):
    """The gate is the second half; taking the first is the likeliest mistake of a backend."""
    problem = make_problem(13, 24)
    swapped = dict(problem)
    for name in ("gemm1_weights", "gemm1_weights_scale"):
        first, second = problem[name].view(torch.uint8).chunk(2, dim=1)
        swapped[name] = torch.cat((second, first), dim=1).view(problem[name].dtype)
    output = run(solution("sglang_v2"), swapped)["output"]
    assert relative_l2(output, naive(problem).output) > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_names_and_steps(name):
    found = solution(name)
    assert found.name == name and found.description
    assert [step for stage in found.stages for step in stage.covers] == list(STEPS)


def test_rows_executed_are_all_pairs_not_local_ones(make_problem, naive, run):
    """The seeds' clamp: T*8 rows run in every step, whatever is local."""
    problem = make_problem(33, 24)
    tensors = run(solution("triton_v2"), problem)
    assert len(naive(problem).pairs) < 33 * 8
    assert tensors["problem_sizes1"][:, 0].sum() == tensors["problem_sizes2"][:, 0].sum() == 264
    for name in ("shuffled_hidden_states", "activated", "gemm2_output"):
        assert tensors[name].shape[0] == 264


def test_kept_buffers_are_used_again_and_fresh_ones_are_not(make_problem, run):
    problem, kept, fresh = make_problem(7), Buffers(keep=True), Buffers(keep=False)
    first, second = run(solution("triton_v2"), problem, kept), None
    address = first["gemm1_output"].data_ptr()
    output = first["output"].clone()
    second = run(solution("triton_v2"), problem, kept)
    assert second["gemm1_output"].data_ptr() == address
    assert torch.equal(second["output"], output)
    first, second = (run(solution("triton_v1"), problem, fresh) for _ in range(2))
    assert first["gemm1_output"].data_ptr() != second["gemm1_output"].data_ptr()


def test_kept_buffers_of_one_shape_do_not_serve_another(make_problem, naive, run, relative_l2):
    kept = Buffers(keep=True)
    for tokens, offset in ((7, 0), (13, 24), (7, 0)):
        problem = make_problem(tokens, offset)
        output = run(solution("triton_v2"), problem, kept)["output"]
        assert relative_l2(output, naive(problem).output) < MAX_RELATIVE_L2


def test_the_workspace_is_the_difference_that_v1_makes():
    options = {s.name: dict(s.options) for s in solution("sglang_v1").stages if s.options}
    assert options == {
        "gemm1": {"workspace_bytes": 1 << 30},
        "gemm2": {"workspace_bytes": 1 << 30},
    }
    assert not any(stage.options for stage in solution("sglang_v2").stages)


def test_a_stage_that_lost_its_producer_is_refused(make_problem):
    broken = replace(triton_v2.SOLUTION, stages=triton_v2.SOLUTION.stages[1:])
    with pytest.raises(ContractError, match="clamped_expert_ids"):
        check_wiring(broken, (*make_problem(1), "output", "buffers"))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "reference"])
def test_twins_are_named_where_there_is_no_gpu(name, device):
    found = solution(name)
    assert found.libraries
    if device == "cpu":
        assert found.stand_ins == found.libraries
