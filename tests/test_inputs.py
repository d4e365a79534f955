"""Input tensors: types, statistics, seeds, FlashInfer-Bench's recipe, and fingerprints."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moeprof.errors import UsageError
from moeprof.measure.inputs import (
    RECIPES,
    changed_inputs,
    fingerprint,
    fingerprints,
    make_activations,
    make_weights,
)
from moeprof.problem.dataset import Dataset, custom_workload, own_root
from moeprof.problem.routing import make_routing, parse_spec, select

TINY = Dataset(own_root()).definition("tiny")
WORKLOAD = custom_workload(TINY, 70, 40)
ROUTING = make_routing(parse_spec("uniform"), TINY, WORKLOAD, 0)


def make(recipe: str = "quantised", seed: int = 0, tokens: int = 70) -> dict[str, Any]:
    workload = custom_workload(TINY, tokens, 40)
    routing = make_routing(parse_spec("uniform"), TINY, workload, seed)
    weights = make_weights(TINY, recipe, seed, "cpu")
    return weights | make_activations(TINY, workload, routing, recipe, seed, "cpu")


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@pytest.mark.parametrize("recipe", RECIPES)
def test_inputs_are_what_the_definition_asks_for(recipe: str) -> None:
    made = make(recipe)
    assert set(made) == {spec.name for spec in TINY.inputs}
    for spec in TINY.inputs:
        value = made[spec.name]
        if spec.shape is None:
            assert type(value) is {"int32": int, "float32": float}[spec.dtype]
        else:
            assert tuple(value.shape) == TINY.shape_of(spec, 70)
            assert value.dtype == getattr(torch, spec.dtype)
            assert value.is_contiguous()
            assert torch.isfinite(value.float()).all()
    assert made["local_expert_offset"] == 40
    assert made["routed_scaling_factor"] == 2.5


def test_routing_reaches_the_tensors_unchanged() -> None:
    made = make_activations(TINY, WORKLOAD, ROUTING, "quantised", 0, "cpu")
    assert torch.equal(made["routing_logits"], torch.from_numpy(ROUTING.logits))
    assert torch.equal(made["routing_bias"].float(), torch.from_numpy(ROUTING.bias))
    made["routing_logits"].zero_()
    assert ROUTING.logits.any()  # a solution that writes its inputs cannot reach the routing


def dequantised(values: Tensor, scales: Tensor, rows: int) -> Tensor:
    expanded = scales.repeat_interleave(rows, -2).repeat_interleave(128, -1)
    return values.float() * expanded


def test_quantised_blocks_use_the_whole_range() -> None:
    """Every block's largest magnitude is e4m3's largest: the scale is amax / 448."""
    made = make()
    weights = made["gemm1_weights"].float().view(8, 4, 128, 2, 128)
    assert torch.equal(weights.abs().amax(dim=(2, 4)), torch.full((8, 4, 2), 448.0))
    activations = made["hidden_states"].float().view(70, 2, 128)
    assert torch.equal(activations.abs().amax(dim=2), torch.full((70, 2), 448.0))
    for name in ("gemm1_weights_scale", "gemm2_weights_scale", "hidden_states_scale"):
        assert (made[name] > 0).all()


def test_quantised_values_have_the_stated_deviations() -> None:
    made = make(tokens=400)
    x = dequantised(made["hidden_states"], made["hidden_states_scale"].t(), 1)
    w1 = dequantised(made["gemm1_weights"], made["gemm1_weights_scale"], 128)
    w2 = dequantised(made["gemm2_weights"], made["gemm2_weights_scale"], 128)
    assert x.std().item() == pytest.approx(1, rel=0.02)
    assert w1.std().item() == pytest.approx(2 / 16, rel=0.02)
    assert w2.std().item() == pytest.approx(4 / 16, rel=0.02)
    assert (x @ w1[3].t()).std().item() == pytest.approx(2, rel=0.05)


def test_quantising_is_as_close_as_e4m3_allows() -> None:
    """Against the same normals unquantised: the relative L2 error of e4m3 is about 0.026."""
    from moeprof.measure.inputs import _quantise

    normals = torch.randn(256, 384, generator=torch.Generator().manual_seed(1))
    for rows in (1, 128):
        values, scales = _quantise(normals, rows)
        assert scales.shape == (256 // rows, 3)
        error = (dequantised(values, scales, rows) - normals).norm() / normals.norm()
        assert 0.02 < error < 0.03
    zeros, scales = _quantise(torch.zeros(128, 128), 128)
    assert not zeros.float().any() and torch.isfinite(scales).all()


def test_outputs_are_of_order_a_few() -> None:
    namespace: dict[str, Any] = {}
    exec(TINY.reference, namespace)
    made = make()
    ids, _ = select(ROUTING.logits, ROUTING.bias, 2.5)
    local = ((ids >= 40) & (ids < 48)).any(axis=1)
    output = namespace["run"](**made).float()[torch.from_numpy(local)]
    assert 2 < output.std() < 8


def test_harness_tensors_are_those_of_flashinfer_bench() -> None:
    """Same values where FlashInfer-Bench's function is given the same generator state."""
    from flashinfer_bench.bench.utils import _rand_tensor

    from moeprof.measure.inputs import _generator

    made = make_activations(TINY, WORKLOAD, ROUTING, "harness", 0, "cpu")
    for name in ("hidden_states", "hidden_states_scale"):
        generator = _generator("cpu", TINY.name, WORKLOAD.uuid, 0, "harness", name)
        with torch.random.fork_rng():
            torch.set_rng_state(generator.get_state())
            theirs = _rand_tensor(list(made[name].shape), made[name].dtype, torch.device("cpu"))
        assert same(made[name], theirs)
    weights = make_weights(TINY, "harness", 0, "cpu")
    for name in ("gemm1_weights", "gemm2_weights_scale"):
        generator = _generator("cpu", TINY.name, "weights", 0, "harness", name)
        shape = weights[name].shape if name.endswith("scale") else weights[name].shape[1:]
        with torch.random.fork_rng():
            torch.set_rng_state(generator.get_state())
            theirs = _rand_tensor(list(shape), weights[name].dtype, torch.device("cpu"))
        assert same(weights[name] if name.endswith("scale") else weights[name][0], theirs)
    assert weights["gemm1_weights"].float().abs().max() == 2
    assert (weights["gemm1_weights_scale"] < 0).any()


