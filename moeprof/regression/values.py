"""What a regression check is, as plain values: quantities, findings, causes, the check, a baseline.

``judge`` makes these, storage keeps them, reports show them; nothing here computes more than a
choice among what it holds. All of them pass through ``storage.codec`` unchanged.

A quantity is one time of one stage (a row of the profile) or of the whole forward:

    busy           of a stage: GPU time of its operations, as CUPTI saw them (the stage clock on a
                   CPU, event pairs where there is no CUPTI)
    host           of a stage: the host's own time in it without a profiler, waits for the GPU cut
                   out where the record tells them
    span, wall     of the forward, without a profiler; orchestration: idle time the host causes

What only explains is a ``Shift``: a stage's part of the span and what that is made of. A kernel
that grows into the gap of the next stage makes that one's part shorter, so neighbours move when one
stage does, and no verdict hangs on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from moeprof.errors import EXIT_OK, EXIT_USAGE
from moeprof.records import WorkloadIdentity
from moeprof.regression.policy import Policy

EXIT_REGRESSED = 1  # as a wrong result, which is one
EXIT_NOT_COMPARABLE = EXIT_USAGE
EXIT_INCONCLUSIVE = 3

Measure = Literal["busy", "host", "span", "wall", "orchestration"]
STAGE_MEASURES: tuple[Measure, ...] = ("busy", "host")
FORWARD_MEASURES: tuple[Measure, ...] = ("span", "wall", "orchestration")

# a stage's part of the span and what that is made of; before and after it, of the forward ('')
Component = Literal[
    "time",
    "busy",
    "host_late",
    "api",
    "launch_latency",
    "dependency",
    "prologue",
    "epilogue",
]
COMPONENTS: tuple[Component, ...] = (
    "time",
    "busy",
    "host_late",
    "api",
    "launch_latency",
    "dependency",
)

Verdict = Literal["REGRESSED", "IMPROVED", "SAME", "INCONCLUSIVE"]
SEVERITY: Mapping[str, int] = MappingProxyType(
    {"REGRESSED": 3, "INCONCLUSIVE": 2, "IMPROVED": 1, "SAME": 0}
)

# not needed: nothing was suspected, or the policy asks for none; awaited: measure again, then judge
Confirmation = Literal["not needed", "awaited", "confirmed", "refuted"]

# what a time was divided by before it was compared: a clock that differs by process cancels.
# host pace: how fast the host is in the other stages of the same process
Clock = Literal["none", "SM clock", "host pace"]

CauseKind = Literal[
    "wrong result",
    "kernel set",
    "launches",
    "launch shape",
    "work executed",
    "allocator",
    "clocks",
    "busy",
    "host_late",
    "api",
    "launch_latency",
    "dependency",
    "prologue",
    "epilogue",
    "host",
    "hidden",
]


@dataclass(frozen=True, slots=True)
class Quantity:
    """One time. stage: the row of the profile, '' for the whole forward."""

    stage: str
    measure: Measure

    def __str__(self) -> str:
        return f"{self.stage} {self.measure}".strip()


@dataclass(frozen=True, slots=True)
class Noise:
    """Spread of a quantity without any change, as fractions of its time.

    process: standard deviation between fresh processes; session: between groups of processes
    measured at different times (None: all were measured together). processes: how many it is from.
    detectable: the smallest slowdown that a check under the policy finds 8 times in 10.
    """

    quantity: Quantity
    process: float
    session: float | None
    processes: int
    detectable: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check says of one quantity. Times are us, medians over processes.

    reason: one sentence without a full stop. source: the pass it was read from.
    ratio: candidate / baseline, the median over all pairs of processes, with its interval;
    shift_us: the median of their differences (Hodges-Lehmann).
    p_value: Welch's t test on logarithms, one-sided in the direction seen; p_holm: after Holm over
    the quantities of its measure (the forward's are one family); p_rank: exact Mann-Whitney, a
    second opinion; p_same: of the two one-sided tests for a change within the plain floor.
    relative_floor: the fraction asked for, with the noise in it; absolute_floor_us: the us.
    noise: spread of ratio if nothing had changed. slowest: no larger ratio is believed (one-sided).
    clock: what times were divided by before they were compared; ratio_per_clock: the ratio after
    such a division, whether it decided or not.
    severe: REGRESSED by more than the policy's severe fraction. cleared: such a slowdown is
    excluded. None: not known.
    """

    quantity: Quantity
    verdict: Verdict
    reason: str
    processes: tuple[int, int]
    source: str = ""
    baseline_us: float | None = None
    candidate_us: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    shift_us: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    p_rank: float | None = None
    p_same: float | None = None
    relative_floor: float = 0.0
    absolute_floor_us: float = 0.0
    noise: float | None = None
    slowest: float | None = None
    clock: Clock = "none"
    ratio_per_clock: float | None = None
    confirmation: Confirmation = "not needed"
    severe: bool = False
    cleared: bool = False

    @property
    def is_alert(self) -> bool:
        return self.verdict == "REGRESSED"


