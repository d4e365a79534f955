"""Tests and estimates on per-process summaries, as arrays [..., P]: the last axis is the process.

The tests are scipy's; what scipy lacks is here: Holm's step-down, the Hodges-Lehmann estimates, and
t tests kept together with their standard error, so that a bound and an equivalence test say the
same as the p-value beside them. Everything works on whole stacks of checks at once, because the
simulation runs what a real check runs.

Left out: tests on pooled iterations. Iterations of one process share whatever that process has
(addresses, clocks, neighbours): taken for independent they raise false alarms in most checks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprof.errors import EnvironmentMissing

Array = NDArray[np.float64]

TRIMMED_EACH_END = 0.1
MEDIAN_FROM_US = 5.0  # below this the clock's ticks of 32 ns make medians jump


OLDEST_SCIPY = (1, 15)  # bootstrap's rng


def scipy_stats() -> Any:
    """scipy.stats, or one line where a machine that only measures has none, or an old one."""
    instead = "pip install 'scipy>=1.15', or check the records on another machine with --runs"
    try:
        import scipy
        from scipy import stats
    except ImportError:
        raise EnvironmentMissing(
            "a regression check needs scipy, which is not installed here", do=instead
        ) from None
    version = tuple(int(part) for part in scipy.__version__.split(".")[:2])
    if version < OLDEST_SCIPY:
        raise EnvironmentMissing(f"scipy {scipy.__version__} is too old", do=instead)
    return stats


def summarise(iterations: Array, typical_us: Array | float) -> Array:
    """One number a process of its iterations [..., I]: [...].

    typical_us: of the quantity on both sides, so that all its processes are summarised alike.
    """
    trimmed: Array = scipy_stats().trim_mean(iterations, TRIMMED_EACH_END, axis=-1)
    short = np.broadcast_to(typical_us, trimmed.shape) < MEDIAN_FROM_US
    return np.where(short, trimmed, np.median(iterations, axis=-1))


def summarise_all(samples: Sequence[Array], typical_us: float) -> Array:
    """``summarise`` of samples that may differ in length, [len(samples)]; in few calls, since
    each of scipy's costs milliseconds."""
    found = np.empty(len(samples))
    for length in {len(sample) for sample in samples}:
        same = [i for i, sample in enumerate(samples) if len(sample) == length]
        found[same] = summarise(np.stack([samples[i] for i in same]), typical_us)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class MeanTest:
    """Difference of two means [...], its standard error and the degrees of freedom of that."""

    difference: Array
    error: Array
    freedom: Array

    def p_above(self, margin: Array | float = 0.0) -> Array:
        """Chance of such a difference, or a larger one, if the true one is ``margin``."""
        return self._tail((self.difference - margin) / self.error)

    def p_below(self, margin: Array | float = 0.0) -> Array:
        """Chance of such a difference, or a smaller one, if the true one is ``margin``."""
        return self._tail((margin - self.difference) / self.error)

    def p_within(self, margin: Array | float) -> Array:
        """Of the two one-sided tests that the difference lies within +-``margin``."""
        return np.maximum(self.p_below(margin), self.p_above(-np.asarray(margin)))

    def upper(self, alpha: float) -> Array:
        """No larger true difference is believed at this level."""
        reach: Array = scipy_stats().t.isf(alpha, self.freedom)
        return self.difference + reach * self.error

    def _tail(self, t: Array) -> Array:
        p: Array = scipy_stats().t.sf(t, self.freedom)
        return p


def welch(baseline: Array, candidate: Array, least_deviation: Array | float = 0.0) -> MeanTest:
    """Candidate against baseline, [..., P] each; variances may differ.

    least_deviation: what a clock's ticks alone leave, so that five equal readings of a coarse clock
    are not taken for certainty.
    """
    sizes = baseline.shape[-1], candidate.shape[-1]
    floor = np.square(np.asarray(least_deviation, dtype=np.float64))
    squares = [
        (np.var(side, axis=-1, ddof=1) + floor) / size
        for side, size in zip((baseline, candidate), sizes, strict=True)
    ]
    total = np.maximum(squares[0] + squares[1], np.finfo(np.float64).tiny)
    parts = squares[0] ** 2 / (sizes[0] - 1) + squares[1] ** 2 / (sizes[1] - 1)
    freedom = np.where(parts > 0, total**2 / np.where(parts > 0, parts, 1.0), sum(sizes) - 2)
    difference = np.mean(candidate, axis=-1) - np.mean(baseline, axis=-1)
    return MeanTest(difference, np.sqrt(total), freedom)


