"""Backends with rows by expert, each against its torch form, the reference or another backend."""

import pytest
import torch

from moeprof.contract import Buffers
from stages.gemm import deepgemm
from stages.gemm import triton as gemm_triton
from stages.gemm.by_size import gemm1 as gemm1_by_size
from stages.prepare_moe_input import by_expert as prepare
from stages.routing import reference as routing_reference
from stages.routing import triton as routing_triton
from stages.shuffle_rows import by_expert as shuffle
from stages.solutions.triton_v3 import SOLUTION
from stages.swiglu_quant import by_expert as swiglu
from stages.swiglu_quant.triton import swiglu_quant_torch

ROUNDING = 5e-3  # of two bfloat16 results: the interpreter truncates, where a GPU rounds


@pytest.fixture
def buffers():
    return Buffers(keep=False)


def made_up_counts(experts, capacity, device, seed=0):
    """Counts with an empty expert and a full one."""
    random = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, capacity + 1, (experts,), generator=random, dtype=torch.int32)
    counts[0], counts[1] = 0, capacity
    return counts.to(device)


@pytest.mark.parametrize(("tokens", "experts"), [(1, 64), (9, 64), (5, 256)])
def test_routing_chooses_and_weighs_as_the_reference(device, buffers, tokens, experts):
    random = torch.Generator().manual_seed(experts + tokens)
    logits = torch.randn(tokens, experts, generator=random).to(device)
    bias = (0.2 * torch.randn(experts, generator=random)).bfloat16().to(device)
    weights, ids, local_ids, local_weights = routing_triton.routing(
        logits, bias, 2.5, 8, 8, buffers
    )
    wanted, wanted_ids = routing_reference.routing(logits, bias, 2.5)
    assert torch.equal(ids, wanted_ids)  # in order: random scores have no ties
    torch.testing.assert_close(weights, wanted, rtol=1e-5, atol=0)
    here = (ids >= 8) & (ids < 16)
    assert torch.equal(local_ids, torch.where(here, ids - 8, -1))
    assert torch.equal(local_weights, weights * here)


def test_routing_breaks_ties_by_the_lower_id(device, buffers):
    logits = torch.zeros(2, 64, device=device)
    bias = torch.zeros(64, dtype=torch.bfloat16, device=device)
    _, ids, _, _ = routing_triton.routing(logits, bias, 1.0, 0, 8, buffers)
    assert ids.tolist() == [list(range(8))] * 2


