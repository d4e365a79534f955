"""Backends with flat, aligned rows, each against its torch form or another backend."""

import pytest
import torch

from moeprof.contract import Buffers
from stages.block_scale import dequantise_rows, dequantise_weight
from stages.libraries import cutedsl_twin
from stages.prepare_moe_input import aligned as prepare
from stages.shuffle_rows import aligned as shuffle
from stages.swiglu_quant import aligned as swiglu
from stages.swiglu_quant.triton import swiglu_quant_torch

MARK = -7


@pytest.fixture
def buffers():
    return Buffers(keep=False)


def some_ids(tokens, local, device, experts=24):
    """[T, 8] local ids, -1 for the experts of other ranks; the last local expert is empty."""
    random = torch.Generator().manual_seed(tokens)
    ids = torch.stack([torch.randperm(experts, generator=random)[:8] for _ in range(tokens)])
    return torch.where(ids < local - 1, ids, -1).int().to(device)


@pytest.mark.parametrize("tokens", [1, 7, 64, 65, 130, 600])
def test_rows_are_placed_in_order_and_padding_is_marked(device, buffers, tokens):
    """64 tokens are one piece of pairs, 65 are two."""
    ids = some_ids(tokens, 8, device)
    found = prepare.prepare_moe_input(ids, 8, buffers)
    wanted = prepare.prepare_aligned_torch(ids, 8)
    end = int(wanted[1][-1])
    for name, got, want in zip(prepare.prepare_moe_input.writes, found, wanted, strict=True):
        rows = end if name == "row_token" else None
        assert torch.equal(got[:rows], want[:rows]), name