def paired(baseline: Array, candidate: Array, least_deviation: Array | float = 0.0) -> MeanTest:
    """The same for processes measured in turn, [..., P] each: the i-th ones are neighbours."""
    changes = candidate - baseline
    size = changes.shape[-1]
    floor = 2.0 * np.square(np.asarray(least_deviation, dtype=np.float64))
    square = (np.var(changes, axis=-1, ddof=1) + floor) / size
    error = np.sqrt(np.maximum(square, np.finfo(np.float64).tiny))
    return MeanTest(np.mean(changes, axis=-1), error, np.full(error.shape, size - 1.0))


def either(first: NDArray[np.bool_], one: MeanTest, other: MeanTest) -> MeanTest:
    """``one`` where ``first``, else ``other``."""
    return MeanTest(
        np.where(first, one.difference, other.difference),
        np.where(first, one.error, other.error),
        np.where(first, one.freedom, other.freedom),
    )


def holm(p_values: Array, families: Sequence[int] | None = None) -> Array:
    """p-values [..., Q] after Holm's step-down, so that each family errs once at its level.

    families: [Q], which family each belongs to; all to one by default.
    """
    names = np.zeros(p_values.shape[-1], dtype=int) if families is None else np.array(families)
    adjusted = np.empty_like(p_values)
    for family in np.unique(names):
        members = np.flatnonzero(names == family)
        own = p_values[..., members]
        order = np.argsort(own, axis=-1, kind="stable")
        weights = np.arange(len(members), 0, -1)
        stepped = np.maximum.accumulate(np.take_along_axis(own, order, -1) * weights, axis=-1)
        unsorted = np.empty_like(own)
        np.put_along_axis(unsorted, order, np.minimum(1.0, stepped), -1)
        adjusted[..., members] = unsorted
    return adjusted


def pairwise_median(baseline: Array, candidate: Array) -> Array:
    """Hodges-Lehmann: the median of all differences candidate - baseline, [...]."""
    differences = candidate[..., None, :] - baseline[..., :, None]
    found: Array = np.median(differences.reshape(*differences.shape[:-2], -1), axis=-1)
    return found


def median_ratio(baseline: Array, candidate: Array) -> Array:
    """The median of all ratios candidate / baseline of positive times, [...]."""
    return np.exp(pairwise_median(np.log(baseline), np.log(candidate)))


def ratio_interval(
    baseline: Array,
    candidate: Array,
    confidence: float,
    resamples: int,
    seed: int,
    paired: bool = False,
) -> tuple[Array, Array]:
    """Bootstrap interval of ``median_ratio``, [Q] each: processes are drawn, never iterations.

    paired: the i-th processes of both sides are drawn together (they were measured together).
    """
    logs = np.log(baseline), np.log(candidate)

    def statistic(one: Array, other: Array, axis: int = -1) -> Array:
        return pairwise_median(np.moveaxis(one, axis, -1), np.moveaxis(other, axis, -1))

    pairs = paired and baseline.shape == candidate.shape
    settings = {
        "vectorized": True,
        "axis": -1,
        "paired": pairs,
        "confidence_level": confidence,
        "n_resamples": resamples,
    }
    found = _bootstrap("BCa", logs, statistic, seed, settings)
    # BCa divides by a spread that (nearly) equal readings do not have
    lost = np.isnan(found[0]) | np.isnan(found[1])
    if lost.any():
        sides = logs[0][lost], logs[1][lost]
        for bound, simple in zip(
            found, _bootstrap("percentile", sides, statistic, seed, settings), strict=True
        ):
            bound[lost] = simple
    return np.exp(found[0]), np.exp(found[1])


def _bootstrap(
    method: str, sides: tuple[Array, Array], statistic: Any, seed: int, settings: dict[str, Any]
) -> tuple[Array, Array]:
    """scipy's interval, NaN where the method has none."""
    generator = np.random.default_rng(seed)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = scipy_stats().bootstrap(sides, statistic, method=method, rng=generator, **settings)
    interval = found.confidence_interval
    return np.array(interval.low), np.array(interval.high)


def rank_p(baseline: Array, candidate: Array) -> Array:
    """Exact Mann-Whitney, one-sided in the direction of the medians, [...]."""
    mannwhitneyu = scipy_stats().mannwhitneyu
    above: Array = mannwhitneyu(
        candidate, baseline, alternative="greater", axis=-1, method="exact"
    ).pvalue
    below: Array = mannwhitneyu(
        candidate, baseline, alternative="less", axis=-1, method="exact"
    ).pvalue
    return np.where(pairwise_median(baseline, candidate) >= 0, above, below)
