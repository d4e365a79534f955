"""Run -> Profile: where the time of one forward went.

The rows come from the best timeline the record has: the reconstructed one where its span meets the
bare span; else the api pass, whose host figures a profiler has inflated and which are then called
upper bounds; else event pairs; on a CPU the stage clock. The identity itself is ``identity``'s, the
reconstruction ``reconstruct``'s, the doubts are ``checks``' and ``trust``'s.

Figures are means over the middle 80 % of iterations by span: a mean is linear, so that the rows
still add up to the span, which medians of the parts would not; trimming keeps a hiccup of the host
from deciding it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

from moeprof.analysis import checks
from moeprof.analysis.identity import attribute, attribute_all
from moeprof.analysis.profiles import (
    IterationProfile,
    Profile,
    Source,
    StageProfile,
    StageTime,
)
from moeprof.analysis.reconstruct import Reconstruction, reconstruct
from moeprof.analysis.rows import clock_rows, rows_of, stage_rows
from moeprof.analysis.trust import trust
from moeprof.errors import RecordError
from moeprof.records import Run, Sample
from moeprof.timelines import Iteration, Operation

__all__ = ["attribute", "graph_rows", "mean_rows", "middle", "profile"]

TRIMMED_EACH_END = 0.1
STAMPING_LIMIT = 0.02  # beyond its noise, stamps that cost more spoil the bare pass
STAGE_CLOCK_PASSES = ("events", "stages")
T = TypeVar("T")


def profile(run: Run, reconstruction: Reconstruction | None = None) -> Profile:
    """Explain ``run``. reconstruction: pass one made with other parameters to tune it.

    Raises RecordError if the record holds no pass that tells stages apart.
    """
    reconstruction = reconstruction or reconstruct(run)
    if reconstruction.agrees:
        timelines = [prediction.iteration for prediction in reconstruction.predictions]
        books = _books(run, reconstruction.operations, timelines)
        return _from_books(run, "reconstructed", books, reconstruction)
    api = run.timeline("api")
    if api is not None:
        sound = [i for i in api.iterations if checks.sound(i)] or list(api.iterations)
        books = []
        for which, operations in enumerate(api.operation_sets):
            books += _books(run, operations, [i for i in sound if i.operation_set == which])
        return _from_books(run, "api", books, reconstruction)
    for name in STAGE_CLOCK_PASSES:
        samples = [s for s in run.samples(name) if len(s.stage_us) == len(run.solution.stages)]
        if samples:
            return _from_stage_clock(run, samples, reconstruction)
    raise RecordError(
        f"the record of {run.solution.name} at T={run.workload.seq_len} holds no stage times",
        "one of the passes api, events or stages",
        "run it again with one of them" if run.correctness.passed else "the result was wrong",
    )


def graph_rows(run: Run) -> tuple[StageProfile, ...]:
    """The rows of the replayed CUDA graph, by the stage whose capture made each node.

    No call launches a node, so the whole gap before one is in host_late_ns: read ``gap_ns``.
    Empty where the forward was not captured under CUPTI.
    """
    timeline = run.timeline("graph")
    if timeline is None:
        return ()
    books: list[IterationProfile] = []
    for which, operations in enumerate(timeline.operation_sets):
        same = [i for i in timeline.iterations if i.operation_set == which]
        books += _books(run, operations, same)
    return mean_rows(middle(books, key=lambda book: book.span_ns))


def middle(values: Sequence[T], key: Callable[[T], float]) -> list[T]:
    """The values without the lowest and the highest tenth (none where there are fewer than 10)."""
    cut = int(len(values) * TRIMMED_EACH_END)
    return sorted(values, key=key)[cut : len(values) - cut]


def _books(
    run: Run, operations: Sequence[Operation], iterations: Sequence[Iteration]
) -> list[IterationProfile]:
    """The books of iterations of the same operations."""
    order = [row.name for row in stage_rows(run.solution.stages)]
    return attribute_all(operations, iterations, rows_of(operations, run.solution.stages), order)


def _from_books(
    run: Run, source: Source, books: list[IterationProfile], reconstruction: Reconstruction
) -> Profile:
    kept = middle(books, key=lambda book: book.span_ns)
    known = [(b.wall_ns, b.epilogue_ns) for b in kept if b.wall_ns is not None]
    span_ns = _mean([book.span_ns for book in kept])
    prologue_ns = _mean([book.prologue_ns for book in kept])
    epilogue_ns = _mean([epilogue or 0 for _, epilogue in known])
    return Profile(
        source=source,
        iterations=len(kept),
        wall_ns=_mean([wall or 0 for wall, _ in known]) or prologue_ns + span_ns,
        prologue_ns=prologue_ns,
        span_ns=span_ns,
        epilogue_ns=epilogue_ns,
        stages=mean_rows(kept),
        trust=trust(run, reconstruction),
        perturbation=_perturbation(run, reconstruction),
        span_check=reconstruction.check,
        host_upper_bounds=source == "api",
        findings=_findings(run, source, reconstruction),
    )


def mean_rows(books: Sequence[IterationProfile]) -> tuple[StageProfile, ...]:
    """The mean of each row; one that an iteration lacks counts there as zero."""
    by_name: dict[str, list[StageTime]] = {}
    for book in books:
        for stage in book.stages:
            by_name.setdefault(stage.name, []).append(stage)
    fields = [name for name in StageProfile.__dataclass_fields__ if name != "name"]
    return tuple(
        StageProfile(
            name, **{field: sum(getattr(s, field) for s in found) / len(books) for field in fields}
        )
        for name, found in by_name.items()
    )


def _from_stage_clock(run: Run, samples: list[Sample], reconstruction: Reconstruction) -> Profile:
    """Stage times measured one by one: what lies between them is all the idle time known."""
    cpu = run.environment.device_kind == "cpu"
    kept = middle(samples, key=lambda sample: sample.span_us)
    stages = tuple(
        StageProfile(name, busy_ns=_mean([sum(s.stage_us[i] for i in of) * 1e3 for s in kept]))
        for name, of in clock_rows(run.solution.stages).items()
    )
    span_ns = sum(stage.busy_ns for stage in stages)
    wall_ns = _mean([sample.wall_us * 1e3 for sample in kept])
    source: Source = "stage clock" if cpu else "events"
    return Profile(
        source=source,
        iterations=len(kept),
        wall_ns=wall_ns,
        prologue_ns=0.0,
        span_ns=span_ns,
        epilogue_ns=wall_ns - span_ns,
        stages=stages,
        trust=trust(run, reconstruction),
        findings=_findings(run, source, reconstruction),
    )


def _perturbation(run: Run, reconstruction: Reconstruction) -> float | None:
    """api span / bare span, first operation to last where the bare one is known that way."""
    api = run.timeline("api")
    bare = [sample.span_us for sample in run.samples("bare")]
    if api is None or not bare:
        return None
    api_ns = statistics.median(iteration.span_ns for iteration in api.iterations)
    if reconstruction.agrees:
        bare_ns = statistics.median(p.iteration.span_ns for p in reconstruction.predictions)
    else:
        bare_ns = statistics.median(bare) * 1e3
    return api_ns / bare_ns if bare_ns else None


def _findings(run: Run, source: Source, reconstruction: Reconstruction) -> tuple[str, ...]:
    found = [*checks.findings(run), *_source_findings(run, source, reconstruction)]
    found.extend(reconstruction.notes)
    stamping = reconstruction.stamping
    if stamping is not None and stamping.fraction - stamping.noise > STAMPING_LIMIT:
        found.append(
            f"stamping the host clock lengthened the bare span by {100 * stamping.fraction:.1f} %"
        )
    return tuple(found)


def _source_findings(run: Run, source: Source, reconstruction: Reconstruction) -> list[str]:
    check = reconstruction.check
    if source == "reconstructed" or run.environment.device_kind == "cpu":
        return []
    if run.capture is not None and source == "api":
        return [f"host figures are those of a forward under {run.capture.tool}, upper bounds"]
    if check is not None:
        miss = (
            f"the reconstructed span ({check.predicted_us:,.1f} us) misses the bare one "
            f"({check.measured_us:,.1f} us) by {100 * check.error:+.1f} %, more than "
            f"{check.tolerance_us:.1f} us"
        )
    else:
        miss = f"the undisturbed run was not reconstructed: {reconstruction.unavailable}"
    if source == "api":
        return [f"{miss}; host figures are the profiled run's, upper bounds"]
    return [f"{miss}; stage times are event pairs, each with the floor of an empty pair in it"]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
