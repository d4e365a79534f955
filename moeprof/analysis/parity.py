"""flashinfer-bench's latencies, each taken apart until nothing of it is left over.

    0.1.2   mean over trials of the mean of event pairs, nothing attached. Taken apart are as many
            pairs under CUPTI. What lies between two events is, in order: the time to the first
            operation (lead-in), the span of the operations, the time from the last one's end to the
            second event (tail). What CUPTI adds to the mean is a line of its own.
    main    mean over trials of the median span, under CUPTI as it is there. Taken apart is the
            iteration in the middle of each trial, or the two whose mean is the median.

Spans are split as everywhere (``identity``): lead-in and tail by the same rule as a gap before an
operation. Of one iteration every part is integer nanoseconds and the parts are the whole.

The GPU's time of the first event is not recorded; it is taken to execute a launch latency after its
call returned, as in ``reconstruct``. That divides lead-in from tail and no more: their sum, the
pair's time less the span, is measured.

Stages: these calls have no stage tags, which would lengthen them. Operations are matched with those
of the ``api`` pass: the i-th launched of a name there and here are one.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from moeprof.analysis.attribution import mean_rows
from moeprof.analysis.identity import attribute_all
from moeprof.analysis.launches import ASSUMED_LAUNCH_LATENCY_NS
from moeprof.analysis.profiles import UNATTRIBUTED, IterationProfile, StageProfile, StageTime
from moeprof.analysis.reconstruct import usual_set
from moeprof.analysis.rows import rows_of, stage_rows
from moeprof.records import ParitySettings, Run
from moeprof.timelines import Iteration, Operation, TimelinePass

LEAD_IN, TAIL = "lead-in", "tail"
EVENTS, SPAN = "0.1.2", "main"


@dataclass(frozen=True, slots=True)
class EventBook:
    """One event pair: elapsed_ns = lead_in + the span's rows + tail, each part with its causes."""

    elapsed_ns: int
    lead_in: StageTime
    span: IterationProfile
    tail: StageTime

    @property
    def residual_ns(self) -> int:
        """What the parts leave over. Anything but 0 is a bug or a damaged record."""
        inside = sum(stage.time_ns for stage in self.span.stages)
        return self.elapsed_ns - self.lead_in.time_ns - inside - self.tail.time_ns


@dataclass(frozen=True, slots=True)
class ParityLatency:
    """One of flashinfer-bench's latencies, ns, and its parts.

        latency_ns = sum of the rows' time - observing_ns

    timer: '0.1.2' or 'main'. trials_ns: each trial's own. rows: lead-in, the stages, tail; means
    over ``decomposed`` iterations. observing_ns: what CUPTI added to those iterations (main: 0, as
    it reads CUPTI itself). residual_ns: over all of them together, 0 or there is a bug.
    observed_ns: what the timer says of the iterations taken apart. unavailable: why rows are none.
    """

    timer: str
    settings: ParitySettings
    latency_ns: float
    trials_ns: tuple[float, ...]
    rows: tuple[StageProfile, ...] = ()
    observed_ns: float | None = None
    decomposed: int = 0
    residual_ns: int = 0
    notes: tuple[str, ...] = ()
    unavailable: str | None = None

    @property
    def observing_ns(self) -> float:
        """What CUPTI added."""
        return 0.0 if self.observed_ns is None else self.observed_ns - self.latency_ns

    @property
    def busy_ns(self) -> float:
        return sum(row.busy_ns for row in self.rows)


def parity_latencies(run: Run) -> tuple[ParityLatency, ...]:
    """The latencies that the record holds, 0.1.2's first; none where parity was not asked for."""
    settings = run.settings.parity
    if settings is None:
        return ()
    found = (_events_latency(run, settings), _span_latency(run, settings))
    return tuple(latency for latency in found if latency is not None)


def parity_latency(run: Run, timer: str) -> ParityLatency | None:
    """The latency by that timer, if the record holds it."""
    return next((one for one in parity_latencies(run) if one.timer == timer), None)


# ---------------------------------------------------------------- 0.1.2


