"""flashinfer-bench's latencies and their parts, as tables and sentences for every format."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from moeprof.analysis.parity import ParityLatency, parity_latencies
from moeprof.analysis.profiles import StageProfile
from moeprof.records import Run
from moeprof.reports.overview import Grid
from moeprof.reports.table import Column, FittedTable
from moeprof.reports.units import count, percent, us

# timer -> what it is and what its figure is of
TIMERS: Mapping[str, str] = MappingProxyType(
    {
        "0.1.2": "CUDA event pairs; per iteration 256 MB zeroed, all arguments cloned, GPU idle; "
        "mean",
        "main": "CUPTI, first start to last end; per iteration twice the L2 zeroed, GPU idle, "
        "arguments not cloned; median",
    }
)
_HEADINGS = ("part", "GPU busy", "gap: host late", "gap: API", "gap: latency", "gap: dependency")
_FIELDS = ("busy_ns", "host_late_ns", "api_ns", "launch_latency_ns", "dependency_ns")


def parity_grids(run: Run) -> tuple[Grid, ...]:
    """A table a timer; none where parity was not asked for."""
    return tuple(_grid(latency) for latency in parity_latencies(run))


def parity_tables(run: Run) -> tuple[RenderableType, ...]:
    """The same in a terminal, each under its title, with what must be known about it."""
    found: list[RenderableType] = []
    for latency in parity_latencies(run):
        found.append(Text(f"\n{headline(latency)}", style="bold"))
        found.append(Text(method(latency), style="dim"))
        if latency.rows:
            grid = _grid(latency)
            found.append(FittedTable(_columns(grid)))
        found.extend(Text(f"! {note}", style="yellow") for note in _doubts(latency))
    return tuple(found)


def parity_columns(runs: Sequence[Run]) -> tuple[Column, ...]:
    """For a line a run: each timer's latency, where any run has it."""
    found = [{one.timer: one.latency_ns for one in parity_latencies(run)} for run in runs]
    return tuple(
        Column(f"fib {timer} us", tuple(us(latencies.get(timer)) for latencies in found))
        for timer in TIMERS
        if any(timer in latencies for latencies in found)
    )


def parity_doubts(run: Run) -> tuple[str, ...]:
    """What must be known about the figures, a sentence each."""
    return tuple(doubt for latency in parity_latencies(run) for doubt in _doubts(latency))


def parity_documents(run: Run) -> list[dict[str, Any]]:
    """For JSON: each latency with its parts, us."""
    return [_document(latency) for latency in parity_latencies(run)]


def headline(latency: ParityLatency) -> str:
    """The figure and whose it is."""
    return f"flashinfer-bench {latency.timer}'s latency, reproduced: {us(latency.latency_ns)} us"


def method(latency: ParityLatency) -> str:
    """How the figure was made."""
    sizes = latency.settings
    trials = ", ".join(us(trial) for trial in latency.trials_ns)
    return (
        f"{TIMERS[latency.timer]} of {sizes.iterations} iterations after {sizes.warmup} warm-ups, "
        f"mean of {sizes.trials} trials ({trials}); one set of weights for all trials"
    )


def _title(latency: ParityLatency) -> str:
    split = latency.unavailable or "not split"
    if latency.rows:
        split = f"us, means of {latency.decomposed} iterations"
    return f"{headline(latency)}. {method(latency)}; {split}"


def _grid(latency: ParityLatency) -> Grid:
    if not latency.rows:
        return Grid(_title(latency), ("part", "us"), ())
    fields = [
        (heading, field)
        for heading, field in zip(_HEADINGS[1:], _FIELDS, strict=True)
        if field != "dependency_ns" or any(row.dependency_ns for row in latency.rows)
    ]
    rows = [_row(row, [field for _, field in fields], latency) for row in latency.rows]
    blank = ("",) * len(fields)
    whole = latency.latency_ns
    if latency.timer != "main":
        cost = -latency.observing_ns
        rows.append(
            ("less what CUPTI added", *blank, f"{cost / 1e3:+,.1f}", percent(cost, whole), "")
        )
    totals = [us(sum(getattr(row, field) for row in latency.rows)) for _, field in fields]
    launched = count(sum(row.operations for row in latency.rows))
    rows.append(("latency", *totals, us(whole), percent(whole, whole), launched))
    headings = ("part", *(heading for heading, _ in fields), "sum", "of latency", "operations")
    return Grid(_title(latency), headings, tuple(rows))


def _row(row: StageProfile, fields: list[str], latency: ParityLatency) -> tuple[str, ...]:
    return (
        row.name,
        *(us(getattr(row, field)) for field in fields),
        us(row.time_ns),
        percent(row.time_ns, latency.latency_ns),
        count(row.operations),
    )


def _columns(grid: Grid) -> tuple[Column, ...]:
    """The last row is the footer."""
    *body, last = grid.rows
    columns = []
    for position, heading in enumerate(grid.headings):
        cells = tuple(row[position] for row in body)
        header = heading.replace(": ", ":\n").replace(" ", "\n", 1) if position else heading
        dropped = 1 if heading == "operations" else 0
        columns.append(Column(header, cells, last[position], dropped, left=position == 0))
    return tuple(columns)


def _doubts(latency: ParityLatency) -> tuple[str, ...]:
    name = f"flashinfer-bench {latency.timer}"
    found = [f"{name}: {note}" for note in latency.notes]
    if latency.residual_ns:
        found.append(f"{name}: the parts leave {latency.residual_ns} ns over")
    if latency.unavailable:
        found.append(f"{name}: not split into stages: {latency.unavailable}")
    return tuple(found)


def _document(latency: ParityLatency) -> dict[str, Any]:
    return {
        "timer": latency.timer,
        "method": TIMERS[latency.timer],
        **asdict(latency.settings),
        "latency_us": latency.latency_ns / 1e3,
        "trials_us": [trial / 1e3 for trial in latency.trials_ns],
        "trials_spread": _spread(latency),
        "parts": [_part(row) for row in latency.rows],
        "decomposed_iterations": latency.decomposed,
        "observed_us": None if latency.observed_ns is None else latency.observed_ns / 1e3,
        "added_by_observing_us": latency.observing_ns / 1e3,
        "residual_ns": latency.residual_ns,
        "notes": list(latency.notes),
        "unavailable": latency.unavailable,
    }


def _spread(latency: ParityLatency) -> float:
    """Largest less smallest trial, as a fraction of the middle one."""
    trials = latency.trials_ns
    middle = statistics.median(trials)
    return (max(trials) - min(trials)) / middle if middle else 0.0


def _part(row: StageProfile) -> dict[str, Any]:
    times = {field.replace("_ns", "_us"): getattr(row, field) / 1e3 for field in _FIELDS}
    return {"name": row.name, **times, "time_us": row.time_ns / 1e3, "operations": row.operations}