@dataclass(frozen=True, slots=True)
class Shift:
    """How one component of a stage's part of the span moved, us: medians over processes and the
    Hodges-Lehmann difference. noise_us: its standard error. An explanation, without a verdict."""

    stage: str
    component: Component
    baseline_us: float
    candidate_us: float
    shift_us: float
    noise_us: float = 0.0


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a stage moved, one sentence without a full stop. stage: '' for the whole forward.

    shift_us: how much of the stage's change it is, where that is known.
    """

    stage: str
    kind: CauseKind
    sentence: str
    shift_us: float | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a check. created: of its first and last record."""

    solution: str
    source_hashes: tuple[str, ...]
    processes: int
    created: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Check:
    """A baseline and a candidate on one workload, judged.

    findings: forward first, then stages in their order. shifts: of every stage, by component;
    shifts_from: the timeline they were read from. causes: most telling first within each stage.
    against: what stands against comparing the two sides, gravest first; comparable: whether it does
    not forbid it. wrong_result: the candidate's problem, '' where it is right.
    """

    baseline: Side
    candidate: Side
    workload: WorkloadIdentity
    device: str
    policy: Policy
    interleaved: bool
    findings: tuple[Finding, ...]
    shifts: tuple[Shift, ...] = ()
    shifts_from: str = ""
    causes: tuple[Cause, ...] = ()
    against: tuple[str, ...] = ()
    comparable: bool = True
    wrong_result: str = ""

    @property
    def stages(self) -> tuple[str, ...]:
        """The rows, in their order."""
        return tuple(dict.fromkeys(f.quantity.stage for f in self.findings if f.quantity.stage))

    @property
    def alerts(self) -> tuple[Finding, ...]:
        """What regressed: stages before the forward they are part of, severe ones first."""
        found = [finding for finding in self.findings if finding.is_alert]
        return tuple(sorted(found, key=lambda f: (not f.quantity.stage, not f.severe)))

    @property
    def awaiting(self) -> tuple[Quantity, ...]:
        """Suspected changes that a second round of fresh processes must confirm."""
        return tuple(f.quantity for f in self.findings if f.confirmation == "awaited")

    @property
    def regressed_stages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(f.quantity.stage for f in self.alerts if f.quantity.stage))

    def finding(self, stage: str, measure: Measure) -> Finding | None:
        """What is said of one quantity; stage '' for the forward."""
        wanted = Quantity(stage, measure)
        return next((f for f in self.findings if f.quantity == wanted), None)

    def decisive(self, stage: str) -> Finding | None:
        """The finding that makes the stage's verdict: the gravest of those that decide."""
        own = [f for f in self.findings if f.quantity.stage == stage]
        return max(own, key=lambda f: (SEVERITY[f.verdict], f.severe), default=None)

    def causes_of(self, stage: str) -> tuple[Cause, ...]:
        return tuple(cause for cause in self.causes if cause.stage == stage)

    @property
    def verdict(self) -> Verdict:
        """Of the whole check. A quantity that is inconclusive makes the check so only if it awaits
        its confirmation or if a severe slowdown is not excluded."""
        if self.wrong_result or self.alerts:
            return "REGRESSED"
        if not self.comparable or not self.findings or self.awaiting:
            return "INCONCLUSIVE"
        if any(f.verdict == "INCONCLUSIVE" and not f.cleared for f in self.findings):
            return "INCONCLUSIVE"
        return "IMPROVED" if any(f.verdict == "IMPROVED" for f in self.findings) else "SAME"

    @property
    def exit_code(self) -> int:
        """0 same or improved, 1 regressed or wrong, 2 not comparable, 3 inconclusive."""
        if self.wrong_result:
            return EXIT_REGRESSED
        if not self.comparable:
            return EXIT_NOT_COMPARABLE
        codes: Mapping[str, int] = {
            "REGRESSED": EXIT_REGRESSED,
            "INCONCLUSIVE": EXIT_INCONCLUSIVE,
        }
        return codes.get(self.verdict, EXIT_OK)


@dataclass(frozen=True, slots=True)
class BaselineFile:
    """One record of a baseline: its name in the baseline's folder, and the hash of its bytes."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """What later runs are checked against: records of fresh processes, their policy and noise."""

    name: str
    created: str  # UTC, ISO 8601
    solution: str
    source_hash: str
    workload: WorkloadIdentity
    routing_hash: str
    device: str
    driver: str | None
    policy: Policy
    runs: tuple[BaselineFile, ...]
    noise: tuple[Noise, ...] = ()
    note: str = ""  # why it was accepted

    def noise_of(self, quantity: Quantity) -> Noise | None:
        return next((noise for noise in self.noise if noise.quantity == quantity), None)
