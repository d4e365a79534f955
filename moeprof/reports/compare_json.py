"""Comparisons and their tables as JSON documents for other programs.

``DOCUMENT`` and ``ALL_DOCUMENT`` name the layouts; a number goes up when a field changes meaning
or goes away, not when one is added. Bars are integer nanoseconds and add up to ``delta_ns``; what
is unknown is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from moeprof.compare.comparison import Comparison, Explained, Part, PartSide
from moeprof.compare.tables import Metric, Table
from moeprof.reports import compare_phrases as phrases
from moeprof.reports.overview import METRICS

DOCUMENT = "moeprof.compare/1"
ALL_DOCUMENT = "moeprof.compare.compare-workloads/1"


def comparison_document(
    comparison: Comparison, records: Sequence[str], reasons: Sequence[str] = ()
) -> dict[str, Any]:
    """One pair. records: the files compared; reasons: what stands against comparing them."""
    run = comparison.before.run
    first, second = records
    return {
        "workload": asdict(run.workload),
        "routing": {
            "label": run.routing.label,
            "histogram_hash": run.routing.histogram_hash,
            "local_pairs": run.routing.local_pairs,
            "active_experts": run.routing.active_experts,
        },
        "device": run.environment.device,
        "before": _side(comparison.before, comparison.span_before_ns, first),
        "after": _side(comparison.after, comparison.span_after_ns, second),
        "delta_ns": comparison.delta_ns,
        "residual_ns": comparison.residual_ns,
        "measured_delta_us": comparison.measured_delta_us,
        "noise_us": comparison.noise_us,
        "outside_ns": dict(zip(("prologue", "epilogue"), comparison.outside_ns, strict=True)),
        "ceilings": {**asdict(comparison.ceilings), "origin": comparison.ceilings_label},
        "causes": [{"cause": str(cause), "delta_ns": ns} for cause, ns in comparison.causes],
        "parts": [_part(part) for part in comparison.parts],
        "headline": phrases.headline(comparison),
        "doubt": phrases.doubt(comparison) or None,
        "largest_cause": phrases.largest_cause(comparison),
        "sentences": list(phrases.sentences(comparison)),
        "reasons": list(reasons),
        "cautions": list(phrases.cautions(comparison)),
    }


def overview_document(table: Table, reasons: Sequence[str] = ()) -> dict[str, Any]:
    """Several solutions over many workloads."""
    return {
        "solutions": list(table.solutions),
        "reference": table.reference,
        "workloads": [
            {
                "uuid": row.uuid,
                "num_tokens": row.seq_len,
                "regime": row.regime,
                "local_expert_offset": row.local_expert_offset,
                "local_pairs": row.local_pairs,
                "active_experts": row.active_experts,
                "reference_us": row.reference_us,
                "solutions": {
                    name: {
                        "latency_us": found.bare_us,
                        "graph_latency_us": found.graph_us,
                        "speedup": found.speedup,
                    }
                    for name, found in zip(table.solutions, row.latencies, strict=True)
                },
            }
            for row in table.rows
        ],
        "metrics": {metric: _metric(table, metric) for metric in METRICS},
        "left_out": list(table.left_out),
        "reasons": list(reasons),
    }


def _metric(table: Table, metric: Metric) -> dict[str, Any]:
    return {
        "summary": [asdict(summary) for summary in table.summaries(metric)],
        "regimes": [
            {
                "regime": name,
                "workloads": count,
                "mean": dict(zip(table.solutions, means, strict=True)),
            }
            for name, count, means in table.regimes(metric)
        ],
    }


def _side(side: Explained, span_ns: int, record: str) -> dict[str, Any]:
    return {
        "label": side.label,
        "solution": side.run.solution.name,
        "source_hash": side.run.solution.source_hash,
        "record": record,
        "created": side.run.created,
        "span_ns": span_ns,
        "source": side.profile.source,
        "trust": side.profile.trust.verdict,
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "steps": list(part.steps),
        "necessary": asdict(part.necessary),
        "before": _part_side(part.before),
        "after": _part_side(part.after),
        "delta_ns": part.delta_ns,
        "bars": [{"cause": str(bar.cause), "delta_ns": bar.delta_ns} for bar in part.bars],
    }


def _part_side(side: PartSide) -> dict[str, Any]:
    return {**asdict(side), "backends": list(side.backends), "time_ns": side.time_ns}
