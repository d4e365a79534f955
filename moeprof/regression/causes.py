"""Why a stage moved, from what the records say beside its times; the most telling first.

For every stage whose verdict is a change, and for the forward, one sentence each:

    what it runs    kernels added or gone, another number of launches, another launch shape, more
                    rows, bytes or FLOPs, another backend
    memory          calls of the allocator in the stage, buffers that are no longer kept
    clocks          the SM clock, and what held it down
    what moved      GPU time, host time, and of the idle time before its operations the part that
                    the host, the launch call, its latency or another stream causes; whether the
                    span shows it

The first three are facts of the records that differ between the sides; whether one is the cause is
for the reader to judge. What moved says how much time there is to explain.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from moeprof.analysis.checks import clock_findings
from moeprof.compare.comparable import sm_mhz
from moeprof.records import Run
from moeprof.regression.changes import structure_changes
from moeprof.regression.findings import SUSPECTED
from moeprof.regression.structure import usual_structure
from moeprof.regression.values import Cause, CauseKind, Component, Finding, Shift

TOLD_FROM_US, TOLD_FROM_FRACTION = 0.1, 0.2  # smaller parts of a stage's change are not told
TOLD_FROM_NOISE = 2.0  # nor those that luck explains
CLOCK_DIFFERENCE = 0.01
HIDDEN = 0.5  # less of a change than this in the span is called hidden
BUSY: Component = "busy"
IDLE: tuple[Component, ...] = ("host_late", "api", "launch_latency", "dependency")
KINDS: Mapping[Component, CauseKind] = {
    "busy": "busy",
    "host_late": "host_late",
    "api": "api",
    "launch_latency": "launch_latency",
    "dependency": "dependency",
    "prologue": "prologue",
    "epilogue": "epilogue",
}
WORDS: Mapping[Component, str] = {
    "busy": "on the GPU its operations take {} us {}",
    "host_late": "the GPU waits {} us {} for the host to begin its launches",
    "api": "the GPU waits {} us {} for its launch calls to return",
    "launch_latency": "from its launches to their start it takes {} us {}",
    "dependency": "its operations wait {} us {} for another stream",
    "prologue": "the host takes {} us {} until the first operation starts",
    "epilogue": "from the last operation's end to the return it takes {} us {}",
}


def causes_of(
    baseline: Sequence[Run],
    candidate: Sequence[Run],
    findings: Sequence[Finding],
    shifts: Sequence[Shift],
) -> tuple[Cause, ...]:
    """The causes of every stage that changed, and of the forward if it did."""
    changed = [f for f in findings if f.verdict in ("REGRESSED", "IMPROVED") or _suspected(f)]
    if not changed:
        return ()
    before, after = usual_structure(baseline), usual_structure(candidate)
    found: list[Cause] = []
    for stage in dict.fromkeys(f.quantity.stage for f in changed):
        own = [f for f in changed if f.quantity.stage == stage]
        if not stage:
            found += _forward(own, shifts)
            found += _everywhere(baseline, candidate)
            continue
        found += structure_changes(stage, before.get(stage), after.get(stage))
        found += _buffers(stage, own, baseline[0], candidate[0])
        found += _clocks(stage, own, baseline, candidate)
        found += _moved(stage, own, shifts, findings)
    return tuple(found)


def _suspected(finding: Finding) -> bool:
    return finding.confirmation == "awaited" and finding.reason.startswith(SUSPECTED)


# ---------------------------------------------------------------- what moved


def _moved(
    stage: str, own: Sequence[Finding], shifts: Sequence[Shift], findings: Sequence[Finding]
) -> Iterator[Cause]:
    """The components of the stage's change, the largest first, then its host time."""
    of_stage = {s.component: s for s in shifts if s.stage == stage and _is_told(s)}
    seen = {finding.quantity.measure: finding for finding in own}
    by_component = {c: of_stage[c].shift_us for c in (*IDLE, BUSY) if c in of_stage}
    if "busy" in seen:
        by_component["busy"] = seen["busy"].shift_us or 0.0
    largest_us = max((abs(shift) for shift in by_component.values()), default=0.0)
    for component, shift_us in sorted(by_component.items(), key=lambda item: -abs(item[1])):
        if abs(shift_us) >= TOLD_FROM_FRACTION * largest_us or component in seen:
            sentence = WORDS[component].format(_us(shift_us), _longer(shift_us))
            yield Cause(stage, KINDS[component], sentence, shift_us)
    if "host" in seen:
        shift_us = seen["host"].shift_us or 0.0
        sentence = f"the host spends {_us(shift_us)} us {_longer(shift_us)} in it"
        yield Cause(stage, "host", sentence, shift_us)
    yield from _hidden(stage, own, findings)


