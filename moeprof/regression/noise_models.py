"""Hand-made noise: what a forward's stages take in fresh processes when nothing has changed.

A scenario says how processes differ from each other and how iterations differ within one. ``draw``
plays it into the times of seven stages, iteration by iteration, for both sides and both rounds of
many checks at once. The sizes span 2 us to 2 ms; the figures of the host follow records of an H200
on a shared machine, where the host of one process was up to 1.7 times as slow as the next one's, in
every stage alike, and kernels differed by 1 to 3 % between processes.

Left out: GPU time that depends on the host, more than one stream, waits inside a stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from moeprof.regression.limits import QUANTUM_US
from moeprof.regression.statistics import Array

STAGES = (
    *("routing", "prepare_moe_input", "shuffle_rows", "gemm1"),
    *("swiglu_quant", "gemm2", "gather"),
)
BASELINE, CANDIDATE = 0, 1
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """A forward: time of each stage on the GPU and on the host, us, in the order of STAGES.

    by_clock: the part of each stage's GPU time that scales with the SM clock; the rest is memory's.
    """

    name: str
    busy_us: tuple[float, ...]
    host_us: tuple[float, ...] = (110.0, 35.0, 36.0, 60.0, 30.0, 50.0, 26.0)
    by_clock: tuple[float, ...] = (0.5, 0.5, 0.0, 1.0, 0.3, 1.0, 0.0)


LARGE = Shape("2 us to 2 ms", (25.0, 5.0, 2.0, 2000.0, 80.0, 1000.0, 200.0))
SMALL = Shape("host-bound", (26.0, 5.0, 2.3, 247.0, 3.2, 129.0, 3.4))


@dataclass(frozen=True, slots=True)
class Scenario:
    """How times vary without any change. Fractions are standard deviations of a time's logarithm.

    process: between processes, for each stage by itself; tail: degrees of freedom of that (None:
    normal; few give outliers); wander: correlation of one process with the next on the machine.
    iteration: within a process; outliers: part of the iterations that take up to twice as long;
    memory: correlation of one iteration with the next.
    drift: how far all GPU times move in a line over one round of a check, at most, to either side.
    low_clock: part of the processes that run at clock_ratio of the SM clock.
    modes: kernels that take a slower form in half of the processes, by how much.
    host_pace, host_stage: the host between processes, all stages alike, and each by itself;
    host_iteration: within.
    session: between the day of a stored baseline and today, for each stage by itself.
    """

    name: str
    what: str
    process: float = 0.01
    tail: float | None = None
    wander: float = 0.0
    iteration: float = 0.02
    outliers: float = 0.03
    memory: float = 0.0
    drift: float = 0.0
    low_clock: float = 0.0
    clock_ratio: float = 1.0
    modes: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    host_pace: float = 0.08
    host_stage: float = 0.02
    host_iteration: float = 0.05
    session: float = 0.0


def _modes(**slower: float) -> Mapping[str, float]:
    return MappingProxyType(slower)


# Kernels of the committed H200 records vary by 0.8 % (long ones) to 2.4 % (short ones) between
# iterations, and one iteration hardly knows of the last (correlation 0.0, at most 0.35 in 9 of 10),
# so 0.6 is more than was seen. A kernel with atomics took 14.9 us in one process and 16.5 us in the
# next, hence the two forms.
SCENARIOS = (
    Scenario("independent", "processes differ by 1 %, iterations by 2 % with outliers"),
    Scenario("drift", "all GPU times drift by up to 4 % over a round", drift=0.02),
    Scenario("two clocks", "3 processes in 10 at 1,905 MHz", low_clock=0.3, clock_ratio=0.962),
    Scenario("heavy tails", "processes differ by Student's t, 3 degrees", tail=3.0),
    Scenario("autocorrelation", "processes by 0.7, iterations by 0.6", wander=0.7, memory=0.6),
    Scenario("slow host", "the host differs by 20 % between processes", host_pace=0.2),
    Scenario(
        "all at once",
        "drift, clocks, tails, autocorrelation, host, each half as bad",
        drift=0.01,
        low_clock=0.15,
        clock_ratio=0.962,
        tail=5.0,
        wander=0.35,
        memory=0.3,
        host_pace=0.12,
    ),
)
LIMITS = (
    Scenario("noisy kernels", "processes differ by 2 %", process=0.02),
    Scenario(
        "two forms",
        "two kernels are 10 and 3 % slower in every second process",
        modes=_modes(prepare_moe_input=0.10, gemm2=0.03),
    ),
    Scenario("another day", "today every stage is off by 1 % of itself", session=0.01),
)


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """Times of many checks: [N, side, round, P, stage, I], us; clocks: [N, side, round, P], MHz."""

    busy_us: Array
    host_us: Array
    sm_mhz: Array


def draw(
    scenario: Scenario,
    shape: Shape,
    checks: int,
    processes: int,
    iterations: int,
    seed: int,
    stored: bool = False,
) -> Played:
    """Play ``checks`` checks of two rounds, nothing changed.

    Both sides are measured in turn; of a stored baseline on another day (``session``).
    """
    random = np.random.default_rng(seed)
    lead = (checks, 2, ROUNDS, processes)
    stages = len(STAGES)
    own = _interleave(_between(scenario, random, (checks, ROUNDS * 2 * processes, stages)), lead)
    own += _drift(scenario, random, lead)[..., None]
    if stored:
        own[:, BASELINE] += scenario.session * random.standard_normal((checks, 1, 1, stages))
    for stage, slower in scenario.modes.items():
        own[..., STAGES.index(stage)] += np.log1p(slower) * (random.random(lead) < 0.5)
    low = random.random(lead) < scenario.low_clock
    sm_mhz = np.where(low, 1980.0 * scenario.clock_ratio, 1980.0)
    own += np.where(low, -np.log(scenario.clock_ratio), 0.0)[..., None] * np.array(shape.by_clock)
    within = _within(scenario, random, (*lead, stages, iterations))
    busy_us = np.array(shape.busy_us)[:, None] * np.exp(own[..., None] + within)
    host = scenario.host_pace * random.standard_normal((*lead, 1))
    host = host + scenario.host_stage * random.standard_normal((*lead, stages))
    jitter = scenario.host_iteration * random.standard_normal((*lead, stages, iterations))
    late = random.random(jitter.shape) < scenario.outliers
    jitter += np.where(late, random.exponential(0.5, jitter.shape), 0.0)
    host_us = np.array(shape.host_us)[:, None] * np.exp(host[..., None] + jitter)
    return Played(busy_us, host_us, sm_mhz)


def ticked(busy_us: Array) -> Array:
    """GPU times as CUPTI reads them: whole ticks, at least one."""
    return np.maximum(1.0, np.round(busy_us / QUANTUM_US)) * QUANTUM_US


def _between(scenario: Scenario, random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Logarithms of processes in the order they run, [N, order, stage]."""
    fresh = (
        random.standard_normal(shape)
        if scenario.tail is None
        else random.standard_t(scenario.tail, shape) / np.sqrt(scenario.tail / (scenario.tail - 2))
    )
    return scenario.process * _autocorrelated(fresh, scenario.wander, axis=1)


