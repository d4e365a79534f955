"""A run as a JSON document for other programs: derived figures, not raw samples.

``DOCUMENT`` names the layout; its number goes up when a field changes meaning or goes away, not
when one is added. Times keep their unit in the name. What is unknown is null; there is no NaN.
The raw record itself is ``store``'s.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from moeprof.analysis.attribution import graph_rows
from moeprof.analysis.attribution import profile as explain_run
from moeprof.analysis.profiles import Profile, StageProfile
from moeprof.analysis.rows import stage_rows
from moeprof.errors import RecordError
from moeprof.ledger.ceilings import ceilings_of
from moeprof.ledger.expert_rows import Range
from moeprof.ledger.floors import FloorRow, counts_idle_time, floor_rows
from moeprof.ledger.gemm_ledger import GemmFactors, GemmRow, gemm_rows
from moeprof.ledger.ledger import WorkRow, work_rows
from moeprof.records import Run
from moeprof.reports.parity import parity_documents
from moeprof.reports.phrases import warnings

DOCUMENT = "moeprof.run/1"


def run_document(run: Run, profile: Profile | None = None) -> dict[str, Any]:
    """The document of one run: identity, verdict, profile, ledger, passes, clocks, warnings.

    profile: the run's, where it is known already.
    """
    missing: list[str] = []
    if profile is None:
        profile, missing = _explained(run)
    ceilings, source = ceilings_of([run])
    floors: tuple[FloorRow, ...] = ()
    if profile is not None and not counts_idle_time(profile):
        floors = floor_rows(run, profile, ceilings)
    document = {
        "schema": DOCUMENT,
        "moeprof": run.moeprof,
        "created": run.created,
        "solution": {
            "name": run.solution.name,
            "source_hash": run.solution.source_hash,
            "keeps_buffers": run.solution.keeps_buffers,
            "stand_ins": list(run.solution.stand_ins),
            "author": run.solution.author,
            "fib_hash": run.solution.fib_hash,
        },
        "workload": asdict(run.workload),
        "routing": asdict(run.routing),
        "environment": asdict(run.environment),
        "settings": asdict(run.settings),
        "correctness": _correctness(run),
        "capture": None if run.capture is None else asdict(run.capture),
        "profile": None if profile is None else _profile(profile),
        "stages": [] if profile is None else _stages(run, profile, floors),
        "graph_stages": [_graph_stage(row) for row in graph_rows(run)],
        "ceilings": {**asdict(ceilings), "source": source},
        "gemms": [] if profile is None else list(map(_gemm, gemm_rows(run, profile, ceilings))),
        "parity": parity_documents(run),
        "kernel_metrics": [asdict(kernel) for kernel in run.kernel_metrics],
        "passes": _passes(run),
        "calibration": None if run.calibration is None else asdict(run.calibration),
        "clocks": [asdict(clock) for clock in run.clocks],
        "warnings": [*missing, *warnings(run, profile)],
    }
    return {key: _safe(value) for key, value in document.items()}


def _graph_stage(row: StageProfile) -> dict[str, Any]:
    return {
        "name": row.name,
        "busy_us": row.busy_ns / 1e3,
        "gap_us": row.gap_ns / 1e3,
        "operations": row.operations,
    }


def _correctness(run: Run) -> dict[str, Any]:
    verdict = asdict(run.correctness)
    if not run.correctness.checked:
        figures = ("passed", "matched_ratio", "relative_l2", "cosine", "max_absolute")
        verdict.update(dict.fromkeys(figures))
    return verdict


def _explained(run: Run) -> tuple[Profile | None, list[str]]:
    """The profile, or why there is none."""
    if not run.correctness.passed:
        return None, []
    try:
        return explain_run(run), []
    except RecordError as error:
        return None, [str(error)]


def _profile(profile: Profile) -> dict[str, Any]:
    check = profile.span_check
    return {
        "source": profile.source,
        "iterations": profile.iterations,
        "host_upper_bounds": profile.host_upper_bounds,
        "wall_us": profile.wall_ns / 1e3,
        "prologue_us": profile.prologue_ns / 1e3,
        "span_us": profile.span_ns / 1e3,
        "epilogue_us": profile.epilogue_ns / 1e3,
        "busy_us": profile.busy_ns / 1e3,
        "orchestration_us": profile.orchestration_ns / 1e3,
        "residual_us": profile.residual_ns / 1e3,
        "perturbation": profile.perturbation,
        "reconstruction": None
        if check is None
        else {**asdict(check), "error": check.error, "agrees": check.agrees},
        "trust": asdict(profile.trust),
    }


def _stages(run: Run, profile: Profile, floors: Sequence[FloorRow]) -> list[dict[str, Any]]:
    ledger = work_rows(run, profile)
    by_name = {floor.work.name: _floor(floor) for floor in floors}
    entries = {row.name: row.entries for row in stage_rows(run.solution.stages)}
    return [
        {
            **_times(stage),
            "entries": entries.get(stage.name, 0),
            **_work(work),
            "floor": by_name.get(stage.name),
        }
        for stage, work in zip(profile.stages, ledger, strict=True)
    ]


def _times(stage: StageProfile) -> dict[str, Any]:
    values = asdict(stage)
    name, operations = values.pop("name"), values.pop("operations")
    in_us = {f"{key.removesuffix('_ns')}_us": value / 1e3 for key, value in values.items()}
    return {"name": name, **in_us, "time_us": stage.time_ns / 1e3, "operations": operations}


def _work(work: WorkRow) -> dict[str, Any]:
    return {
        "covers": list(work.covers),
        "necessary": asdict(work.necessary),
        "executed": {**asdict(work.executed), "rows_declared": work.rows_declared},
        "amplification": {
            "rows": work.row_amplification,
            "bytes": work.bytes_amplification,
            "flops": work.flops_amplification,
        },
        "gigabytes_per_second": work.gigabytes_per_second,
        "teraflops": work.teraflops,
    }


def _floor(row: FloorRow) -> dict[str, Any]:
    """busy = floor x amplification / efficiency; null where unknown or nothing was needed."""
    known = row.factors
    return {
        "floor_us": known.floor_ns / 1e3 if known else None,
        "amplification": known.amplification if known else None,
        "efficiency": known.efficiency if known else None,
        "best_us_of_executed": row.best_ns / 1e3 if row.best_ns is not None else None,
        "bound": row.bound,
        "declared": row.declared,
        "unneeded": row.unneeded,
    }


def _gemm(row: GemmRow) -> dict[str, Any]:
    """Tiles, padding, waves and load as [low, high]; ``time`` is a product that closes."""
    known, split = row.factors, row.tiling
    spread = row.rows.imbalance if row.rows else None
    return {
        "name": row.name,
        "step": row.step,
        "kernel": row.kernel,
        "tile": None if row.tile is None else {**asdict(row.tile), "shape": row.tile.shape},
        "rows_per_expert": asdict(row.rows) if row.rows else None,
        "tiles": _bounds(split.tiles if split else None),
        "padding": _bounds(split.padding if split else None),
        "waves": _bounds(split.waves if split else None),
        "multiprocessors": split.multiprocessors if split else None,
        "busiest_over_mean": _bounds(spread),
        "busiest_share_of_tiles": _bounds(row.busiest_share),
        "time": None if known is None else _gemm_time(row, known),
        "unknown": list(row.why),
    }


def _gemm_time(row: GemmRow, known: GemmFactors) -> dict[str, Any]:
    values = asdict(known)
    return {"busy_us": row.busy_ns / 1e3, "ideal_us": values.pop("ideal_ns") / 1e3, **values}


def _bounds(figure: Range | None) -> list[float] | None:
    return None if figure is None else [figure.low, figure.high]


def _passes(run: Run) -> dict[str, Any]:
    """Medians of each pass's samples, or why there are none."""
    found: dict[str, Any] = {}
    for result in run.passes:
        samples = result.samples
        found[result.name] = {
            "samples": len(samples),
            "span_us": statistics.median(s.span_us for s in samples) if samples else None,
            "wall_us": statistics.median(s.wall_us for s in samples) if samples else None,
            "unavailable": result.unavailable,
        }
    for timeline in run.timelines:
        seen = {
            "samples": len(timeline.iterations),
            "operation_sets": len(timeline.operation_sets),
            "unavailable": timeline.unavailable,
        }
        found[timeline.name] = {**found.get(timeline.name, {}), **seen}
    return found


def _safe(value: Any) -> Any:
    """Only what JSON knows: no tuples, no mapping types, null for NaN and infinities."""
    if isinstance(value, Mapping):
        return {str(key): _safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_safe(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
