"""What a comparison of two records is, as plain values: parts, bars and the waterfall.

``compare`` makes these and ``reports`` show them; nothing here computes more than a sum. Times of
the waterfall are integer nanoseconds, so that it closes without a remainder:

    span of the second side - span of the first = sum of the bars
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from moeprof.analysis.profiles import Profile
from moeprof.ledger.ledger import Ceilings
from moeprof.ledger.necessary import Work
from moeprof.records import Run

Bound = Literal["FLOPs", "bytes", "launch"]


class Cause(StrEnum):
    """Why a part takes longer on one side. In the order of the tables."""

    ORCHESTRATION = "orchestration"
    LAUNCH_LATENCY = "launch latency"
    AMPLIFICATION = "amplification"
    EFFICIENCY = "efficiency"
    ONE_SIDED = "one side only"
    OVERLAP = "overlap"
    NOT_SPLIT = "not split"


@dataclass(frozen=True, slots=True)
class Explained:
    """A record and its profile. label: what it is called beside the other one."""

    run: Run
    profile: Profile
    label: str

    @property
    def bare_us(self) -> tuple[float, ...]:
        """Spans of the bare pass, by the outer event pair (the wall clock on a CPU)."""
        return tuple(sample.span_us for sample in self.run.samples("bare"))


@dataclass(frozen=True, slots=True)
class PartSide:
    """One part on one side. best_ns: what its executed work takes at the ceilings, None where that
    work is unknown; bound: by what; declared: on the solution's word."""

    busy_ns: int = 0
    overlap_ns: int = 0
    orchestration_ns: int = 0
    latency_ns: int = 0
    operations: float = 0.0
    rows: int | None = None
    bytes: int | None = None
    flops: int | None = None
    best_ns: float | None = None
    bound: Bound | None = None
    declared: bool = False
    backends: tuple[str, ...] = ()
    why: str = ""

    @property
    def time_ns(self) -> int:
        """Its part of the span."""
        return self.busy_ns + self.orchestration_ns + self.latency_ns

    @property
    def work_ns(self) -> int:
        """Time of its operations, hidden or not."""
        return self.busy_ns + self.overlap_ns


@dataclass(frozen=True, slots=True)
class Bar:
    """One step of the waterfall: how much longer the second side takes for this reason."""

    part: str
    cause: Cause
    delta_ns: int


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the partition on both sides, and its bars (none of them zero)."""

    name: str
    steps: tuple[str, ...]
    necessary: Work
    before: PartSide
    after: PartSide
    bars: tuple[Bar, ...]

    @property
    def delta_ns(self) -> int:
        return self.after.time_ns - self.before.time_ns


@dataclass(frozen=True, slots=True)
class Comparison:
    """The waterfall from one record to another. noise_us: half width of the 95 % interval of the
    difference of the bare medians, within these two processes."""

    before: Explained
    after: Explained
    span_before_ns: int
    span_after_ns: int
    parts: tuple[Part, ...]
    ceilings: Ceilings
    ceilings_label: str
    noise_us: float

    @property
    def delta_ns(self) -> int:
        return self.span_after_ns - self.span_before_ns

    @property
    def bars(self) -> tuple[Bar, ...]:
        """Every bar, the largest contribution to the difference first, then what offsets it."""
        sign = -1 if self.delta_ns < 0 else 1
        bars = [bar for part in self.parts for bar in part.bars]
        return tuple(sorted(bars, key=lambda bar: -sign * bar.delta_ns))

    @property
    def causes(self) -> tuple[tuple[Cause, int], ...]:
        """Sum of the bars of each cause, ordered as ``bars`` are."""
        totals: dict[Cause, int] = {}
        for bar in self.bars:
            totals[bar.cause] = totals.get(bar.cause, 0) + bar.delta_ns
        sign = -1 if self.delta_ns < 0 else 1
        return tuple(sorted(totals.items(), key=lambda item: -sign * item[1]))

    @property
    def residual_ns(self) -> int:
        """What the bars leave over: 0, or this module has a bug."""
        return self.delta_ns - sum(bar.delta_ns for part in self.parts for bar in part.bars)

    @property
    def outside_ns(self) -> tuple[int, int]:
        """How much longer the host takes outside the span: before the first operation, and after
        the last one."""
        first, second = self.before.profile, self.after.profile
        prologue_ns = round(second.prologue_ns - first.prologue_ns)
        return prologue_ns, round(second.epilogue_ns - first.epilogue_ns)

    @property
    def measured_delta_us(self) -> float | None:
        """The same difference read off the bare pass by its event pair, medians."""
        if not self.before.bare_us or not self.after.bare_us:
            return None
        return statistics.median(self.after.bare_us) - statistics.median(self.before.bare_us)
