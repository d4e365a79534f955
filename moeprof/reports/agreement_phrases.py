"""What an agreement says in words, from its numbers alone: every format uses the same sentences."""

from __future__ import annotations

from collections.abc import Sequence

from moeprof.analysis.profiles import UNATTRIBUTED
from moeprof.compare.agreement import Agreement, Figure, RowAgreement, label_of
from moeprof.reports.units import count, number

Note = tuple[str, str]  # label, sentence
MOST_NAMES = 4
CAUSE_WORDS = {
    "host_late_ns": "host late",
    "api_ns": "API call",
    "launch_latency_ns": "launch latency",
    "dependency_ns": "dependency",
}


def headline(agreement: Agreement) -> str:
    """The verdict."""
    work = agreement.run.workload
    agreeing = sum(row.agrees for row in agreement.rows)
    whole = len(agreement.rows)
    what = "agree on all" if agreement.agrees else f"agree on {agreeing} of"
    return (
        f"{agreement.run.solution.name} at T = {work.seq_len:,} on "
        f"{agreement.run.environment.device}: {_records(agreement)} and "
        f"{label_of(agreement.against)} {what} {whole} stages"
    )


def sentences(agreement: Agreement) -> tuple[str, ...]:
    """What differs, a stage at a time; then what may be behind it."""
    found = [sentence for row in agreement.rows for sentence in row_sentences(row)]
    hint = _clock_hint(agreement) if not agreement.drifts else _drift(agreement)
    return (*found, *([hint] if hint else []))


def row_sentences(row: RowAgreement) -> tuple[str, ...]:
    """What differs in one row; nothing where it agrees."""
    if row.agrees:
        return ()
    if row.name == UNATTRIBUTED:
        side = "capture" if row.in_capture else "record"
        return (f"{_counted(row.operations)} of the {side} belong to no stage",)
    if not row.in_capture:
        return (f"{row.name}: the capture has no operation of it",)
    if not row.in_record:
        return (f"{row.name}: no stage of the record is called so",)
    found: list[str] = []
    if row.more:
        found.append(f"{row.name}: the capture also has {_listed(row.more)}")
    if row.fewer:
        found.append(f"{row.name}: the capture lacks {_listed(row.fewer)}")
    if not row.busy_agrees:
        found.append(f"{row.name}: {_time(row)}")
    return tuple(found)


def doubts(agreement: Agreement) -> tuple[str, ...]:
    """What a reader must know beside the verdict."""
    found = [reason.sentence for reason in agreement.cautions]
    if agreement.unknown_work:
        found.append(
            "the capture does not say what ran: that it is the same work is your word "
            "(a record imported with --like RUN says it)"
        )
    return tuple(found)


def notes(agreement: Agreement) -> tuple[Note, ...]:
    """How it was compared, and what was not."""
    tolerance = agreement.tolerance
    several = f"{min(agreement.iterations)}"
    if max(agreement.iterations) != min(agreement.iterations):
        several += f" to {max(agreement.iterations)}"
    found = [
        (
            "judged",
            "operations by name, busy time within "
            f"{100 * tolerance.fraction:g} % or {tolerance.us:g} us, whichever is larger",
        ),
        ("record", f"pass {agreement.pass_name}, medians of {several} iterations"),
        ("capture", _capture(agreement)),
        (
            "not judged",
            "span and idle time, which the host sets and each profiler slows in its own way; "
            "sums of durations, which grow with the overlap of kernels",
        ),
    ]
    against = agreement.against.capture
    found += [("capture note", note) for note in (against.notes if against else ())]
    return tuple(found)


def span_words(agreement: Agreement) -> tuple[tuple[str, Figure], ...]:
    """Figures that are shown and not judged: the span and its idle parts."""
    idle = [(f"idle: {CAUSE_WORDS[cause]}", figure) for cause, figure in agreement.idle]
    return (("span", agreement.span), *idle)


def us_range(figure: Figure) -> str:
    """Records' figures in us: one, or the lowest and the highest."""
    low, high = number(figure.low / 1e3, 2), number(figure.high / 1e3, 2)
    return low if low == high else f"{low} to {high}"


def verdict(row: RowAgreement) -> str:
    """One word a row."""
    if row.agrees:
        return "agrees"
    if not (row.in_record and row.in_capture):
        return "one side only"
    if not row.same_operations:
        return "other operations"
    return "time differs"


def _records(agreement: Agreement) -> str:
    many = len(agreement.iterations)
    return "the record" if many == 1 else f"{many} records"


def _time(row: RowAgreement) -> str:
    busy = row.busy
    more = "more" if busy.difference > 0 else "less"
    allowed = row.tolerance.allowed_ns(busy.nearest) / 1e3
    share = f" ({100 * abs(busy.difference) / busy.nearest:.1f} %)" if busy.nearest else ""
    return (
        f"busy {number(busy.capture / 1e3, 2)} us in the capture, {us_range(busy)} us in the "
        f"record: {number(abs(busy.difference) / 1e3, 2)} us {more}{share}, where "
        f"{number(allowed, 2)} us are allowed"
    )


def _listed(operations: Sequence[tuple[str, int]]) -> str:
    shown = [
        f"{counted} {name}" if counted > 1 else name for name, counted in operations[:MOST_NAMES]
    ]
    rest = len(operations) - MOST_NAMES
    return ", ".join(shown) + (f" and {rest} other kernels" if rest > 0 else "")


def _counted(figure: Figure) -> str:
    found = max(figure.capture, figure.high)
    return f"{count(found)} operation{'s' * (found != 1)}"


def _capture(agreement: Agreement) -> str:
    found = agreement.against.capture
    many = agreement.capture_iterations
    if found is None:
        return f"a record of moeprof's own, medians of {many} iterations"
    tool = " ".join(filter(None, (found.tool, found.version)))
    return (
        f"{found.file or 'capture'} of {tool}, stages by {found.stages_by}, medians of {many} of "
        f"its {found.forwards:,} forwards"
    )


def _drift(agreement: Agreement) -> str:
    """Said whatever the verdict: medians of iterations that differ so hide both ends."""
    first, last = (number(end / 1e3, 1) for end in agreement.drift)
    some = max(1, agreement.capture_iterations // 4)
    return (
        f"busy time drifts within the capture, from {first} us in its first {some} forwards to "
        f"{last} us in its last {some}, as it does when the GPU's clock sinks at its power cap: "
        "leave pauses between forwards, as moeprof does"
    )


def _clock_hint(agreement: Agreement) -> str:
    """Several stages that take longer (or all less) with the same kernels."""
    timed = [r for r in agreement.rows if r.same_operations and not r.busy_agrees]
    more = {row.busy.difference > 0 for row in timed}
    if len(timed) < 2 or len(more) > 1 or len(timed) < sum(not r.agrees for r in agreement.rows):
        return ""
    return (
        f"the same kernels took {'more' if True in more else 'less'} time in the capture "
        "throughout: another process, or another clock of the GPU, which a capture does not hold; "
        "several RUNs of fresh processes show how far apart those are"
    )
