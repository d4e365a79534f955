"""ReportData -> one HTML page: figures and tables in one file, nothing fetched (``shell``)."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moeprof.analysis.lanes import CAUSES
from moeprof.reports import compare_phrases
from moeprof.reports.html import figures, roofline
from moeprof.reports.html.shell import document
from moeprof.reports.kernel_metrics import kernel_grid
from moeprof.reports.overview import Grid
from moeprof.reports.parity import parity_grids
from moeprof.reports.survey import tables
from moeprof.reports.survey.data import Entry, Pair, ReportData, WorkloadData
from moeprof.reports.survey.summary import subject
from moeprof.reports.units import duration

HERE = Path(__file__).parent


def report_page(data: ReportData) -> str:
    """The whole page. Equal data give equal pages."""
    lead, *others = data.summary or ("There is nothing to compare",)
    return document(
        HERE,
        title=f"moeprof: {', '.join(data.solutions)}",
        heading="Where the time goes",
        subject=subject(data),
        origin=f" from records up to {data.newest}",
        data=_content(data),
        summary=f'<p class="lead">{html.escape(lead)}.</p>\n{_list(others, "")}',
        ceilings=html.escape(data.ceilings_label),
        doubts=_list(tables.warnings(data), "doubts") or "<p>None.</p>",
    )


def _content(data: ReportData) -> dict[str, Any]:
    colours = figures.row_colours(data)
    fastest = [tables.fastest(workload) for workload in data.workloads]
    words = 3  # columns of the table of latencies before the first solution
    return {
        "solutions": data.solutions,
        "chosen": _chosen(data),
        "legend": list(colours.items()),
        "causes": [pair for pair in figures.CAUSE_COLOURS.items() if pair[0] in _causes(data)],
        "latency": figures.latency(data),
        "latencies": _grid(tables.latencies(data)),
        "fastest": [words + data.solutions.index(name) if name else -1 for name in fastest],
        "environment": _grid(tables.environment(data)),
        "workloads": [_workload(workload, data, colours) for workload in data.workloads],
    }


def _causes(data: ReportData) -> set[str]:
    """The causes of idle time that any record shows."""
    stages = [s for e in data.entries if e.profile is not None for s in e.profile.stages]
    return {cause for field, cause in CAUSES.items() if any(getattr(s, field) for s in stages)}


def _chosen(data: ReportData) -> dict[str, int]:
    """What the page shows first: the default pair on the largest workload that has it."""
    pair = data.default_pair or (data.solutions[0], data.solutions[0])
    having = [
        position
        for position, workload in enumerate(data.workloads)
        if (found := workload.pair(pair)) is not None and found.comparison is not None
    ]
    first, second = (data.solutions.index(label) for label in pair)
    largest = having[-1] if having else len(data.workloads) - 1
    return {"workload": largest, "first": first, "second": second}


def _workload(
    workload: WorkloadData, data: ReportData, colours: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "name": workload.name,
        "stages": figures.stages(workload, colours),
        "distribution": figures.distribution(workload, data.solutions),
        "roofline": roofline.roofline(workload, data, colours),
        "bandwidth": roofline.bandwidth(workload, data, colours),
        "samples": _grid(tables.samples(workload)),
        "entries": [_entry(entry, colours) for entry in workload.entries],
        "pairs": [_pair(pair) for pair in workload.pairs],
    }


def _entry(entry: Entry, colours: Mapping[str, str]) -> dict[str, Any]:
    return {
        "label": entry.label,
        "problem": entry.problem,
        "caption": _caption(entry),
        "timeline": figures.timeline(entry.lanes, colours) if entry.lanes else None,
        "stages": _grid(tables.stages(entry)),
        "ledger": _grid(tables.ledger(entry)),
        "parity": [_grid(grid) for grid in parity_grids(entry.run)],
        "kernels": _grid(kernels) if (kernels := kernel_grid(entry.run)) else None,
        "notes": tables.notes(entry),
    }


def _caption(entry: Entry) -> str:
    """What the timeline is of."""
    if entry.lanes is None:
        return f"{entry.label}: no timeline"
    kinds = {
        "reconstructed": "undisturbed, reconstructed",
        "api": "under the profiler: host times are upper bounds",
        "events": "event pairs end to end, idle time not known",
        "stage clock": "stages end to end on the host's clock",
    }
    return (
        f"{entry.label}: {duration(entry.lanes.span_ns / 1e3)}, the median of "
        f"{entry.lanes.among} iterations; {kinds[entry.lanes.source]}"
    )


def _pair(pair: Pair) -> dict[str, Any]:
    comparison = pair.comparison
    labels = {"before": pair.before, "after": pair.after, "refused": pair.refused}
    if comparison is None:
        return {**labels, "waterfall": None}
    return {
        **labels,
        "waterfall": figures.waterfall(comparison),
        "headline": f"{compare_phrases.headline(comparison)}.",
        "doubt": compare_phrases.doubt(comparison),
        "largest": compare_phrases.largest_cause(comparison),
        "sentences": compare_phrases.sentences(comparison),
        "cautions": list(dict.fromkeys((*pair.cautions, *compare_phrases.cautions(comparison)))),
    }


def _grid(grid: Grid) -> dict[str, Any]:
    return {
        "title": grid.title,
        "headings": grid.headings,
        "rows": grid.rows,
        "left": grid.left,
    }


def _list(sentences: Sequence[str], css_class: str) -> str:
    if not sentences:
        return ""
    items = "\n".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="{css_class}">\n{items}\n</ul>'
