"""Named sizes of a measurement: how many warm-ups, iterations and trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

# the tolerance of the published runs (rtol 0.2, atol 0.1, 85 % of the elements) and a stricter one:
# rounding the intermediate to e4m3 alone costs a relative L2 error of about 0.026
RTOL = 0.2
ATOL = 0.1
REQUIRED_MATCHED_RATIO = 0.85
MAX_RELATIVE_L2 = 0.04


@dataclass(frozen=True, slots=True)
class Preset:
    """warmup: untimed forwards before each pass. trials: repetitions of the bare pass."""

    warmup: int
    iterations: int
    trials: int


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "default": Preset(warmup=5, iterations=20, trials=3),
        "precise": Preset(warmup=10, iterations=100, trials=5),
        "quick": Preset(warmup=2, iterations=5, trials=1),
    }
)
