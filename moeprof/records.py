"""The record of one solution on one workload: what was measured, raw, and where.

Every statistic is derived on reading (``attribution``, ``ledger``); nothing here is a mean. All
values are frozen and reject the impossible when built. ``store`` alone knows how they look on disk.

Times on the host clock and of samples are microseconds (``_us``), times of spans are integer
nanoseconds (``_ns``) relative to the iteration's host entry, so that identities can close exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from moeprof.timelines import TimelinePass, require

SCHEMA_VERSION = 1

# passes in the order they run; an attached profiler slows the process after it, so CUPTI is last
PASSES = ("first", "bare", "events", "blocked", "graph", "kernels", "api")
CPU_PASSES = ("first", "bare", "stages")  # stages: a wall clock per stage, in Sample.stage_us
# flashinfer-bench's own timers, run only where asked for: its 0.1.2's event pairs, its main's CUPTI
# span, and the event pairs again under CUPTI. The span needs calls recorded that later passes leave
# out, hence its place
PARITY_PASSES = ("fib_events", "fib_span", "fib_observed")
PASS_ORDER = (*PASSES[:5], "fib_events", "fib_span", *PASSES[5:], "fib_observed")

# before the name of what has no definition: a user's own callable, another profiler's capture
CALLABLE, IMPORTED = "callable:", "imported:"


@dataclass(frozen=True, slots=True)
class StageInfo:
    """One stage of the solution that ran.

    rows_executed: (token, expert) rows it really ran, None where the notion does not apply.
    rows_per_expert: the same by local expert, where problem sizes tell (earlier records: None).
    bytes_read, bytes_written: what its named tensors hold; weights only of experts with rows.
    row: the row it shares with other stages of one call, '' where its name is its row. Then it is a
    stretch of a user's stage; resumes: one that goes on after a stage nested inside it.
    """

    name: str
    covers: tuple[str, ...]
    backend: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    library: str | None = None
    stand_in: str | None = None
    kernel_rules: tuple[tuple[str, tuple[str, ...]], ...] = ()
    rows_executed: int | None = None
    rows_declared: bool = False  # the op shows no problem sizes: the solution says how many
    bytes_read: int | None = None
    bytes_written: int | None = None
    flops: int | None = None
    row: str = ""
    resumes: bool = False
    rows_per_expert: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("rows_executed", "bytes_read", "bytes_written", "flops"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{name} of {self.name} is {value}", "at least 0")
        if self.rows_per_expert is not None:
            require(
                sum(self.rows_per_expert) == self.rows_executed
                and min(self.rows_per_expert, default=0) >= 0,
                f"rows_per_expert of {self.name} sums to {sum(self.rows_per_expert)}",
                f"counts that sum to rows_executed, {self.rows_executed}",
            )


@dataclass(frozen=True, slots=True)
class SolutionIdentity:
    """Which code ran. ``source_hash`` covers the solution file and every stage file it composes."""

    name: str
    source_hash: str
    stages: tuple[StageInfo, ...]
    keeps_buffers: bool = False
    description: str = ""
    author: str = ""  # of a TraceSet's solution, and the hash that FlashInfer-Bench gives it
    fib_hash: str = ""

    @property
    def stage_names(self) -> tuple[str, ...]:
        return tuple(stage.name for stage in self.stages)

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """Libraries for which a torch twin stood in, each with the reason."""
        named = {f"{s.library}: {s.stand_in}": None for s in self.stages if s.stand_in}
        return tuple(named)


@dataclass(frozen=True, slots=True)
class WorkloadIdentity:
    """Which problem it ran on, with the definition's constant axes."""

    definition: str
    uuid: str
    seq_len: int
    local_expert_offset: int
    routed_scaling_factor: float
    constants: Mapping[str, int]

    def __post_init__(self) -> None:
        require(self.seq_len >= 1, f"seq_len is {self.seq_len}", "at least 1")

    @property
    def is_callable(self) -> bool:
        """Whether a user's own callable ran."""
        return self.definition.startswith(CALLABLE)

    @property
    def has_definition(self) -> bool:
        """Whether the problem is defined: else there is no routing, no reference, no known work."""
        return not self.definition.startswith((CALLABLE, IMPORTED))