def _events_latency(run: Run, settings: ParitySettings) -> ParityLatency | None:
    by_trial: dict[int, list[int]] = {}
    for sample in run.samples("fib_events"):
        by_trial.setdefault(sample.trial, []).append(round(sample.span_us * 1e3))
    if not by_trial:
        return None
    trials_ns = tuple(statistics.fmean(spans) for spans in by_trial.values())
    latency = ParityLatency(EVENTS, settings, statistics.fmean(trials_ns), trials_ns)
    timeline = run.timeline("fib_observed")
    elapsed_ns = [round(sample.span_us * 1e3) for sample in run.samples("fib_observed")]
    if timeline is None or len(elapsed_ns) != len(timeline.iterations):
        return replace(latency, unavailable="the event pairs were not repeated under CUPTI")
    latency_ns = run.calibration.launch_latency_ns if run.calibration else None
    books = event_books(run, timeline, elapsed_ns, latency_ns or ASSUMED_LAUNCH_LATENCY_NS)
    rows = mean_rows([book.span for book in books])
    ends = [mean_rows([_alone(getattr(b, end)) for b in books])[0] for end in ("lead_in", "tail")]
    return replace(
        latency,
        rows=(ends[0], *rows, ends[1]),
        observed_ns=statistics.fmean(elapsed_ns),
        decomposed=len(books),
        residual_ns=sum(book.residual_ns for book in books),
        notes=_notes(timeline, rows),
    )


def event_books(
    run: Run, timeline: TimelinePass, elapsed_ns: Sequence[int], event_latency_ns: int
) -> list[EventBook]:
    """One book an iteration; elapsed_ns: between its events. event_latency_ns: from the return of
    the call that records an event to its execution, GPU idle."""
    profiles = _profiles(run, timeline)
    return [
        event_book(iteration, profile, elapsed, event_latency_ns)
        for iteration, profile, elapsed in zip(
            timeline.iterations, profiles, elapsed_ns, strict=True
        )
    ]


def event_book(
    iteration: Iteration, span: IterationProfile, elapsed_ns: int, event_latency_ns: int
) -> EventBook:
    """Put the events around the span: the first where its call returned and a latency later."""
    outside_ns = elapsed_ns - span.span_ns
    opened_ns = iteration.stage_begin_ns[0] if iteration.stage_begin_ns else 0
    returned_ns = iteration.stage_end_ns[0] if iteration.stage_end_ns else iteration.exit_ns
    timed = [position for position, end_ns in enumerate(iteration.end_ns) if end_ns > 0]
    if not timed:  # nothing ran: all of it is the host's
        lead_in = StageTime(LEAD_IN, host_late_ns=elapsed_ns)
        return EventBook(elapsed_ns, lead_in, span, StageTime(TAIL))
    first_ns = span.prologue_ns
    last_ns = first_ns + span.span_ns
    lead_ns = min(max(first_ns - opened_ns - event_latency_ns, 0), max(outside_ns, 0))
    tail_ns = outside_ns - lead_ns
    begin_ns = return_ns = -1
    if iteration.launch_begin_ns:
        first = min(timed, key=iteration.start_ns.__getitem__)
        begin_ns, return_ns = iteration.launch_begin_ns[first], iteration.launch_end_ns[first]
    return EventBook(
        elapsed_ns,
        _gap(LEAD_IN, first_ns - lead_ns, first_ns, begin_ns, return_ns),
        span,
        _gap(TAIL, last_ns, last_ns + tail_ns, returned_ns, iteration.exit_ns),
    )


def _gap(name: str, idle_ns: int, start_ns: int, begin_ns: int, return_ns: int) -> StageTime:
    """An idle time by cause, as ``identity`` splits one: [begin, return) is the call it ends by.

    A pair that reads less than its span (events have a coarser clock) leaves a negative one, which
    is the tail's latency.
    """
    if start_ns < idle_ns:
        return StageTime(name, launch_latency_ns=start_ns - idle_ns)
    call_ns = start_ns if begin_ns == -1 else min(max(begin_ns, idle_ns), start_ns)
    returned_ns = start_ns if begin_ns == -1 else min(max(return_ns, call_ns), start_ns)
    return StageTime(
        name,
        host_late_ns=call_ns - idle_ns,
        api_ns=returned_ns - call_ns,
        launch_latency_ns=start_ns - returned_ns,
    )


def _alone(row: StageTime) -> IterationProfile:
    return IterationProfile(None, 0, row.time_ns, None, (row,))


# ---------------------------------------------------------------- main


