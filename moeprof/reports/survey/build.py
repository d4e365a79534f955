"""Records -> ReportData: grouped by workload, explained, compared pair by pair.

Of several records of one solution on one workload the newest is shown and the others are named.
Routing, device and another profiler are part of what a workload is here: records that differ in
them are never put side by side. A record with a wrong result or without stage times stays in the
report and says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from moeprof.analysis.attribution import profile as explain_run
from moeprof.analysis.lanes import median_lanes
from moeprof.analysis.reconstruct import reconstruct
from moeprof.compare.comparable import Grade, Reason, reasons, source_reasons, told
from moeprof.compare.compare import Side, compare_sides
from moeprof.compare.comparison import Explained
from moeprof.compare.tables import latency
from moeprof.errors import RecordError, UsageError
from moeprof.ledger.ceilings import ceilings_of
from moeprof.ledger.floors import floor_rows
from moeprof.ledger.ledger import Ceilings
from moeprof.records import Run
from moeprof.reports.survey.data import Entry, Pair, ReportData, WorkloadData
from moeprof.reports.survey.summary import summarise

REFERENCE = "reference"  # the solution that is a specification: compared only on request
Key = tuple[int, str, str, str, str, str]  # T, uuid, definition, routing hash, device, profiler


def build(runs: Iterable[Run]) -> ReportData:
    """Everything a report shows. Raises UsageError where there is no record at all."""
    grouped, left_out = _group(runs)
    if not grouped:
        raise UsageError("there is no record to report", do="moeprof list runs shows what there is")
    every = [run for members in grouped.values() for run in members.values()]
    ceilings, ceilings_label = ceilings_of(every)
    solutions = _slowest_first(grouped)
    names = _names(list(grouped))
    workloads = tuple(
        _workload(names[key], [members[s] for s in solutions if s in members], ceilings)
        for key, members in grouped.items()
    )
    data = ReportData(
        solutions=solutions,
        workloads=workloads,
        default_pair=_default_pair(solutions, workloads),
        ceilings=ceilings,
        ceilings_label=ceilings_label,
        summary=(),
        left_out=left_out,
    )
    return replace(data, summary=summarise(data))


def _group(runs: Iterable[Run]) -> tuple[dict[Key, dict[str, Run]], tuple[str, ...]]:
    """The newest record of every solution on every workload, and a sentence for each older one."""
    newest: dict[Key, dict[str, Run]] = {}
    left_out: list[str] = []
    for run in sorted(runs, key=lambda run: (run.created, run.solution.source_hash)):
        members = newest.setdefault(_key(run), {})
        older = members.get(run.solution.name)
        if older is not None:
            left_out.append(
                f"an older record of {run.solution.name} at T = {run.workload.seq_len:,} "
                f"({older.workload.uuid[:8]}, {older.created}) is left out"
            )
        members[run.solution.name] = run
    return {key: newest[key] for key in sorted(newest)}, tuple(left_out)


def _key(run: Run) -> Key:
    workload = run.workload
    return (
        workload.seq_len,
        workload.uuid,
        workload.definition,
        run.routing.histogram_hash,
        run.environment.device,
        run.capture.tool if run.capture else "",
    )


def _names(keys: Sequence[Key]) -> dict[Key, str]:
    """What each workload is called: as little as tells it from the others."""
    definitions, devices = {key[2] for key in keys}, {key[4] for key in keys}
    profilers = {key[5] for key in keys}
    names: dict[Key, str] = {}
    for key in keys:
        seq_len, uuid, definition, routing_hash, device, profiler = key
        parts = [f"T = {seq_len:,}", uuid[:8]]
        parts += [definition] if len(definitions) > 1 else []
        parts += [device] if len(devices) > 1 else []
        parts += [profiler] if len(profilers) > 1 and profiler else []
        same = [other for other in keys if other[:3] == key[:3] and other[4:] == key[4:]]
        parts += [f"routing {routing_hash[:6]}"] if len(same) > 1 else []
        names[key] = " · ".join(parts)
    return names


def _slowest_first(grouped: Mapping[Key, Mapping[str, Run]]) -> tuple[str, ...]:
    """Solutions by latency on the largest workload that each has, the slowest first."""
    order: dict[str, tuple[int, float, str]] = {}
    for position, members in enumerate(grouped.values()):
        for name, run in members.items():
            found = latency(run) if run.correctness.passed else None
            if found is not None or name not in order:
                order[name] = (-position, -(found.bare_us if found else 0.0), name)
    return tuple(sorted(order, key=lambda name: order[name]))


def _workload(name: str, runs: Sequence[Run], ceilings: Ceilings) -> WorkloadData:
    entries = tuple(_entry(run, ceilings) for run in runs)
    sides = {
        entry.label: Side.of(Explained(entry.run, entry.profile, entry.label), ceilings)
        for entry in entries
        if entry.profile is not None
    }
    pairs = tuple(
        _pair(first, second, sides, ceilings)
        for first, second in itertools.combinations(entries, 2)
    )
    return WorkloadData(name, entries, pairs)


def _entry(run: Run, ceilings: Ceilings) -> Entry:
    label = run.solution.name
    if not run.correctness.passed:
        problem = run.correctness.problem or "the output does not match the reference"
        return Entry(label, run, None, f"wrong result: {problem}", None)
    found = latency(run)
    latency_us = found.bare_us if found else None
    try:
        reconstruction = reconstruct(run)
        profile = explain_run(run, reconstruction)
        ledger = floor_rows(run, profile, ceilings)
    except RecordError as error:
        return Entry(label, run, None, str(error), latency_us)
    lanes = median_lanes(run, profile, reconstruction)
    return Entry(label, run, profile, "", latency_us, ledger, lanes)


def _pair(first: Entry, second: Entry, sides: Mapping[str, Side], ceilings: Ceilings) -> Pair:
    labels = (first.label, second.label)
    found = list(reasons(first.run, second.run, labels))
    if first.profile is None or second.profile is None:
        for entry in (first, second):
            if entry.problem and not any(entry.problem in r.sentence for r in found):
                found.append(Reason(Grade.NEVER, "no profile", f"{entry.label}: {entry.problem}"))
    else:
        found += source_reasons(first.profile, second.profile, labels)
    if _grave(found):
        return Pair(*labels, None, refused=told(_grave(found)))
    before, after = (sides[label] for label in labels)
    comparison = compare_sides(before, after, ceilings, "the report's")
    return Pair(*labels, comparison, cautions=told(found))


def _grave(found: Sequence[Reason]) -> list[Reason]:
    """What keeps ``moeprof compare`` from comparing them without --force."""
    return [reason for reason in found if reason.grade >= Grade.UNLESS_FORCED]


def _default_pair(
    solutions: Sequence[str], workloads: Sequence[WorkloadData]
) -> tuple[str, str] | None:
    """The slowest and fastest solution of the largest workload on which two can be compared."""
    for workload in reversed(workloads):
        compared = [pair for pair in workload.pairs if pair.comparison is not None]
        own = [p for p in compared if REFERENCE not in (p.before, p.after)] or compared
        if own:
            best = max(own, key=lambda pair: _distance(solutions, pair))
            return best.before, best.after
    return tuple(solutions[:2]) if len(solutions) > 1 else None  # type: ignore[return-value]


def _distance(solutions: Sequence[str], pair: Pair) -> int:
    return solutions.index(pair.after) - solutions.index(pair.before)
