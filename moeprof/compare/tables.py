"""Several solutions over many workloads: latency, speedup over the reference, regimes, wins.

Latency is the median of the bare pass between the outer pair of CUDA events (the wall clock on a
CPU), as a user of the solution sees it; graph latency is that of the replayed CUDA graph, which no
host code slows down. Summaries are over workloads, each counted once: the largest workloads decide
a mean of latencies, but not one of speedups.

A workload on which one solution has a wrong result or no samples is left out for all and named.
Nothing here explains a difference: see ``compare``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from moeprof.records import Run

Metric = Literal["latency", "graph latency", "speedup"]

# the regimes of the published tables, by the largest number of tokens in each
REGIMES: tuple[tuple[str, int], ...] = (
    ("tiny", 7),
    ("small", 32),
    ("medium", 128),
    ("large", 10_000),
)
LARGEST_REGIME = "very large"


@dataclass(frozen=True, slots=True)
class Latency:
    """Medians of one record, us; graph_us is None where the solution could not be captured."""

    bare_us: float
    graph_us: float | None
    speedup: float | None = None


@dataclass(frozen=True, slots=True)
class WorkloadRow:
    """One workload. latencies: one a solution, in the order of ``Table.solutions``."""

    uuid: str
    seq_len: int
    local_expert_offset: int
    local_pairs: int
    active_experts: int
    latencies: tuple[Latency, ...]
    reference_us: float | None

    @property
    def regime(self) -> str:
        return regime(self.seq_len)

    def values(self, metric: Metric) -> tuple[float | None, ...]:
        """The figure of each solution."""
        return tuple(_FIELDS[metric](latency) for latency in self.latencies)

    def winner(self, metric: Metric) -> int | None:
        """Which solution has the best figure; None if fewer than two have one, or share it."""
        values = self.values(metric)
        known = [value for value in values if value is not None]
        if len(known) < 2:
            return None
        best = max(known) if metric == "speedup" else min(known)
        return values.index(best) if values.count(best) == 1 else None


@dataclass(frozen=True, slots=True)
class Summary:
    """One solution's figures over the workloads that have them. variation: sample standard
    deviation / mean, None for fewer than two workloads."""

    solution: str
    workloads: int
    mean: float
    median: float
    minimum: float
    maximum: float
    variation: float | None
    wins: int


@dataclass(frozen=True, slots=True)
class Table:
    """Solutions by workloads. left_out: a sentence for each workload that is not shown."""

    solutions: tuple[str, ...]
    reference: str | None
    rows: tuple[WorkloadRow, ...]
    left_out: tuple[str, ...] = ()

    def has(self, metric: Metric) -> bool:
        """Whether any workload has this figure."""
        return any(value is not None for row in self.rows for value in row.values(metric))

    def summaries(self, metric: Metric) -> tuple[Summary, ...]:
        """Statistics over all workloads, one line a solution that has the figure anywhere."""
        wins = [row.winner(metric) for row in self.rows]
        found: list[Summary] = []
        for position, solution in enumerate(self.solutions):
            values = [v for row in self.rows if (v := row.values(metric)[position]) is not None]
            if values:
                found.append(_summary(solution, values, wins.count(position)))
        return tuple(found)

    def regimes(self, metric: Metric) -> tuple[tuple[str, int, tuple[float | None, ...]], ...]:
        """(regime, workloads, mean of each solution); a mean needs the figure of every workload."""
        names = dict.fromkeys(row.regime for row in self.rows)
        return tuple((name, *self._regime(name, metric)) for name in names)

    def _regime(self, name: str, metric: Metric) -> tuple[int, tuple[float | None, ...]]:
        members = [row.values(metric) for row in self.rows if row.regime == name]
        means = []
        for column in zip(*members, strict=True):
            known = [value for value in column if value is not None]
            means.append(statistics.fmean(known) if len(known) == len(members) else None)
        return len(members), tuple(means)


def make_table(
    workloads: Sequence[Mapping[str, Run]], solutions: Sequence[str], reference: str | None
) -> Table:
    """The table of records grouped by workload, each a mapping from solution to its record."""
    rows: list[WorkloadRow] = []
    left_out: list[str] = []
    for runs in workloads:
        problem = _problem(runs, solutions)
        if problem:
            left_out.append(problem)
        else:
            rows.append(_row(runs, solutions, reference))
    rows.sort(key=lambda row: (row.seq_len, row.uuid))
    return Table(tuple(solutions), reference, tuple(rows), tuple(left_out))


def regime(seq_len: int) -> str:
    """The name of the regime of this many tokens."""
    return next((name for name, most in REGIMES if seq_len <= most), LARGEST_REGIME)


def latency(run: Run) -> Latency | None:
    """The medians of one record; None without bare samples. Stamped samples count only alone."""
    bare = run.samples("bare")
    spans_us = [s.span_us for s in bare if not s.stamps_us] or [s.span_us for s in bare]
    graph_us = [sample.span_us for sample in run.samples("graph")]
    if not spans_us:
        return None
    return Latency(statistics.median(spans_us), statistics.median(graph_us) if graph_us else None)


def _row(runs: Mapping[str, Run], solutions: Sequence[str], reference: str | None) -> WorkloadRow:
    first = runs[solutions[0]]
    slow = runs.get(reference or "")
    base = latency(slow) if slow is not None else None
    found: list[Latency] = []
    for solution in solutions:
        own = latency(runs[solution])
        assert own is not None  # _problem has seen to it
        speedup = base.bare_us / own.bare_us if base is not None and own.bare_us else None
        found.append(Latency(own.bare_us, own.graph_us, speedup))
    return WorkloadRow(
        uuid=first.workload.uuid,
        seq_len=first.workload.seq_len,
        local_expert_offset=first.workload.local_expert_offset,
        local_pairs=first.routing.local_pairs,
        active_experts=first.routing.active_experts,
        latencies=tuple(found),
        reference_us=base.bare_us if base is not None else None,
    )


def _problem(runs: Mapping[str, Run], solutions: Sequence[str]) -> str:
    for solution in solutions:
        run = runs[solution]
        where = f"T={run.workload.seq_len:,} ({run.workload.uuid[:8]}) left out: {solution}"
        if not run.correctness.passed:
            return f"{where} is wrong there"
        if latency(run) is None:
            return f"{where} has no samples of the bare pass"
    return ""


def _summary(solution: str, values: Sequence[float], wins: int) -> Summary:
    mean = statistics.fmean(values)
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Summary(
        solution=solution,
        workloads=len(values),
        mean=mean,
        median=statistics.median(values),
        minimum=min(values),
        maximum=max(values),
        variation=spread / mean if spread is not None and mean else None,
        wins=wins,
    )


_FIELDS: Mapping[str, Callable[[Latency], float | None]] = {
    "latency": lambda found: found.bare_us,
    "graph latency": lambda found: found.graph_us,
    "speedup": lambda found: found.speedup,
}
