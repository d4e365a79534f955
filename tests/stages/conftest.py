"""A tiny problem, the operation written out in float64, and a runner: shared by tests of stages.

Triton decides at ``@triton.jit`` whether it interprets, so the interpreter comes on here, before
any test module of this folder imports a stage.
"""

from moeprof.machine.interpreter import enable

INTERPRETED = enable()

import math  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from moeprof.contract import Buffers, Solution, check_wiring  # noqa: E402

EXPERTS, LOCAL_EXPERTS, HIDDEN, INTERMEDIATE = 64, 8, 256, 256
SCALING = 2.5
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.fixture(scope="session")
def device() -> str:
    """Where stages run: the CPU with interpreted kernels and twins, or a GPU with the real ops."""
    return DEVICE


@pytest.fixture(scope="session", autouse=True)
def few_programs() -> None:
    """An interpreted program costs milliseconds even if it finds no row: fewer walk the rows."""
    if INTERPRETED:
        from stages.shuffle_rows import aligned as shuffle
        from stages.swiglu_quant import aligned as swiglu

        shuffle.MOST_PROGRAMS = swiglu.MOST_PROGRAMS = 24


def quantise(values: torch.Tensor, block: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """[..., M, K] -> e4m3 and amax/448 scales [..., M/block0, K/block1]."""
    rows, columns = (values.shape[-2] // block[0], values.shape[-1] // block[1])
    tiles = values.reshape(*values.shape[:-2], rows, block[0], columns, block[1])
    scale = tiles.abs().amax(dim=(-3, -1)) / 448
    quantised = (tiles / scale[..., :, None, :, None]).clamp(-448, 448)
    return quantised.reshape(values.shape).to(torch.float8_e4m3fn), scale


def make_problem(
    tokens: int, offset: int = 0, seed: int = 0, banned: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Named inputs of a small operation. banned: experts that no token may choose."""
    random = torch.Generator().manual_seed(seed + 1000 * tokens + offset)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    def uneven(tensor: torch.Tensor, edges: tuple[int, int]) -> torch.Tensor:
        """Blocks of very different size, so that a scale at the wrong place shows."""
        blocks = (tensor.shape[-2] // edges[0], tensor.shape[-1] // edges[1])
        sizes = torch.exp(0.5 * normal(*tensor.shape[:-2], *blocks))
        return tensor * sizes.repeat_interleave(edges[0], -2).repeat_interleave(edges[1], -1)

    bias = 0.2 * normal(EXPERTS)
    bias[list(banned)] = -10
    hidden, hidden_scale = quantise(uneven(normal(tokens, HIDDEN), (1, 128)), (1, 128))
    block = (128, 128)
    first = normal(LOCAL_EXPERTS, 2 * INTERMEDIATE, HIDDEN) / math.sqrt(HIDDEN)
    second = normal(LOCAL_EXPERTS, HIDDEN, INTERMEDIATE) / math.sqrt(INTERMEDIATE)
    first, first_scale = quantise(uneven(first, block), block)
    second, second_scale = quantise(uneven(second, block), block)
    tensors = {
        "routing_logits": normal(tokens, EXPERTS),
        "routing_bias": bias.to(torch.bfloat16),
        "hidden_states": hidden,
        "hidden_states_scale": hidden_scale.T.contiguous(),
        "gemm1_weights": first,
        "gemm1_weights_scale": first_scale,
        "gemm2_weights": second,
        "gemm2_weights_scale": second_scale,
    }
    return {name: tensor.to(DEVICE) for name, tensor in tensors.items()} | {
        "local_expert_offset": offset,
        "routed_scaling_factor": SCALING,
        "seq_len": tokens,
        "num_experts": EXPERTS,
        "num_local_experts": LOCAL_EXPERTS,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "gemm1_out_size": 2 * INTERMEDIATE,
        "num_hidden_blocks": HIDDEN // 128,
        "num_intermediate_blocks": INTERMEDIATE // 128,
        "num_gemm1_out_blocks": 2 * INTERMEDIATE // 128,
    }


@dataclass(frozen=True)
class Naive:
    """The operation in float64, one token and one expert at a time. Pairs are sorted by
    (local expert, token) and hold (token, expert, weight, hidden, gemm1, activated, gemm2)."""

    choices: list[dict[int, float]]
    pairs: list[tuple[Any, ...]]
    output: np.ndarray


def naive_choice(logits: np.ndarray, bias: np.ndarray) -> dict[int, float]:
    """Expert id -> weight for one token, by the words of DeepSeek-V3's routing."""
    score = [1 / (1 + math.exp(-value)) for value in logits]
    biased = [value + extra for value, extra in zip(score, bias, strict=True)]
    size = len(score) // 8
    groups = [range(group * size, (group + 1) * size) for group in range(8)]
    best = sorted(groups, key=lambda group: sum(sorted(biased[e] for e in group)[-2:]))[-4:]
    chosen = sorted((e for group in best for e in group), key=lambda e: biased[e])[-8:]
    total = sum(score[e] for e in chosen)
    return {e: SCALING * score[e] / total for e in chosen}


def naive(problem: dict[str, Any]) -> Naive:
    def array(name: str) -> np.ndarray:
        return problem[name].to("cpu", torch.float64).numpy()

    hidden = array("hidden_states") * np.kron(array("hidden_states_scale").T, np.ones((1, 128)))
    tile = np.ones((1, 128, 128))
    first = array("gemm1_weights") * np.kron(array("gemm1_weights_scale"), tile)
    second = array("gemm2_weights") * np.kron(array("gemm2_weights_scale"), tile)
    logits, bias = array("routing_logits"), array("routing_bias")
    choices = [naive_choice(row, bias) for row in logits]
    pairs, output = [], np.zeros_like(hidden)
    for expert in range(LOCAL_EXPERTS):
        for token, choice in enumerate(choices):
            weight = choice.get(problem["local_expert_offset"] + expert)
            if weight is None:
                continue
            product = first[expert] @ hidden[token]
            up, gate = product[:INTERMEDIATE], product[INTERMEDIATE:]
            activated = gate / (1 + np.exp(-gate)) * up
            row = second[expert] @ activated
            output[token] += weight * row
            pairs.append((token, expert, weight, hidden[token], product, activated, row))
    return Naive(choices, pairs, output)


def run(solution: Solution, problem: dict[str, Any], buffers: Buffers | None = None) -> dict:
    """Check the wiring, then call the stages in order; returns every named tensor."""
    shape = (problem["seq_len"], HIDDEN)
    given = {
        **problem,
        "output": torch.full(shape, math.nan, dtype=torch.bfloat16, device=DEVICE),
        "buffers": buffers or Buffers(solution.keeps_buffers),
    }
    check_wiring(solution, tuple(given))
    for stage in solution.stages:
        written = stage(*[given[name] for name in stage.reads])
        if written is not None:
            values = (written,) if len(stage.writes) == 1 else written
            given.update(zip(stage.writes, values, strict=True))
    return given


def relative_l2(result: torch.Tensor, expected: Any) -> float:
    """|result - expected| / |expected|, over all elements, in float64."""
    wanted = torch.as_tensor(expected).to("cpu", torch.float64)
    return float((result.to("cpu", torch.float64) - wanted).norm() / wanted.norm())


@pytest.fixture(scope="session", name="make_problem")
def make_problem_fixture() -> Callable[..., dict[str, Any]]:
    return make_problem


@pytest.fixture(scope="session", name="naive")
def naive_fixture() -> Callable[[dict[str, Any]], Naive]:
    return naive


@pytest.fixture(scope="session", name="run")
def run_fixture() -> Callable[..., dict]:
    return run


@pytest.fixture(scope="session", name="relative_l2")
def relative_l2_fixture() -> Callable[[torch.Tensor, Any], float]:
    return relative_l2
