"""Nsight Compute on the kernels of one stage: which counters, which kernels, what can go wrong.

Every kernel is saved, replayed once a group of counters with flushed caches, and restored, so these
are figures of the kernel alone: cold, and its duration is not the one of the forward. Clocks are
left alone (``--clock-control none``), since locked ones are not those that the forward runs at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from moeprof.capturing.find import Tool
from moeprof.capturing.ncu_csv import (
    DRAM_FRACTION,
    DRAM_RATE,
    DURATION,
    OCCUPANCY,
    SM_CLOCK,
    TENSOR_FRACTION,
    read_metrics,
)
from moeprof.capturing.nsys import output_name, reason, refuse_full_disk
from moeprof.capturing.process import Finished, run
from moeprof.errors import EnvironmentMissing, RecordError, UsageError
from moeprof.records import KernelMetrics
from moeprof.timing.ranges import DOMAIN

PROFILE_SECONDS = 1200.0  # a kernel of 7 ms with 1 GB to restore is replayed in about a minute
IMPORT_SECONDS = 300.0
# asked for by name, the first of each list; registers come unasked, stalls with their section
METRICS = tuple(
    names[0] for names in (DURATION, DRAM_RATE, DRAM_FRACTION, TENSOR_FRACTION, OCCUPANCY, SM_CLOCK)
)
SECTIONS = ("WarpStateStats",)
# where a chip lacks one of METRICS, ncu refuses them all: its own sections have what there is
ALL_SECTIONS = (
    *("SpeedOfLight", "MemoryWorkloadAnalysis", "ComputeWorkloadAnalysis", "Occupancy"),
    *("LaunchStats", "WarpStateStats"),
)
_UNKNOWN_METRIC = re.compile(r"failed to find metric|unknown metric", re.IGNORECASE)
_NO_KERNELS = re.compile(r"no kernels were profiled", re.IGNORECASE)
_PERMISSION = "ERR_NVGPUCTRPERM"


def range_filter(stage: str) -> str:
    """The expression for what runs in the push/pop range of ``stage``, itself in ``iteration``."""
    quoted = re.sub(r"([@,\[\]/*+\\])", r"\\\1", stage)
    return f"{DOMAIN}@iteration/{quoted}/"


def profile(
    tool: Tool,
    command: Sequence[str],
    report: Path,
    stage: str,
    environment: Mapping[str, str],
    seconds: float = PROFILE_SECONDS,
) -> Finished:
    """Run ``command`` under ncu; the counters of ``stage`` go to ``report``, which ends in
    .ncu-rep. Whether it came to that is ``require_report``'s question."""
    flags = [
        *(str(tool.path), "--config-file", "off", "--force-overwrite"),
        *("--nvtx", "--nvtx-include", range_filter(stage), "--profile-from-start", "off"),
        *("--clock-control", "none", "--cache-control", "all"),
        *("-o", output_name(report)),
    ]
    wanted = [part for section in SECTIONS for part in ("--section", section)]
    done = run([*flags, "--metrics", ",".join(METRICS), *wanted, *command], environment, seconds)
    if not _UNKNOWN_METRIC.search(done.output):
        return done
    wanted = [part for section in ALL_SECTIONS for part in ("--section", section)]
    return run([*flags, *wanted, *command], environment, seconds)


def require_report(done: Finished, report: Path, stage: str) -> None:
    """Raise, with the reason in one line, unless there is a report with kernels of ``stage``."""
    if _PERMISSION in done.output:
        raise EnvironmentMissing(
            f"the driver keeps GPU counters from this user ({_PERMISSION})",
            do="run as root, or let the administrator set the driver's module option "
            "NVreg_RestrictProfilingToAdminUsers=0",
        )
    if _NO_KERNELS.search(done.output):
        raise UsageError(
            f"stage {stage} launches no kernel that ncu can measure",
            do="choose a stage with kernels: moeprof run shows how many each has",
        )
    if report.is_file() and report.stat().st_size > 0 and done.code == 0:
        return
    refuse_full_disk(done, report)
    raise EnvironmentMissing(
        f"ncu measured nothing: {reason(done)}", do="moeprof doctor shows which ncu is used"
    )


def read_report(
    tool: Tool,
    report: Path,
    stage: str,
    environment: Mapping[str, str],
    seconds: float = IMPORT_SECONDS,
) -> tuple[KernelMetrics, ...]:
    """The counters in ``report``, in order of launch."""
    command = [*(str(tool.path), "--config-file", "off", "--import", str(report))]
    page = ["--csv", "--page", "raw", "--print-units", "base"]
    with_output = run([*command, *page], environment, seconds, kept_bytes=64 * 2**20)
    try:
        return read_metrics(with_output.output, stage)
    except RecordError as error:
        raise RecordError(f"{report.name}: {error} ({reason(with_output)})") from None
