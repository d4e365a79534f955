"""Kernel counters in a record: a copy of the measured one, never the one that is there.

Counters alone say how a kernel ran; beside the stage times of a measured run they say why a stage
takes as long as it does. So they join the newest record of the same code on the same work.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from moeprof.errors import UsageError
from moeprof.records import KernelMetrics, Run
from moeprof.storage.store import find_runs, load


def newest_of_same_work(folder: Path, skeleton: Run, definition: str | None) -> Run | None:
    """The latest record under ``folder`` of what the skeleton ran; None if there is none.

    definition: the folder's name, the definition's alias where it has one.
    """
    workload = skeleton.workload
    name = definition or workload.definition
    files = find_runs(folder, skeleton.solution.name, name, workload.seq_len, workload.uuid)
    for file in reversed(files):
        run = load(file.path)
        if difference(run, skeleton) is None and run.timelines:
            return run
    return None


def require_same_work(run: Run, skeleton: Run, name: str) -> None:
    """UsageError if the record ``name`` is of something else than was measured."""
    found = difference(run, skeleton)
    if found is not None:
        raise UsageError(
            f"{name} is of {found}", "the record of what ncu measured", "leave out --record"
        )


def difference(run: Run, skeleton: Run) -> str | None:
    """What of ``run`` is not the skeleton's, in words; None where the work is the same."""
    pairs = (
        ("another solution", run.solution.name, skeleton.solution.name),
        ("other source code", run.solution.source_hash, skeleton.solution.source_hash),
        ("another workload", run.workload, skeleton.workload),
        ("another routing", run.routing.histogram_hash, skeleton.routing.histogram_hash),
        ("other weights", run.routing.weights_recipe, skeleton.routing.weights_recipe),
        ("another device", run.environment.device, skeleton.environment.device),
    )
    return next((what for what, ours, wanted in pairs if ours != wanted), None)


def with_metrics(run: Run, metrics: tuple[KernelMetrics, ...]) -> Run:
    """A copy of ``run``, made now, in which ``metrics`` take the place of those of their stages."""
    stages = {kernel.stage for kernel in metrics}
    kept = tuple(kernel for kernel in run.kernel_metrics if kernel.stage not in stages)
    note = f"the times are those of the record of {run.created}: this is a copy with kernel metrics"
    copied = any(timeline.iterations for timeline in run.timelines)
    is_noted = any("this is a copy with kernel metrics" in warning for warning in run.warnings)
    return replace(
        run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kernel_metrics=(*kept, *metrics),
        warnings=(*run.warnings, note) if copied and not is_noted else run.warnings,
    )
