"""Processes of both sides to one table of summaries: which quantities, from which source, how long.

A quantity is compared only if one source has it in every process of both sides; which one is
chosen by ``series.SOURCES``. What only some processes have is named, not dropped in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.regression.limits import QUANTUM_US
from moeprof.regression.paces import Measured
from moeprof.regression.series import SOURCES, PartKey, Series
from moeprof.regression.statistics import pairwise_median, summarise_all, welch
from moeprof.regression.values import (
    FORWARD_MEASURES,
    STAGE_MEASURES,
    Measure,
    Quantity,
    Shift,
)

BASELINE, CANDIDATE = "the baseline", "the candidate"
Rounds = Sequence[
    tuple[Sequence[Series], Sequence[Series]]
]  # baseline may be empty after the first


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """quantities [Q] with their sources, and each round's summaries of both sides.

    missing: what cannot be compared, and why, one sentence each.
    """

    quantities: tuple[Quantity, ...]
    sources: tuple[str, ...]
    rounds: tuple[tuple[Measured | None, Measured], ...]
    missing: tuple[tuple[Quantity, str], ...]

    @property
    def measures(self) -> tuple[Measure, ...]:
        return tuple(quantity.measure for quantity in self.quantities)


def make_table(rounds: Rounds) -> Table:
    """The table of one or two rounds of (baseline, candidate) processes."""
    sides = [[one for pair in rounds for one in pair[side]] for side in (0, 1)]
    rows = tuple(dict.fromkeys(row for side in sides for one in side for row in one.rows))
    wanted = [Quantity("", measure) for measure in FORWARD_MEASURES]
    wanted += [Quantity(row, measure) for row in rows for measure in STAGE_MEASURES]
    chosen: list[tuple[Quantity, str]] = []
    missing: list[tuple[Quantity, str]] = []
    for quantity in wanted:
        source = _common_source(quantity, [*sides[0], *sides[1]])
        if source is not None:
            chosen.append((quantity, source))
        elif why := _why_missing(quantity, sides):
            missing.append((quantity, why))
    return Table(
        quantities=tuple(quantity for quantity, _ in chosen),
        sources=tuple(source for _, source in chosen),
        rounds=_measured(rounds, chosen),
        missing=tuple(missing),
    )


def shifts_of(rounds: Rounds) -> tuple[str, tuple[Shift, ...]]:
    """How the components of each stage moved, over all rounds, and the timeline they are from."""
    sides = [[one for pair in rounds for one in pair[side]] for side in (0, 1)]
    everyone = [*sides[0], *sides[1]]
    for source in SOURCES:
        keys = [key for one in everyone for key in one.parts_us if key[2] == source]
        if keys and all(any(key[2] == source for key in one.parts_us) for one in everyone):
            return source, _shifts(list(dict.fromkeys(keys)), sides)
    return "", ()


def _shifts(keys: Sequence[PartKey], sides: Sequence[Sequence[Series]]) -> tuple[Shift, ...]:
    """Of every part; one that a process lacks is nothing there. Processes are summarised by the
    mean of their middle 80 %, so that the parts of a span still add up to it."""
    nothing = np.zeros(1)
    baseline, candidate = (
        np.stack(
            [summarise_all([one.parts_us.get(key, nothing) for key in keys], 0.0) for one in side],
            axis=-1,
        )
        for side in sides
    )
    shift_us = pairwise_median(baseline, candidate)
    noise_us = np.zeros(len(keys))
    if min(baseline.shape[-1], candidate.shape[-1]) > 1:
        noise_us = welch(baseline, candidate).error
    return tuple(
        Shift(
            stage=stage,
            component=component,
            baseline_us=float(np.median(baseline[i])),
            candidate_us=float(np.median(candidate[i])),
            shift_us=float(shift_us[i]),
            noise_us=float(noise_us[i]),
        )
        for i, (stage, component, _) in enumerate(keys)
    )


def _common_source(quantity: Quantity, everyone: Sequence[Series]) -> str | None:
    return next(
        (s for s in SOURCES if all((quantity, s) in one.times_us for one in everyone)), None
    )


def _why_missing(quantity: Quantity, sides: Sequence[Sequence[Series]]) -> str:
    """Why a quantity that some process has cannot be compared; '' if none has it."""
    have = [[any((quantity, s) in one.times_us for s in SOURCES) for one in side] for side in sides]
    if not any(map(any, have)):
        return ""
    for own, other, name in ((0, 1, BASELINE), (1, 0, CANDIDATE)):
        if any(have[own]) and not any(have[other]):
            return f"only {name} has it"
    if all(map(all, have)):
        return "no pass tells it in every process"
    known = sum(map(sum, have))
    return f"only {known} of {sum(map(len, have))} processes tell it"


def _measured(
    rounds: Rounds, chosen: Sequence[tuple[Quantity, str]]
) -> tuple[tuple[Measured | None, Measured], ...]:
    everyone = [one for pair in rounds for side in pair for one in side]
    typical_us = [
        float(np.median([np.median(one.times_us[key]) for one in everyone])) for key in chosen
    ]

    def one_side(side: Sequence[Series]) -> Measured:
        us = [
            summarise_all([one.times_us[key] for one in side], typical)
            for key, typical in zip(chosen, typical_us, strict=True)
        ]
        # a logarithm must exist: orchestration may be nothing at all
        found = np.maximum(np.array(us).reshape(len(chosen), len(side)), QUANTUM_US)
        return Measured(found, np.array([one.sm_mhz for one in side]))

    return tuple(
        (one_side(baseline) if baseline else None, one_side(candidate))
        for baseline, candidate in rounds
    )
