"""The necessary work of each step: what the definition requires for this input, and no more.

It follows from the definition's geometry and this input's routing alone:

    T tokens, E experts of which E_l are local, H hidden, I intermediate, K = 8 experts a token,
    P local (token, expert) pairs, A local experts with at least one pair, 128 x 128 scale blocks

    step               reads                                       writes               FLOPs
    routing            logits 4TE, bias 2E                         weights, ids 4TK     -
    prepare_moe_input  ids 4TK                                     offsets 4(E_l+1),    -
                                                                   2 permutations 4P
    shuffle_rows       P rows of H + 4H/128, permutation 4P        the same rows        -
    gemm1              A(2I*H + 4 * 2I/128 * H/128), rows, offsets P * 2I * 2           2P*2I*H
    swiglu_quant       P * 2I * 2                                  P(I + 4I/128)        -
    gemm2              A(H*I + 4 * H/128 * I/128), rows, offsets   P * H * 2            2P*H*I
    gather             P * H * 2, weights and slots of 4P each     T * H * 2            2P*H

Each tensor is counted once, as if caches were perfect inside a step and absent between steps. A row
that performs several steps needs neither to write nor to read what only they share. FLOPs of
elementwise work are left out: those steps are bound by bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from moeprof.contract import BLOCK, ROUTING
from moeprof.errors import RecordError
from moeprof.records import Run

AXES = ("num_experts", "num_local_experts", "hidden_size", "intermediate_size")
ROW_STEPS = ("shuffle_rows", "gemm1", "swiglu_quant", "gemm2")  # those that run one row a pair


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes that fix the necessary work; names as in the table above."""

    tokens: int
    experts: int
    local_experts: int
    hidden: int
    intermediate: int
    pairs: int
    active: int

    @property
    def activation_row(self) -> int:
        """Bytes of one e4m3 row of hidden states with its fp32 block scales."""
        return self.hidden + 4 * (self.hidden // BLOCK)

    @property
    def activated_row(self) -> int:
        """Bytes of one e4m3 row of the activated intermediate with its block scales."""
        return self.intermediate + 4 * (self.intermediate // BLOCK)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one step must move and compute: bytes by tensor name, and FLOPs."""

    reads: Mapping[str, int]
    writes: Mapping[str, int]
    flops: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """An amount of work; None where it is unknown or the notion does not apply."""

    rows: int | None
    bytes: int | None
    flops: int | None


def geometry(run: Run) -> Geometry:
    """The sizes of one run. Raises RecordError if its definition lacks one of them."""
    constants = run.workload.constants
    missing = [name for name in AXES if name not in constants]
    if missing:
        raise RecordError(
            f"the record of {run.workload.definition} has no {', '.join(missing)}",
            "the constant axes of an FP8 block-scale MoE forward",
        )
    return Geometry(
        tokens=run.workload.seq_len,
        experts=constants["num_experts"],
        local_experts=constants["num_local_experts"],
        hidden=constants["hidden_size"],
        intermediate=constants["intermediate_size"],
        pairs=run.routing.local_pairs,
        active=run.routing.active_experts,
    )


def traffic(step: str, size: Geometry) -> Traffic:
    """What ``step`` must read, write and compute; nothing for a step the definition lacks."""
    make = _TRAFFIC.get(step)
    return make(size) if make else Traffic({}, {})


def necessary_work(covers: Sequence[str], size: Geometry) -> Work:
    """The work of performing ``covers`` in one go: what only they share is not moved."""
    return _necessary_work(tuple(covers), size)


@functools.lru_cache(maxsize=1024)  # a report asks 8,000 times for a few hundred
def _necessary_work(covers: tuple[str, ...], size: Geometry) -> Work:
    inside = {step: traffic(step, size) for step in covers}
    others = [traffic(step, size) for step in _TRAFFIC if step not in inside]
    written = {name for moved in inside.values() for name in moved.writes}
    read_inside = {name for moved in inside.values() for name in moved.reads}
    read_outside = {name for moved in others for name in moved.reads}
    moved_bytes: dict[tuple[str, str], int] = {}
    for moved in inside.values():
        for name, size_bytes in moved.reads.items():
            if name not in written:
                moved_bytes["read", name] = size_bytes
        for name, size_bytes in moved.writes.items():
            if name in read_outside or name not in read_inside:
                moved_bytes["written", name] = size_bytes
    return Work(
        rows=size.pairs if any(step in ROW_STEPS for step in covers) else None,
        bytes=sum(moved_bytes.values()),
        flops=sum(moved.flops for moved in inside.values()),
    )


def _routing(size: Geometry) -> Traffic:
    chosen = 4 * size.tokens * ROUTING.top_k
    return Traffic(
        {"routing_logits": 4 * size.tokens * size.experts, "routing_bias": 2 * size.experts},
        {"topk_weights": chosen, "topk_ids": chosen},
    )


def _prepare(size: Geometry) -> Traffic:
    return Traffic(
        {"topk_ids": 4 * size.tokens * ROUTING.top_k},
        {
            "expert_offsets": 4 * (size.local_experts + 1),
            "input_permutation": 4 * size.pairs,
            "output_permutation": 4 * size.pairs,
        },
    )


def _shuffle(size: Geometry) -> Traffic:
    rows = size.pairs * size.activation_row
    return Traffic(
        {"hidden_states": rows, "input_permutation": 4 * size.pairs},
        {"shuffled_hidden_states": rows},
    )


def _gemm1(size: Geometry) -> Traffic:
    out = 2 * size.intermediate
    scales = 4 * (out // BLOCK) * (size.hidden // BLOCK)
    return Traffic(
        {
            "shuffled_hidden_states": size.pairs * size.activation_row,
            "gemm1_weights": size.active * (out * size.hidden + scales),
            "expert_offsets": 4 * (size.local_experts + 1),
        },
        {"gemm1_output": 2 * size.pairs * out},
        flops=2 * size.pairs * out * size.hidden,
    )


def _swiglu_quant(size: Geometry) -> Traffic:
    return Traffic(
        {"gemm1_output": 4 * size.pairs * size.intermediate},
        {"activated": size.pairs * size.activated_row},
    )


def _gemm2(size: Geometry) -> Traffic:
    scales = 4 * (size.hidden // BLOCK) * (size.intermediate // BLOCK)
    return Traffic(
        {
            "activated": size.pairs * size.activated_row,
            "gemm2_weights": size.active * (size.hidden * size.intermediate + scales),
            "expert_offsets": 4 * (size.local_experts + 1),
        },
        {"gemm2_output": 2 * size.pairs * size.hidden},
        flops=2 * size.pairs * size.hidden * size.intermediate,
    )


def _gather(size: Geometry) -> Traffic:
    return Traffic(
        {
            "gemm2_output": 2 * size.pairs * size.hidden,
            "topk_weights": 4 * size.pairs,
            "output_permutation": 4 * size.pairs,
        },
        {"output": 2 * size.tokens * size.hidden},
        flops=2 * size.pairs * size.hidden,
    )


_TRAFFIC: Mapping[str, Callable[[Geometry], Traffic]] = {
    "routing": _routing,
    "prepare_moe_input": _prepare,
    "shuffle_rows": _shuffle,
    "gemm1": _gemm1,
    "swiglu_quant": _swiglu_quant,
    "gemm2": _gemm2,
    "gather": _gather,
}
