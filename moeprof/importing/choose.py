"""Whose work a record is of: one process on one GPU, out of all that a capture holds.

Two processes or two GPUs at once are two forwards, each with its own idle time, so that their
operations are never put into one record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprof.errors import UsageError
from moeprof.importing.rules import RuleSet
from moeprof.importing.trace import Trace
from moeprof.importing.walk import matching_names

MOST_NAMED = 8  # places in a sentence


@dataclass(frozen=True, slots=True)
class Choice:
    """place: index in ``OperationTable.places``. others: how many operations lie elsewhere."""

    place: int
    others: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """One process on one GPU and what it launched. moe: operations with the name of an MoE kernel.

    gpu: -1 where the capture does not say.
    """

    number: int
    process: int
    gpu: int
    operations: int
    moe: int

    def __str__(self) -> str:
        return (
            f"{_where(self.process, self.gpu)} ({self.operations:,} operations, {self.moe:,} MoE)"
        )


def choose(
    trace: Trace,
    rules: Sequence[RuleSet],
    process: int | None = None,
    gpu: int | None = None,
) -> Choice:
    """The place asked for; else the only one with work, else the one with the most MoE operations.

    rules: whose landmarks tell MoE operations. Raises UsageError if nothing runs in what was asked
    for, or if the capture holds no GPU operation at all.
    """
    found = _places(trace, rules)
    if not found:
        why = f" ({'; '.join(trace.notes)})" if trace.notes else ""
        raise UsageError(
            f"the capture holds no GPU operation{why}",
            "kernels, copies or memsets",
            "capture with CUDA tracing on (nsys profile -t cuda,nvtx)",
        )
    wanted = [
        place for place in found if process in (None, place.process) and gpu in (None, place.gpu)
    ]
    if not wanted:
        asked = _where(-1 if process is None else process, -1 if gpu is None else gpu)
        raise UsageError(f"{asked} ran nothing in this capture", do=f"it holds {_listed(found)}")
    best = max(wanted, key=lambda place: (place.moe, place.operations))
    rest = [place for place in found if place is not best]
    notes: tuple[str, ...] = ()
    if rest:
        notes = (
            f"only {best} is in this record; left out: {_listed(rest)}; "
            "--process and --gpu choose another",
        )
    return Choice(best.number, sum(place.operations for place in rest), notes)


def _places(trace: Trace, rules: Sequence[RuleSet]) -> list[_Place]:
    operations = trace.operations
    names = [description.name for description in operations.descriptions]
    is_moe: NDArray[np.bool_] = np.zeros(len(names), dtype=np.bool_)
    for rule_set in rules:
        is_moe |= matching_names(rule_set, names)
    size = len(operations.places)
    counts = np.bincount(operations.place, minlength=size)
    of_moe = is_moe[operations.description] if len(names) else np.zeros(0, dtype=np.bool_)
    moe = np.bincount(operations.place[of_moe], minlength=size)
    return [
        _Place(number, process, gpu, int(counts[number]), int(moe[number]))
        for number, (process, gpu) in enumerate(operations.places)
        if counts[number]
    ]


def _where(process: int, gpu: int) -> str:
    parts = [f"process {process}"] if process >= 0 else []
    parts += [f"GPU {gpu}"] if gpu >= 0 else []
    return " on ".join(parts) or "an unnamed process"


def _listed(places: Sequence[_Place]) -> str:
    shown = sorted(places, key=lambda place: -place.operations)
    rest = len(shown) - MOST_NAMED
    more = f" and {rest} more" if rest > 0 else ""
    return ", ".join(map(str, shown[:MOST_NAMED])) + more
