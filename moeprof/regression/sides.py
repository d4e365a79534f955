"""The two sides of a check as arrays of process summaries, in rounds, and their paces.

A process may be slow as a whole: its SM clock is lower, its host shares a core. Its pace says by
which factor, for each quantity; dividing by it leaves what the code did. Whether that is done is
decided from the spread within the sides, never from their difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moeprof.regression.statistics import Array, pairwise_median

Flags = NDArray[np.bool_]

PAIR_GAIN = 0.5  # variance left by taking neighbours in pairs, for pairs to be used
PACE_GAIN = 0.5  # variance left by dividing by the pace, for the division to be used
MOST_SLOPE = 4.0  # idle time stretches more than the host does; so much is still believed


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """Summaries of one round, us: [..., Q, P]. baseline_us None: the first round's stand again.

    paces: how slow the process was as a factor, for each quantity; hosts: logarithm of how slow its
    host was, [..., P]. NaN where unknown.
    """

    candidate_us: Array
    candidate_pace: Array
    candidate_host: Array
    baseline_us: Array | None = None
    baseline_pace: Array | None = None
    baseline_host: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """Both sides of one round or of all: us and paces, [..., Q, P]; hosts, [..., P]."""

    baseline: Array
    candidate: Array
    baseline_pace: Array
    candidate_pace: Array
    baseline_host: Array
    candidate_host: Array

    @property
    def processes(self) -> tuple[int, int]:
        return self.baseline.shape[-1], self.candidate.shape[-1]

    @property
    def typical_us(self) -> Array:
        """Geometric mean of the two medians: the same whichever side is called the baseline."""
        medians = [np.median(side, axis=-1) for side in (self.baseline, self.candidate)]
        return np.asarray(np.sqrt(medians[0] * medians[1]))

    @property
    def pace_known(self) -> Flags:
        paces = np.concatenate((self.baseline_pace, self.candidate_pace), axis=-1)
        return np.asarray(np.isfinite(paces).all(axis=-1))

    @property
    def pace_gap(self) -> Array:
        """Logarithm of how much slower the candidate's processes were; 0 where unknown."""
        baseline = np.mean(np.log(self.baseline_pace), axis=-1)
        return np.asarray(np.nan_to_num(np.mean(np.log(self.candidate_pace), axis=-1) - baseline))

    @property
    def host_gap(self) -> Array:
        """Logarithm of how much slower the candidate's host was by all stages, [...]; 0 unknown."""
        gap = np.mean(self.candidate_host, axis=-1) - np.mean(self.baseline_host, axis=-1)
        return np.asarray(np.nan_to_num(gap))

    @property
    def gains_by_pace(self) -> Flags:
        """Whether dividing by the pace removes at least half of the variance within the sides."""
        plain, divided = (_spread(self.logs(flag)) for flag in (False, True))
        return self.pace_known & (divided <= PACE_GAIN * plain)

    @property
    def in_pairs(self) -> bool:
        """Whether the i-th processes of both sides can be neighbours at all."""
        return self.baseline.shape == self.candidate.shape

    def gains_by_pairs(self, divided: Flags, families: Sequence[int]) -> Flags:
        """Whether neighbours move together: differences of pairs vary at most half as much as those
        of strangers would, in the median of each family, since it is the machine that moves."""
        found = np.zeros(divided.shape, dtype=np.bool_)
        if not self.in_pairs:
            return found
        baseline, candidate = self.logs(divided)
        strangers = np.var(baseline, axis=-1) + np.var(candidate, axis=-1)
        neighbours = np.var(candidate - baseline, axis=-1)
        left = neighbours / np.maximum(strangers, np.finfo(np.float64).tiny)
        for family in set(families):
            members = np.flatnonzero(np.array(families) == family)
            found[..., members] = np.median(left[..., members], axis=-1, keepdims=True) <= PAIR_GAIN
        return found

    def times_us(self, divided: Flags | bool) -> tuple[Array, Array]:
        """Both sides, divided by the pace where ``divided`` [..., Q]."""
        flags = np.asarray(divided)[..., None]
        return (
            self.baseline / np.where(flags, self.baseline_pace, 1.0),
            self.candidate / np.where(flags, self.candidate_pace, 1.0),
        )

    def logs(self, divided: Flags | bool) -> tuple[Array, Array]:
        """Logarithms of ``times_us``."""
        baseline, candidate = self.times_us(divided)
        return np.log(baseline), np.log(candidate)

    def host_slope(self, divided: Flags | bool) -> Array:
        """By which power a time goes with the host within the sides, [..., Q]: 0 to MOST_SLOPE."""
        hosts = self.baseline_host[..., None, :], self.candidate_host[..., None, :]
        own = [side - side.mean(axis=-1, keepdims=True) for side in self.logs(divided)]
        host = [side - side.mean(axis=-1, keepdims=True) for side in hosts]
        both = (own[0] * host[0]).sum(axis=-1) + (own[1] * host[1]).sum(axis=-1)
        square = (host[0] * host[0]).sum(axis=-1) + (host[1] * host[1]).sum(axis=-1)
        slope = both / np.maximum(square, np.finfo(np.float64).tiny)
        return np.asarray(np.clip(slope, 0.0, MOST_SLOPE))

    def logs_without_host(self, divided: Flags | bool, slope: Array) -> tuple[Array, Array]:
        """``logs`` less what goes with the host as a whole."""
        baseline, candidate = self.logs(divided)
        return (
            baseline - slope[..., None] * self.baseline_host[..., None, :],
            candidate - slope[..., None] * self.candidate_host[..., None, :],
        )

    def log_ratio(self, divided: Flags | bool) -> Array:
        """Median of the logarithms of all ratios, [..., Q]."""
        return pairwise_median(*self.logs(divided))


