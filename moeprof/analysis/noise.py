"""How far a median of samples can be trusted. Within one process only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence


def median_noise(values: Sequence[float]) -> float:
    """Half width of the 95 % interval of a median, from the median absolute deviation."""
    if len(values) < 2:
        return 0.0
    centre = statistics.median(values)
    deviation = 1.4826 * statistics.median(abs(value - centre) for value in values)
    return 1.96 * 1.2533 * deviation / math.sqrt(len(values))


# two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; then the normal one
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14)


def difference_by_turn(
    base: Mapping[int, Sequence[float]], changed: Mapping[int, Sequence[float]]
) -> tuple[float, float] | None:
    """Median over turns of (median changed - median base) of the same turn, and its half width.

    A host that is slow for a second falls on all samples of a turn, so these are no independent
    witnesses: with them a change of 175 us was once shown as +- 33 us where there was none (H200,
    T=56). The half width is of the 95 % interval of the turns' mean. None below three turns.
    """
    shared = sorted(base.keys() & changed.keys())
    if len(shared) < 3:
        return None
    found = [statistics.median(changed[turn]) - statistics.median(base[turn]) for turn in shared]
    freedom = len(found) - 1
    quantile = STUDENT[freedom - 1] if freedom <= len(STUDENT) else 1.96
    return statistics.median(found), quantile * statistics.stdev(found) / math.sqrt(len(found))
