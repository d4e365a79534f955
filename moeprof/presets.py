"""Named sizes of a measurement, how many warm-ups, iterations and trials; and which passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from moeprof.errors import UsageError, nearest
from moeprof.records import CPU_PASSES, PASS_ORDER, PASSES

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


# flashinfer-bench's timer -> the passes that reproduce it and split what it says
PARITY_TIMERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"0.1.2": ("fib_events", "fib_observed"), "main": ("fib_span",)}
)


def choose_passes(asked: Sequence[str] | None, device: str) -> tuple[str, ...]:
    """The passes in the order they run. ``first`` is always one: it is what checks the result.

    asked: None for all that ``device`` ('cuda' or 'cpu') can run.
    """
    possible = PASSES if device == "cuda" else CPU_PASSES
    if asked is None:
        return possible
    check_passes(asked)
    wanted = ("first", *asked)
    for name in wanted:
        if name not in possible:
            where = "a GPU" if device == "cpu" else "a CPU"
            raise UsageError(
                f"pass {name!r} runs on {where} only", do=f"here: {','.join(possible)}"
            )
    return tuple(name for name in possible if name in wanted)


def with_parity(passes: tuple[str, ...], timers: Sequence[str], device: str) -> tuple[str, ...]:
    """``passes`` and those that reproduce and split flashinfer-bench's latency by ``timers``.

    The split needs to know which stage launched what, hence ``api``. UsageError on a CPU: CUDA
    events and CUPTI are what is reproduced.
    """
    if not timers:
        return passes
    if device != "cuda":
        raise UsageError(
            "--parity reproduces flashinfer-bench's GPU timers, which a CPU has not",
            do="run it on a GPU, or without --parity",
        )
    wanted = {*passes, "api", *(name for timer in timers for name in PARITY_TIMERS[timer])}
    return tuple(name for name in PASS_ORDER if name in wanted)


def check_passes(names: Sequence[str]) -> None:
    """Raise UsageError unless every name is that of a pass, here or on another device."""
    known = dict.fromkeys((*PASSES, *CPU_PASSES))
    for name in names:
        if name not in known:
            raise UsageError(f"unknown pass {name!r}", do=nearest(name, known))
