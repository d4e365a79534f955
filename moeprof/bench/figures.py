"""What one cell says: latencies by pass, their spread, their noise, speedups; all from raw samples.

Eager: the bare pass between the outer pair of CUDA events (the wall clock on a CPU), unstamped
samples where there are any. Graph: the replayed CUDA graph, which no host code slows down. Both
kinds of speedup are over the *eager* latency of the reference: it cannot be captured.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from moeprof.analysis.noise import median_noise
from moeprof.bench.cells import Cell
from moeprof.records import Run, Sample

Metric = Literal["eager", "graph"]
METRICS: tuple[Metric, ...] = ("eager", "graph")
PASS_OF: dict[Metric, str] = {"eager": "bare", "graph": "graph"}


@dataclass(frozen=True, slots=True)
class Spread:
    """The samples of one pass, us. variation: sample standard deviation / mean, None of one sample.

    noise_us: half width of the 95 % interval of the median, were the samples independent.
    trials_us: the medians of the trials. A host that is slow for a second falls on all samples of
    one trial, so that trials tell what ``noise_us`` does not.
    """

    count: int
    mean_us: float
    median_us: float
    least_us: float
    most_us: float
    variation: float | None
    noise_us: float
    trials_us: tuple[float, ...]


def samples(run: Run, metric: Metric) -> tuple[Sample, ...]:
    """The samples that count. Stamped ones of the bare pass count only alone."""
    found = run.samples(PASS_OF[metric])
    return tuple(sample for sample in found if not sample.stamps_us) or found


def spread(cell: Cell, metric: Metric) -> Spread | None:
    """The figures of one pass; None where the cell has none."""
    run = cell.measured
    if run is None:
        return None
    found = samples(run, metric)
    if not found:
        return None
    spans_us = [sample.span_us for sample in found]
    mean_us = statistics.fmean(spans_us)
    deviation = statistics.stdev(spans_us) if len(spans_us) > 1 else None
    return Spread(
        count=len(spans_us),
        mean_us=mean_us,
        median_us=statistics.median(spans_us),
        least_us=min(spans_us),
        most_us=max(spans_us),
        variation=deviation / mean_us if deviation is not None and mean_us else None,
        noise_us=median_noise(spans_us),
        trials_us=_trials_us(found),
    )


def latency_us(cell: Cell, metric: Metric) -> float | None:
    """The median; None where the cell has none."""
    run = cell.measured
    spans_us = [sample.span_us for sample in samples(run, metric)] if run is not None else []
    return statistics.median(spans_us) if spans_us else None


def speedup(cell: Cell, reference: Cell, metric: Metric) -> float | None:
    """Eager latency of the reference / latency of the cell; None where one of them is missing."""
    base_us, own_us = latency_us(reference, "eager"), latency_us(cell, metric)
    return base_us / own_us if base_us and own_us else None


def ratio(cell: Cell, baseline: Cell, metric: Metric) -> float | None:
    """How many times faster than the baseline, by the same timer."""
    base_us, own_us = latency_us(baseline, metric), latency_us(cell, metric)
    return base_us / own_us if base_us and own_us else None


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive values, at least one."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def first_call_ms(run: Run) -> float | None:
    """Wall time of the very first call, compilation and loading included."""
    found = run.samples("first")
    return found[0].wall_us / 1e3 if found else None


def why_no_graph(run: Run) -> str:
    """Why the forward was not captured; '' where it was or nobody asked."""
    unavailable = (p.unavailable for p in run.passes if p.name == "graph" and not p.samples)
    return next((why for why in unavailable if why), "")


def _trials_us(found: Sequence[Sample]) -> tuple[float, ...]:
    by_trial: dict[int, list[float]] = {}
    for sample in found:
        by_trial.setdefault(sample.trial, []).append(sample.span_us)
    return tuple(statistics.median(by_trial[trial]) for trial in sorted(by_trial))


def launches(run: Run) -> float | None:
    """GPU operations of one forward (kernels, copies, fills), a mean over iterations under CUPTI.

    None where neither the pass kernels nor api has iterations.
    """
    timeline = run.timeline("kernels") or run.timeline("api")
    if timeline is None:
        return None
    return statistics.fmean(len(iteration.start_ns) for iteration in timeline.iterations)
