"""A bench in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.bench.cells import Bench
from moeprof.bench.figures import METRICS, latency_us


def render_bench(bench: Bench) -> RenderableType:
    """The whole bench."""
    lines = [f"{len(bench.solutions)} solutions on {len(bench.workloads)} workloads"]
    for cell in bench.every_cell:
        shown = [
            f"{metric} {found:,.1f} us"
            for metric in METRICS
            if (found := latency_us(cell, metric)) is not None
        ]
        where = f"T = {cell.workload.seq_len:,} {cell.workload.name} {cell.solution}"
        lines.append(f"{where}: {', '.join(shown) or cell.kind}")
    return Group(*map(Text, lines))
