"""Where a series of checks steps from one level to another: ruptures finds it, the noise says when.

A level is a mean of logarithms, a step costs a penalty: the segmentation with the least squared
distance plus penalties is exact (dynamic programming, ``KernelCPD`` with a linear kernel, which is
the squared error in C). Values are divided by the noise of a check, so one penalty serves every
quantity. It was set by simulation (tests/test_history_changes.py repeats it): of series without any
change at most 1 % report one. A level needs two checks that agree: one odd check is no change.

The noise of a check has two parts. Fresh processes of one check differ, and their mean carries that
over the root of their number. Checks of the same code differ by more than that (another day,
another clock); a stored baseline of several sessions tells it, else the differences of neighbouring
checks do, the largest left out, which are those across steps. The fewer there are, the less they
are believed: ``FEW``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from moeprof.errors import EnvironmentMissing
from moeprof.history.values import Change

Array = NDArray[np.float64]

FEWEST_CHECKS = 4  # two of each level
PENALTY, PENALTY_PER_LOG = 7.0, 1.7  # 99 % quantiles of 4 to 160 checks of noise lie below
FEW = 30.0  # the variance seen in n differences counts 1 + FEW / n fold
SMALLEST_STEP = 0.005  # what is less is no news to anyone, however sure
ODD = 4.0  # times its noise that a check is away from its neighbours to be left out
LEFT_OUT = 0.15  # of the differences, at least one


@dataclass(frozen=True, slots=True)
class SeriesNoise:
    """Fractions. process: between processes of a check; check: beyond that, between checks.

    few: what the variance of ``check`` is multiplied by before a change is believed.
    """

    process: float
    check: float
    few: float = 1.0

    def of_mean(self, processes: int) -> float:
        """Standard error of the mean of a check."""
        return math.sqrt(self.process**2 / processes + self.check**2)

    def believed(self, processes: int) -> float:
        """The same as large as it may be."""
        return math.sqrt(self.process**2 / processes + self.few * self.check**2)


def noise_of_series(
    checks: Sequence[Sequence[float]], process: float = 0.0, session: float | None = None
) -> SeriesNoise:
    """The noise of a series of checks, each the times of its processes (us).

    process, session: what a baseline knows of it; a session's noise that is known replaces what
    neighbouring checks tell. The larger process noise counts.
    """
    logs = [np.log(np.asarray(check, dtype=np.float64)) for check in checks]
    squares = sum(float(np.sum((log - log.mean()) ** 2)) for log in logs)
    freedom = sum(len(log) - 1 for log in logs)
    found = max(process, math.sqrt(squares / freedom) if freedom else 0.0)
    if session is not None:
        return SeriesNoise(found, session)
    means = np.array([log.mean() for log in logs])
    if len(means) < 2:
        return SeriesNoise(found, 0.0)
    size = float(np.median([len(log) for log in logs]))
    beyond = max(0.0, _neighbours_variance(means) - found**2 / size)
    return SeriesNoise(found, math.sqrt(beyond), 1 + FEW / (len(means) - 1))


def _neighbours_variance(means: Array) -> float:
    """Variance of a mean from the smaller differences of neighbours, as of a normal distribution
    whose tails were cut off. More of the differences are used than a median would, and it says."""
    squares = np.sort(np.diff(means) ** 2)
    kept = squares[: len(squares) - math.ceil(LEFT_OUT * len(squares))]
    if not len(kept):
        return float(squares[0]) / 2
    share = len(kept) / len(squares)
    edge = NormalDist().inv_cdf((1 + share) / 2)
    cut = (share - 2 * edge * NormalDist().pdf(edge)) / share
    return float(np.mean(kept)) / cut / 2


def penalty(checks: int) -> float:
    """What one step costs, in squared distances over the variance of a check."""
    return PENALTY + PENALTY_PER_LOG * math.log(checks)


def changes_of(checks: Sequence[Sequence[float]], noise: SeriesNoise) -> tuple[Change, ...]:
    """The steps of a series of checks, each the times of its processes (us), oldest first.

    EnvironmentMissing where ruptures is not installed.
    """
    if len(checks) < FEWEST_CHECKS:
        return ()
    logs = np.array([np.mean(np.log(np.asarray(check, dtype=np.float64))) for check in checks])
    # a tick of the clock: times without any spread are known no better
    errors = np.array([max(noise.believed(len(check)), 1e-4) for check in checks])
    ends = _segment_ends(_without_odd(logs, errors) / errors, penalty(len(checks)))
    return _believed(logs, errors, ends)


def _without_odd(logs: Array, errors: Array) -> Array:
    """``logs`` where a check far from both its neighbours takes the nearer one's place. The first
    and the last have one neighbour: what it alone shows waits for another check to agree."""
    before = np.concatenate((logs[1:2], logs[:-1]))
    after = np.concatenate((logs[1:], logs[-2:-1]))
    nearest = np.clip(logs, np.minimum(before, after), np.maximum(before, after))
    return np.where(np.abs(logs - nearest) > ODD * errors, nearest, logs)


def _segment_ends(values: Array, cost: float) -> list[int]:
    try:
        import ruptures
    except ImportError:
        raise EnvironmentMissing(
            "change points need ruptures, which is not installed",
            do="pip install 'moeprof[history]'",
        ) from None
    model = ruptures.KernelCPD(kernel="linear", min_size=2).fit(values.reshape(-1, 1))
    return [int(end) for end in model.predict(pen=cost)]


def _believed(logs: Array, errors: Array, ends: Sequence[int]) -> tuple[Change, ...]:
    """The steps that are large enough to matter; without one its two levels are one."""
    bounds = [0, *ends]
    while True:
        levels = [
            _level(logs[begin:end], errors[begin:end])
            for begin, end in zip(bounds, bounds[1:], strict=False)
        ]
        steps = [abs(b[0] - a[0]) for a, b in zip(levels, levels[1:], strict=False)]
        if not steps or min(steps) >= math.log1p(SMALLEST_STEP):
            break
        del bounds[1 + steps.index(min(steps))]
    return tuple(
        Change(
            at=bounds[i + 1],
            before_us=math.exp(before[0]),
            after_us=math.exp(after[0]),
            noise=math.hypot(before[1], after[1]),
        )
        for i, (before, after) in enumerate(zip(levels, levels[1:], strict=False))
    )


def _level(logs: Array, errors: Array) -> tuple[float, float]:
    """The mean of a level and its standard error."""
    return float(np.mean(logs)), float(np.sqrt(np.sum(errors**2)) / len(errors))
