"""One check as the history keeps it, and one quantity of a solution over many checks.

Of every fresh process the summary of each of its times is kept, not its samples: those stay in the
records. Nothing here computes more than a choice among what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from moeprof.records import WorkloadIdentity
from moeprof.regression.values import Finding, Quantity, Verdict

Side = Literal["baseline", "candidate"]


@dataclass(frozen=True, slots=True)
class CodeLabel:
    """Whose code a side ran. commit: '' where it is in none; dirty: changed since that commit."""

    label: str = ""
    commit: str = ""
    dirty: bool = False

    def __str__(self) -> str:
        """'a1b2c3d4', with '+' for changes that are in no commit; '' where nothing is known."""
        return self.commit[:8] + "+" * self.dirty if self.commit else ""


@dataclass(frozen=True, slots=True)
class ProcessTimes:
    """One fresh process. times_us: the summary of each quantity and the source it was read from."""

    side: Side
    number: int  # within its side, from 1, in the order measured
    created: str
    source_hash: str
    times_us: tuple[tuple[Quantity, str, float], ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One check. key: the name of its folder below ``checks``, or what stands for one.

    created: of the candidate's last record, UTC, ISO 8601. in_checks: whether it can be read again
    from ``<traces>/checks``.
    """

    key: str
    in_checks: bool
    created: str
    solution: str
    source_hash: str
    workload: WorkloadIdentity
    routing_hash: str
    device: str
    verdict: Verdict
    exit_code: int
    headline: str
    findings: tuple[Finding, ...]
    processes: tuple[ProcessTimes, ...]
    code: CodeLabel = field(default=CodeLabel())
    against: CodeLabel = field(default=CodeLabel())

    @property
    def subject(self) -> Subject:
        return Subject(
            self.solution,
            self.workload.definition,
            self.workload.seq_len,
            self.routing_hash,
            self.device,
        )

    def finding(self, quantity: Quantity) -> Finding | None:
        return next((f for f in self.findings if f.quantity == quantity), None)


@dataclass(frozen=True, slots=True)
class Subject:
    """What must be equal for times of several checks to be one series."""

    solution: str
    definition: str
    seq_len: int
    routing_hash: str
    device: str

    def __str__(self) -> str:
        return f"{self.solution}, T = {self.seq_len:,}, {self.device}"


@dataclass(frozen=True, slots=True)
class Point:
    """One check in a series. processes_us: one summary a fresh process; us: their geometric mean.

    noise: the standard error of ``us`` as a fraction, from the series' own noise.
    verdict: on this quantity in that check; '' where it has none.
    """

    key: str
    created: str
    code: CodeLabel
    source_hash: str
    processes_us: tuple[float, ...]
    us: float
    noise: float
    verdict: Verdict | Literal[""]
    headline: str


@dataclass(frozen=True, slots=True)
class Change:
    """A step between two levels of a series. at: the first point of the new level.

    before_us, after_us: the levels, geometric means; noise: the standard error of their ratio.
    """

    at: int
    before_us: float
    after_us: float
    noise: float

    @property
    def ratio(self) -> float:
        return self.after_us / self.before_us


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity of one subject over its checks, oldest first.

    source: the pass all its times were read from. process_noise: standard deviation between fresh
    processes of one check; check_noise: beyond that, between checks of unchanged code. Both are
    fractions. changes: None where they were not looked for.
    """

    subject: Subject
    quantity: Quantity
    source: str
    points: tuple[Point, ...]
    process_noise: float
    check_noise: float
    changes: tuple[Change, ...] | None = None