@pytest.mark.parametrize("recipe", RECIPES)
def test_seeds(recipe: str) -> None:
    first, again, other = make(recipe), make(recipe), make(recipe, seed=1)
    tensors = [name for name, value in first.items() if isinstance(value, Tensor)]
    assert len(tensors) == 8
    for name in tensors:
        assert same(first[name], again[name])
        assert not same(first[name], other[name])
    assert not same(first["gemm1_weights"][0], first["gemm1_weights"][1])


def test_nothing_depends_on_the_global_generator() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(make()["hidden_states"], first["hidden_states"])


def test_activations_depend_on_the_workload() -> None:
    elsewhere = custom_workload(TINY, 70, 8)
    routing = make_routing(parse_spec("uniform"), TINY, elsewhere, 0)
    a = make_activations(TINY, WORKLOAD, ROUTING, "quantised", 0, "cpu")
    b = make_activations(TINY, elsewhere, routing, "quantised", 0, "cpu")
    assert not same(a["hidden_states"], b["hidden_states"])


def test_more_tokens_than_are_made_at_once() -> None:
    made = make("quantised", tokens=2048 + 3)
    x = dequantised(made["hidden_states"], made["hidden_states_scale"].t(), 1)
    assert x[2048:].std().item() == pytest.approx(1, rel=0.1)
    assert not torch.equal(x[2048:], x[:3])


def test_unknown_recipe() -> None:
    with pytest.raises(UsageError, match="did you mean quantised"):
        make_weights(TINY, "quantized", 0, "cpu")
    with pytest.raises(UsageError, match="harness"):
        make_activations(TINY, WORKLOAD, ROUTING, "harnes", 0, "cpu")


