"""The tables of several solutions over many workloads as plain grids, for every format alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from moeprof.compare.tables import Metric, Summary, Table
from moeprof.reports.units import MISSING

METRICS: tuple[Metric, ...] = ("latency", "graph latency", "speedup")
TITLES: Mapping[Metric, str] = MappingProxyType(
    {
        "latency": "Latency, us: median of the bare pass between the outer events",
        "graph latency": "Graph latency, us: median of the replayed CUDA graph",
        "speedup": "Speedup over {reference}",
    }
)
CPU_TITLE = "Latency, us: median wall clock of the bare pass (CPU timings: not GPU performance)"


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of strings. left: how many leading columns are words."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1


def grids(table: Table, cpu: bool = False) -> tuple[Grid, ...]:
    """For each figure that any record has: workloads, regimes, summary."""
    found: list[Grid] = []
    for metric in METRICS:
        if table.has(metric):
            title = CPU_TITLE if cpu and metric == "latency" else TITLES[metric]
            title = title.format(reference=table.reference)
            found.append(_workloads(table, metric, title))
            found.append(_regimes(table, metric))
            found.append(_summary(table, metric))
    return tuple(found)


def figure(value: float | None, metric: Metric) -> str:
    """One figure in its metric's format."""
    if value is None:
        return MISSING
    return f"{value:,.2f}x" if metric == "speedup" else f"{value:,.1f}"


def _workloads(table: Table, metric: Metric, title: str) -> Grid:
    pair = len(table.solutions) == 2
    ratio = (_ratio_heading(table),) if pair else ()
    shows_reference = (
        metric == "latency"
        and table.reference not in table.solutions
        and any(row.reference_us for row in table.rows)
    )
    reference = (table.reference or "",) if shows_reference else ()
    rows = []
    for row in table.rows:
        values = row.values(metric)
        winner = row.winner(metric)
        base = (figure(row.reference_us, "latency"),) if shows_reference else ()
        rows.append(
            (
                row.uuid[:8],
                f"{row.seq_len:,}",
                str(row.local_expert_offset),
                f"{row.local_pairs:,}",
                *base,
                *(figure(value, metric) for value in values),
                *((_ratio(values),) if pair else ()),
                MISSING if winner is None else table.solutions[winner],
            )
        )
    headings = ("workload", "T", "offset", "P", *reference, *table.solutions, *ratio, "winner")
    return Grid(title, headings, tuple(rows))


def _regimes(table: Table, metric: Metric) -> Grid:
    pair = len(table.solutions) == 2
    ratio = (_ratio_heading(table),) if pair else ()
    spans = _spans(table)
    rows = tuple(
        (
            f"{name} ({spans[name]})",
            str(count),
            *(figure(mean, metric) for mean in means),
            *((_ratio(means),) if pair else ()),
        )
        for name, count, means in table.regimes(metric)
    )
    headings = ("regime", "workloads", *table.solutions, *ratio)
    return Grid(f"{metric.capitalize()} by regime, mean", headings, rows)


def _summary(table: Table, metric: Metric) -> Grid:
    headings = ("solution", "n", "mean", "median", "min", "max", "variation", "wins")
    rows = tuple(_summary_row(summary, metric) for summary in table.summaries(metric))
    return Grid(f"{metric.capitalize()}, all workloads", headings, rows)


def _summary_row(summary: Summary, metric: Metric) -> tuple[str, ...]:
    figures = (summary.mean, summary.median, summary.minimum, summary.maximum)
    variation = MISSING if summary.variation is None else f"{100 * summary.variation:.0f} %"
    return (
        summary.solution,
        str(summary.workloads),
        *(figure(value, metric) for value in figures),
        variation,
        str(summary.wins),
    )


def _ratio_heading(table: Table) -> str:
    first, second = table.solutions
    return f"{first} / {second}"


def _ratio(values: Sequence[float | None]) -> str:
    first, second = values
    return f"{first / second:.2f}" if first is not None and second else MISSING


def _spans(table: Table) -> dict[str, str]:
    """The numbers of tokens that each regime really holds."""
    members: dict[str, list[int]] = {}
    for row in table.rows:
        members.setdefault(row.regime, []).append(row.seq_len)
    return {name: _span(min(tokens), max(tokens)) for name, tokens in members.items()}


def _span(least: int, most: int) -> str:
    return f"T={least:,}" if least == most else f"T={least:,}-{most:,}"
