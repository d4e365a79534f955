"""What a Profile is: where the time of one forward went, as plain values.

``attribution`` makes these from records and ``reports`` show them; nothing here computes more than
a sum. Times of one iteration are integer nanoseconds, so that the identity

    span = sum over rows of (busy + host_late + api + launch_latency + dependency)

closes exactly; times of a Profile are means of those (floats), for which it closes as well because
a mean is linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

UNATTRIBUTED = "unattributed"  # the row of operations that no stage launched; must stay empty

Source = Literal["reconstructed", "api", "events", "stage clock"]
TrustVerdict = Literal["agree", "differ", "within noise", "not measured"]


@dataclass(frozen=True, slots=True)
class StageTime:
    """One row of one iteration, ns.

    busy: time owned by its operations; overlap: the rest of their durations, which an operation
    that started earlier owns; kernel_sum: plain sum of durations, counted apart as a check.
    The other four split the idle time before its operations.
    """

    name: str
    busy_ns: int = 0
    overlap_ns: int = 0
    kernel_sum_ns: int = 0
    host_late_ns: int = 0
    api_ns: int = 0
    launch_latency_ns: int = 0
    dependency_ns: int = 0
    operations: int = 0

    @property
    def gap_ns(self) -> int:
        """Idle time before its operations."""
        return self.host_late_ns + self.api_ns + self.launch_latency_ns + self.dependency_ns

    @property
    def time_ns(self) -> int:
        """Its part of the span."""
        return self.busy_ns + self.gap_ns


@dataclass(frozen=True, slots=True)
class IterationProfile:
    """One iteration: prologue, span and epilogue are the wall time; the rows are the span.

    wall_ns and epilogue_ns are None where the record has no host exit.
    """

    wall_ns: int | None
    prologue_ns: int
    span_ns: int
    epilogue_ns: int | None
    stages: tuple[StageTime, ...]

    @property
    def residual_ns(self) -> int:
        """What the identity leaves over. Anything but 0 is a bug or a damaged record."""
        return self.span_ns - sum(stage.time_ns for stage in self.stages)

    @property
    def unattributed_operations(self) -> int:
        return sum(stage.operations for stage in self.stages if stage.name == UNATTRIBUTED)

    @property
    def orchestration_ns(self) -> int:
        """Idle time that the host caused: launches begun late, and the launch calls themselves."""
        return sum(stage.host_late_ns + stage.api_ns for stage in self.stages)


@dataclass(frozen=True, slots=True)
class StageProfile:
    """One row of a Profile: means over iterations, ns. Fields as in ``StageTime``."""

    name: str
    busy_ns: float
    overlap_ns: float = 0.0
    kernel_sum_ns: float = 0.0
    host_late_ns: float = 0.0
    api_ns: float = 0.0
    launch_latency_ns: float = 0.0
    dependency_ns: float = 0.0
    operations: float = 0.0

    @property
    def gap_ns(self) -> float:
        """Idle time before its operations."""
        return self.host_late_ns + self.api_ns + self.launch_latency_ns + self.dependency_ns

    @property
    def time_ns(self) -> float:
        """Its part of the span."""
        return self.busy_ns + self.gap_ns


@dataclass(frozen=True, slots=True)
class Reading:
    """One way of reading the orchestration, us, with the half width of its 95 % interval.

    value_us is None where the pass it needs is missing; ``why`` then says which. corrected_us is
    what was taken off the raw difference to leave orchestration alone.
    """

    name: str
    value_us: float | None
    noise_us: float = 0.0
    corrected_us: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whether independent readings of the orchestration agree."""

    readings: tuple[Reading, ...]
    spread_us: float
    tolerance_us: float
    verdict: TrustVerdict


@dataclass(frozen=True, slots=True)
class SpanCheck:
    """Median span of the reconstruction beside the one measured without a profiler, us."""

    predicted_us: float
    measured_us: float
    tolerance_us: float

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted_us / self.measured_us - 1.0 if self.measured_us else 0.0

    @property
    def agrees(self) -> bool:
        return abs(self.predicted_us - self.measured_us) <= self.tolerance_us


@dataclass(frozen=True, slots=True)
class Profile:
    """One solution on one workload, explained.

    source: what the rows come from. 'reconstructed': the undisturbed forward; 'api': the profiled
    one, whose host figures are upper bounds; 'events': a CUDA event pair a stage; 'stage clock':
    the host clock of a CPU run. iterations: how many the means are over. perturbation: span under
    the profiler / bare span. findings: what a reader must know, one sentence each, worst first.
    """

    source: Source
    iterations: int
    wall_ns: float
    prologue_ns: float
    span_ns: float
    epilogue_ns: float
    stages: tuple[StageProfile, ...]
    trust: Trust
    perturbation: float | None = None
    span_check: SpanCheck | None = None
    host_upper_bounds: bool = False
    findings: tuple[str, ...] = ()

    @property
    def busy_ns(self) -> float:
        return sum(stage.busy_ns for stage in self.stages)

    @property
    def orchestration_ns(self) -> float:
        """Idle time that the host caused, of the rows above (not one of the trust readings)."""
        return sum(stage.host_late_ns + stage.api_ns for stage in self.stages)

    @property
    def residual_ns(self) -> float:
        """What the identity leaves over: 0 but for rounding of the means."""
        return self.span_ns - sum(stage.time_ns for stage in self.stages)

    def stage(self, name: str) -> StageProfile | None:
        """The row ``name``."""
        return next((stage for stage in self.stages if stage.name == name), None)
