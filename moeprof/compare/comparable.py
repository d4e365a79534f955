"""Whether two records may be compared, and every reason why not, by name.

Three grades. ``NEVER``: the records are of different work, of different clocks or broken, and no
difference of theirs means anything. ``UNLESS_FORCED``: the work is the same but something beside
the solutions differs (the driver, clocks that something else held down, lost records).
``CAUTION``: shown above the comparison.

A GPU that lowers its clock because the solution itself reaches the power cap is a caution: that is
what this solution does to this GPU. It is believed if every slow reading shows the software power
cap and nothing else held the clock down. Nothing here reads a file.
"""

from __future__ import annotations

import operator
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from moeprof.analysis.checks import clock_findings
from moeprof.analysis.profiles import Profile
from moeprof.errors import RecordError
from moeprof.records import Run
from moeprof.timelines import TimelinePass

# two H200s ran the same GEMM 2.7 % and an atomic sort 2.6 % apart, process after process
CARD = "card"
CLOCK_TOLERANCE = 0.03
CLOCK_PASSES = ("bare", "kernels", "stages")  # those that the times of a profile come from
POWER_CAP = "sw_power_cap"
MANY_ALIKE = 3


class Grade(IntEnum):
    """What a reason does to a comparison."""

    CAUTION = 1
    UNLESS_FORCED = 2
    NEVER = 3


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that differs or is wrong, in one sentence without a full stop."""

    grade: Grade
    name: str
    sentence: str


def record_problems(run: Run, label: str) -> tuple[Reason, ...]:
    """What makes one record unfit for any comparison."""
    found: list[Reason] = []
    if not run.correctness.passed:
        why = run.correctness.problem or "the output does not match the reference"
        found.append(Reason(Grade.NEVER, "wrong result", f"the result of {label} is wrong: {why}"))
    elif not any(p.samples for p in run.passes) and not any(t.iterations for t in run.timelines):
        sentence = f"the record of {label} has no samples"
        found.append(Reason(Grade.NEVER, "no samples", sentence))
    for timeline in run.timelines:
        found.extend(_timeline_problems(timeline, label))
    return tuple(found)


def reasons(first: Run, second: Run, labels: tuple[str, str]) -> tuple[Reason, ...]:
    """Everything that stands against comparing two records, the gravest first."""
    found = [*record_problems(first, labels[0]), *record_problems(second, labels[1])]
    for grade, name, one, other in _differences(first, second):
        if one != other:
            shown = f"{_short(one)} for {labels[0]}, {_short(other)} for {labels[1]}"
            found.append(Reason(grade, name, f"the {name} differs: {shown}"))
    found.extend(_clocks(first, second, labels))
    return tuple(sorted(found, key=lambda reason: -reason.grade))


def source_reasons(first: Profile, second: Profile, labels: tuple[str, str]) -> tuple[Reason, ...]:
    """What the origin of the two sides' rows says against comparing them."""
    if first.source == second.source:
        return ()
    timelines = ("reconstructed", "api")
    names = f"{first.source!r} for {labels[0]}, {second.source!r} for {labels[1]}"
    if first.source in timelines and second.source in timelines:
        above = labels[0] if first.host_upper_bounds else labels[1]
        sentence = f"host times of {above} are upper bounds, read under the profiler ({names})"
        return (Reason(Grade.CAUTION, "timer", sentence),)
    sentence = f"stage times come from different timers: {names}"
    return (Reason(Grade.UNLESS_FORCED, "timer", sentence),)


def require_comparable(found: Sequence[Reason], what: str, force: bool) -> None:
    """Raise RecordError with every reason by name, unless there is none or force overrules it."""
    never = [reason for reason in found if reason.grade == Grade.NEVER]
    flags = [reason for reason in found if reason.grade == Grade.UNLESS_FORCED]
    if not never and (force or not flags):
        return
    listed = "; ".join(told((*never, *flags)))
    do = "measure both again the same way" if never else "--force compares them all the same"
    raise RecordError(f"{what} cannot be compared: {listed}", do=do)


def told(found: Sequence[Reason]) -> tuple[str, ...]:
    """The sentences, the gravest first; many of one name become the first and their number."""
    by_name: dict[tuple[Grade, str], dict[str, None]] = {}
    for reason in sorted(found, key=lambda reason: -reason.grade):
        by_name.setdefault((reason.grade, reason.name), {})[reason.sentence] = None
    sentences: list[str] = []
    for same in by_name.values():
        first, *others = same
        if len(others) < MANY_ALIKE:
            sentences += [first, *others]
        else:
            sentences.append(f"{first} (and {len(others)} more like it)")
    return tuple(sentences)


