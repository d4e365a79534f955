"""How a solution's time depends on where the tokens go and on how many there are: as plain values.

``explain`` measures these rows with few iterations; they show a tendency, not a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moeprof.definition import Definition, Workload
from moeprof.problem.dataset import Dataset

ROUTINGS = ("uniform", "zipf:1.2", "balanced", "single")
OTHER_RANKS = 3
TOKEN_FACTORS = (0.25, 0.5, 2.0)


@dataclass(frozen=True, slots=True)
class Variation:
    """One thing varied: 'routing', 'offset' or 'tokens', and the workload and routing it makes."""

    varied: str
    workload: Workload
    routing: str


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """One solution on one variation. busy_us: by step or row of its profile.

    problem: why there are no figures.
    """

    solution: str
    varied: str
    routing: str
    num_tokens: int
    local_expert_offset: int
    local_pairs: int
    active_experts: int
    busiest_expert: int
    span_us: float | None = None
    busy_us: Mapping[str, float] | None = None
    problem: str = ""


def variations(
    definition: Definition, workload: Workload, routing: str, dataset: Dataset
) -> tuple[Variation, ...]:
    """Routings of the workload, other ranks under its routing, other numbers of tokens."""
    found = [Variation("routing", workload, spec) for spec in ROUTINGS]
    # a recorded routing belongs to one rank and one number of tokens
    spec = "uniform" if routing in ("auto", "recorded") or routing.startswith("file") else routing
    tokens = workload.seq_len
    for offset in other_offsets(definition, workload.local_expert_offset):
        moved = dataset.workload_of_size(definition, tokens, offset)
        found.append(Variation("offset", moved, spec))
    for count in dict.fromkeys(max(1, round(tokens * factor)) for factor in TOKEN_FACTORS):
        if count != tokens:
            resized = dataset.workload_of_size(definition, count, workload.local_expert_offset)
            found.append(Variation("tokens", resized, spec))
    return tuple(found)


def other_offsets(definition: Definition, own: int) -> Sequence[int]:
    """First experts of up to three other ranks, spread over all of them."""
    experts = definition.constants["num_experts"]
    ranks = [o for o in range(0, experts, definition.constants["num_local_experts"]) if o != own]
    if len(ranks) <= OTHER_RANKS:
        return ranks
    return [ranks[i * (len(ranks) - 1) // (OTHER_RANKS - 1)] for i in range(OTHER_RANKS)]
