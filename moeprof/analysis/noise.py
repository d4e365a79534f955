"""How far a median of samples can be trusted. Within one process only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def median_noise(values: Sequence[float]) -> float:
    """Half width of the 95 % interval of a median, from the median absolute deviation."""
    if len(values) < 2:
        return 0.0
    centre = statistics.median(values)
    deviation = 1.4826 * statistics.median(abs(value - centre) for value in values)
    return 1.96 * 1.2533 * deviation / math.sqrt(len(values))