@dataclass(frozen=True, slots=True)
class RoutingIdentity:
    """What the router decided, as the definition computes it on the CPU.

    label: 'recorded', 'synthetic uniform', 'synthetic zipf:1.2', ... as shown in every report.
    local_pairs P: (token, local expert) pairs; active_experts A: local experts with a token;
    local_tokens: tokens with at least one local pair; tokens_per_expert: [E_local], sums to P.
    """

    label: str
    weights_recipe: str
    seed: int
    histogram_hash: str
    local_pairs: int
    active_experts: int
    local_tokens: int
    tokens_per_expert: tuple[int, ...]

    def __post_init__(self) -> None:
        total = sum(self.tokens_per_expert)
        require(total == self.local_pairs, f"histogram sums to {total}", f"P = {self.local_pairs}")
        active = sum(count > 0 for count in self.tokens_per_expert)
        require(
            active == self.active_experts,
            f"histogram has {active} active experts",
            f"A = {self.active_experts}",
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine, without anything that names a user, a host or a path.

    card: which GPU of its model it was, as a few digits of a hash; None where it was not read.
    """

    device: str
    device_kind: Literal["cuda", "cpu"]
    python: str
    versions: Mapping[str, str]
    compute_capability: str | None = None
    driver: str | None = None
    cuda: str | None = None
    multiprocessors: int | None = None
    l2_bytes: int | None = None
    memory_bytes: int | None = None
    interpreter: bool = False  # Triton kernels ran through Triton's interpreter
    card: str | None = None


@dataclass(frozen=True, slots=True)
class ParitySettings:
    """How flashinfer-bench's latencies were reproduced: its own sizes, which no preset changes."""

    timers: tuple[str, ...]  # of '0.1.2' and 'main'
    warmup: int = 10
    iterations: int = 50
    trials: int = 3

    def __post_init__(self) -> None:
        require(self.iterations >= 1 and self.trials >= 1, "no iterations of parity", "at least 1")


@dataclass(frozen=True, slots=True)
class Settings:
    """How it was measured."""

    preset: str
    warmup: int
    iterations: int
    trials: int
    seed: int
    l2: Literal["flush", "warm"]
    passes: tuple[str, ...]
    rtol: float
    atol: float
    required_matched_ratio: float
    max_relative_l2: float
    parity: ParitySettings | None = None

    @property
    def turns(self) -> int:
        """A solution's turns on a workload: one a pass, in ``bare`` one a trial."""
        return len(self.passes) + (self.trials - 1) * ("bare" in self.passes)


@dataclass(frozen=True, slots=True)
class StageCorrectness:
    """One stage's tensor against the reference's, over local pairs."""

    stage: str
    tensor: str
    relative_l2: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Correctness:
    """The output against the reference. ``problem`` is the one line that says what is wrong.

    checked False: there was nothing to compare with (a user's callable); the figures mean nothing.
    max_relative: the largest |error| / (|reference| + 1e-8) (earlier records, or no output: None).
    """

    passed: bool
    matched_ratio: float
    relative_l2: float
    cosine: float
    max_absolute: float
    stages: tuple[StageCorrectness, ...] = ()
    problem: str | None = None
    checked: bool = True
    max_relative: float | None = None


UNCHECKED = Correctness(True, 0.0, 0.0, 0.0, 0.0, checked=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """One iteration of an uninstrumented pass.

    span_us: between the outer pair of CUDA events (the wall clock on a CPU). wall_us: host entry
    to the return of the final synchronise. stamps_us (bare, stamped iterations): host clock from
    host entry at: opening event recorded, then after each stage, closing event recorded.
    stage_us (events pass on CUDA, stages pass on a CPU): time of each stage, solution order.
    fib_events, fib_observed: wall_us is span_us, as nothing waits for the GPU after an iteration.
    """

    span_us: float
    wall_us: float
    trial: int = 0
    stamps_us: tuple[float, ...] = ()
    stage_us: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for value in (self.span_us, self.wall_us, *self.stage_us):
            require(math.isfinite(value) and value >= 0, f"a sample of {value} us", "a finite time")


@dataclass(frozen=True, slots=True)
class PassResult:
    """The samples of one pass, or the reason why it could not run."""

    name: str
    samples: tuple[Sample, ...] = ()
    unavailable: str | None = None


@dataclass(frozen=True, slots=True)
class ClockSample:
    """NVML's reading beside a pass. ``throttle``: names of active clock-event reasons.

    host_loop_us: a fixed loop of Python timed at the same moment. A host that is late because it
    is slow (shared cores, a lowered clock) shows here and not in the solution.
    """

    pass_name: str
    sm_mhz: int
    memory_mhz: int
    power_w: float
    temperature_c: int
    throttle: tuple[str, ...] = ()
    host_loop_us: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What measuring costs on this machine, read in the process that measured."""

    null_event_pair_us: float
    event_record_us: float
    launch_us: float
    launch_latency_ns: int | None = None  # launch call's return to start, idle GPU (CUPTI)
    queued_gap_ns: int | None = None  # end of one queued kernel to start of the next (CUPTI)
    graph_gap_ns: int | None = None  # the same between nodes of a replayed graph (CUPTI)
    # 25 one-element launches, host entry to synchronised: bare, under device and under API records
    tiny_bare_us: float | None = None
    tiny_kernels_us: float | None = None
    tiny_api_us: float | None = None


@dataclass(frozen=True, slots=True)
class MachineCeilings:
    """What this machine did at best, measured in the process that measured the run.

    copy counts bytes read and written. fp8: dense e4m3 product of 8192^3, with fast accumulation
    and with the slow one that block-scaled kernels need.
    """

    copy_bytes_per_second: float
    read_bytes_per_second: float
    fp8_flops_per_second: float
    fp8_slow_flops_per_second: float

    def __post_init__(self) -> None:
        for value in (self.copy_bytes_per_second, self.read_bytes_per_second):
            require(math.isfinite(value) and value > 0, f"a ceiling of {value}", "above 0")


@dataclass(frozen=True, slots=True)
class Capture:
    """The other profiler's capture that a record was imported from.

    tool: 'Nsight Systems', 'PyTorch profiler', ...; version, schema: '' if the file did not say.
    file: its name, without a folder. stages_by: 'ranges', 'rules' or 'graph nodes', what told
    stages apart. forwards: how many the capture holds (the record may keep fewer). notes: what was
    left out or is doubtful, counted and named.
    """

    tool: str
    version: str
    schema: str
    file: str
    stages_by: str
    forwards: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelMetrics:
    """What Nsight Compute's counters said of one kernel launch of a stage; replayed alone.

    launch: its number among the stage's launches, from 0. Fractions are of the peak, 0 to 1; None
    where the counter was not collected. stalls: warps waiting per instruction issued, by reason.
    """

    stage: str
    launch: int
    name: str
    duration_ns: float
    dram_bytes_per_second: float | None = None
    dram_fraction: float | None = None
    tensor_pipe_fraction: float | None = None
    occupancy_fraction: float | None = None
    sm_clock_hz: float | None = None
    registers: int | None = None
    stalls: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One solution on one workload: the unit of record."""

    moeprof: str
    created: str  # UTC, ISO 8601
    solution: SolutionIdentity
    workload: WorkloadIdentity
    routing: RoutingIdentity
    environment: Environment
    settings: Settings
    correctness: Correctness
    passes: tuple[PassResult, ...] = ()
    timelines: tuple[TimelinePass, ...] = ()
    clocks: tuple[ClockSample, ...] = ()
    calibration: Calibration | None = None
    ceilings: MachineCeilings | None = None
    warnings: tuple[str, ...] = ()
    position: int = 0  # of this workload in the process: the first one pays for loading libraries
    capture: Capture | None = None
    kernel_metrics: tuple[KernelMetrics, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        measured = any(p.samples for p in self.passes) or any(t.iterations for t in self.timelines)
        require(
            self.correctness.passed or not measured,
            "a wrong result with timings",
            "no timings where the result is wrong",
        )

    def samples(self, name: str) -> tuple[Sample, ...]:
        """The samples of pass ``name``; empty where it did not run."""
        return next((p.samples for p in self.passes if p.name == name), ())

    def timeline(self, name: str) -> TimelinePass | None:
        """The CUPTI pass ``name`` ('kernels' or 'api') if it has iterations."""
        return next((t for t in self.timelines if t.name == name and t.iterations), None)