@pytest.mark.parametrize("tokens", [1, 7, 33, 130])
def test_every_local_pair_gets_a_row_of_its_expert(device, buffers, tokens):
    random = torch.Generator().manual_seed(tokens)
    ids = torch.stack([torch.randperm(24, generator=random)[:8] for _ in range(tokens)])
    ids = torch.where(ids < 8, ids, -1).int().to(device)
    counts, slot_to_row = prepare.prepare_moe_input(ids, 8, buffers)
    wanted_counts, wanted = prepare.prepare_by_expert_torch(ids, 8)
    assert torch.equal(counts, wanted_counts)
    assert sorted(slot_to_row.tolist()) == sorted(wanted.tolist())  # ranks in any order
    rows, slots = slot_to_row.long(), ids.flatten().long()
    assert torch.equal(rows >= 0, slots >= 0)
    capacity = prepare.capacity_of(tokens)
    assert torch.equal((rows // capacity)[rows >= 0], slots[slots >= 0])


@pytest.mark.parametrize(("tokens", "width"), [(1, 128), (19, 2176)])
def test_rows_and_scales_arrive_where_the_permutation_says(device, buffers, tokens, width):
    random = torch.Generator().manual_seed(width)
    values = torch.randn(tokens, width, generator=random).to(torch.float8_e4m3fn).to(device)
    scale = torch.rand(width // 128, tokens, generator=random).to(device)
    ids = torch.stack([torch.randperm(12, generator=random)[:8] for _ in range(tokens)])
    _, slot_to_row = prepare.prepare_by_expert_torch(torch.where(ids < 4, ids, -1).to(device), 4)
    rows, row_scale = shuffle.shuffle_rows(values, scale, slot_to_row, 4, buffers)
    capacity = prepare.capacity_of(tokens)
    assert tuple(row_scale.shape) == (4, width // 128, capacity)
    found = 0
    for slot, row in enumerate(slot_to_row.tolist()):
        if row >= 0:
            found += 1
            assert torch.equal(rows[row].view(torch.uint8), values[slot // 8].view(torch.uint8))
            assert torch.equal(row_scale[row // capacity, :, row % capacity], scale[:, slot // 8])
    assert found == int((ids < 4).sum())


@pytest.mark.parametrize("groups", [1, 6])
def test_swiglu_quant_of_owned_rows_only(device, buffers, groups):
    capacity, experts = 16, 3
    random = torch.Generator().manual_seed(groups)
    source = torch.randn(experts * capacity, 2 * groups * 128, generator=random).bfloat16()
    counts = made_up_counts(experts, capacity, device)
    kept = Buffers(keep=True)
    scale = kept.empty(
        "activated_scale_by_expert", (experts, groups, capacity), torch.float32, counts.device
    )
    scale.fill_(-7)
    quantised, scale = swiglu.swiglu_quant(source.to(device), counts, groups * 128, kept)
    wanted, wanted_scale = swiglu_quant_torch(source.to(device))
    for expert, count in enumerate(counts.tolist()):
        rows = slice(expert * capacity, expert * capacity + count)
        torch.testing.assert_close(
            scale[expert, :, :count], wanted_scale[rows].T, rtol=1e-5, atol=0
        )
        assert (scale[expert, :, count:] == -7).all()
        same = quantised[rows].view(torch.uint8) == wanted[rows].view(torch.uint8)
        assert count == 0 or same.float().mean() > 0.995


def grouped(experts, capacity, n, k, device, seed=0):
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(experts * capacity, k, generator=random).to(torch.float8_e4m3fn)
    weights = torch.randn(experts, n, k, generator=random).to(torch.float8_e4m3fn)
    scale = torch.rand(experts, k // 128, capacity, generator=random) + 0.1
    weights_scale = torch.rand(experts, n // 128, k // 128, generator=random) + 0.1
    return tuple(tensor.to(device) for tensor in (rows, scale, weights, weights_scale))


@pytest.mark.parametrize(("capacity", "seq_len"), [(16, 7), (32, 32), (128, 900)])
def test_streamed_weights_give_deepgemms_product(device, capacity, seq_len, relative_l2):
    """Triton's kernel and DeepGEMM (its twin on a CPU) on the same rows; tiles of 16, 16 and 64."""
    experts, n, k = 3, 256, 384
    operands = grouped(experts, capacity, n, k, device)
    counts = made_up_counts(experts, capacity, device)
    kept = Buffers(keep=True)
    kept.empty("out", (experts * capacity, n), torch.bfloat16, counts.device).fill_(-7)
    streamed = gemm_triton.stream_weights("out", *operands, counts, seq_len, kept)
    tiled = deepgemm.masked_product("other", *operands, counts, 8, Buffers(keep=False))
    for expert, count in enumerate(counts.tolist()):
        rows = slice(expert * capacity, expert * capacity + count)
        if count:
            assert relative_l2(streamed[rows], tiled[rows].cpu()) < ROUNDING
        assert (streamed[expert * capacity + count : (expert + 1) * capacity] == -7).all()


def test_the_backend_changes_with_the_number_of_tokens(make_problem, run, relative_l2):
    """From ``many_tokens`` on DeepGEMM multiplies; the result is the same."""
    problem = make_problem(13, 24)
    few = run(SOLUTION, problem)
    position = next(i for i, s in enumerate(SOLUTION.stages) if s.name == "gemm1")
    many = run(SOLUTION.with_stage(position, gemm1_by_size.with_options(many_tokens=1)), problem)
    rows, other_rows = (found["output_permutation"].long() for found in (few, many))
    got, wanted = few["gemm1_output"][rows[rows >= 0]], many["gemm1_output"][other_rows[rows >= 0]]
    assert 0 < relative_l2(got, wanted.cpu()) < ROUNDING


def test_tiles_fit_into_the_capacity():
    for tokens in (1, 15, 16, 17, 128, 129, 900, 901, 1024, 14107):
        capacity = prepare.capacity_of(tokens)
        assert capacity >= tokens and capacity % gemm_triton.tile_of_rows(tokens) == 0


@pytest.mark.parametrize("options", [{"weight_rows": 128}, {"steps_in_flight": 2}])
def test_tiles_change_no_result(device, make_problem, run, options):
    problem = make_problem(13, 24)
    streamed = gemm_triton.gemm1
    position = next(i for i, s in enumerate(SOLUTION.stages) if s.name == "gemm1")
    outputs = [
        run(SOLUTION.with_stage(position, stage), problem)["output"]
        for stage in (streamed, streamed.with_options(**options))
    ]
    assert torch.equal(*outputs)
