"""One iteration as lanes of intervals: what the host did, what the GPU did, why it idled.

The iteration shown is the one of median span among those that the profile's rows are means of: the
undisturbed forward where it could be reconstructed, else the profiled one. Idle intervals are those
of the time identity, so the lanes add up to the rows. A record without a timeline (a CPU run, event
pairs alone) has stages end to end and no more.

Left out: calls that launched nothing and returned at once (attribute queries); zooming and drawing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from moeprof.analysis import checks
from moeprof.analysis.host import BLOCKING_CALL
from moeprof.analysis.identity import collected, sweep
from moeprof.analysis.profiles import Profile, Source
from moeprof.analysis.reconstruct import Reconstruction
from moeprof.analysis.rows import rows_of
from moeprof.records import Run
from moeprof.timelines import Iteration, Operation

LaneKind = Literal["stages", "calls", "gpu", "idle"]
HOST_LATE, API_CALL = "host late", "API call"
LAUNCH_LATENCY, DEPENDENCY = "launch latency", "dependency"
CAUSES = {  # by the field of a profile's row
    "host_late_ns": HOST_LATE,
    "api_ns": API_CALL,
    "launch_latency_ns": LAUNCH_LATENCY,
    "dependency_ns": DEPENDENCY,
}


@dataclass(frozen=True, slots=True)
class Interval:
    """[begin_ns, end_ns) since host entry. row: of the profile, '' where it belongs to none."""

    begin_ns: int
    end_ns: int
    row: str
    name: str


@dataclass(frozen=True, slots=True)
class Lane:
    """Intervals that do not overlap, but for operations of one stream that ran at once."""

    kind: LaneKind
    label: str
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Lanes:
    """One iteration. source: as in ``Profile``; among: how many it is the median of."""

    source: Source
    among: int
    span_ns: int
    lanes: tuple[Lane, ...]


def median_lanes(run: Run, profile: Profile, reconstruction: Reconstruction) -> Lanes | None:
    """The lanes of the median iteration; None where the record has no iteration to show."""
    if profile.source in ("events", "stage clock"):
        return _stage_clock(run, profile)
    if profile.source == "reconstructed":
        usual = reconstruction.operations
        found = [(usual, prediction.iteration) for prediction in reconstruction.predictions]
    else:
        api = run.timeline("api")
        iterations = api.iterations if api else ()
        sound = [i for i in iterations if checks.sound(i)] or list(iterations)
        found = [(api.operation_sets[i.operation_set], i) for i in sound] if api else []
    if not found:
        return None
    ordered = sorted(found, key=lambda one: one[1].span_ns)
    operations, iteration = ordered[(len(ordered) - 1) // 2]
    lanes = lanes_of(run, operations, iteration)
    return Lanes(profile.source, len(found), iteration.span_ns, lanes)


def lanes_of(run: Run, operations: Sequence[Operation], iteration: Iteration) -> tuple[Lane, ...]:
    """Host stages, host calls, one lane a GPU stream, idle GPU by cause; empty ones left out."""
    rows = rows_of(operations, run.solution.stages)
    streams = sorted({operation.stream for operation in operations})
    lanes = [
        Lane("stages", "host: stages", tuple(_stages(run, iteration))),
        Lane("calls", "host: CUDA calls", tuple(_calls(operations, iteration, rows))),
    ]
    for stream in streams:
        label = "GPU" if len(streams) == 1 else f"GPU stream {stream}"
        lanes.append(Lane("gpu", label, tuple(_gpu(operations, iteration, rows, stream))))
    lanes.append(Lane("idle", "GPU idle: why", tuple(_idle(operations, iteration, rows))))
    return tuple(lane for lane in lanes if lane.intervals)


def _stages(run: Run, iteration: Iteration) -> Iterator[Interval]:
    bounds = zip(
        run.solution.stage_names, iteration.stage_begin_ns, iteration.stage_end_ns, strict=False
    )
    for name, begin_ns, end_ns in bounds:
        yield Interval(begin_ns, end_ns, name, name)


def _calls(
    operations: Sequence[Operation], iteration: Iteration, rows: Sequence[str]
) -> Iterator[Interval]:
    """Launch calls, each once (a graph launch makes many operations), and calls that wait."""
    found: dict[tuple[int, int], Interval] = {}
    bounds = zip(iteration.launch_begin_ns, iteration.launch_end_ns, strict=True)
    for position, (begin_ns, end_ns) in enumerate(bounds):
        if begin_ns != -1 and end_ns > 0:  # in a capture the host may be done before the entry
            name = operations[position].launch or "launch"
            interval = Interval(max(0, begin_ns), end_ns, rows[position], name)
            found.setdefault((begin_ns, end_ns), interval)
    for call in iteration.calls:
        if BLOCKING_CALL.search(call.name):
            interval = Interval(call.begin_ns, call.end_ns, "", call.name)
            found.setdefault((call.begin_ns, call.end_ns), interval)
    yield from (found[key] for key in sorted(found))


def _gpu(
    operations: Sequence[Operation], iteration: Iteration, rows: Sequence[str], stream: int
) -> Iterator[Interval]:
    for position, operation in enumerate(operations):
        start_ns, end_ns = iteration.start_ns[position], iteration.end_ns[position]
        if operation.stream == stream and collected(iteration, position):
            name = checks.short_name(operation.name)
            yield Interval(start_ns, max(start_ns, end_ns), rows[position], name)


def _idle(
    operations: Sequence[Operation], iteration: Iteration, rows: Sequence[str]
) -> Iterator[Interval]:
    swept = sweep(operations, [iteration])
    bounds = (swept.idle_ns, swept.call_ns, swept.returned_ns, swept.start_ns)
    columns = [
        column[0].tolist() for column in (swept.counted, swept.position, swept.held, *bounds)
    ]
    for counted, position, held, idle_ns, call_ns, returned_ns, start_ns in zip(
        *columns, strict=True
    ):
        rest = DEPENDENCY if held else LAUNCH_LATENCY
        for cause, begin_ns, end_ns in (
            (HOST_LATE, idle_ns, call_ns),
            (API_CALL, call_ns, returned_ns),
            (rest, returned_ns, start_ns),
        ):
            if counted and end_ns > begin_ns:
                yield Interval(begin_ns, end_ns, rows[position], cause)


def _stage_clock(run: Run, profile: Profile) -> Lanes | None:
    """The median sample of a clock that times stages one by one, end to end."""
    name = "stages" if profile.source == "stage clock" else "events"
    samples = [s for s in run.samples(name) if len(s.stage_us) == len(run.solution.stages)]
    if not samples:
        return None
    sample = sorted(samples, key=lambda one: sum(one.stage_us))[(len(samples) - 1) // 2]
    intervals: list[Interval] = []
    now_ns = 0
    for stage, stage_us in zip(run.solution.stage_names, sample.stage_us, strict=True):
        end_ns = now_ns + round(stage_us * 1e3)
        intervals.append(Interval(now_ns, end_ns, stage, stage))
        now_ns = end_ns
    lane = Lane("stages", "stages", tuple(intervals))
    return Lanes(profile.source, len(samples), now_ns, (lane,))
