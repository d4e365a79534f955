"""Records beside another profiler's timeline of the same work: do the stages agree?

Judged per row: which operations ran, how many, and how long the GPU was busy with them. Busy time
agrees within max(2 %, 0.5 us) of the records' medians, or anywhere between them: some kernels
(those with atomics) keep one of two durations for the life of a process.

Shown and not judged: the span and the idle time by cause, which the host sets and every profiler
slows in its own way; and the plain sum of durations, which grows with the overlap of kernels that
wait for one another and thus with the host's pace (FlashInfer's MoE: 10 % of a stage). Left out:
which of the two sides is right; whether records may be compared at all is ``comparable``'s.

Figures are medians over the sound iterations of one pass: ``api`` on both sides, or ``graph`` where
the capture's stages were told by graph nodes.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.analysis import checks
from moeprof.analysis.identity import attribute_all
from moeprof.analysis.kernel_names import own_name, qualified_name
from moeprof.analysis.profiles import UNATTRIBUTED, IterationProfile
from moeprof.analysis.reconstruct import usual_set
from moeprof.analysis.rows import rows_of, stage_rows
from moeprof.compare.comparable import Grade, Reason, reasons
from moeprof.errors import RecordError
from moeprof.records import Run
from moeprof.timelines import Operation, TimelinePass

BY_NODES = "graph nodes"  # Capture.stages_by
CAUSES = ("host_late_ns", "api_ns", "launch_latency_ns", "dependency_ns")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """A time may miss by the larger of a fraction of itself and an absolute amount."""

    fraction: float = 0.02
    us: float = 0.5

    def allowed_ns(self, value_ns: float) -> float:
        return max(self.fraction * value_ns, self.us * 1e3)


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity, ns or a count: the median of each record, and the capture's."""

    records: tuple[float, ...]
    capture: float

    @property
    def record(self) -> float:
        """The middle one of the records."""
        return statistics.median(self.records)

    @property
    def low(self) -> float:
        return min(self.records)

    @property
    def high(self) -> float:
        return max(self.records)

    @property
    def difference(self) -> float:
        """The capture's less the nearest that a record has; 0 between the records."""
        return self.capture - min(max(self.capture, self.low), self.high)

    @property
    def nearest(self) -> float:
        """What ``difference`` is counted from."""
        return self.capture - self.difference


@dataclass(frozen=True, slots=True)
class RowAgreement:
    """One row of the table. Times in ns.

    in_record, in_capture: whether the side has the row at all. more, fewer: operations that the
    capture has beyond the records' and lacks, by name and how many of them.
    """

    name: str
    in_record: bool
    in_capture: bool
    busy: Figure
    kernel_sum: Figure
    operations: Figure
    gap: Figure
    more: tuple[tuple[str, int], ...]
    fewer: tuple[tuple[str, int], ...]
    tolerance: Tolerance

    @property
    def busy_agrees(self) -> bool:
        return self._within(self.busy)

    @property
    def kernel_sum_agrees(self) -> bool:
        """Not a part of the verdict."""
        return self._within(self.kernel_sum)

    @property
    def same_operations(self) -> bool:
        return not self.more and not self.fewer

    @property
    def agrees(self) -> bool:
        both = self.in_record and self.in_capture
        return both and self.same_operations and self.busy_agrees

    def _within(self, figure: Figure) -> bool:
        return abs(figure.difference) <= self.tolerance.allowed_ns(figure.nearest)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The whole comparison. run: the first of the records; iterations: of each record.

    idle: the gaps of all rows by cause. drift: busy time of the capture's first quarter of
    iterations and of its last, ns. cautions: what differs beside the work and is no reason to
    refuse. unknown_work: the capture does not say what ran, so that it is the same is the user's
    word.
    """

    run: Run
    against: Run
    pass_name: str
    iterations: tuple[int, ...]
    capture_iterations: int
    rows: tuple[RowAgreement, ...]
    span: Figure
    idle: tuple[tuple[str, Figure], ...]
    drift: tuple[float, float]
    tolerance: Tolerance
    cautions: tuple[Reason, ...] = ()
    unknown_work: bool = False

    @property
    def agrees(self) -> bool:
        return all(row.agrees for row in self.rows)

    @property
    def drifts(self) -> bool:
        """Whether the capture's own iterations differ by more than it may from the records."""
        first, last = self.drift
        return abs(last - first) > self.tolerance.allowed_ns(first)

    @property
    def busy(self) -> Figure:
        """Of all rows."""
        return _total([row.busy for row in self.rows])

    @property
    def kernel_sum(self) -> Figure:
        return _total([row.kernel_sum for row in self.rows])

    @property
    def operations(self) -> Figure:
        return _total([row.operations for row in self.rows])


