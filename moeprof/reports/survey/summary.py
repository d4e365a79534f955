"""What matters of many records, in sentences: what a reader should know who reads nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from moeprof.analysis.profiles import TrustVerdict
from moeprof.reports import compare_phrases
from moeprof.reports.survey.data import Pair, ReportData, WorkloadData
from moeprof.reports.units import duration, percent

MOST_NAMED = 4


def summarise(data: ReportData) -> tuple[str, ...]:
    """The sentences, most telling first, without full stops."""
    found = [*_largest(data), *_smallest(data), _winners(data), *_wrong(data), _trust(data)]
    return tuple(sentence for sentence in found if sentence)


def subject(data: ReportData) -> str:
    """What was measured, where."""
    entries = data.entries
    devices = _listed({entry.run.environment.device for entry in entries})
    definitions = _listed({entry.run.workload.definition for entry in entries})
    routing = _listed({entry.run.routing.label for entry in entries})
    lengths = [workload.seq_len for workload in data.workloads]
    tokens = f"T = {min(lengths):,}" + (f" to {max(lengths):,}" if len(set(lengths)) > 1 else "")
    return (
        f"{_number(len(data.solutions), 'solution')} on {_number(len(data.workloads), 'workload')} "
        f"({tokens}) of {definitions}; routing {routing}; {devices}"
    )


def _largest(data: ReportData) -> list[str]:
    """The default pair on the largest workload that can be compared: difference and causes."""
    for workload in reversed(data.workloads):
        pair = _default(data, workload)
        if pair is not None and pair.comparison is not None:
            comparison = pair.comparison
            largest = compare_phrases.largest_cause(comparison)
            told = compare_phrases.sentences(comparison)
            return [
                compare_phrases.headline(comparison),
                *([largest] if largest else []),
                *told[:2],
            ]
    entry = data.workloads[-1].entries[0]
    profile = entry.profile
    if profile is None:
        return []
    slowest = max(profile.stages, key=lambda stage: stage.time_ns)
    return [
        f"At {data.workloads[-1].name} {entry.label} takes {duration(profile.span_ns / 1e3)} from "
        f"its first operation to the end of its last; {slowest.name} is "
        f"{percent(slowest.time_ns, profile.span_ns)} of it"
    ]


def _smallest(data: ReportData) -> list[str]:
    """How much of the smallest workload is the host's, solution by solution."""
    workload = data.workloads[0]
    if len(data.workloads) < 2:
        return []
    shares = [
        (entry.profile.orchestration_ns / entry.profile.span_ns, entry.label)
        for entry in workload.entries
        if entry.profile is not None
        and entry.profile.span_ns
        and entry.profile.source in ("reconstructed", "api")
    ]
    if not shares:
        return []
    (low, _), (high, most) = min(shares), max(shares)
    share = f"{100 * high:.0f} %" if len(shares) == 1 else f"{100 * low:.0f} to {100 * high:.0f} %"
    return [
        f"At T = {workload.seq_len:,} the GPU waits for the host during {share} of the span "
        f"(most in {most})"
    ]


def _winners(data: ReportData) -> str:
    """Which solution is fastest on how many workloads."""
    wins: Counter[str] = Counter()
    for workload in data.workloads:
        known = [(e.latency_us, e.label) for e in workload.entries if e.latency_us is not None]
        if len(known) > 1:
            wins[min(known)[1]] += 1
    if not wins:
        return ""
    whole = sum(wins.values())
    shown = [f"{name} on {count} of {whole} workloads" for name, count in wins.most_common()]
    return f"The lowest median latency: {', '.join(shown)}"


def _wrong(data: ReportData) -> list[str]:
    """Every record that has no timings to trust."""
    without = [entry for entry in data.entries if entry.profile is None]
    if not without:
        return []
    named = [f"{e.label} at T = {e.run.workload.seq_len:,} ({e.problem})" for e in without]
    rest = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return [f"WITHOUT stage times: {'; '.join(named[:MOST_NAMED])}{rest}"]


def _trust(data: ReportData) -> str:
    """How often the independent readings of the orchestration agree; captures have none."""
    verdicts = Counter(
        entry.profile.trust.verdict
        for entry in data.entries
        if entry.profile is not None and entry.profile.source in ("reconstructed", "api")
        if entry.run.capture is None
    )
    if not verdicts:
        return ""
    words: dict[TrustVerdict, str] = {
        "agree": "agree",
        "within noise": "differ within their noise",
        "differ": "DIFFER",
        "not measured": "were not read twice",
    }
    shown = [f"{words[v]} in {verdicts[v]}" for v in words if verdicts[v]]
    return (
        f"Independent readings of the orchestration {', '.join(shown)} of "
        f"{sum(verdicts.values())} records"
    )


def _default(data: ReportData, workload: WorkloadData) -> Pair | None:
    return workload.pair(data.default_pair) if data.default_pair else None


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _listed(names: Sequence[str] | set[str]) -> str:
    return ", ".join(sorted(names))