def _differences(first: Run, second: Run) -> list[tuple[Grade, str, object, object]]:
    """Facts that should be equal: grade, name, one side's, the other's."""
    pairs: list[tuple[Grade, str, object, object]] = []

    def expect(grade: Grade, name: str, one: object, other: object) -> None:
        pairs.append((grade, name, one, other))

    work_1, work_2 = first.workload, second.workload
    expect(Grade.NEVER, "definition", work_1.definition, work_2.definition)
    expect(Grade.NEVER, "number of tokens", work_1.seq_len, work_2.seq_len)
    offsets = work_1.local_expert_offset, work_2.local_expert_offset
    expect(Grade.NEVER, "local expert offset", *offsets)
    factors = work_1.routed_scaling_factor, work_2.routed_scaling_factor
    expect(Grade.NEVER, "routed scaling factor", *factors)
    if work_1.definition == work_2.definition:
        expect(Grade.NEVER, "geometry", dict(work_1.constants), dict(work_2.constants))
    routing_1, routing_2 = first.routing, second.routing
    expect(Grade.NEVER, "routing histogram", routing_1.histogram_hash, routing_2.histogram_hash)
    expect(Grade.NEVER, "weights recipe", routing_1.weights_recipe, routing_2.weights_recipe)
    expect(Grade.NEVER, "record schema", first.schema_version, second.schema_version)
    here, there = first.environment, second.environment
    expect(Grade.NEVER, "timer", _timer(first), _timer(second))
    expect(Grade.NEVER, "device", here.device, there.device)
    expect(Grade.NEVER, "interpreter", here.interpreter, there.interpreter)
    expect(Grade.NEVER, "multiprocessors", here.multiprocessors, there.multiprocessors)
    expect(Grade.UNLESS_FORCED, "driver", here.driver, there.driver)
    expect(Grade.UNLESS_FORCED, "L2 setting", first.settings.l2, second.settings.l2)
    if here.card is not None and there.card is not None:
        expect(Grade.CAUTION, CARD, here.card, there.card)
    expect(Grade.CAUTION, "moeprof version", first.moeprof, second.moeprof)
    expect(Grade.CAUTION, "CUDA version", here.cuda, there.cuda)
    for library in ("torch", "triton"):
        versions = here.versions.get(library), there.versions.get(library)
        expect(Grade.CAUTION, f"{library} version", *versions)
    expect(Grade.CAUTION, "set of stand-ins", first.solution.stand_ins, second.solution.stand_ins)
    return pairs


def _timer(run: Run) -> str:
    if run.capture is not None:
        return f"a capture of {run.capture.tool}"
    return "CUDA events" if run.environment.device_kind == "cuda" else "host clock"


def _short(value: object) -> str:
    if isinstance(value, tuple):
        value = ", ".join(value)
    text = str(value) if value not in (None, "") else "none"
    is_hash = len(text) >= 32 and all(c in "0123456789abcdef" for c in text)
    return text[:12] if is_hash else text


def _timeline_problems(timeline: TimelinePass, label: str) -> list[Reason]:
    found: list[Reason] = []
    dropped = max((iteration.dropped for iteration in timeline.iterations), default=0)
    if dropped:
        sentence = f"CUPTI dropped {dropped} record(s) in the {timeline.name} pass of {label}"
        found.append(Reason(Grade.UNLESS_FORCED, "dropped records", sentence))
    negative = sum(
        end_ns < start_ns and end_ns > 0  # as ``identity.collected``
        for iteration in timeline.iterations
        if any(map(operator.lt, iteration.end_ns, iteration.start_ns))
        for start_ns, end_ns in zip(iteration.start_ns, iteration.end_ns, strict=True)
    )
    if negative:
        sentence = f"{negative} operation(s) of {label} end before they start ({timeline.name})"
        found.append(Reason(Grade.NEVER, "negative durations", sentence))
    return found


def _clocks(first: Run, second: Run, labels: tuple[str, str]) -> list[Reason]:
    """The SM clock of one side more than 3 % below the other's, or throttling on one side only."""
    mhz = [sm_mhz(run) for run in (first, second)]
    if mhz[0] is None or mhz[1] is None:
        return []
    if abs(mhz[0] - mhz[1]) <= CLOCK_TOLERANCE * max(mhz[0], mhz[1]):
        return []
    slow = 0 if mhz[0] < mhz[1] else 1
    run = (first, second)[slow]
    shown = [f"{clock:,.0f} MHz for {label}" for clock, label in zip(mhz, labels, strict=True)]
    sentence = f"the SM clock differs: {', '.join(shown)}"
    if _own_power(run):
        why = f"{labels[slow]} ran into the GPU's power cap, which counts as its efficiency here"
        return [Reason(Grade.CAUTION, "SM clock", f"{sentence}; {why}")]
    others = [text for text in clock_findings(run) if POWER_CAP not in text]
    why = f" ({'; '.join(others)})" if others else ""
    return [Reason(Grade.UNLESS_FORCED, "SM clock", f"{sentence}{why}")]


def sm_mhz(run: Run) -> float | None:
    """The median SM clock beside the passes whose times count; None where it was not read."""
    named = [clock for clock in run.clocks if clock.pass_name in CLOCK_PASSES]
    readings = [clock.sm_mhz for clock in named if clock.sm_mhz]  # 0: it could not be read
    return statistics.median(readings) if readings else None


def _own_power(run: Run) -> bool:
    """Whether every slowed reading shows the power cap, and none another brake."""
    readings = [clock for clock in run.clocks if clock.pass_name in CLOCK_PASSES]
    fastest = max((clock.sm_mhz for clock in run.clocks), default=0)
    slowed = [c for c in readings if c.sm_mhz < (1 - CLOCK_TOLERANCE) * fastest]
    capped = all(POWER_CAP in clock.throttle for clock in slowed or readings)
    brakes = [text for text in clock_findings(run) if POWER_CAP not in text]
    return capped and not brakes
