"""Three independent readings of the orchestration, and whether they agree.

Orchestration is the idle time that the host causes (host_late + api). It is read

1. as the gaps of the timeline, between the outer events;
2. as bare - blocked: with every launch queued ahead, the host costs nothing;
3. as bare - graph: a replayed graph has no launches at all.

The two differences also remove launch latency, which is not orchestration, and the timeline knows
how much: queued launches leave one queued gap an operation, a replayed graph a shorter one before
each node (``Calibration.graph_gap_ns``; 0.5 us on an H200). That part is taken off and reported as
``corrected_us``. Readings agree if the largest and smallest differ by at most max(3 us, 5 % of the
largest). A wider spread that the readings' own noise covers is no verdict.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moeprof.analysis.identity import Sweep, sweep
from moeprof.analysis.noise import median_noise
from moeprof.analysis.profiles import Reading, Trust
from moeprof.analysis.reconstruct import Prediction, Reconstruction
from moeprof.records import Run
from moeprof.timelines import Iteration, Operation

TOLERANCE_US, TOLERANCE_FRACTION = 3.0, 0.05


def trust(run: Run, reconstruction: Reconstruction) -> Trust:
    """The readings of one run. Without a timeline the differences stand uncorrected, and say so."""
    latency_us = timeline_us = None
    noise_us = 0.0
    if reconstruction.predictions:
        swept = event_sweep(reconstruction.operations, reconstruction.predictions)
        orchestration = (swept.orchestration_ns() / 1e3).tolist()
        timeline_us = statistics.median(orchestration)
        noise_us = median_noise(orchestration)
        latency_us = float(np.median(swept.latency_ns())) / 1e3
    queued_us = reconstruction.queued_ns / 1e3
    gap_ns = (run.calibration.graph_gap_ns if run.calibration else None) or 0
    graph_us = gap_ns * len(reconstruction.operations) / 1e3
    readings = (
        Reading("timeline", timeline_us, noise_us, why=reconstruction.unavailable or ""),
        _difference(run, "blocked", latency_us, queued_us),
        _difference(run, "graph", latency_us, graph_us),
    )
    return judge(readings)


def judge(readings: Sequence[Reading]) -> Trust:
    """Whether the readings that exist agree; fewer than two are no evidence."""
    known = [(r.value_us, r.noise_us) for r in readings if r.value_us is not None]
    if len(known) < 2:
        return Trust(tuple(readings), 0.0, TOLERANCE_US, "not measured")
    high, high_noise = max(known)
    low, low_noise = min(known)
    tolerance_us = max(TOLERANCE_US, TOLERANCE_FRACTION * high)
    if high - low <= tolerance_us:
        return Trust(tuple(readings), high - low, tolerance_us, "agree")
    within_noise = high - low <= tolerance_us + math.hypot(high_noise, low_noise)
    verdict = "within noise" if within_noise else "differ"
    return Trust(tuple(readings), high - low, tolerance_us, verdict)  # type: ignore[arg-type]


def event_sweep(operations: Sequence[Operation], predictions: Sequence[Prediction]) -> Sweep:
    """The identity from the opening to the closing event, as the bare span is measured.

    The events take part as operations of no length.
    """
    event = Operation("event", "kernel", "", operations[0].stream if operations else 0)
    timelines = [_with_events(prediction) for prediction in predictions]
    return sweep((event, *operations, event), timelines)


def _with_events(prediction: Prediction) -> Iteration:
    timeline = prediction.iteration
    opening, closing = prediction.opening_ns, prediction.closing_ns
    entered_ns, left_ns = timeline.stage_begin_ns[0], timeline.stage_end_ns[-1]
    return replace(
        timeline,
        start_ns=(opening, *timeline.start_ns, closing),
        end_ns=(opening, *timeline.end_ns, closing),
        launch_begin_ns=(0, *timeline.launch_begin_ns, left_ns),
        launch_end_ns=(entered_ns, *timeline.launch_end_ns, prediction.closing_recorded_ns),
    )


def _difference(run: Run, name: str, latency_us: float | None, left_us: float) -> Reading:
    """bare - ``name``, less the launch latency that ``name`` removes beside the orchestration."""
    label = f"bare - {name}"
    bare = [sample.span_us for sample in run.samples("bare")]
    other = [sample.span_us for sample in run.samples(name)]
    if not bare or not other:
        missing = name if bare else "bare"
        why = next((p.unavailable for p in run.passes if p.name == missing), None)
        return Reading(label, None, why=why or f"the {missing} pass did not run")
    removed_us = max(0.0, latency_us - left_us) if latency_us is not None else 0.0
    return Reading(
        label,
        statistics.median(bare) - statistics.median(other) - removed_us,
        noise_us=math.hypot(median_noise(bare), median_noise(other)),
        corrected_us=removed_us,
        why="" if latency_us is not None else "launch latency not taken off",
    )
