"""What the undisturbed forward would take if something in it were different.

The reconstruction places every operation from the host's stamps and the operations' durations. Here
it is asked again with other durations, or with a host that needs more or less time in a stage; the
difference of the two spans is the answer. So a kernel that gets shorter behind a late host changes
nothing, and a host that gets faster in front of a busy GPU changes nothing either.

Where a record has no reconstruction, times are added up as if nothing else moved.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from moeprof.analysis.reconstruct import Reconstruction, predict
from moeprof.analysis.rows import rows_of
from moeprof.analysis.simulate import OperationModel
from moeprof.compare.comparison import Explained
from moeprof.records import Run, Sample


@dataclass(frozen=True, slots=True)
class Change:
    """What is different. durations: by row, the factor on its operations' durations; host_us: by
    stage, what its time on the host changes by."""

    durations: Mapping[str, float] = field(default_factory=dict)
    host_us: Mapping[str, float] = field(default_factory=dict)


def span_change_us(side: Explained, reconstruction: Reconstruction, change: Change) -> float:
    """By how much ``change`` would change the span between the outer events."""
    if not reconstruction.predictions or reconstruction.model is None:
        return _added_up(side, change)
    run = side.run
    stages = len(run.solution.stages)
    stamped = [s for s in run.samples("bare") if len(s.stamps_us) == stages + 2]
    scripts, model = reconstruction.scripts, reconstruction.model
    models = _changed_models(run, reconstruction, change)
    changed = [
        predict(_changed_sample(run, sample, change), scripts, models, model) for sample in stamped
    ]
    spans_us, unchanged_us = (
        statistics.median(prediction.predicted_span_us for prediction in predictions)
        for predictions in (changed, reconstruction.predictions)
    )
    return spans_us - unchanged_us


def how(reconstruction: Reconstruction) -> str:
    """How ``span_change_us`` finds its answer, as the end of a sentence."""
    if not reconstruction.predictions:
        return "added up"
    if reconstruction.agrees:
        return "replayed in the reconstructed timeline"
    return "replayed in the reconstructed timeline, whose span misses the bare one"


def _added_up(side: Explained, change: Change) -> float:
    busy_us = {stage.name: stage.busy_ns / 1e3 for stage in side.profile.stages}
    shorter = sum(busy_us.get(row, 0.0) * (f - 1.0) for row, f in change.durations.items())
    return shorter + sum(change.host_us.values())


def _changed_models(
    run: Run, reconstruction: Reconstruction, change: Change
) -> Sequence[OperationModel]:
    rows = rows_of(reconstruction.operations, run.solution.stages)
    return [
        replace(model, duration_ns=round(model.duration_ns * change.durations.get(row, 1.0)))
        for model, row in zip(reconstruction.models, rows, strict=True)
    ]


def _changed_sample(run: Run, sample: Sample, change: Change) -> Sample:
    """The stamps with every stage's host time changed; no stage takes less than no time."""
    opening_us, *ends_us = sample.stamps_us
    names = (*run.solution.stage_names, "")  # the last stamp: the closing event is recorded
    stamps_us = [opening_us]
    before_us = opening_us
    for name, end_us in zip(names, ends_us, strict=True):
        taken_us = end_us - before_us + change.host_us.get(name, 0.0)
        stamps_us.append(stamps_us[-1] + max(0.0, taken_us))
        before_us = end_us
    return replace(sample, stamps_us=tuple(stamps_us))
