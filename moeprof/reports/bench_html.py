"""A bench as one HTML page that fetches nothing, written as the report is."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moeprof.bench.causes import Explanation, explain
from moeprof.bench.cells import Bench
from moeprof.bench.conditions import conditions, letters
from moeprof.bench.figures import Metric
from moeprof.bench.summary import measured_metrics
from moeprof.bench.winners import verdicts
from moeprof.reports import bench_figures as figures
from moeprof.reports import bench_phrases as phrases
from moeprof.reports.bench_details import account_grid, cell_grid, stage_grid
from moeprof.reports.bench_grids import (
    Mark,
    MarkedGrid,
    Verdicts,
    latency_grid,
    legend,
    ratio_grid,
    regime_grids,
    speedup_grid,
    summary_grid,
)
from moeprof.reports.html.shell import document

HERE = Path(__file__).parent / "bench_page"
SIGNS = {"best": " *", "tie": " ~"}
STYLE = """
td.tie, td.strong { font-weight: 650; }
td.best { color: var(--better); }
td.failed { color: var(--worse); }
"""


def bench_page(bench: Bench) -> str:
    """The whole page. Equal benches give equal pages."""
    groups, found = conditions(bench), verdicts(bench)
    failed = (*phrases.failures(bench), *phrases.missing(bench))
    said = (*phrases.headline(bench, found), *phrases.averages(bench))
    lead, *others = said or (phrases.title(bench),)
    doubts = phrases.warnings(bench, groups)
    runs = [cell.measured.created for cell in bench.every_cell if cell.measured is not None]
    return document(
        HERE,
        title=f"moeprof bench: {phrases.title(bench)}",
        heading="Bench",
        subject=_subject(bench),
        origin=f" from records up to {max(runs)}" if runs else "",
        data=_content(bench, found),
        style=STYLE,
        lead=html.escape(lead),
        others=_list(others, ""),
        doubts="\n".join(f'<p class="caution">{html.escape(text)}</p>' for text in doubts),
        failures=_failures(failed),
        legend=html.escape(legend(bench)),
        note=html.escape(phrases.ACCOUNT_NOTE),
    )


def _content(bench: Bench, found: Verdicts) -> dict[str, Any]:
    groups, metrics = conditions(bench), measured_metrics(bench)
    every = [one for one in explain(bench) if one.accounts]
    colours = figures.row_colours(every)
    names = letters(bench, groups)
    return {
        "metrics": [_metric(bench, metric, found, names) for metric in metrics],
        "regimes": [_grid(grid) for grid in regime_grids(bench, metrics)],
        "colours": list(colours.items()),
        "workloads": [_workload(bench, one, metrics, colours) for one in every],
        "cells": _grid(cell_grid(bench, groups, found)),
        "notes": phrases.header(bench, groups),
    }


def _metric(bench: Bench, metric: Metric, found: Verdicts, names: dict[str, str]) -> dict[str, Any]:
    """What the page shows of one timer."""
    grids = [latency_grid(bench, metric, found, names)]
    if bench.has_reference:
        grids.append(speedup_grid(bench, metric, found))
    if len(bench.solutions) > 1:
        grids.append(ratio_grid(bench, metric, found))
    return {
        "name": metric,
        "latency": figures.latency(bench, metric, found[metric]),
        "arithmetic": figures.by_regime(bench, metric, arithmetic=True),
        "geometric": figures.by_regime(bench, metric, arithmetic=False),
        "summary": _grid(summary_grid(bench, metric, found)),
        "grids": [_grid(grid) for grid in grids],
    }


def _workload(
    bench: Bench, found: Explanation, metrics: Sequence[Metric], colours: dict[str, str]
) -> dict[str, Any]:
    workload = bench.workloads[found.row]
    return {
        "name": f"T = {workload.seq_len:,} · {workload.name}",
        "stages": {metric: figures.stages(found, metric, colours) for metric in metrics},
        "account": _grid(account_grid(bench, found)),
        "busy": {metric: _grid(stage_grid(bench, found, metric)) for metric in metrics},
        "missing": [f"{name}: {why}" for name, why in found.missing],
    }


def _grid(grid: MarkedGrid) -> dict[str, Any]:
    """Columns that say nothing are left out; a cell is its text, or text and stress."""
    known = [
        position
        for position in range(len(grid.headings))
        if any(row[position].text not in ("", "-") for row in grid.rows)
    ]
    return {
        "title": grid.title,
        "caption": grid.caption,
        "headings": [grid.headings[position] for position in known],
        "words": [known.index(position) for position in grid.words if position in known],
        "rows": [[_cell(row[position]) for position in known] for row in grid.rows],
    }


def _cell(mark: Mark) -> str | list[str]:
    text = mark.text + SIGNS.get(mark.stress, "")
    return [text, mark.stress] if mark.stress else text


def _subject(bench: Bench) -> str:
    """What was compared, on what."""
    devices = dict.fromkeys(workload.device for workload in bench.workloads if workload.device)
    where = f" on {', '.join(devices)}" if devices else ""
    return f"{phrases.title(bench)}{where}: {', '.join(bench.solutions)}"


def _failures(failed: Sequence[str]) -> str:
    if not failed:
        return ""
    return f"<section>\n<h2>Failed or missing</h2>\n{_list(failed, 'doubts')}\n</section>"


def _list(sentences: Sequence[str], css_class: str) -> str:
    if not sentences:
        return ""
    items = "\n".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="{css_class}">\n{items}\n</ul>'
