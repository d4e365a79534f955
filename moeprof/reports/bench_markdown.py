"""A bench as Markdown."""

from __future__ import annotations

from moeprof.bench.cells import Bench
from moeprof.bench.figures import METRICS, latency_us
from moeprof.reports.compare_markdown import escape, rows


def bench_markdown(bench: Bench) -> str:
    """The whole bench, ending in one newline."""
    cells = [
        (
            f"{cell.workload.seq_len:,}",
            escape(cell.solution),
            *(str(latency_us(cell, metric) or cell.kind) for metric in METRICS),
        )
        for cell in bench.every_cell
    ]
    return "\n".join(rows(("T", "solution", *METRICS), cells, 2)) + "\n"
