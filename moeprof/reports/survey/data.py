"""What a report over many records holds, as plain values; ``build`` makes it, renderers show it.

Workloads are ordered by number of tokens, solutions from the slowest to the fastest on the largest
workload, so that equal records give equal reports in whatever order they are named.
"""

from __future__ import annotations

from dataclasses import dataclass

from moeprof.analysis.lanes import Lanes
from moeprof.analysis.profiles import Profile
from moeprof.compare.comparison import Comparison
from moeprof.ledger.floors import FloorRow
from moeprof.ledger.ledger import Ceilings
from moeprof.records import Run


@dataclass(frozen=True, slots=True)
class Entry:
    """One record. label: its solution's name in this report; problem: why it has no profile."""

    label: str
    run: Run
    profile: Profile | None
    problem: str
    latency_us: float | None
    ledger: tuple[FloorRow, ...] = ()
    lanes: Lanes | None = None

    @property
    def bare_us(self) -> tuple[float, ...]:
        """Samples of the bare pass that latency is the median of: unstamped ones if there are."""
        bare = self.run.samples("bare")
        plain = tuple(sample.span_us for sample in bare if not sample.stamps_us)
        return plain or tuple(sample.span_us for sample in bare)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two records of one workload: their comparison, or every reason why there is none."""

    before: str
    after: str
    comparison: Comparison | None
    refused: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadData:
    """The records of one workload, in the order of ``ReportData.solutions``, and all their pairs.

    name: unique in the report.
    """

    name: str
    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]

    @property
    def seq_len(self) -> int:
        return self.entries[0].run.workload.seq_len

    def entry(self, label: str) -> Entry | None:
        """The record of solution ``label``."""
        return next((entry for entry in self.entries if entry.label == label), None)

    def pair(self, labels: tuple[str, str]) -> Pair | None:
        """The pair of these two solutions, in this order."""
        return next((p for p in self.pairs if (p.before, p.after) == labels), None)


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything a report shows.

    default_pair: the slowest and the fastest solution of the largest workload, the reference left
    aside; None with fewer than two solutions. left_out: records not shown, a sentence each.
    """

    solutions: tuple[str, ...]
    workloads: tuple[WorkloadData, ...]
    default_pair: tuple[str, str] | None
    ceilings: Ceilings
    ceilings_label: str
    summary: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(entry for workload in self.workloads for entry in workload.entries)

    @property
    def newest(self) -> str:
        """When the newest record was made: the report's date."""
        return max(entry.run.created for entry in self.entries)