def _within(scenario: Scenario, random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Logarithms of iterations, [..., I]."""
    found = scenario.iteration * _autocorrelated(
        random.standard_normal(shape), scenario.memory, axis=-1
    )
    slow = random.random(shape) < scenario.outliers
    return found + np.where(slow, np.log1p(random.random(shape)), 0.0)


def _autocorrelated(fresh: Array, correlation: float, axis: int) -> Array:
    """An AR(1) series of the same variance."""
    if not correlation:
        return fresh
    series = np.moveaxis(fresh, axis, 0).copy()
    kept = np.sqrt(1 - correlation**2)
    for i in range(1, len(series)):
        series[i] = correlation * series[i - 1] + kept * series[i]
    return np.moveaxis(series, 0, axis)


def _order(processes: int) -> Array:
    """Where in a round the i-th process of each side runs, [2, P]: A B, B A, A B, ..."""
    order = np.empty((2, processes), dtype=int)
    for i in range(processes):
        order[i % 2, i], order[1 - i % 2, i] = 2 * i, 2 * i + 1
    return order


def _interleave(series: Array, lead: tuple[int, ...]) -> Array:
    """From the order of running [N, order, stage] to [N, side, round, P, stage]."""
    checks, sides, rounds, processes = lead
    order = _order(processes)
    found = np.empty((*lead, series.shape[-1]))
    for side in range(sides):
        for round_ in range(rounds):
            found[:, side, round_] = series[:, order[side] + round_ * 2 * processes]
    return found


def _drift(scenario: Scenario, random: np.random.Generator, lead: tuple[int, ...]) -> Array:
    """A line over each round, another in each check, [N, side, round, P]."""
    checks, _, rounds, processes = lead
    slope = scenario.drift * random.uniform(-1, 1, (checks, 1, rounds, 1))
    place = _order(processes) / (2 * processes - 1) * 2 - 1
    return slope * place[None, :, None, :]
