"""Who is fastest on a workload, and when that cannot be said.

The winner has the lowest median and every other solution is slower beyond the noise. Whoever is not
shares its place: a tie, which nobody wins. Slower beyond the noise is one whose median lies higher
by more than the 95 % interval of the difference of the two medians and by more than two processes
of the same code differ; and, where both have three trials, all of whose trials lie higher by that
much than all of the other's (three against three come out so by luck in one case of ten). Neither
the order of the solutions nor the reference has a say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moeprof.bench.cells import Bench, Cell
from moeprof.bench.figures import METRICS, Metric, Spread, spread

# kernels of one process differ from those of the next by 1 % and more on one H200; two H200s ran
# the same GEMM 2.7 % apart, process after process
BETWEEN_PROCESSES = 0.01
BETWEEN_CARDS = 0.03
FEWEST_TRIALS = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """The place at the top of one workload. names: the best, by latency; more than one is a tie."""

    metric: Metric
    names: tuple[str, ...]

    @property
    def winner(self) -> str | None:
        return self.names[0] if len(self.names) == 1 else None


def verdict(cells: Sequence[Cell], metric: Metric) -> Verdict | None:
    """Of the cells of one workload; None where fewer than two have a latency."""
    known = [(found, cell) for cell in cells if (found := spread(cell, metric)) is not None]
    if len(known) < 2:
        return None
    known.sort(key=lambda one: (one[0].median_us, one[1].solution))
    best, first = known[0]
    names = [
        cell.solution
        for found, cell in known
        if not is_slower(found, best, least_difference(cell, first))
    ]
    return Verdict(metric, tuple(names))


def is_slower(one: Spread, other: Spread, least: float) -> bool:
    """Whether ``one`` is slower than ``other`` beyond the noise. least: of the lower median."""
    least_us = least * other.median_us
    difference_us = one.median_us - other.median_us
    if difference_us <= max(least_us, math.hypot(one.noise_us, other.noise_us)):
        return False
    if min(len(one.trials_us), len(other.trials_us)) < FEWEST_TRIALS:
        return True
    return min(one.trials_us) - max(other.trials_us) > least_us


def least_difference(one: Cell, other: Cell) -> float:
    """The fraction by which equal code may differ between the two records."""
    return BETWEEN_PROCESSES if _same_card(one, other) else BETWEEN_CARDS


def verdicts(bench: Bench) -> Mapping[Metric, tuple[Verdict | None, ...]]:
    """For each metric, a verdict a workload."""
    return {metric: tuple(verdict(row, metric) for row in bench.cells) for metric in METRICS}


def wins(found: Sequence[Verdict | None], solution: str) -> int:
    """On how many workloads it is alone at the top."""
    return sum(one is not None and one.winner == solution for one in found)


def ties(found: Sequence[Verdict | None], solution: str) -> int:
    """On how many it shares the top."""
    return sum(one is not None and one.winner is None and solution in one.names for one in found)


def _same_card(first: Cell, second: Cell) -> bool:
    """Cards that were not read are not known to be the same, unless on a CPU."""
    if first.run is None or second.run is None:
        return False
    one, other = first.run.environment, second.run.environment
    return one.card == other.card and (one.card is not None or one.device_kind == "cpu")
