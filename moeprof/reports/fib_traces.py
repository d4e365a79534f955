"""Records as traces and stage data of a dataset, decided in full before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from moeprof.errors import UsageError
from moeprof.fib.evaluations import (
    REFERENCE,
    as_trace,
    choose_timer,
    matching_reference,
    require_evaluation,
)
from moeprof.fib.trace_files import Written, check_traces, find_target, stage_path
from moeprof.fib.traces import Trace
from moeprof.records import Run
from moeprof.reports.stage_sidecar import stage_document


@dataclass(frozen=True, slots=True)
class Planned:
    """One trace with its place, and the stage data with theirs; both from the dataset's root."""

    trace: Trace
    path: PurePosixPath
    stage_path: PurePosixPath
    stages: dict[str, Any]


def plan_traces(root: Path, runs: Mapping[str, Run], timer: str | None) -> list[Planned]:
    """The traces of ``runs``, by the name each has in errors; the reference's are none.

    Raises UsageError for a record that cannot be one, before anything is written.
    """
    others = {where: run for where, run in runs.items() if run.solution.name != REFERENCE}
    if not others:
        raise UsageError(
            f"there are only records of the solution {REFERENCE!r}",
            "one of a solution of the dataset",
        )
    for where, run in others.items():
        require_evaluation(run, where)
    chosen = choose_timer(others.values(), timer)
    planned = [_plan(root, where, run, chosen, runs) for where, run in others.items()]
    for path, traces in by_path(planned).items():
        check_traces(root, path, traces)
    return planned


def by_path(planned: Sequence[Planned]) -> dict[PurePosixPath, list[Trace]]:
    """The traces of each file."""
    found: dict[PurePosixPath, list[Trace]] = {}
    for one in planned:
        found.setdefault(one.path, []).append(one.trace)
    return found


def written_document(planned: Sequence[Planned], written: Sequence[Written]) -> dict[str, Any]:
    """What was done, for JSON."""
    return {
        "traces": [
            {
                "path": str(done.path),
                "action": done.action,
                "solution": done.trace.solution,
                "workload": done.trace.workload["uuid"],
                "status": done.trace.evaluation.status,
            }
            for done in written
        ],
        "stages": [str(one.stage_path) for one in planned],
    }


def written_lines(written: Sequence[Written]) -> list[str]:
    """The same for a person, a line a trace."""
    found = []
    for done in written:
        evaluation = done.trace.evaluation
        time = evaluation.performance
        latency = f", {time.latency_ms:.4f} ms" if time else ""
        uuid = str(done.trace.workload["uuid"])[:8]
        found.append(f"{done.trace.solution} {uuid}: {evaluation.status}{latency}, {done.action}")
    return found


def _plan(root: Path, where: str, run: Run, timer: str | None, runs: Mapping[str, Run]) -> Planned:
    target = find_target(root, run, where)
    reference = matching_reference(run, timer, runs.values())
    beside = stage_path(run)
    trace = as_trace(run, where, target.workload, timer, reference, str(beside))
    return Planned(
        trace, target.path, beside, stage_document(run, target.solution, str(target.path))
    )