@dataclass(frozen=True, slots=True)
class _Side:
    """One record or capture: its books, and the operations that its iterations usually have."""

    books: tuple[IterationProfile, ...]
    operations: dict[str, Counter[str]]  # by row and name

    def median(self, row: str, field: str) -> float:
        values = [
            float(next((getattr(s, field) for s in book.stages if s.name == row), 0))
            for book in self.books
        ]
        return statistics.median(values)

    def busy_at_ends(self) -> tuple[float, float]:
        """Busy time of all rows, ns: the median of the first quarter of iterations, of the last."""
        whole = [float(sum(stage.busy_ns for stage in book.stages)) for book in self.books]
        some = max(1, len(whole) // 4)
        return statistics.median(whole[:some]), statistics.median(whole[-some:])


def agree(runs: Sequence[Run], against: Run, tolerance: Tolerance | None = None) -> Agreement:
    """Compare records of one solution on one workload with ``against``.

    Raises RecordError where they are of different work, or a side has no timeline to compare.
    """
    tolerance = tolerance or Tolerance()
    found = work_reasons(runs, against)
    never = [reason for reason in found if reason.grade == Grade.NEVER]
    if never:
        listed = "; ".join(reason.sentence for reason in never)
        raise RecordError(
            f"these cannot be compared: {listed}", do="give records and a capture of the same work"
        )
    name = _pass_name(against)
    sides = [_side(run, name, "the record") for run in runs]
    other = _side(against, "api" if against.capture else name, label_of(against))
    rows = _row_names(runs, sides, other)
    return Agreement(
        run=runs[0],
        against=against,
        pass_name=name,
        iterations=tuple(len(side.books) for side in sides),
        capture_iterations=len(other.books),
        rows=tuple(_row(row, runs, sides, against, other, tolerance) for row in rows),
        span=Figure(tuple(map(_span_ns, sides)), _span_ns(other)),
        idle=tuple((cause, _idle(cause, sides, other)) for cause in CAUSES),
        drift=other.busy_at_ends(),
        tolerance=tolerance,
        cautions=tuple(found),
        unknown_work=_is_unknown(against),
    )


def label_of(against: Run) -> str:
    """What to call the other side."""
    return against.capture.tool if against.capture else "the other record"


def work_reasons(runs: Sequence[Run], against: Run) -> tuple[Reason, ...]:
    """Everything that stands against comparing, the gravest first, each sentence once."""
    found: dict[str, Reason] = {}
    for other in (*runs[1:], against):
        first, labels = runs[0], ("the record", "another record")
        if other is against:
            labels = ("the record", label_of(against))
        if _is_unknown(other):
            first_device, device = first.environment.device, other.environment.device
            if first_device != device:
                sentence = f"the device differs: {first_device} and {device}"
                found[sentence] = Reason(Grade.NEVER, "device", sentence)
            continue
        names = first.solution.name, other.solution.name
        if names[0] != names[1]:
            sentence = f"the solution differs: {names[0]} and {names[1]}"
            found[sentence] = Reason(Grade.NEVER, "solution", sentence)
        elif first.solution.source_hash != other.solution.source_hash:
            sentence = f"the source of {names[0]} has changed between {labels[0]} and {labels[1]}"
            found[sentence] = Reason(Grade.CAUTION, "source", sentence)
        for reason in reasons(first, other, labels):
            if reason.name != "timer":  # that the profilers differ is what is asked about
                found.setdefault(reason.sentence, reason)
    return tuple(sorted(found.values(), key=lambda reason: -reason.grade))


def _is_unknown(against: Run) -> bool:
    """Whether a capture does not say what ran: it was imported without a record to go by."""
    return against.capture is not None and not against.solution.source_hash


def _pass_name(against: Run) -> str:
    by_nodes = against.capture is not None and against.capture.stages_by == BY_NODES
    return "graph" if by_nodes else "api"


def _side(run: Run, name: str, label: str) -> _Side:
    timeline = run.timeline(name)
    if timeline is None:
        raise RecordError(
            f"{label} has no operations of the pass {name!r}",
            do="run the solution again with all passes" if run.capture is None else "capture again",
        )
    order = [row.name for row in stage_rows(run.solution.stages)]
    sound = [(n, i) for n, i in enumerate(timeline.iterations) if checks.sound(i)]
    books: dict[int, IterationProfile] = {}
    for which, operations in enumerate(timeline.operation_sets):
        mine = [(number, i) for number, i in sound if i.operation_set == which]
        if mine:
            rows = rows_of(operations, run.solution.stages)
            made = attribute_all(operations, [i for _, i in mine], rows, order)
            books.update(zip((number for number, _ in mine), made, strict=True))
    if not books:
        raise RecordError(f"no iteration of {label} was timed completely", do="capture again")
    in_order = tuple(books[number] for number in sorted(books))
    return _Side(in_order, _usual_operations(run, timeline))


def _usual_operations(run: Run, timeline: TimelinePass) -> dict[str, Counter[str]]:
    usual, _ = usual_set(timeline)
    operations = timeline.operation_sets[usual]
    found: dict[str, Counter[str]] = {}
    for operation, row in zip(operations, rows_of(operations, run.solution.stages), strict=True):
        found.setdefault(row, Counter())[_key(operation)] += 1
    return found


def _key(operation: Operation) -> str:
    """The same for one operation in every profiler's words; copies differ in theirs."""
    return qualified_name(operation.name) if operation.kind == "kernel" else operation.kind


def _row_names(runs: Sequence[Run], sides: Sequence[_Side], other: _Side) -> list[str]:
    """The record's rows in its order, then the capture's own; those without any operation apart."""
    declared = [row.name for row in stage_rows(runs[0].solution.stages)]
    seen = {row for side in (*sides, other) for row in side.operations}
    also = [stage.name for side in (*sides, other) for stage in side.books[0].stages]
    names = [name for name in dict.fromkeys((*declared, *also)) if name in seen]
    return sorted(names, key=lambda name: name == UNATTRIBUTED)


def _row(
    name: str,
    runs: Sequence[Run],
    sides: Sequence[_Side],
    against: Run,
    other: _Side,
    tolerance: Tolerance,
) -> RowAgreement:
    def figure(field: str) -> Figure:
        values = tuple(side.median(name, field) for side in sides)
        return Figure(values, other.median(name, field))

    more, fewer = _differing([s.operations.get(name, Counter()) for s in sides], other, name)
    return RowAgreement(
        name=name,
        in_record=any(name in side.operations for side in sides),
        in_capture=name in other.operations,
        busy=figure("busy_ns"),
        kernel_sum=figure("kernel_sum_ns"),
        operations=figure("operations"),
        gap=figure("gap_ns"),
        more=more,
        fewer=fewer,
        tolerance=tolerance,
    )


def _differing(
    have: Sequence[Counter[str]], other: _Side, row: str
) -> tuple[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]:
    """Against the record that is nearest: records of one solution can differ among themselves."""
    seen = other.operations.get(row, Counter())
    nearest = min(have, key=lambda one: ((one - seen) + (seen - one)).total())
    return (
        tuple(sorted((own_name(name), count) for name, count in (seen - nearest).items())),
        tuple(sorted((own_name(name), count) for name, count in (nearest - seen).items())),
    )


def _span_ns(side: _Side) -> float:
    return statistics.median(float(book.span_ns) for book in side.books)


def _idle(cause: str, sides: Sequence[_Side], other: _Side) -> Figure:
    def median(side: _Side) -> float:
        sums = [float(sum(getattr(s, cause) for s in book.stages)) for book in side.books]
        return statistics.median(sums)

    return Figure(tuple(map(median, sides)), median(other))


def _total(figures: Sequence[Figure]) -> Figure:
    """Sums of the medians of rows."""
    records = zip(*(figure.records for figure in figures), strict=True)
    return Figure(tuple(map(sum, records)), sum(figure.capture for figure in figures))
