"""What a regression check asks for before it says a word: one frozen value with a default each.

The defaults are tuned by simulation (``simulate``; the table is in docs/regression.md). A policy
is stored with its baseline, so that a check next month asks for the same as the one today.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moeprof.errors import UsageError
from moeprof.storage.codec import decode, encode

FEWEST_PROCESSES = 3  # below this a spread cannot be told from luck, whatever the policy says


@dataclass(frozen=True, slots=True)
class Policy:
    """When a change is a regression. Fractions are of the baseline's time (0.02 is 2 %).

    processes: fresh processes a side and round; with fewer nothing is decided.
    baseline_processes: how many a stored baseline is recorded from.
    screening_alpha: of the first round, by Holm over the quantities of one measure: what is
    suspected of the GPU's time in stages; host_screening_alpha: of the rest. screening_floor: the
    part of each floor that a suspicion must exceed.
    confirm: a suspicion alerts only after a second round of fresh processes, which must show the
    change by itself at confirmation_alpha. alert_alpha: of all rounds together, by Holm.
    same_alpha: chance of calling a change as large as the floor the same, or of excluding a severe
    one that is there.
    relative_floor: a change must exceed it (host_relative_floor: of host times and orchestration),
    and noise_factor times the spread of the same comparison without a change.
    busy_floor_us: and this many us, for what the GPU does in a stage, and quanta ticks of the GPU's
    clock; host_floor_us: the same for host times and for the whole forward; span_floor: and this
    fraction of the span.
    severe: a regression above this fraction is told as severe; a check that could not have seen
    one is inconclusive.
    confidence: of the intervals shown. resamples, seed: of their bootstrap.
    """

    processes: int = 6
    baseline_processes: int = 12
    screening_alpha: float = 0.2
    host_screening_alpha: float = 0.05
    screening_floor: float = 0.5
    confirm: bool = True
    confirmation_alpha: float = 0.05
    alert_alpha: float = 0.0075
    same_alpha: float = 0.05
    relative_floor: float = 0.02
    host_relative_floor: float = 0.05
    noise_factor: float = 3.0
    busy_floor_us: float = 0.0
    quanta: float = 1.0
    host_floor_us: float = 1.0
    span_floor: float = 0.0
    severe: float = 0.05
    confidence: float = 0.95
    resamples: int = 2_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("processes", "baseline_processes"):
            _require(name, getattr(self, name), FEWEST_PROCESSES, 1_000)
        for name in ("screening_alpha", "host_screening_alpha", "confirmation_alpha"):
            _require(name, getattr(self, name), 1e-6, 0.5)
        for name in ("alert_alpha", "same_alpha"):
            _require(name, getattr(self, name), 1e-6, 0.5)
        for name in ("relative_floor", "host_relative_floor", "span_floor", "screening_floor"):
            _require(name, getattr(self, name), 0.0, 1.0)
        for name in ("noise_factor", "busy_floor_us", "host_floor_us", "quanta"):
            _require(name, getattr(self, name), 0.0, 1e6)
        _require("severe", self.severe, self.relative_floor, 10.0)
        _require("confidence", self.confidence, 0.5, 0.999999)
        _require("resamples", self.resamples, 100, 1_000_000)


def _require(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} of the policy is {value:g}", f"{low:g} to {high:g}")


def policy_to_json(policy: Policy) -> dict[str, Any]:
    """The policy as a JSON object, one key a field."""
    document: dict[str, Any] = encode(policy)
    return document


def policy_from_json(document: Mapping[str, Any]) -> Policy:
    """The policy of a JSON object; what is missing keeps its default, what is unknown is refused.

    Raises RecordError with the key for a wrong type, UsageError for an impossible value.
    """
    return decode(Policy, dict(document))


def changed_fields(policy: Policy) -> dict[str, Any]:
    """The fields that are not the default's: what a report must say of a policy."""
    default = Policy()
    names = (field.name for field in dataclasses.fields(Policy))
    return {
        name: getattr(policy, name)
        for name in names
        if getattr(policy, name) != getattr(default, name)
    }
