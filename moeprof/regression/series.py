"""One record to the raw times of its quantities, iteration by iteration, with where each is from.

    busy           the kernels pass, whose durations CUPTI disturbs least; its operations are those
                   of the api pass in order, which knows their stages. Else the api pass, else event
                   pairs; on a CPU the stage clock
    host           stamps of the bare pass, the waits for the GPU that the reconstruction finds cut
                   out (they are the GPU's time); else with them
    span, wall     the bare pass; of an imported capture its only timeline
    orchestration  and the parts of each stage's time: the reconstructed timeline where its span
                   meets the bare one, else the profiled api pass

Of each all sources are kept that the record has: two sides are compared by one that every process
of both has (``tables``). Nothing is averaged here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moeprof.analysis.checks import sound
from moeprof.analysis.identity import attribute_all
from moeprof.analysis.profiles import IterationProfile
from moeprof.analysis.reconstruct import Reconstruction, reconstruct
from moeprof.analysis.rows import clock_rows, rows_of, stage_rows
from moeprof.compare.comparable import sm_mhz
from moeprof.records import Run, Sample
from moeprof.regression.statistics import Array
from moeprof.regression.values import COMPONENTS, Component, Quantity
from moeprof.timelines import Iteration, Operation, TimelinePass

# where a quantity may be read from, the best first
SOURCES = (
    *("kernels", "reconstructed", "bare without waits", "bare"),
    *("api", "events", "stages"),
)
Key = tuple[Quantity, str]
PartKey = tuple[str, Component, str]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One process. times_us: [I] by quantity and source. parts_us: [I] of the components of each
    stage by source. rows: the stages in their order. sm_mhz: NaN where unknown."""

    times_us: Mapping[Key, Array]
    parts_us: Mapping[PartKey, Array]
    rows: tuple[str, ...]
    sm_mhz: float


def read_series(run: Run) -> Series:
    """The raw times of ``run``; empty where it has no passes that tell any."""
    times: dict[Key, Array] = {}
    parts: dict[PartKey, Array] = {}
    reconstruction = reconstruct(run)
    for name, books in _books(run, reconstruction):
        _add_books(name, books, times, parts)
    bare = run.samples("bare")
    cpu = run.environment.device_kind == "cpu"
    if bare:
        times[Quantity("", "span"), "bare"] = np.array([sample.span_us for sample in bare])
        if not cpu:  # where the span is the wall
            times[Quantity("", "wall"), "bare"] = np.array([sample.wall_us for sample in bare])
    if not cpu:
        times.update(_host(run, bare, reconstruction))
    for name in ("events", "stages"):
        times.update(_stage_clock(run, name))
    clock = sm_mhz(run)
    return Series(
        times_us=times,
        parts_us=parts,
        rows=tuple(row.name for row in stage_rows(run.solution.stages)),
        sm_mhz=float("nan") if clock is None else clock,
    )


# ---------------------------------------------------------------- timelines


def _books(
    run: Run, reconstruction: Reconstruction
) -> Iterator[tuple[str, list[IterationProfile]]]:
    """The books of every iteration of each timeline, by source."""
    api = run.timeline("api")
    if api is None:
        return
    yield "api", list(_timeline_books(run, api, api.operation_sets))
    kernels = run.timeline("kernels")
    if kernels is not None:
        named = [_with_stages(operations, api) for operations in kernels.operation_sets]
        yield "kernels", list(_timeline_books(run, kernels, named))
    if reconstruction.agrees:
        predicted = [prediction.iteration for prediction in reconstruction.predictions]
        yield "reconstructed", _attribute(run, reconstruction.operations, predicted)


def _timeline_books(
    run: Run, timeline: TimelinePass, sets: Sequence[Sequence[Operation] | None]
) -> Iterator[IterationProfile]:
    """Of sound iterations, if any is; a set whose stages are unknown is left out."""
    chosen = [i for i in timeline.iterations if sound(i)] or list(timeline.iterations)
    for which, operations in enumerate(sets):
        same = [iteration for iteration in chosen if iteration.operation_set == which]
        if operations and same:
            yield from _attribute(run, operations, same)