# --- fingerprints ---

sizes = st.sampled_from([1, 3, 4, 5, 1023, 4095, 4096, 4097, 12_288, 20_001])


@given(sizes, st.data())
@settings(max_examples=150, deadline=None)
def test_any_changed_bit_shows(size: int, data: st.DataObject) -> None:
    raw = torch.randint(0, 256, (size,), dtype=torch.uint8)
    before = fingerprint(raw)
    position = data.draw(st.integers(0, size - 1))
    bit = data.draw(st.integers(0, 7))
    raw[position] ^= 1 << bit
    after = fingerprint(raw)
    assert (before != after).sum() == 1  # and only the sum of its own chunk
    raw[position] ^= 1 << bit
    assert torch.equal(fingerprint(raw), before)


@given(st.integers(0, 3071), st.integers(0, 3071), st.sampled_from([torch.float32, torch.bfloat16]))
@settings(max_examples=100, deadline=None)
def test_swapped_values_show(i: int, j: int, dtype: torch.dtype) -> None:
    values = torch.arange(1, 3073, dtype=torch.float32).to(dtype)
    swapped = values.clone()
    swapped[i], swapped[j] = values[j], values[i]
    assert torch.equal(fingerprint(values), fingerprint(swapped)) == torch.equal(values, swapped)


def test_a_flipped_sign_of_zero_and_another_nan_show() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float8_e4m3fn):
        zero = torch.zeros(64, dtype=dtype)
        negative = zero.clone()
        negative.view(torch.uint8)[-1] = 0x80
        assert not torch.equal(fingerprint(zero), fingerprint(negative))
        not_a_number = torch.full((64,), float("nan")).to(dtype)
        assert torch.equal(fingerprint(not_a_number), fingerprint(not_a_number.clone()))


def test_views_have_the_fingerprint_of_their_values() -> None:
    base = torch.randn(40, 70)
    assert torch.equal(fingerprint(base.t()), fingerprint(base.t().contiguous()))
    raw = torch.randint(0, 256, (9000,), dtype=torch.uint8)
    assert torch.equal(fingerprint(raw[1:8500]), fingerprint(raw[1:8500].clone()))  # unaligned


def test_more_than_one_slab() -> None:
    """36 MB: an error in any slab shows in its own sum."""
    values = torch.zeros(9 * 1024 * 1024, dtype=torch.int32)
    before = fingerprint(values)
    assert before.numel() == 9 * 1024 + 1
    for position in (0, 8 * 1024 * 1024 - 1, 8 * 1024 * 1024, values.numel() - 1):
        values[position] = 1
        assert torch.nonzero(fingerprint(values) != before).flatten().tolist() == [position // 1024]
        values[position] = 0


def test_changed_inputs_are_named() -> None:
    made = make()
    before = fingerprints(made)
    assert set(before) == {name for name, value in made.items() if isinstance(value, Tensor)}
    assert changed_inputs(before, made) == ()
    made["hidden_states"].view(torch.uint8)[69, 255] ^= 0x80
    made["routing_bias"].neg_()
    assert set(changed_inputs(before, made)) == {"hidden_states", "routing_bias"}


@pytest.mark.gpu
def test_real_inputs_on_a_gpu() -> None:
    """1.4 GB of weights: made without an 8x temporary, fingerprinted in a few milliseconds."""
    real = Dataset(own_root()).definition("dsv3")
    torch.cuda.reset_peak_memory_stats()
    weights = make_weights(real, "quantised", 0, "cuda")
    held = sum(value.nbytes for value in weights.values())
    assert torch.cuda.max_memory_allocated() < held + 1_000_000_000
    before = fingerprints(weights)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.reset_peak_memory_stats()
    begin.record()
    fingerprints(weights)
    end.record()
    end.synchronize()
    assert begin.elapsed_time(end) < 50
    assert torch.cuda.max_memory_allocated() < held + 500_000_000
    weights["gemm2_weights"].view(torch.uint8)[31, 7167, 2047] ^= 1
    assert changed_inputs(before, weights) == ("gemm2_weights",)
