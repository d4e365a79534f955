"""The timeline of the forward as it runs without a profiler, and whether to believe it.

A profiler leaves kernel durations true but slows the host down, so a gap seen under CUPTI is not
the gap of the real run. This module predicts the undisturbed timeline of every stamped sample of
the ``bare`` pass from what disturbs nothing:

* the host clock at stage boundaries, stamped in ``bare`` itself;
* how the host spends each stage, as fractions of its time, from ``api`` (``host.py``);
* each operation's median duration, from ``kernels``;
* launch latency and the gap between queued operations, from the calibration or ``api``.

An operation starts at max(end of its predecessor on the stream + queued gap, return of its launch
call + launch latency). Where the host waits for the GPU inside a stage (``.item()``), its waiting
time is not a fraction of anything: it ends when the simulated GPU has drained, and the host's own
time is scaled so that the stage ends at its stamp.

The outer pair of CUDA events is part of the prediction, so that its span is compared with the
measured one like for like: the first executes a launch latency after its record call returns, the
second when the work before it is done, and not before its own record call has reached the GPU.

Left out: contention between streams for the GPU's resources (durations are taken as measured),
host threads that launch side by side, variation of kernel durations between iterations.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.analysis.checks import sound
from moeprof.analysis.host import StageScript, stage_scripts
from moeprof.analysis.launches import LaunchModel, launch_model, operation_models
from moeprof.analysis.noise import median_noise
from moeprof.analysis.profiles import SpanCheck
from moeprof.analysis.simulate import Device, OperationModel, Times, Wait, simulate_stage
from moeprof.records import Run, Sample
from moeprof.timelines import ApiCall, Iteration, Operation, TimelinePass

TOLERANCE_US, TOLERANCE_FRACTION = 3.0, 0.05


@dataclass(frozen=True, slots=True)
class Prediction:
    """One stamped bare sample and the timeline predicted for it.

    opening_ns, closing_ns: when the outer events execute, on the iteration's clock;
    closing_recorded_ns: when the call that recorded the second one returned.
    """

    iteration: Iteration
    opening_ns: int
    closing_ns: int
    closing_recorded_ns: int
    measured_span_us: float

    @property
    def predicted_span_us(self) -> float:
        """Between the events, as ``Sample.span_us`` is."""
        return (self.closing_ns - self.opening_ns) / 1e3


@dataclass(frozen=True, slots=True)
class Stamping:
    """Change of the bare span by stamping, a fraction, and half its 95 % interval."""

    fraction: float
    noise: float


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Predicted timelines of one run, or the reason why there are none.

    operations: the set all predictions share, in order of start in the ``api`` pass. queued_ns:
    the gaps that would be left if every launch were queued ahead. stamping: what the stamps change
    in the bare span (None without unstamped samples). scripts, models, model: what ``predict`` made
    the predictions of.
    """

    operations: tuple[Operation, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    scripts: tuple[StageScript, ...] = ()
    models: tuple[OperationModel, ...] = ()
    model: LaunchModel | None = None
    queued_ns: int = 0
    check: SpanCheck | None = None
    stamping: Stamping | None = None
    notes: tuple[str, ...] = ()
    unavailable: str | None = None

    @property
    def agrees(self) -> bool:
        return self.check is not None and self.check.agrees


def reconstruct(run: Run, model: LaunchModel | None = None) -> Reconstruction:
    """Predict every stamped bare sample of ``run``; ``unavailable`` says what is missing."""
    stages = run.solution.stage_names
    stamped = [s for s in run.samples("bare") if len(s.stamps_us) == len(stages) + 2]
    api, kernels = run.timeline("api"), run.timeline("kernels")
    if not stamped:
        return Reconstruction(unavailable="the bare pass has no samples stamped at every stage")
    if api is None:
        return Reconstruction(unavailable="the api pass is missing, so launches cannot be placed")
    usual, iterations = usual_set(api)
    complete = [i for i in iterations if len(i.stage_begin_ns) == len(stages) and i.launch_begin_ns]
    operations = api.operation_sets[usual]
    if not complete or not operations:
        return Reconstruction(unavailable="the api pass shows no launch calls or stage boundaries")
    durations, notes = _durations(operations, kernels, complete)
    if durations is None:
        return Reconstruction(unavailable=notes[0])
    model = model or launch_model(run.calibration, operations, complete)
    scripts = stage_scripts(operations, complete, stages, model.launch_latency_ns)
    models = operation_models(operations, complete, durations, model)
    predictions = predict_all(stamped, scripts, models, model)
    return Reconstruction(
        operations=operations,
        predictions=predictions,
        scripts=tuple(scripts),
        models=tuple(models),
        model=model,
        queued_ns=sum(m.queued_gap_ns for m in models) + model.event_gap_ns,
        check=_check(predictions),
        stamping=_stamping(run.samples("bare")),
        notes=notes,
    )


def usual_set(timeline: TimelinePass) -> tuple[int, list[Iteration]]:
    """The operation set that most iterations show, and those iterations, sound ones if any."""
    usual = statistics.mode(i.operation_set for i in timeline.iterations)
    same = [i for i in timeline.iterations if i.operation_set == usual]
    return usual, [i for i in same if sound(i)] or same


def _durations(
    operations: Sequence[Operation], kernels: TimelinePass | None, api: Sequence[Iteration]
) -> tuple[list[int] | None, tuple[str, ...]]:
    """Median duration of each operation, ns; None and the reason where the passes do not match.

    The kernels pass knows no stages: its i-th operation of a name is the i-th of that name here.
    """
    if kernels is None:
        return _medians(api), ("durations are the api pass's: the kernels pass is missing",)
    usual, iterations = usual_set(kernels)
    queues: dict[str, list[int]] = {}
    for duration_ns, operation in zip(
        _medians(iterations), kernels.operation_sets[usual], strict=True
    ):
        queues.setdefault(operation.name, []).append(duration_ns)
    durations: list[int] = []
    for operation in operations:
        queue = queues.get(operation.name)
        if not queue:
            break
        durations.append(queue.pop(0))
    if len(durations) < len(operations) or any(queues.values()):
        return None, ("the kernels and api passes launched different operations",)
    return durations, ()


def _medians(iterations: Sequence[Iteration]) -> list[int]:
    """Median duration of each operation of iterations that share them."""
    spans = [(iteration.start_ns, iteration.end_ns) for iteration in iterations]
    bounds_ns = np.array(spans, dtype=np.int64)  # [iteration][start, end][operation]
    durations_ns = np.maximum(0, bounds_ns[:, 1] - bounds_ns[:, 0])
    medians: list[int] = np.rint(np.median(durations_ns, axis=0)).astype(np.int64).tolist()
    return medians


def predict(
    sample: Sample,
    scripts: Sequence[StageScript],
    models: Sequence[OperationModel],
    model: LaunchModel,
) -> Prediction:
    """The timeline of one stamped sample: see ``predict_all``, which takes hardly longer."""
    return predict_all([sample], scripts, models, model)[0]


def predict_all(
    samples: Sequence[Sample],
    scripts: Sequence[StageScript],
    models: Sequence[OperationModel],
    model: LaunchModel,
) -> tuple[Prediction, ...]:
    """The timeline of each stamped sample: the GPU following the host's stamps."""
    if not samples:
        return ()
    stamps_ns = np.rint(np.array([s.stamps_us for s in samples]) * 1e3).astype(np.int64).T
    device = Device(models)
    waits: list[Wait] = []
    for script, begin_ns, end_ns in zip(scripts, stamps_ns, stamps_ns[1:-1], strict=False):
        device, found = simulate_stage(script, device, begin_ns, end_ns)
        waits.extend(found)
    opening_ns = stamps_ns[0] + model.event_latency_ns
    closing_ns = stamps_ns[-1] + model.event_latency_ns
    drained_ns = device.drained_ns
    if drained_ns is not None:
        closing_ns = np.maximum(closing_ns, drained_ns + model.event_gap_ns)
    timelines = _timelines(samples, stamps_ns, device, waits)
    return tuple(
        Prediction(timeline, opening, closing, recorded, sample.span_us)
        for timeline, opening, closing, recorded, sample in zip(
            timelines,
            opening_ns.tolist(),
            closing_ns.tolist(),
            stamps_ns[-1].tolist(),
            samples,
            strict=True,
        )
    )


def _timelines(
    samples: Sequence[Sample], stamps_ns: Times, device: Device, waits: Sequence[Wait]
) -> list[Iteration]:
    """One iteration a sample. stamps_ns: [stamp][S]."""
    columns = [device.columns(index) for index in range(4)]
    stamps = stamps_ns.T.tolist()
    calls = [(wait.name, wait.begin_ns.tolist(), wait.end_ns.tolist()) for wait in waits]
    return [
        Iteration(
            operation_set=0,
            start_ns=tuple(columns[0][i]),
            end_ns=tuple(columns[1][i]),
            launch_begin_ns=tuple(columns[2][i]),
            launch_end_ns=tuple(columns[3][i]),
            stage_begin_ns=tuple(stamps[i][:-2]),
            stage_end_ns=tuple(stamps[i][1:-1]),
            exit_ns=round(sample.wall_us * 1e3),
            calls=tuple(ApiCall(name, begin[i], end[i]) for name, begin, end in calls),
        )
        for i, sample in enumerate(samples)
    ]


def _check(predictions: Sequence[Prediction]) -> SpanCheck:
    measured_us = statistics.median(p.measured_span_us for p in predictions)
    return SpanCheck(
        predicted_us=statistics.median(p.predicted_span_us for p in predictions),
        measured_us=measured_us,
        tolerance_us=max(TOLERANCE_US, TOLERANCE_FRACTION * measured_us),
    )


def _stamping(samples: Sequence[Sample]) -> Stamping | None:
    """Stamped against the plain iteration just before it, as the host drifts by more."""
    pairs = [
        stamped.span_us / plain.span_us - 1.0
        for plain, stamped in zip(samples, samples[1:], strict=False)
        if stamped.stamps_us and not plain.stamps_us and plain.trial == stamped.trial
        if plain.span_us
    ]
    if not pairs:
        return None
    return Stamping(statistics.median(pairs), median_noise(pairs))
