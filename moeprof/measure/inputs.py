"""The inputs of a forward as tensors: weights once per definition, activations per workload.

    quantised   normal values quantised as a deployment does it: amax/448 scales, outputs of order 3
    harness     FlashInfer-Bench 0.1.2's random tensors: fp8 of clamped normals, normal scales

Every tensor has a generator of its own on the target device, so it depends on (definition, seed,
recipe, name) and, for activations, on the workload, but not on what else is drawn. CPU and GPU
generators differ, as do GPU generations: values are reproducible on one kind of device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from moeprof.contract import BLOCK, E4M3_MAX
from moeprof.definition import Definition, Workload
from moeprof.errors import UsageError, nearest
from moeprof.problem.routing import Routing
from moeprof.problem.seeding import seed_of

RECIPES = ("quantised", "harness")
HARNESS_CLAMP = 2.0
# deviation of a weight times sqrt(K): GEMM1's output then has deviation 2, GEMM2's about 10
GEMM1_GAIN, GEMM2_GAIN = 2.0, 4.0
_TOKENS_AT_ONCE = 2048
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny

_CHUNK_BYTES = 4096
_WORDS = _CHUNK_BYTES // 4
_CHUNKS_AT_ONCE = 8192  # 32 MB of input, 64 MB of products


def make_weights(
    definition: Definition, recipe: str, seed: int, device: torch.device | str
) -> dict[str, Tensor]:
    """The four weight tensors by name, made expert by expert; the same for every workload."""
    _check_recipe(recipe)
    weights: dict[str, Tensor] = {}
    for gemm, gain in (("gemm1", GEMM1_GAIN), ("gemm2", GEMM2_GAIN)):
        name, scale_name = f"{gemm}_weights", f"{gemm}_weights_scale"
        values = _empty(definition, name, 0, device)
        scales = _empty(definition, scale_name, 0, device)
        generator = _generator(device, definition.name, "weights", seed, recipe, name)
        deviation = gain / math.sqrt(values.shape[2])
        for expert in range(values.shape[0]):
            drawn = torch.randn(
                values.shape[1:], generator=generator, device=device, dtype=torch.float32
            )
            if recipe == "harness":
                values[expert] = drawn.clamp_(-HARNESS_CLAMP, HARNESS_CLAMP).to(values.dtype)
            else:
                values[expert], scales[expert] = _quantise(drawn.mul_(deviation), BLOCK)
        if recipe == "harness":
            scale_generator = _generator(
                device, definition.name, "weights", seed, recipe, scale_name
            )
            scales.normal_(generator=scale_generator)
        weights[name], weights[scale_name] = values, scales
    return weights


def make_activations(
    definition: Definition,
    workload: Workload,
    routing: Routing,
    recipe: str,
    seed: int,
    device: torch.device | str,
) -> dict[str, Any]:
    """The other six inputs by name: routing and hidden-state tensors, two Python scalars."""
    _check_recipe(recipe)
    name, scale_name = "hidden_states", "hidden_states_scale"
    values = _empty(definition, name, workload.seq_len, device)
    scales = _empty(definition, scale_name, workload.seq_len, device)
    drawn_for = (definition.name, workload.uuid, seed, recipe)
    generator = _generator(device, *drawn_for, name)
    for first in range(0, workload.seq_len, _TOKENS_AT_ONCE):
        rows = slice(first, min(first + _TOKENS_AT_ONCE, workload.seq_len))
        drawn = torch.randn(
            values[rows].shape, generator=generator, device=device, dtype=torch.float32
        )
        if recipe == "harness":
            values[rows] = drawn.clamp_(-HARNESS_CLAMP, HARNESS_CLAMP).to(values.dtype)
        else:
            values[rows], row_scales = _quantise(drawn, 1)
            scales[:, rows] = row_scales.t()
    if recipe == "harness":
        scales.normal_(generator=_generator(device, *drawn_for, scale_name))
    return {
        "routing_logits": torch.tensor(routing.logits, device=device),
        "routing_bias": torch.tensor(routing.bias, dtype=torch.bfloat16, device=device),
        name: values,
        scale_name: scales,
        "local_expert_offset": workload.local_expert_offset,
        "routed_scaling_factor": workload.routed_scaling_factor,
    }


def _check_recipe(recipe: str) -> None:
    if recipe not in RECIPES:
        raise UsageError(f"unknown weight recipe {recipe!r}", do=nearest(recipe, RECIPES))


def _generator(device: torch.device | str, *drawn_for: str | int) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(seed_of(*drawn_for))


def _empty(definition: Definition, name: str, seq_len: int, device: torch.device | str) -> Tensor:
    spec = next(spec for spec in definition.inputs if spec.name == name)
    dtype = getattr(torch, spec.dtype)
    return torch.empty(definition.shape_of(spec, seq_len), dtype=dtype, device=device)


def _quantise(values: Tensor, block_rows: int) -> tuple[Tensor, Tensor]:
    """e4m3 [N, K] and float32 scales [N / block_rows, K / 128] of float32 ``values`` [N, K]."""
    rows, columns = values.shape
    blocks = values.view(rows // block_rows, block_rows, columns // BLOCK, BLOCK)
    amax = blocks.abs().amax(dim=(1, 3), keepdim=True)
    scales = (amax / E4M3_MAX).clamp_(min=_SMALLEST_SCALE)
    quantised = (blocks / scales).to(torch.float8_e4m3fn)
    return quantised.view(rows, columns), scales[:, 0, :, 0]


def fingerprint(tensor: Tensor) -> Tensor:
    """int64 sums that change when any bit of ``tensor`` does: one per 4 KB, one for the tail.

    Each sum is exact and weights the i-th 32-bit word (tail: byte) of its chunk by i, so a changed
    or a moved word always shows; only several changes in one chunk that cancel would not. Products
    are made 32 MB of tensor at a time.
    """
    raw = tensor.detach().contiguous().view(-1).view(torch.uint8)
    if raw.storage_offset() % 4:
        raw = raw.clone()  # reading it as 32-bit words needs their alignment
    chunks = raw.numel() // _CHUNK_BYTES
    words = raw[: chunks * _CHUNK_BYTES].view(torch.int32).view(chunks, _WORDS)
    weights = torch.arange(1, _CHUNK_BYTES + 1, dtype=torch.int64, device=raw.device)
    sums = torch.empty(chunks + 1, dtype=torch.int64, device=raw.device)
    for first in range(0, chunks, _CHUNKS_AT_ONCE):
        part = slice(first, min(first + _CHUNKS_AT_ONCE, chunks))
        torch.sum(words[part] * weights[:_WORDS], dim=1, out=sums[part])
    tail = raw[chunks * _CHUNK_BYTES :]
    sums[-1] = (tail * weights[: tail.numel()]).sum()
    return sums


def fingerprints(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The fingerprint of each tensor among ``inputs``."""
    return {name: fingerprint(value) for name, value in inputs.items() if isinstance(value, Tensor)}


def changed_inputs(before: Mapping[str, Tensor], inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the inputs that no longer have the fingerprint ``before``."""
    return tuple(
        name for name, known in before.items() if not torch.equal(known, fingerprint(inputs[name]))
    )
