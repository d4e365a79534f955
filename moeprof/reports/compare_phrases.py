"""What a comparison says in words, from its numbers alone: every format uses the same sentences.

The slower side pays for a positive contribution, the faster one for what offsets it. Amounts are
parts of the difference of the spans, so they may add up to more than it where others offset them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from moeprof.compare.comparison import Bar, Cause, Comparison, Part, PartSide
from moeprof.records import Run
from moeprof.reports.units import duration

MOST_CAUSES, MOST_OFFSETS = 6, 3
LONGEST_PART_NAME = 24
LEAST_SHARE, LEAST_NS = 0.03, 1_000  # of the difference; smaller bars have no sentence

WORDS: Mapping[Cause, str] = {
    Cause.ORCHESTRATION: "Host orchestration",
    Cause.LAUNCH_LATENCY: "Launch latency",
    Cause.AMPLIFICATION: "Work amplification",
    Cause.EFFICIENCY: "Efficiency (time per unit of executed work)",
    Cause.ONE_SIDED: "Work that one side alone does",
    Cause.OVERLAP: "Overlap",
    Cause.NOT_SPLIT: "Busy time of unknown work",
}


@dataclass(frozen=True, slots=True)
class _View:
    """The two sides of a part from the one that pays, and the whole difference."""

    part: Part
    payer: PartSide
    other: PartSide
    payer_label: str
    other_label: str

    @property
    def name(self) -> str:
        return part_label(self.part.name)


def part_label(name: str) -> str:
    """A part's name; of many steps joined by '+' the first and the last."""
    first, *rest = name.split("+")
    return f"{first}+..+{rest[-1]}" if rest and len(name) > LONGEST_PART_NAME else name


def amount(nanoseconds: float) -> str:
    """A time without its sign."""
    return duration(abs(nanoseconds) / 1e3)


def headline(comparison: Comparison) -> str:
    """Who is slower and by how much."""
    before, after = comparison.before.label, comparison.after.label
    tokens = comparison.before.run.workload.seq_len
    sources = comparison.before.profile.source, comparison.after.profile.source
    clocks = any(source in ("events", "stage clock") for source in sources)
    where = "in its stages" if clocks else "from its first operation to the end of its last"
    spans = (
        f"At T = {tokens:,} {before} takes {amount(comparison.span_before_ns)} {where}, "
        f"{after} {amount(comparison.span_after_ns)}"
    )
    if _within_noise(comparison):
        return (
            f"{spans}: a difference of {amount(comparison.delta_ns)}, within the noise of the "
            f"samples (+-{comparison.noise_us:,.1f} us)"
        )
    slow, fast = _spans(comparison)
    ratio = f" ({slow / fast:.2f}x)" if fast else ""
    return f"{spans}: {amount(comparison.delta_ns)} between them{ratio}"


def doubt(comparison: Comparison) -> str:
    """What the bare passes say against the difference of the spans; '' if nothing."""
    measured_us = comparison.measured_delta_us
    if measured_us is None or _within_noise(comparison):
        return ""
    if abs(measured_us) > comparison.noise_us and measured_us * comparison.delta_ns > 0:
        return ""
    return (
        f"the bare passes do not bear this difference out: {measured_us:+,.1f} us between their "
        f"medians, noise +-{comparison.noise_us:,.1f} us"
    )


def largest_cause(comparison: Comparison) -> str:
    """The cause with the largest contribution, all parts taken together; '' without a bar."""
    contributions = [(cause, _signed(comparison, ns)) for cause, ns in comparison.causes]
    if not contributions or contributions[0][1] <= 0:
        return ""
    cause, largest_ns = contributions[0]
    whole_ns = abs(comparison.delta_ns)
    offset_ns = -sum(ns for _, ns in contributions if ns < 0)
    start = f"{WORDS[cause]} is the largest cause: {amount(largest_ns)}"
    if largest_ns <= whole_ns:
        return f"{start} of the {amount(whole_ns)}"
    return f"{start}, more than the {amount(whole_ns)} because {amount(offset_ns)} offset it"


def sentences(comparison: Comparison) -> tuple[str, ...]:
    """One sentence for each bar that counts: the largest causes first, then what offsets them."""
    parts = {part.name: part for part in comparison.parts}
    least_ns = max(LEAST_NS, LEAST_SHARE * abs(comparison.delta_ns))
    bars = [bar for bar in comparison.bars if abs(bar.delta_ns) >= least_ns]
    causes = [bar for bar in bars if _signed(comparison, bar.delta_ns) > 0]
    offsets = [bar for bar in reversed(bars) if _signed(comparison, bar.delta_ns) < 0]
    told: set[tuple[str, Cause]] = set()
    found: list[str] = []
    for chosen in (causes[:MOST_CAUSES], offsets[:MOST_OFFSETS]):
        for bar in chosen:
            if (bar.part, bar.cause) not in told:
                found.append(_sentence(comparison, parts[bar.part], bar, told))
    return (*found, *_outside(comparison))