def _attribute(
    run: Run, operations: Sequence[Operation], iterations: Sequence[Iteration]
) -> list[IterationProfile]:
    stages = run.solution.stages
    order = [row.name for row in stage_rows(stages)]
    return attribute_all(operations, iterations, rows_of(operations, stages), order)


def _with_stages(
    operations: Sequence[Operation], api: TimelinePass
) -> tuple[Operation, ...] | None:
    """Operations of the kernels pass with the stages of the api pass: the i-th of a name is the
    i-th of that name there. None where no set of the api pass has the same names."""
    names = Counter(operation.name for operation in operations)
    for known in api.operation_sets:
        if Counter(operation.name for operation in known) == names:
            queues: dict[str, list[str]] = {}
            for operation in known:
                queues.setdefault(operation.name, []).append(operation.stage)
            return tuple(replace(o, stage=queues[o.name].pop(0)) for o in operations)
    return None


def _add_books(
    name: str,
    books: Sequence[IterationProfile],
    times: dict[Key, Array],
    parts: dict[PartKey, Array],
) -> None:
    """Every quantity that these books hold. The kernels pass knows no host, so no gaps."""
    if not books:
        return
    rows = list(dict.fromkeys(stage.name for book in books for stage in book.stages))
    found = [{stage.name: stage for stage in book.stages} for book in books]
    for row in rows:
        for component in COMPONENTS:
            values = [
                getattr(book[row], f"{component}_ns", 0) if row in book else 0 for book in found
            ]
            times_us = np.array(values, dtype=np.float64) / 1e3
            if component == "busy" and name != "reconstructed" and times_us.any():
                times[Quantity(row, "busy"), name] = times_us
            if name != "kernels":
                parts[row, component, name] = times_us
    if name == "kernels":
        return
    parts["", "prologue", name] = np.array([book.prologue_ns for book in books]) / 1e3
    left = [book.epilogue_ns for book in books if book.epilogue_ns is not None]
    if left:
        parts["", "epilogue", name] = np.array(left) / 1e3
    orchestration = np.array([book.orchestration_ns for book in books]) / 1e3
    times[Quantity("", "orchestration"), name] = orchestration
    if name == "api":
        times[Quantity("", "span"), name] = np.array([book.span_ns for book in books]) / 1e3
        walls = [book.wall_ns for book in books if book.wall_ns is not None]
        if walls:
            times[Quantity("", "wall"), name] = np.array(walls) / 1e3


# ---------------------------------------------------------------- host and stage clocks


def _host(
    run: Run, bare: Iterable[Sample], reconstruction: Reconstruction
) -> Iterator[tuple[Key, Array]]:
    """Host time of each row in every stamped sample."""
    positions = clock_rows(run.solution.stages)
    count = len(run.solution.stages)
    stamps = [sample.stamps_us for sample in bare if len(sample.stamps_us) == count + 2]
    if not stamps:
        return
    whole_us = np.diff(np.array(stamps), axis=1)[:, :count]
    waits_us = np.array([_waits_us(p.iteration, count) for p in reconstruction.predictions])
    for row, of in positions.items():
        yield (Quantity(row, "host"), "bare"), whole_us[:, of].sum(axis=1)
        if len(waits_us) == len(whole_us):
            own_us = (whole_us - waits_us)[:, of].sum(axis=1)
            yield (Quantity(row, "host"), "bare without waits"), own_us


def _waits_us(iteration: Iteration, stages: int) -> list[float]:
    """How long the host waited for the GPU in each stage of a predicted timeline."""
    found = [0] * stages
    for call in iteration.calls:
        bounds = zip(iteration.stage_begin_ns, iteration.stage_end_ns, strict=True)
        for stage, (begin_ns, end_ns) in enumerate(bounds):
            found[stage] += max(0, min(call.end_ns, end_ns) - max(call.begin_ns, begin_ns))
    return [waited_ns / 1e3 for waited_ns in found]


def _stage_clock(run: Run, name: str) -> Iterator[tuple[Key, Array]]:
    """A clock that times whole stages: event pairs, or the host's on a CPU."""
    count = len(run.solution.stages)
    samples = [s.stage_us for s in run.samples(name) if len(s.stage_us) == count]
    if samples:
        for row, of in clock_rows(run.solution.stages).items():
            yield (Quantity(row, "busy"), name), np.array(samples)[:, of].sum(axis=1)
