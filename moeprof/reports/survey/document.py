"""ReportData as a JSON document for other programs: figures, raw bare samples, median timelines.

``DOCUMENT`` names the layout; its number goes up when a field changes meaning or goes away, not
when one is added. Times keep their unit in the name; what is unknown is null.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from moeprof.analysis.lanes import Lanes
from moeprof.ledger.floors import FloorRow
from moeprof.reports import compare_phrases
from moeprof.reports.json import run_document
from moeprof.reports.survey.data import Entry, Pair, ReportData, WorkloadData
from moeprof.reports.survey.tables import warnings

DOCUMENT = "moeprof.report/1"


def report_document(data: ReportData) -> dict[str, Any]:
    """The document, ``schema`` first."""
    return {
        "schema": DOCUMENT,
        "newest_record": data.newest,
        "solutions": list(data.solutions),
        "default_pair": data.default_pair,
        "summary": list(data.summary),
        "doubts": list(warnings(data)),
        "ceilings": {**asdict(data.ceilings), "origin": data.ceilings_label},
        "workloads": [_workload(workload) for workload in data.workloads],
    }


def _workload(workload: WorkloadData) -> dict[str, Any]:
    return {
        "name": workload.name,
        "num_tokens": workload.seq_len,
        "entries": [_entry(entry) for entry in workload.entries],
        "comparisons": [_pair(pair) for pair in workload.pairs],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "label": entry.label,
        "problem": entry.problem or None,
        "latency_us": entry.latency_us,
        "bare_us": list(entry.bare_us),
        "run": run_document(entry.run, entry.profile),
        "ledger": [_ledger(row) for row in entry.ledger],
        "timeline": _timeline(entry.lanes) if entry.lanes else None,
    }


def _ledger(row: FloorRow) -> dict[str, Any]:
    return {
        "name": row.work.name,
        "necessary": asdict(row.work.necessary),
        "executed": asdict(row.executed),
        "declared": row.declared,
        "busy_us": row.work.busy_ns / 1e3,
        "floor_us": row.factors.floor_ns / 1e3 if row.factors else None,
        "amplification": row.factors.amplification if row.factors else None,
        "efficiency": row.factors.efficiency if row.factors else None,
        "bound": row.bound,
        "flops_per_byte": row.intensity,
        "teraflops": row.teraflops,
        "gigabytes_per_second": row.gigabytes_per_second,
    }


def _timeline(lanes: Lanes) -> dict[str, Any]:
    return {
        "source": lanes.source,
        "median_of": lanes.among,
        "span_ns": lanes.span_ns,
        "lanes": [
            {
                "kind": lane.kind,
                "label": lane.label,
                "intervals": [[i.begin_ns, i.end_ns, i.row, i.name] for i in lane.intervals],
            }
            for lane in lanes.lanes
        ],
    }


def _pair(pair: Pair) -> dict[str, Any]:
    comparison = pair.comparison
    found: dict[str, Any] = {
        "before": pair.before,
        "after": pair.after,
        "refused": list(pair.refused),
        "cautions": list(pair.cautions),
    }
    if comparison is not None:
        found |= {
            "span_before_ns": comparison.span_before_ns,
            "span_after_ns": comparison.span_after_ns,
            "delta_ns": comparison.delta_ns,
            "headline": compare_phrases.headline(comparison),
            "largest_cause": compare_phrases.largest_cause(comparison),
            "sentences": list(compare_phrases.sentences(comparison)),
            "bars": [
                {"part": bar.part, "cause": str(bar.cause), "delta_ns": bar.delta_ns}
                for bar in comparison.bars
            ],
        }
    return found
