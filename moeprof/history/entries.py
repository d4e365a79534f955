"""A check and the records of its fresh processes, as one entry of the history."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from moeprof.errors import UsageError
from moeprof.history.values import CodeLabel, Entry, ProcessTimes, Side
from moeprof.records import Run
from moeprof.regression.series import read_series
from moeprof.regression.statistics import summarise_all
from moeprof.regression.values import Check, Quantity


def entry_of(
    check: Check,
    headline: str,
    runs: Mapping[Side, Sequence[Run]],
    key: str = "",
    codes: Mapping[Side, CodeLabel] | None = None,
) -> Entry:
    """The entry of ``check``. runs: of the sides that were measured for it, in their order.

    key: the name of the check's folder; without one the runs themselves name it, so that the same
    records judged twice are one entry. UsageError if the candidate has no runs.
    """
    own = runs.get("candidate", ())
    if not own:
        raise UsageError("a check without records has no history", "one of each fresh process")
    codes = codes or {}
    return Entry(
        key=key or _key_of(own),
        in_checks=bool(key),
        created=max(run.created for run in own),
        solution=own[-1].solution.name,
        source_hash=own[-1].solution.source_hash,
        workload=check.workload,
        routing_hash=own[-1].routing.histogram_hash,
        device=check.device,
        verdict=check.verdict,
        exit_code=check.exit_code,
        headline=headline,
        findings=check.findings,
        processes=tuple(
            _process(side, number, run)
            for side in ("baseline", "candidate")
            for number, run in enumerate(runs.get(side, ()), start=1)
        ),
        code=codes.get("candidate", CodeLabel()),
        against=codes.get("baseline", CodeLabel()),
    )


def _process(side: Side, number: int, run: Run) -> ProcessTimes:
    return ProcessTimes(side, number, run.created, run.solution.source_hash, _times_us(run))


def _times_us(run: Run) -> tuple[tuple[Quantity, str, float], ...]:
    """Every quantity from every source: which one a series is read from is chosen when it is."""
    series = read_series(run)
    found = []
    for (quantity, source), samples in series.times_us.items():
        typical_us = float(sorted(samples)[len(samples) // 2])
        found.append((quantity, source, float(summarise_all([samples], typical_us)[0])))
    return tuple(sorted(found, key=lambda one: (one[0].stage, one[0].measure, one[1])))


def _key_of(runs: Sequence[Run]) -> str:
    named = "\n".join(f"{run.created} {run.solution.source_hash}" for run in runs)
    return f"records-{hashlib.sha256(named.encode()).hexdigest()[:16]}"