def _is_told(shift: Shift) -> bool:
    return abs(shift.shift_us) >= max(TOLD_FROM_US, TOLD_FROM_NOISE * shift.noise_us)


def _hidden(stage: str, own: Sequence[Finding], findings: Sequence[Finding]) -> Iterator[Cause]:
    """A change that the span does not show."""
    span = next((f for f in findings if str(f.quantity) == "span"), None)
    largest_us = max((f.shift_us or 0.0 for f in own), key=abs)
    if span is None or span.shift_us is None or span.baseline_us is None:
        return
    resolution_us = 3.0 * (span.noise or 0.0) * span.baseline_us
    shown_us = span.shift_us if largest_us > 0 else -span.shift_us
    if abs(largest_us) > resolution_us and shown_us < HIDDEN * abs(largest_us):
        sentence = f"the span does not show it ({span.shift_us:+,.1f} us): other work hides it"
        yield Cause(stage, "hidden", sentence, span.shift_us)


def _forward(own: Sequence[Finding], shifts: Sequence[Shift]) -> Iterator[Cause]:
    """The stages and components that the forward's change comes from, at most three."""
    total_us = max((f.shift_us or 0.0 for f in own), key=abs)
    parts = [s for s in shifts if s.component != "time" and s.shift_us * total_us > 0]
    parts.sort(key=lambda shift: -abs(shift.shift_us))
    for shift in parts[:3]:
        if _is_told(shift) and abs(shift.shift_us) >= TOLD_FROM_FRACTION * abs(total_us):
            words = WORDS[shift.component].format(_us(shift.shift_us), _longer(shift.shift_us))
            said = f"{shift.stage}: {words}" if shift.stage else words
            yield Cause("", KINDS[shift.component], said, shift.shift_us)


# ---------------------------------------------------------------- facts beside the times


def _buffers(stage: str, own: Sequence[Finding], before: Run, after: Run) -> Iterator[Cause]:
    """Buffers that are no longer kept cost host time in every stage that asks for them."""
    kept = before.solution.keeps_buffers, after.solution.keeps_buffers
    if kept[0] != kept[1] and any(f.quantity.measure == "host" for f in own):
        now = "no longer keeps" if kept[0] else "now keeps"
        yield Cause(stage, "allocator", f"the solution {now} its buffers from call to call")


def _clocks(
    stage: str, own: Sequence[Finding], baseline: Sequence[Run], candidate: Sequence[Run]
) -> Iterator[Cause]:
    if any(f.quantity.measure == "busy" for f in own):
        yield from (
            Cause(stage, "clocks", sentence) for sentence in _clock_change(baseline, candidate)
        )


def _everywhere(baseline: Sequence[Run], candidate: Sequence[Run]) -> Iterator[Cause]:
    """What differs for the whole forward: clocks, and kept buffers."""
    yield from (Cause("", "clocks", sentence) for sentence in _clock_change(baseline, candidate))
    kept = baseline[0].solution.keeps_buffers, candidate[0].solution.keeps_buffers
    if kept[0] and not kept[1]:
        sentence = "the solution no longer keeps its buffers from call to call"
        yield Cause("", "allocator", sentence)


def _clock_change(baseline: Sequence[Run], candidate: Sequence[Run]) -> Iterator[str]:
    """The SM clocks of the sides where they differ, and brakes that only the candidate shows."""
    mhz = [_median_mhz(runs) for runs in (baseline, candidate)]
    if mhz[0] and mhz[1] and abs(mhz[1] / mhz[0] - 1.0) > CLOCK_DIFFERENCE:
        yield f"the SM clock was {mhz[1]:,.0f} MHz instead of {mhz[0]:,.0f}"
    known = {text for run in baseline for text in clock_findings(run)}
    held = dict.fromkeys(text for run in candidate for text in clock_findings(run))
    yield from (text for text in held if text not in known)


def _median_mhz(runs: Sequence[Run]) -> float | None:
    known = [mhz for run in runs if (mhz := sm_mhz(run)) is not None]
    return statistics.median(known) if known else None


def _us(shift_us: float) -> str:
    digits = 1 if abs(shift_us) >= 10 else 2 if abs(shift_us) >= 1 else 3
    return f"{abs(shift_us):,.{digits}f}"


def _longer(shift_us: float) -> str:
    return "longer" if shift_us > 0 else "less"
