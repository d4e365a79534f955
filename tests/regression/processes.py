"""Fresh processes by hand: runs of one script whose kernels, host and clock differ by process."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from moeprof.records import ClockSample, Run
from moeprof.regression.policy import Policy
from tests.builders import Launch, Script, eager_script, make_run

QUICK = Policy(resamples=200)  # the interval is not what most tests look at


def processes(
    count: int,
    seed: int = 0,
    busy: Mapping[str, float] | None = None,
    host_ns: Mapping[str, int] | None = None,
    kernel_sd: float = 0.005,
    host_sd: float = 0.02,
    mhz: int | None = None,
    **changes: Any,
) -> list[Run]:
    """``count`` runs. busy: factor on a stage's kernels; host_ns: added before its launches."""
    found = []
    for number in range(count):
        noise = random.Random(seed * 1000 + number)
        pace = 1.0 + noise.gauss(0.0, host_sd)
        script = varied(noise, pace, kernel_sd, busy or {}, host_ns or {})
        run = make_run(script, created=f"2026-02-01T{seed:02d}:{number:02d}:00+00:00", **changes)
        if mhz is not None:
            run = replace(run, clocks=(ClockSample("bare", mhz, 3201, 300.0, 40),))
        found.append(run)
    return found


def varied(
    noise: random.Random,
    pace: float,
    kernel_sd: float,
    busy: Mapping[str, float],
    host_ns: Mapping[str, int],
) -> Script:
    """The script of one process."""

    def launch(stage: str, launch: Launch, place: int, factor: float) -> Launch:
        return replace(
            launch,
            duration_ns=round(launch.duration_ns * factor),
            before_ns=round(launch.before_ns * pace) + (host_ns.get(stage, 0) if not place else 0),
            call_ns=round(launch.call_ns * pace),
        )

    found = []
    for stage, launches in eager_script():
        factor = busy.get(stage, 1.0) * (1.0 + noise.gauss(0.0, kernel_sd))
        found.append(
            (stage, tuple(launch(stage, one, i, factor) for i, one in enumerate(launches)))
        )
    return tuple(found)
