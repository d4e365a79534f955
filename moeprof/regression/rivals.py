"""The rules of other tools on the same data: which stages each would call slower, [N, stage].

All take iterations [N, stage, I] of both sides, as those tools do. From their sources (2026):

    threshold     medians differ by more than 3 %
    ranks         Mann-Whitney on iterations, one-sided p < 0.05 (google/benchmark's compare.py)
    t             Welch's t on iterations, one-sided p < 0.05 (pyperf)
    minimum       pytest-benchmark --benchmark-compare-fail=min:5%
    deviation     nvbench-compare: means differ by more than the smaller relative deviation
    gap           nvbench-compare-robust: intervals [minimum, third quartile] leave a gap of 0.5 %,
                  in time and in cycles
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from moeprof.regression.sides import Flags
from moeprof.regression.statistics import Array, scipy_stats

ALPHA = 0.05
Rule = Callable[[Array, Array, Array, Array], Flags]  # us and cycles of baseline and candidate


def _threshold(baseline: Array, candidate: Array, *_: Array) -> Flags:
    return np.asarray(np.median(candidate, axis=-1) > 1.03 * np.median(baseline, axis=-1))


def _ranks(baseline: Array, candidate: Array, *_: Array) -> Flags:
    found = scipy_stats().mannwhitneyu(
        candidate, baseline, alternative="greater", axis=-1, method="asymptotic"
    )
    return np.asarray(found.pvalue < ALPHA)


def _t(baseline: Array, candidate: Array, *_: Array) -> Flags:
    found = scipy_stats().ttest_ind(
        candidate, baseline, alternative="greater", axis=-1, equal_var=False
    )
    return np.asarray(found.pvalue < ALPHA)


def _minimum(baseline: Array, candidate: Array, *_: Array) -> Flags:
    return np.asarray(candidate.min(axis=-1) > 1.05 * baseline.min(axis=-1))


def _deviation(baseline: Array, candidate: Array, *_: Array) -> Flags:
    means = [side.mean(axis=-1) for side in (baseline, candidate)]
    relative = [
        side.std(axis=-1, ddof=1) / mean
        for side, mean in zip((baseline, candidate), means, strict=True)
    ]
    return np.asarray(means[1] / means[0] - 1.0 > np.minimum(*relative))


def _gap(
    baseline: Array, candidate: Array, baseline_cycles: Array, candidate_cycles: Array
) -> Flags:
    found = [
        other.min(axis=-1) > 1.005 * np.quantile(one, 0.75, axis=-1)
        for one, other in ((baseline, candidate), (baseline_cycles, candidate_cycles))
    ]
    return np.asarray(found[0] & found[1])


RIVALS: Mapping[str, Rule] = MappingProxyType(
    {
        "3 % threshold on medians": _threshold,
        "Mann-Whitney on iterations": _ranks,
        "Welch t on iterations": _t,
        "pytest-benchmark min:5%": _minimum,
        "nvbench-compare": _deviation,
        "nvbench-compare-robust": _gap,
    }
)