def notes(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """What was compared and how its figures were come by, as (label, sentence)."""
    before, after = comparison.before, comparison.after
    found = [("workload", _workload(before.run)), ("device", _device(comparison))]
    for side in (before, after):
        capture = side.run.capture
        trust = f", orchestration readings: {side.profile.trust.verdict}"
        iterations = f"means of {side.profile.iterations} iterations"
        source = _SOURCES[side.profile.source].format(profiler=capture.tool if capture else "CUPTI")
        found.append((side.label, f"{source}, {iterations}{'' if capture else trust}"))
    found.append(("measured", measured_sentence(comparison)))
    prologue_ns, epilogue_ns = comparison.outside_ns
    outside = (
        f"before the first operation {prologue_ns / 1e3:+,.1f} us, "
        f"after the last {epilogue_ns / 1e3:+,.1f} us"
    )
    found.append(("outside the span", outside))
    found.append(("ceilings", f"{comparison.ceilings_label}; they tell what bounds a step"))
    return tuple(note for note in found if note[1])


def cautions(comparison: Comparison) -> tuple[str, ...]:
    """Doubts about either side's own figures, worst first."""
    found: list[str] = []
    for side in (comparison.before, comparison.after):
        if side.profile.trust.verdict == "differ":
            spread = f"spread {side.profile.trust.spread_us:,.1f} us"
            found.append(f"{side.label}: readings of the orchestration differ ({spread})")
    for side in (comparison.before, comparison.after):
        found.extend(f"{side.label}: {finding}" for finding in side.profile.findings)
        found.extend(f"{side.label}: {warning}" for warning in side.run.warnings)
    return tuple(found)


def _workload(run: Run) -> str:
    """The problem and its routing, as far as it has any."""
    workload, routing = run.workload, run.routing
    if not workload.has_definition:
        return f"T = {workload.seq_len:,}, {workload.definition}; results were not checked"
    experts = len(routing.tokens_per_expert)
    return (
        f"T = {workload.seq_len:,} tokens, {workload.uuid[:8]} of "
        f"{workload.definition}; {routing.label}: P = {routing.local_pairs:,} local pairs, "
        f"A = {routing.active_experts} of {experts} local experts active"
    )


def _device(comparison: Comparison) -> str:
    environment = comparison.before.run.environment
    if environment.device_kind == "cpu":
        return f"{environment.device}: CPU timings, not GPU performance"
    driver = f", driver {environment.driver}" if environment.driver else ""
    return f"{environment.device}{driver}"


def measured_sentence(comparison: Comparison) -> str:
    """The difference as the bare pass measured it, beside that of the spans."""
    delta_us = comparison.measured_delta_us
    if delta_us is None:
        return ""
    kind = comparison.before.run.environment.device_kind
    clock = "between the outer events" if kind == "cuda" else "on the host's clock"
    return (
        f"{clock} the bare passes differ by {delta_us:+,.1f} us (medians, "
        f"+-{comparison.noise_us:,.1f}), the spans by {comparison.delta_ns / 1e3:+,.1f} us"
    )


def _sentence(comparison: Comparison, part: Part, bar: Bar, told: set[tuple[str, Cause]]) -> str:
    contributes = _signed(comparison, bar.delta_ns) > 0
    view = _view(comparison, part, payer_is_after=bar.delta_ns > 0)
    is_part = contributes and abs(bar.delta_ns) <= abs(comparison.delta_ns)
    of_whole = f" of the {amount(comparison.delta_ns)}" if is_part else ""
    price = f"{view.payer_label} {amount(bar.delta_ns)}{of_whole}"
    body = _BODIES[bar.cause](view, price)
    if bar.cause == Cause.AMPLIFICATION and (part.name, Cause.EFFICIENCY) not in told:
        body += _per_unit(view)
        told.add((part.name, Cause.EFFICIENCY))
    told.add((part.name, bar.cause))
    return body if contributes else f"Against that: {body[0].lower() + body[1:]}"


def _amplified(view: _View, price: str) -> str:
    if view.other.rows == 0 and view.payer.rows:
        return (
            f"{view.payer.rows:,} rows in {view.name}, where {view.other_label} runs none, "
            f"cost {price}"
        )
    return f"{_work_ratio(view)} in {view.name} cost {price}"


def _work_ratio(view: _View) -> str:
    """How much more work the payer executes, in the unit that bounds the part."""
    payer, other = view.payer, view.other
    rows = _ratio(payer.rows, other.rows)
    if payer.bound == other.bound == "FLOPs":
        return f"{rows}x the rows" if rows else f"{_ratio(payer.flops, other.flops)}x the FLOPs"
    also = f" ({rows}x the rows)" if rows and rows != "1.00" else ""
    if payer.bound == other.bound == "bytes":
        return f"{_ratio(payer.best_ns, other.best_ns)}x the bytes{also}"
    if payer.bound == "FLOPs" and other.bound == "bytes":
        also = also or " (bound by FLOPs)"
        also = f"{also[:-1]}, bound by FLOPs where {view.other_label}'s are bound by bytes)"
    return f"{_ratio(payer.best_ns, other.best_ns)}x the work{also}"


def _per_unit(view: _View) -> str:
    """The rest of an amplification's sentence: the time per unit of executed work."""
    ratio = _unit_time_ratio(view)
    if ratio is None or not view.other.rows and view.other.rows is not None:
        return ""
    sign = 1 if view.payer is view.part.after else -1
    gained = [b.delta_ns * sign for b in view.part.bars if b.cause == Cause.EFFICIENCY]
    verb = "saves" if sum(gained) < 0 else "costs another"
    tail = f", which {verb} {amount(sum(gained))}" if abs(sum(gained)) >= LEAST_NS else ""
    return f"; per {_unit(view)} it takes {ratio:.2f}x {view.other_label}'s time{tail}"


def _inefficient(view: _View, price: str) -> str:
    ratio = _unit_time_ratio(view)
    if ratio is None:  # neither side runs rows
        return f"{view.name} without any rows costs {price}"
    return (
        f"{view.name} takes {ratio:.2f}x {view.other_label}'s time per {_unit(view)}, "
        f"which costs {price}"
    )


def _late_host(view: _View, price: str) -> str:
    return f"Waiting for the host before {view.name} costs {price}"


def _late_start(view: _View, price: str) -> str:
    counts = f"{view.payer.operations:,.0f} operations against {view.other.operations:,.0f}"
    return f"Launch latency in {view.name} ({counts}) costs {price}"


def _one_sided(view: _View, price: str) -> str:
    why = f" ({view.payer.why})" if view.payer.why else ""
    return f"{view.name}, which {view.payer_label} alone does{why}, costs {price}"


def _less_overlap(view: _View, price: str) -> str:
    return f"Hiding less of {view.name} behind other work costs {price}"


def _unsplit(view: _View, price: str) -> str:
    return f"{view.name}, whose executed work is not known on both sides, costs {price}"


def _outside(comparison: Comparison) -> tuple[str, ...]:
    """What the waterfall cannot show: host time before the first operation."""
    prologue_ns, _ = comparison.outside_ns
    if abs(prologue_ns) < max(3_000.0, LEAST_SHARE * abs(comparison.delta_ns)):
        return ()
    later, earlier = comparison.after.label, comparison.before.label
    if prologue_ns < 0:
        later, earlier = earlier, later
    return (
        f"Outside the span: {later}'s host takes {amount(prologue_ns)} longer than {earlier}'s "
        "before its first operation",
    )


def _view(comparison: Comparison, part: Part, payer_is_after: bool) -> _View:
    before, after = comparison.before.label, comparison.after.label
    if payer_is_after:
        return _View(part, part.after, part.before, after, before)
    return _View(part, part.before, part.after, before, after)


def _unit(view: _View) -> str:
    bounds = {view.payer.bound, view.other.bound}
    if bounds == {"FLOPs"}:
        return "row executed"
    return "byte moved" if bounds == {"bytes"} else "unit of work"


def _unit_time_ratio(view: _View) -> float | None:
    payer, other = view.payer, view.other
    if not (payer.best_ns and other.best_ns and other.work_ns) or 0 in (payer.rows, other.rows):
        return None
    return (payer.work_ns / payer.best_ns) / (other.work_ns / other.best_ns)


def _ratio(above: float | None, below: float | None) -> str:
    return f"{above / below:.2f}" if above is not None and below else ""


def _signed(comparison: Comparison, delta_ns: int) -> int:
    """``delta_ns`` counted positive where it makes the slower side slower."""
    return -delta_ns if comparison.delta_ns < 0 else delta_ns


def _spans(comparison: Comparison) -> Sequence[int]:
    """Slower and faster."""
    return sorted((comparison.span_before_ns, comparison.span_after_ns), reverse=True)


def _within_noise(comparison: Comparison) -> bool:
    return abs(comparison.delta_ns) <= comparison.noise_us * 1e3


_SOURCES: Mapping[str, str] = {
    "reconstructed": "the undisturbed forward, reconstructed",
    "api": "the forward under {profiler} (host figures are upper bounds)",
    "events": "an event pair a stage",
    "stage clock": "a host clock a stage",
}
_BODIES: Mapping[Cause, Callable[[_View, str], str]] = {
    Cause.AMPLIFICATION: _amplified,
    Cause.EFFICIENCY: _inefficient,
    Cause.ORCHESTRATION: _late_host,
    Cause.LAUNCH_LATENCY: _late_start,
    Cause.ONE_SIDED: _one_sided,
    Cause.OVERLAP: _less_overlap,
    Cause.NOT_SPLIT: _unsplit,
}