def sides_of(rounds: Sequence[Round]) -> tuple[Sides, tuple[Sides, ...]]:
    """All rounds as one, and each by itself. Paces are scaled to 1 on average over all processes.

    A baseline that was not measured again counts once in the whole.
    """
    first = rounds[0]
    if first.baseline_us is None:
        raise ValueError("the first round needs a baseline")
    again = [one for one in rounds if one.baseline_us is not None]
    whole = Sides(
        _joined([one.baseline_us for one in again]),
        _joined([one.candidate_us for one in rounds]),
        _joined([one.baseline_pace for one in again]),
        _joined([one.candidate_pace for one in rounds]),
        _joined([one.baseline_host for one in again]),
        _joined([one.candidate_host for one in rounds]),
    )
    paces = np.concatenate((whole.baseline_pace, whole.candidate_pace), axis=-1)
    usual = np.exp(np.mean(np.log(paces), axis=-1, keepdims=True))

    def scaled(sides: Sides) -> Sides:
        return replace(
            sides,
            baseline_pace=sides.baseline_pace / usual,
            candidate_pace=sides.candidate_pace / usual,
        )

    each = []
    for one in rounds:
        own = one if one.baseline_us is not None else first
        arrays = (
            *(own.baseline_us, one.candidate_us, own.baseline_pace, one.candidate_pace),
            *(own.baseline_host, one.candidate_host),
        )
        each.append(scaled(Sides(*(np.asarray(array, dtype=np.float64) for array in arrays))))
    return scaled(whole), tuple(each)


def _joined(arrays: Sequence[Array | None]) -> Array:
    return np.concatenate([np.asarray(array, dtype=np.float64) for array in arrays], axis=-1)


def _spread(logs: tuple[Array, Array]) -> Array:
    """Variance within the sides, pooled; infinite where a pace is unknown."""
    sums = [np.var(side, axis=-1) * side.shape[-1] for side in logs]
    return np.asarray(np.nan_to_num(sums[0] + sums[1], nan=np.inf))
