"""The tables that explain a bench: every cell's figures, and where each span goes."""

from __future__ import annotations

from collections.abc import Sequence

from moeprof.bench.causes import Account, Explanation
from moeprof.bench.cells import Bench, Cell
from moeprof.bench.conditions import Conditions, letter
from moeprof.bench.figures import (
    METRICS,
    Metric,
    first_call_ms,
    launches,
    speedup,
    spread,
)
from moeprof.compare.comparison import Cause
from moeprof.records import Run
from moeprof.reports.bench_grids import Mark, MarkedGrid, Verdicts, four_digits
from moeprof.reports.units import MISSING, count, percent

GAP_COLUMNS: tuple[tuple[str, tuple[Cause, ...]], ...] = (
    ("+ host", (Cause.ORCHESTRATION,)),
    ("+ launch latency", (Cause.LAUNCH_LATENCY,)),
    ("+ more work", (Cause.AMPLIFICATION,)),
    ("+ slower work", (Cause.EFFICIENCY,)),
    ("+ extra work", (Cause.ONE_SIDED,)),
    ("+ other", (Cause.OVERLAP, Cause.NOT_SPLIT)),
)
# what a stage's figure is; timelines tell busy time
BUSY = "GPU busy, eager"
CLOCKS = {"stage clock": "Wall clock", "events": "Event pairs"}


def account_grid(bench: Bench, found: Explanation) -> MarkedGrid:
    """Where the spans of one workload go, and what the others lose to the fastest."""
    rows = [_account_row(one, one.solution == found.fastest) for one in found.accounts]
    workload = bench.workloads[found.row]
    headings = (
        *("solution", "span", "GEMM", "other", "no step", "gaps", "host", "GEMM rows"),
        *("behind", *(name for name, _ in GAP_COLUMNS)),
    )
    return MarkedGrid(
        f"Where the eager span goes at T = {workload.seq_len:,} ({workload.name}), us",
        headings,
        tuple(rows),
        dropped=("+ other", "no step", "other", "+ launch latency", "gaps", "+ extra work"),
    )


def stage_grid(bench: Bench, found: Explanation, metric: Metric = "eager") -> MarkedGrid:
    """The time of every row of every solution. metric: of the eager forward or the graph."""
    workload = bench.workloads[found.row]
    busy = [dict(one.busy if metric == "eager" else one.graph_busy) for one in found.accounts]
    rows: list[tuple[Mark, ...]] = []
    for name in found.rows:
        rows.append((Mark(name), *(_busy(one.get(name)) for one in busy)))
    rows.append((Mark("sum"), *(_busy(sum(one.values()) if one else None) for one in busy)))
    what = ", ".join(dict.fromkeys(CLOCKS.get(one.source, BUSY) for one in found.accounts))
    if metric == "graph":
        what = "GPU busy in the nodes of the graph"
    title = f"{what}, by stage at T = {workload.seq_len:,} ({workload.name}), us"
    headings = ("stage", *(one.solution for one in found.accounts))
    return MarkedGrid(title, headings, tuple(rows))


def cell_grid(bench: Bench, groups: Sequence[Conditions], verdicts: Verdicts) -> MarkedGrid:
    """Every cell: both latencies with their spread, launches, correctness, first call."""
    headings = (
        *("T", "workload", "solution", "under"),
        *("eager median", "mean", "min", "max", "CV", "n", "speedup"),
        *("graph median", "mean", "min", "max", "CV", "n", "speedup"),
        *("launches", "first call ms", "matched", "relative L2", "worst stage"),
    )
    rows: list[tuple[Mark, ...]] = []
    for cell in bench.every_cell:
        reference = bench.cell(bench.reference, cell.workload)
        rows.append(
            (
                Mark(f"{cell.workload.seq_len:,}"),
                Mark(cell.workload.name),
                Mark(cell.solution),
                Mark(letter(cell, groups)),
                *(mark for metric in METRICS for mark in _spread(cell, reference, metric)),
                *_facts(cell.run, cell),
            )
        )
    last = len(headings) - 1
    dropped = ("worst stage", "mean", "n", "max", "min", "workload", "relative L2", "CV")
    return MarkedGrid(
        "Every cell, us", headings, tuple(rows), keys=4, words=(1, 2, 3, last), dropped=dropped
    )


def worst_stage(run: Run) -> str:
    """The tensor furthest from the reference's, as '0.0261 swiglu_quant'; '' if none is checked."""
    stages = run.correctness.stages
    if not stages:
        return ""
    worst = max(stages, key=lambda stage: (not stage.passed, stage.relative_l2))
    return f"{worst.relative_l2:.4f} {worst.stage}" + " WRONG" * (not worst.passed)


def _account_row(one: Account, is_fastest: bool) -> tuple[Mark, ...]:
    causes = dict(one.causes)
    gaps = []
    for _, members in GAP_COLUMNS:
        amount = sum(causes.get(cause, 0.0) for cause in members)
        known = one.gap_us is not None and not is_fastest
        gaps.append(Mark(_signed(amount) if known and amount else MISSING))
    behind = MISSING if one.gap_us is None else _signed(one.gap_us)
    behind = "fastest" if is_fastest else behind
    return (
        Mark(one.solution, "strong" if is_fastest else ""),
        Mark(four_digits(one.span_us)),
        Mark(four_digits(one.gemm_us)),
        Mark(four_digits(one.other_us)),
        Mark(four_digits(one.stepless_us) if one.stepless_us else MISSING),
        Mark(MISSING if one.gaps_us is None else four_digits(one.gaps_us)),
        Mark(MISSING if one.host_us is None else four_digits(one.host_us)),
        Mark(MISSING if one.rows_factor is None else f"{one.rows_factor:.2f}x"),
        Mark(behind),
        *gaps,
    )


def _spread(cell: Cell, reference: Cell, metric: Metric) -> tuple[Mark, ...]:
    found = spread(cell, metric)
    if found is None:
        if cell.failure is None:
            return (Mark(MISSING),) * 7
        text = cell.kind if metric == "eager" else MISSING
        return (Mark(text, "failed"), *(Mark(MISSING),) * 6)
    figures = (found.median_us, found.mean_us, found.least_us, found.most_us)
    over = speedup(cell, reference, metric)
    return (
        *(Mark(four_digits(value)) for value in figures),
        Mark(percent(found.variation, 1)),
        Mark(str(found.count)),
        Mark(MISSING if over is None else f"{over:,.2f}x"),
    )


def _facts(run: Run | None, cell: Cell) -> tuple[Mark, ...]:
    if run is None:
        return (Mark(MISSING),) * 5
    first, result = first_call_ms(run), run.correctness
    checked = result.checked
    return (
        Mark(count(launches(run))),
        Mark(MISSING if first is None else four_digits(first)),
        Mark(f"{100 * result.matched_ratio:.2f} %" if checked else MISSING),
        Mark(f"{result.relative_l2:.4f}" if checked else MISSING),
        Mark(worst_stage(run) or MISSING),
    )


def _busy(value: float | None) -> Mark:
    return Mark(MISSING if value is None else four_digits(value))


def _signed(value: float) -> str:
    sign = "-" if value < 0 else "+"
    return sign + four_digits(abs(value))