def _span_latency(run: Run, settings: ParitySettings) -> ParityLatency | None:
    timeline = run.timeline("fib_span")
    if timeline is None:
        return None
    size = settings.iterations
    trials = [timeline.iterations[i : i + size] for i in range(0, len(timeline.iterations), size)]
    trials_ns = tuple(
        statistics.median(iteration.span_ns for iteration in trial) for trial in trials
    )
    chosen = [iteration for trial in trials for iteration in _in_the_middle(trial)]
    books = _profiles(run, replace(timeline, iterations=tuple(chosen)))
    rows = mean_rows(books)
    latency_ns = statistics.fmean(trials_ns)
    return ParityLatency(
        SPAN,
        settings,
        latency_ns,
        trials_ns,
        rows=rows,
        observed_ns=latency_ns,
        decomposed=len(books),
        residual_ns=sum(book.residual_ns for book in books),
        notes=(*_notes(timeline, rows), *_refused_by_main(timeline)),
    )


def _in_the_middle(trial: Sequence[Iteration]) -> Sequence[Iteration]:
    """The iteration whose span is the median; the two whose mean is, where their number is even."""
    ordered = sorted(trial, key=lambda iteration: iteration.span_ns)
    return ordered[(len(ordered) - 1) // 2 : len(ordered) // 2 + 1]


def _refused_by_main(timeline: TimelinePass) -> tuple[str, ...]:
    """What makes main's timer raise: it compares the kinds of operations between iterations."""
    kinds = {
        frozenset(_kind(operation) for operation in timeline.operation_sets[i.operation_set])
        for i in timeline.iterations
    }
    if frozenset() in kinds:
        return ("an iteration launched nothing: flashinfer-bench's main would refuse the solution",)
    if len(kinds) > 1:
        return (
            "iterations launched different kernels: flashinfer-bench's main would refuse the "
            "solution",
        )
    return ()


def _kind(operation: Operation) -> tuple[str, int | None]:
    """What main's timer calls the same operation."""
    return operation.name, operation.bytes if operation.kind != "kernel" else None


# ---------------------------------------------------------------- stages


def _profiles(run: Run, timeline: TimelinePass) -> list[IterationProfile]:
    """The span of each iteration by row, in the order of the iterations."""
    order = [row.name for row in stage_rows(run.solution.stages)]
    known = _stages_by_name(run)
    found: dict[int, IterationProfile] = {}
    for which, operations in enumerate(timeline.operation_sets):
        numbers = [n for n, i in enumerate(timeline.iterations) if i.operation_set == which]
        if not numbers:
            continue
        iterations = [timeline.iterations[number] for number in numbers]
        staged = _with_stages(operations, iterations[0], known, run)
        rows = rows_of(staged, run.solution.stages)
        found.update(zip(numbers, attribute_all(staged, iterations, rows, order), strict=True))
    return [found[number] for number in range(len(timeline.iterations))]


def _stages_by_name(run: Run) -> Mapping[tuple[str, str], Sequence[str]]:
    """For each kind and name of operation the stages of its launches in the api pass, in order."""
    api = run.timeline("api")
    if api is None:
        return {}
    usual, iterations = usual_set(api)
    operations = api.operation_sets[usual]
    found: dict[tuple[str, str], list[str]] = {}
    for position in _launch_order(iterations[0]):
        operation = operations[position]
        found.setdefault((operation.kind, operation.name), []).append(operation.stage)
    return found


def _with_stages(
    operations: Sequence[Operation],
    iteration: Iteration,
    known: Mapping[tuple[str, str], Sequence[str]],
    run: Run,
) -> tuple[Operation, ...]:
    """Each operation with its stage; '' where as many of its name were not launched there."""
    if len(run.solution.stages) == 1:
        return tuple(replace(one, stage=run.solution.stages[0].name) for one in operations)
    places: dict[tuple[str, str], list[int]] = {}
    for position in _launch_order(iteration):
        operation = operations[position]
        places.setdefault((operation.kind, operation.name), []).append(position)
    named = list(operations)
    for key, positions in places.items():
        stages = known.get(key, ())
        if len(stages) == len(positions):
            for position, stage in zip(positions, stages, strict=True):
                named[position] = replace(operations[position], stage=stage)
    return tuple(named)


def _launch_order(iteration: Iteration) -> Sequence[int]:
    """Positions of the operations by launch; of one call, or where calls are unknown, by start."""
    begin_ns = iteration.launch_begin_ns or iteration.start_ns
    return sorted(range(len(begin_ns)), key=lambda n: (begin_ns[n], iteration.start_ns[n], n))


def _notes(timeline: TimelinePass, rows: Sequence[StageProfile]) -> tuple[str, ...]:
    lost = sum(row.operations for row in rows if row.name == UNATTRIBUTED)
    if not lost:
        return ()
    return (
        f"{timeline.name}: {lost:,.0f} operation(s) of an iteration are not those of the api pass: "
        f"see the row {UNATTRIBUTED!r}",
    )
