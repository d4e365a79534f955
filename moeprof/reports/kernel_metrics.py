"""What Nsight Compute's counters said of kernels: one table for the terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import RenderableType
from rich.text import Text

from moeprof.analysis.kernel_names import own_name
from moeprof.records import KernelMetrics, Run
from moeprof.reports.overview import Grid
from moeprof.reports.table import Column, FittedTable
from moeprof.reports.units import MISSING, number, percent, us

TITLE = (
    "Kernels under Nsight Compute, each replayed alone with flushed caches and clocks left alone: "
    "not the forward's times"
)
SHOWN_STALLS = 3
_HEADINGS = (
    *("stage", "kernel", "us", "DRAM GB/s", "of peak", "tensor pipe", "occupancy", "SM MHz"),
    *("registers", "warps waiting per instruction issued"),
)
# of the columns above: the larger, the earlier it goes in a narrow terminal
_DROPPED = (0, 0, 0, 0, 2, 0, 1, 4, 5, 3)
_LONGEST_NAME = 40


def kernel_grid(run: Run) -> Grid | None:
    """A row a kernel in order of launch; None where the record holds no counters."""
    if not run.kernel_metrics:
        return None
    return Grid(TITLE, _HEADINGS, tuple(map(_row, run.kernel_metrics)), left=2)


def kernel_table(run: Run) -> tuple[RenderableType, ...]:
    """The same in a terminal; nothing where there are no counters."""
    grid = kernel_grid(run)
    if grid is None:
        return ()
    words = (0, 1, len(_HEADINGS) - 1)
    columns = tuple(
        Column(
            heading.replace(" ", "\n", 1),
            tuple(row[position] for row in grid.rows),
            dropped=_DROPPED[position],
            left=position in words,
        )
        for position, heading in enumerate(grid.headings)
    )
    return (Text(f"\n{TITLE}", style="bold"), FittedTable(columns))


def _row(kernel: KernelMetrics) -> tuple[str, ...]:
    return (
        kernel.stage,
        own_name(kernel.name)[:_LONGEST_NAME],
        us(kernel.duration_ns),
        number(_scaled(kernel.dram_bytes_per_second, 1e9)),
        percent(kernel.dram_fraction, 1),
        percent(kernel.tensor_pipe_fraction, 1),
        percent(kernel.occupancy_fraction, 1),
        number(_scaled(kernel.sm_clock_hz, 1e6)),
        number(kernel.registers),
        stalls(kernel.stalls),
    )


def stalls(by_reason: Mapping[str, float]) -> str:
    """The largest reasons, such as 'long scoreboard 7.7, wait 1.2'."""
    largest = sorted(by_reason.items(), key=lambda item: -item[1])[:SHOWN_STALLS]
    named = (f"{reason.replace('_', ' ')} {value:.1f}" for reason, value in largest)
    return ", ".join(named) or MISSING


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit
