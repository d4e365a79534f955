"""A bench as Markdown: every table that the terminal has, and those it leaves out folded away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moeprof.bench.causes import Explanation, explain
from moeprof.bench.cells import Bench
from moeprof.bench.conditions import conditions, letters
from moeprof.bench.figures import METRICS, Metric
from moeprof.bench.summary import measured_metrics, regimes
from moeprof.bench.winners import verdicts
from moeprof.reports import bench_phrases as phrases
from moeprof.reports.bench_details import account_grid, cell_grid, stage_grid
from moeprof.reports.bench_grids import (
    Mark,
    MarkedGrid,
    latency_grid,
    legend,
    ratio_grid,
    regime_grids,
    speedup_grid,
    summary_grid,
)
from moeprof.reports.compare_markdown import escape


def bench_markdown(bench: Bench) -> str:
    """The whole bench, ending in one newline."""
    groups, found = conditions(bench), verdicts(bench)
    metrics = measured_metrics(bench)
    lines = [f"# Bench: {escape(phrases.title(bench))}", ""]
    lines += _list((*phrases.headline(bench, found), *phrases.averages(bench)))
    lines += [line for text in phrases.warnings(bench, groups) for line in (_caution(text), "")]
    for metric in metrics:
        lines += grid_lines(latency_grid(bench, metric, found, letters(bench, groups)), 2)
    lines += [f"Bold: {escape(legend(bench))}.", ""] if metrics else []
    if bench.has_reference:
        for metric in metrics:
            lines += grid_lines(speedup_grid(bench, metric, found), 2)
    for grid in regime_grids(bench, metrics):
        lines += grid_lines(grid, 2)
    for metric in metrics:
        lines += grid_lines(summary_grid(bench, metric, found), 2)
    if len(bench.solutions) > 1:
        ratios = [ratio_grid(bench, metric, found) for metric in metrics]
        title = f"Every workload against {bench.baseline}"
        lines += _folded(title, [line for grid in ratios for line in grid_lines(grid)])
    lines += _explained(bench, explain(bench), metrics)
    lines += _failures(bench)
    cells = grid_lines(cell_grid(bench, groups, found))
    lines += ["## Every cell", "", *_folded(f"{len(bench.every_cell)} cells", cells)]
    lines += ["## How it was measured", ""]
    lines += _list(f"{label}: {text}" for label, text in phrases.header(bench, groups))
    return "\n".join(lines).rstrip("\n") + "\n"


def grid_lines(grid: MarkedGrid, level: int | None = None) -> list[str]:
    """A table under a heading of ``level``, or under a plain line; columns without a word go."""
    if not grid.rows:
        return []
    known = [
        position
        for position in range(len(grid.headings))
        if any(row[position].text not in ("", "-") for row in grid.rows)
    ]
    title = f"{'#' * level} {escape(grid.title)}" if level else f"{escape(grid.title)}:"
    rule = ":--", "--:"
    lines = [
        _row([escape(grid.headings[position]) for position in known]),
        _row([rule[position not in grid.words] for position in known]),
        *(_row([_cell(row[position]) for position in known]) for row in grid.rows),
    ]
    caption = [escape(grid.caption), ""] if grid.caption else []
    return [title, "", *lines, "", *caption]


def _explained(bench: Bench, every: Sequence[Explanation], metrics: Sequence[Metric]) -> list[str]:
    """The largest workload of each regime open, all of them folded."""
    chosen = {regime.rows[-1] for regime in regimes(bench)}
    lines: list[str] = []
    for found in every:
        if not found.accounts:
            continue
        own = grid_lines(account_grid(bench, found))
        for metric in METRICS:
            if metric in metrics and any(_has(one, metric) for one in found.accounts):
                own += grid_lines(stage_grid(bench, found, metric))
        workload = bench.workloads[found.row]
        own += _list(f"{name}: {why}" for name, why in found.missing)
        if found.row in chosen:
            lines += own
        else:
            lines += _folded(f"T = {workload.seq_len:,} ({workload.name})", own)
    if not lines:
        return []
    return ["## Where the time goes", "", f"{escape(phrases.ACCOUNT_NOTE)}.", "", *lines]


def _has(account: object, metric: Metric) -> bool:
    return bool(getattr(account, "busy" if metric == "eager" else "graph_busy"))


def _failures(bench: Bench) -> list[str]:
    failed = (*phrases.failures(bench), *phrases.missing(bench))
    return ["## Failed or missing", "", *_list(failed)] if failed else []


def _cell(mark: Mark) -> str:
    text = escape(mark.text)
    if mark.stress == "best":
        return f"**{text}** \\*"
    if mark.stress == "tie":
        return f"**{text}** ~"
    return f"**{text}**" if mark.stress in ("strong", "failed") and text else text


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _list(sentences: Iterable[str]) -> list[str]:
    found = [f"- {escape(sentence)}" for sentence in sentences]
    return [*found, ""] if found else []


def _caution(sentence: str) -> str:
    return f"> **{escape(sentence)}**"


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    return [f"<details><summary>{title}</summary>", "", *lines, "</details>", ""]
