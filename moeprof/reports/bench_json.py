"""A bench as a JSON document for other programs: every figure of every table, and raw samples.

``DOCUMENT`` names the layout; its number goes up when a field changes meaning or goes away, not
when one is added. Times keep their unit in the name; what is unknown is null; there is no NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from moeprof.bench.causes import Account, Explanation, explain
from moeprof.bench.cells import Bench, Cell
from moeprof.bench.conditions import FACTS, Conditions, conditions, letter
from moeprof.bench.figures import (
    METRICS,
    Metric,
    first_call_ms,
    launches,
    ratio,
    samples,
    speedup,
    spread,
    why_no_graph,
)
from moeprof.bench.summary import Mean, Regime, mean, ratios, regimes, speedups, summaries
from moeprof.bench.winners import verdicts
from moeprof.reports import bench_phrases as phrases
from moeprof.reports.bench_grids import Verdicts

DOCUMENT = "moeprof.bench/1"


def bench_document(bench: Bench) -> dict[str, Any]:
    """The document, ``schema`` first."""
    groups, found = conditions(bench), verdicts(bench)
    return {
        "schema": DOCUMENT,
        "solutions": list(bench.solutions),
        "reference": bench.reference if bench.has_reference else None,
        "baseline": bench.baseline,
        "headline": list(phrases.headline(bench, found)),
        "notes": dict(phrases.header(bench, groups)),
        "warnings": list(phrases.warnings(bench, groups)),
        "conditions": [_conditions(group) for group in groups],
        "workloads": [_workload(bench, row, found) for row in range(len(bench.workloads))],
        "cells": [_cell(bench, cell, groups) for cell in bench.every_cell],
        "regimes": [_regime(bench, metric, one) for one in regimes(bench) for metric in METRICS],
        "summaries": [
            {"timer": metric, **asdict(one)}
            for metric in METRICS
            for one in summaries(bench, metric, found[metric])
        ],
        "failures": [asdict(failure) for failure in bench.failures],
        "explanations": [_explanation(bench, one) for one in explain(bench)],
    }


def _conditions(group: Conditions) -> dict[str, Any]:
    values = {name: value for (name, _), value in zip(FACTS, group.values, strict=True)}
    return {
        "letter": group.letter or None,
        "solutions": list(group.solutions),
        "cells": group.cells,
        "values": values,
    }


def _workload(bench: Bench, row: int, found: Verdicts) -> dict[str, Any]:
    workload = bench.workloads[row]
    fastest = {}
    for metric in METRICS:
        own = found[metric][row]
        fastest[metric] = {
            "winner": own.winner if own else None,
            "tied": list(own.names) if own and own.winner is None else [],
        }
    return {
        "name": workload.name,
        "uuid": workload.uuid,
        "num_tokens": workload.seq_len,
        "definition": workload.definition or None,
        "routing_histogram_hash": workload.routing_hash or None,
        "device": workload.device or None,
        "timer": workload.timer or None,
        "local_expert_offset": workload.local_expert_offset,
        "local_pairs": workload.local_pairs,
        "active_experts": workload.active_experts,
        "fastest": fastest,
    }


def _cell(bench: Bench, cell: Cell, groups: Sequence[Conditions]) -> dict[str, Any]:
    run, measured = cell.run, cell.measured
    result = run.correctness if run is not None and run.correctness.checked else None
    return {
        "solution": cell.solution,
        "workload": cell.workload.name,
        "num_tokens": cell.workload.seq_len,
        "kind": cell.kind,
        "message": cell.failure.message if cell.failure else None,
        "conditions": letter(cell, groups) or None,
        "source_hash": run.solution.source_hash if run else None,
        "created": run.created if run else None,
        **{metric: _latency(bench, cell, metric) for metric in METRICS},
        "why_no_graph": (why_no_graph(measured) or None) if measured else None,
        "launches": launches(measured) if measured else None,
        "first_call_ms": first_call_ms(run) if run else None,
        "correctness": None
        if result is None
        else {
            "passed": result.passed,
            "matched_ratio": result.matched_ratio,
            "relative_l2": result.relative_l2,
            "stages": [asdict(stage) for stage in result.stages],
        },
    }


def _latency(bench: Bench, cell: Cell, metric: Metric) -> dict[str, Any] | None:
    found, run = spread(cell, metric), cell.measured
    if found is None or run is None:
        return None
    row = bench.workloads.index(cell.workload)
    return {
        **asdict(found),
        "speedup": speedup(cell, bench.references[row], metric),
        "times_faster_than_baseline": ratio(cell, bench.column(bench.baseline)[row], metric),
        "samples_us": [sample.span_us for sample in samples(run, metric)],
    }


def _regime(bench: Bench, metric: Metric, one: Regime) -> dict[str, Any]:
    return {
        "name": one.name,
        "timer": metric,
        "workloads": [bench.workloads[row].name for row in one.rows],
        "solutions": {
            name: {
                "speedup": _mean(mean(speedups(bench, name, metric, one.rows), len(one.rows))),
                "times_faster_than_baseline": _mean(
                    mean(ratios(bench, name, metric, one.rows), len(one.rows))
                ),
            }
            for name in bench.solutions
        },
    }


def _mean(found: Mean | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def _explanation(bench: Bench, one: Explanation) -> dict[str, Any]:
    return {
        "workload": bench.workloads[one.row].name,
        "fastest": one.fastest or None,
        "accounts": [_account(account) for account in one.accounts],
        "missing": dict(one.missing),
    }


def _account(one: Account) -> dict[str, Any]:
    return {
        **asdict(one),
        "busy": dict(one.busy),
        "graph_busy": dict(one.graph_busy),
        "causes": {str(cause): amount for cause, amount in one.causes},
    }
