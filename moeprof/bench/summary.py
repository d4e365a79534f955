"""Figures over workloads: speedups by regime and over all, and ratios to one chosen solution.

The arithmetic mean of speedups is what published tables of this forward show, and it is kept for
that; it is decided by the workloads with the largest speedups, and which of two solutions has the
larger one can depend on the reference. The geometric mean has neither fault and stands beside it.
A mean is over the workloads that the solution has; where that is not all of them it says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.bench.cells import Bench
from moeprof.bench.figures import METRICS, Metric, geometric_mean, latency_us, ratio, speedup
from moeprof.bench.winners import Verdict, ties, wins
from moeprof.compare.tables import regime


@dataclass(frozen=True, slots=True)
class Mean:
    """Means of ``count`` of ``among`` workloads."""

    count: int
    among: int
    arithmetic: float
    geometric: float

    @property
    def whole(self) -> bool:
        return self.count == self.among


@dataclass(frozen=True, slots=True)
class Regime:
    """Workloads of like size. rows: their positions in the bench."""

    name: str
    rows: tuple[int, ...]
    least: int
    most: int

    @property
    def span(self) -> str:
        """The numbers of tokens it really holds."""
        if self.least == self.most:
            return f"T={self.least:,}"
        return f"T={self.least:,}-{self.most:,}"


@dataclass(frozen=True, slots=True)
class Summary:
    """One solution over all workloads. speedup, ratio: None without reference or latency."""

    solution: str
    measured: int
    among: int
    speedup: Mean | None
    median: float | None
    minimum: float | None
    maximum: float | None
    variation: float | None
    ratio: Mean | None
    wins: int
    ties: int


def regimes(bench: Bench) -> tuple[Regime, ...]:
    """In the order of the number of tokens."""
    members: dict[str, list[int]] = {}
    for position, workload in enumerate(bench.workloads):
        members.setdefault(regime(workload.seq_len), []).append(position)
    return tuple(
        Regime(
            name,
            tuple(rows),
            bench.workloads[rows[0]].seq_len,
            bench.workloads[rows[-1]].seq_len,
        )
        for name, rows in members.items()
    )


def measured_metrics(bench: Bench) -> tuple[Metric, ...]:
    """The timers that any competing cell has."""
    cells = [cell for row in bench.cells for cell in row]
    return tuple(m for m in METRICS if any(latency_us(cell, m) is not None for cell in cells))


def speedups(
    bench: Bench, solution: str, metric: Metric, rows: Sequence[int] | None = None
) -> tuple[float, ...]:
    """Over the reference, of the workloads that have both."""
    column = bench.column(solution)
    chosen = range(len(column)) if rows is None else rows
    found = [speedup(column[row], bench.references[row], metric) for row in chosen]
    return tuple(value for value in found if value is not None)


def ratios(
    bench: Bench, solution: str, metric: Metric, rows: Sequence[int] | None = None
) -> tuple[float, ...]:
    """How many times faster than the baseline, of the workloads that have both."""
    column, base = bench.column(solution), bench.column(bench.baseline)
    chosen = range(len(column)) if rows is None else rows
    found = [ratio(column[row], base[row], metric) for row in chosen]
    return tuple(value for value in found if value is not None)


def mean(values: Sequence[float], among: int) -> Mean | None:
    """None of no values."""
    if not values:
        return None
    return Mean(len(values), among, statistics.fmean(values), geometric_mean(values))


def summaries(bench: Bench, metric: Metric, found: Sequence[Verdict | None]) -> tuple[Summary, ...]:
    """A line a solution. found: the verdicts of this metric."""
    return tuple(_summary(bench, name, metric, found) for name in bench.solutions)


def _summary(
    bench: Bench, solution: str, metric: Metric, found: Sequence[Verdict | None]
) -> Summary:
    among = len(bench.workloads)
    values = speedups(bench, solution, metric)
    whole = mean(values, among)
    known = [latency_us(cell, metric) for cell in bench.column(solution)]
    return Summary(
        solution=solution,
        measured=sum(value is not None for value in known),
        among=among,
        speedup=whole,
        median=statistics.median(values) if values else None,
        minimum=min(values, default=None),
        maximum=max(values, default=None),
        variation=statistics.stdev(values) / whole.arithmetic
        if whole is not None and len(values) > 1
        else None,
        ratio=mean(ratios(bench, solution, metric), among),
        wins=wins(found, solution),
        ties=ties(found, solution),
    )