def test_the_torch_form_is_an_aligned_layout():
    ids = some_ids(130, 8, "cpu")
    counts, indptr, row_token, slot_to_row = prepare.prepare_aligned_torch(ids, 8)
    assert counts.tolist() == torch.bincount(ids[ids >= 0], minlength=8).tolist()
    assert counts.max() > 0 and counts[7] == 0 and indptr[8] == indptr[7]
    assert all(start % 128 == 0 for start in indptr.tolist())
    for expert, count in enumerate(counts.tolist()):
        own = row_token[indptr[expert] : indptr[expert + 1]]
        tokens = (ids == expert).any(dim=1).nonzero().squeeze(1)
        assert own[:count].tolist() == tokens.tolist() and own[count:].eq(-1).all()
    slots = (slot_to_row >= 0).nonzero().squeeze(1)
    assert torch.equal(slots, (ids.flatten() >= 0).nonzero().squeeze(1))
    assert torch.equal(row_token[slot_to_row[slots].long()].long(), slots // 8)


@pytest.mark.parametrize(("experts", "pairs"), [(32, 8), (32, 64), (8, 4096), (1, 1)])
def test_any_routing_fits_in_the_capacity(experts, pairs):
    capacity = prepare.capacity_of(pairs, experts)
    busy = min(pairs, experts)  # one pair each but for one expert, which has all the others
    worst = 128 * (busy - 1) + -(-(pairs - busy + 1) // 128) * 128
    assert worst <= capacity < worst + 128


@pytest.mark.parametrize(("tokens", "width"), [(1, 128), (19, 2176), (7, 7168)])
def test_rows_and_scales_are_copied_to_rows_that_hold_a_pair(device, tokens, width):
    random = torch.Generator().manual_seed(width)
    values = torch.randn(tokens, width, generator=random).to(torch.float8_e4m3fn).to(device)
    scale = torch.rand(width // 128, tokens, generator=random).to(device)
    counts, indptr, row_token, _ = prepare.prepare_aligned_torch(some_ids(tokens, 8, device), 8)
    kept = Buffers(keep=True)
    rows = row_token.shape[0]
    kept.empty("shuffled_hidden_states", (rows, width), torch.float8_e4m3fn, values.device).view(
        torch.uint8
    ).fill_(0x7F)
    kept.empty("shuffled_scale", (rows, width // 128), torch.float32, values.device).fill_(MARK)
    got, got_scale = shuffle.shuffle_rows(values, scale, row_token, indptr, counts, kept)
    wanted, wanted_scale = shuffle.copy_rows_torch(values, scale, row_token)
    owned = row_token >= 0
    assert 0 < owned.sum() < rows
    assert torch.equal(got.view(torch.uint8)[owned], wanted.view(torch.uint8)[owned])
    assert torch.equal(got_scale[owned], wanted_scale[owned])
    assert got.view(torch.uint8)[~owned].eq(0x7F).all() and got_scale[~owned].eq(MARK).all()


@pytest.mark.parametrize("groups", [1, 6, 16])
def test_swiglu_quant_of_rows_that_hold_a_pair(device, groups):
    counts, indptr, row_token, _ = prepare.prepare_aligned_torch(some_ids(5, 8, device), 8)
    rows, random = row_token.shape[0], torch.Generator().manual_seed(groups)
    source = torch.randn(rows, 2 * groups * 128, generator=random).bfloat16().to(device)
    kept = Buffers(keep=True)
    kept.empty("activated_scale", (rows, groups), torch.float32, counts.device).fill_(MARK)
    quantised, scale = swiglu.swiglu_quant(source, row_token, indptr, counts, groups * 128, kept)
    wanted, wanted_scale = swiglu_quant_torch(source)
    owned = row_token >= 0
    torch.testing.assert_close(scale[owned], wanted_scale[owned], rtol=1e-5, atol=0)
    assert scale[~owned].eq(MARK).all()
    same = quantised.view(torch.uint8)[owned] == wanted.view(torch.uint8)[owned]
    assert same.float().mean() > 0.995


def test_more_rows_than_programs(device, monkeypatch, buffers):
    """Every program walks several rows."""
    monkeypatch.setattr(shuffle, "MOST_PROGRAMS", 3)
    monkeypatch.setattr(swiglu, "MOST_PROGRAMS", 3)
    random = torch.Generator().manual_seed(0)
    values = torch.randn(9, 256, generator=random).to(torch.float8_e4m3fn).to(device)
    scale = torch.rand(2, 9, generator=random).to(device)
    counts, indptr, row_token, _ = prepare.prepare_aligned_torch(some_ids(9, 4, device), 4)
    owned = row_token >= 0
    got, _ = shuffle.shuffle_rows(values, scale, row_token, indptr, counts, buffers)
    wanted, _ = shuffle.copy_rows_torch(values, scale, row_token)
    assert torch.equal(got.view(torch.uint8)[owned], wanted.view(torch.uint8)[owned])
    source = torch.randn(row_token.shape[0], 256, generator=random).bfloat16().to(device)
    _, scale = swiglu.swiglu_quant(source, row_token, indptr, counts, 128, buffers)
    _, wanted_scale = swiglu_quant_torch(source)
    torch.testing.assert_close(scale[owned], wanted_scale[owned], rtol=1e-5, atol=0)


def test_the_twin_multiplies_each_experts_rows_and_leaves_nan_in_padding(relative_l2):
    random = torch.Generator().manual_seed(0)
    counts, indptr = torch.tensor([3, 0, 130]).int(), torch.tensor([0, 128, 128, 384]).int()
    rows = torch.randn(512, 256, generator=random).to(torch.float8_e4m3fn)
    weights = torch.randn(3, 512, 256, generator=random).to(torch.float8_e4m3fn)
    row_scale = torch.rand(512, 2, generator=random)
    weights_scale = torch.rand(3, 4, 2, generator=random)
    operands = (rows, row_scale, weights, weights_scale, indptr, counts)
    output = torch.full((512, 512), float(MARK), dtype=torch.bfloat16)
    cutedsl_twin.grouped_gemm(*operands, output)
    owned = torch.cat((torch.arange(3), torch.arange(128, 258)))
    wanted = dequantise_rows(rows[owned], row_scale[owned])
    wanted = torch.cat(
        [
            wanted[:3] @ dequantise_weight(weights[0], weights_scale[0]).T,
            wanted[3:] @ dequantise_weight(weights[2], weights_scale[2]).T,
        ]
    )
    assert relative_l2(output[owned], wanted) < 3e-3
    padding = torch.ones(384, dtype=torch.bool)
    padding[owned] = False
    assert output[:384][padding].isnan().all() and output[384:].eq(MARK).all()

    activated = torch.empty(512, 256, dtype=torch.float8_e4m3fn)
    scale = torch.empty(512, 2)
    cutedsl_twin.grouped_gemm_swiglu_quant(*operands, activated, scale)
    up, gate = wanted.chunk(2, dim=1)
    product = up * torch.nn.functional.silu(gate)
    found = dequantise_rows(activated[owned], scale[owned])
    assert 0.005 < relative_l2(found, product) < 0.04
    with pytest.raises(ValueError, match="multiples of 128"):
        cutedsl_twin.grouped_gemm(*operands[:4], indptr + 64, counts, output)
