"""Runs of a baseline and a candidate to a Check: comparable or not, what moved, how surely, why.

The rule itself is ``decide``'s; here records become its numbers and its numbers become findings.
Nothing raises for two sides that cannot be compared or for a wrong result: both are answers.

The SM clock is no reason to refuse here, as it is for ``moeprof compare``: verdicts cancel it where
it differs by process, and say so where it explains a change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from moeprof.compare.comparable import CARD, Grade, Reason, reasons, record_problems, told
from moeprof.errors import UsageError
from moeprof.records import Run
from moeprof.regression.causes import causes_of
from moeprof.regression.decide import decide
from moeprof.regression.findings import Judged, few_finding, finding_of, missing_finding
from moeprof.regression.limits import Limits, limits_of
from moeprof.regression.paces import with_paces
from moeprof.regression.policy import Policy
from moeprof.regression.series import Series, read_series
from moeprof.regression.sides import sides_of
from moeprof.regression.statistics import Array, rank_p, ratio_interval
from moeprof.regression.tables import Table, make_table, shifts_of
from moeprof.regression.values import Check, Finding, Noise, Quantity, Side

LABELS = ("the baseline", "the candidate")
SAME_SESSION = timedelta(hours=1)
CANCELLED = ("SM clock",)  # what verdicts handle by themselves
OTHER_CARD = (
    "the two sides ran on different cards of this model, which are up to 3 % apart: record a "
    "baseline on this one, or measure both sides here (--against REV)"
)


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A second round of fresh processes. baseline: empty where a stored one stands again."""

    candidate: Sequence[Run]
    baseline: Sequence[Run] = ()


def judge(
    baseline: Sequence[Run],
    candidate: Sequence[Run],
    policy: Policy,
    confirmation: Confirmation | None = None,
    noise: Sequence[Noise] = (),
    interleaved: bool = False,
) -> Check:
    """Judge ``candidate`` against ``baseline``, every run from a process of its own.

    noise: what is known of the baseline's, ``Baseline.noise``. interleaved: the sides were measured
    in turn, so the i-th runs are neighbours in time. While ``Check.awaiting`` is not empty a second
    round is wanted; judge again with it as ``confirmation``.

    Raises UsageError if a side has no runs, EnvironmentMissing where scipy is not installed.
    """
    if not baseline or not candidate:
        side = LABELS[0] if not baseline else LABELS[1]
        raise UsageError(f"{side} has no runs", "one record of each fresh process", "measure some")
    again = confirmation or Confirmation(())
    sides = ([*baseline, *again.baseline], [*candidate, *again.candidate])
    against = _against(*sides)
    if not interleaved and all(one.session is None for one in noise):
        against += _other_session(*sides)
    wrong = next((run for run in sides[1] if not run.correctness.passed), None)
    comparable = all(reason.grade < Grade.UNLESS_FORCED for reason in against)
    check = Check(
        baseline=_side(sides[0]),
        candidate=_side(sides[1]),
        workload=sides[1][0].workload,
        device=sides[1][0].environment.device,
        policy=policy,
        interleaved=interleaved,
        findings=(),
        against=told(against),
        comparable=comparable,
        wrong_result=_problem(wrong) if wrong else "",
    )
    if wrong or not comparable:
        return check
    rounds = [(baseline, candidate)]
    if again.candidate:
        rounds.append((again.baseline, again.candidate))
    return _judged(check, rounds, noise, gpu=sides[1][0].environment.device_kind == "cuda")


def _judged(
    check: Check,
    rounds: Sequence[tuple[Sequence[Run], Sequence[Run]]],
    noise: Sequence[Noise],
    gpu: bool,
) -> Check:
    series: list[tuple[list[Series], list[Series]]] = [
        ([read_series(run) for run in pair[0]], [read_series(run) for run in pair[1]])
        for pair in rounds
    ]
    table = make_table(series)
    findings = _findings(check, table, noise, gpu) if table.quantities else ()
    span = next((f for f in findings if f.quantity == Quantity("", "span")), None)
    processes = (check.baseline.processes, check.candidate.processes)
    cleared = span is not None and span.cleared
    findings += tuple(
        missing_finding(quantity, why, processes, cleared) for quantity, why in table.missing
    )
    shifts_from, shifts = shifts_of(series)
    runs = tuple([run for pair in rounds for run in pair[side]] for side in (0, 1))
    order = {row: place for place, row in enumerate(["", *_rows(series)])}
    ordered = tuple(sorted(findings, key=lambda f: order.get(f.quantity.stage, len(order))))
    return replace(
        check,
        findings=ordered,
        shifts=shifts,
        shifts_from=shifts_from,
        causes=causes_of(runs[0], runs[1], ordered, shifts),
    )


def _findings(check: Check, table: Table, noise: Sequence[Noise], gpu: bool) -> tuple[Finding, ...]:
    policy = check.policy
    rounds = with_paces(table.measures, table.rounds)
    whole, _ = sides_of(rounds)
    named = list(zip(table.quantities, table.sources, strict=True))
    if min(whole.processes) < 2:
        times = zip(whole.baseline, whole.candidate, strict=True)
        return tuple(
            few_finding(quantity, source, both, whole.processes, policy)
            for (quantity, source), both in zip(named, times, strict=True)
        )
    limits = _limits(table, whole.typical_us, noise, policy, gpu)
    decision = decide(rounds, limits, policy, check.interleaved)
    compared = whole.times_us(decision.divided)
    judged = Judged(
        policy=policy,
        rounds=len(rounds),
        processes=whole.processes,
        medians_us=(np.median(whole.baseline, axis=-1), np.median(whole.candidate, axis=-1)),
        intervals=ratio_interval(
            *compared, policy.confidence, policy.resamples, policy.seed, paired=check.interleaved
        ),
        rank_p=rank_p(*compared),
        pace_gap=whole.pace_gap,
        host_gap=float(whole.host_gap),
        limits=limits,
        decision=decision,
    )
    return tuple(finding_of(judged, place, *pair) for place, pair in enumerate(named))


def _limits(
    table: Table, typical_us: Array, noise: Sequence[Noise], policy: Policy, gpu: bool
) -> Limits:
    known = {one.quantity: one for one in noise}
    found = [known.get(quantity) for quantity in table.quantities]
    return limits_of(
        table.measures,
        typical_us,
        policy,
        process=np.array([one.process if one else 0.0 for one in found]),
        session=np.array([one.session or 0.0 if one else 0.0 for one in found]),
        gpu=gpu,
    )


def _rows(series: Sequence[tuple[list[Series], list[Series]]]) -> list[str]:
    """Every row, in the order of the side that has it first."""
    rows = (row for pair in series for side in pair for one in side for row in one.rows)
    return list(dict.fromkeys(rows))


def _against(baseline: Sequence[Run], candidate: Sequence[Run]) -> list[Reason]:
    """Everything that stands against comparing any run with the first one of the baseline."""
    first = baseline[0]
    found = list(record_problems(first, LABELS[0]))
    for runs, label in zip((baseline[1:], candidate), LABELS, strict=True):
        for run in runs:
            own = label if label == LABELS[1] else f"another process of {label}"
            found += reasons(first, run, (LABELS[0], own))
    found = [
        replace(reason, grade=max(reason.grade, Grade.UNLESS_FORCED), sentence=OTHER_CARD)
        if reason.name == CARD
        else reason
        for reason in found
        if reason.name not in CANCELLED
    ]
    # the candidate's wrong result is an answer, and one without samples
    answered = not all(run.correctness.passed for run in candidate)
    if answered:
        found = [r for r in found if r.name != "wrong result" or LABELS[0] in r.sentence]
    return list(dict.fromkeys([*found, *_mixed(baseline, candidate)]))


def _mixed(baseline: Sequence[Run], candidate: Sequence[Run]) -> list[Reason]:
    """A side whose runs are of several solutions or revisions is no side."""
    found = []
    for runs, label in zip((baseline, candidate), LABELS, strict=True):
        sources = {(run.solution.name, run.solution.source_hash) for run in runs}
        if len(sources) > 1:
            sentence = f"the runs of {label} are of {len(sources)} different sources"
            found.append(Reason(Grade.NEVER, "mixed sources", sentence))
    return found


def _other_session(baseline: Sequence[Run], candidate: Sequence[Run]) -> list[Reason]:
    """That the baseline was measured at another time, and nobody knows what that alone changes.

    Simulated with 1 % between sessions, 2 of 10 checks without a change alert; with its noise
    between sessions known, or both sides measured in turn, none do.
    """
    ended, began = max(run.created for run in baseline), min(run.created for run in candidate)
    try:
        apart = datetime.fromisoformat(began) - datetime.fromisoformat(ended)
    except (TypeError, ValueError):  # of a record that says it in another way
        return []
    if apart <= SAME_SESSION:
        return []
    sentence = (
        f"the baseline was measured {_told(apart)} before, and what that alone changes is not "
        "known: record it in several sessions, or measure both sides in turn"
    )
    return [Reason(Grade.CAUTION, "session", sentence)]


def _told(apart: timedelta) -> str:
    hours = apart / timedelta(hours=1)
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"


def _side(runs: Sequence[Run]) -> Side:
    created = sorted(run.created for run in runs)
    return Side(
        solution=runs[0].solution.name,
        source_hashes=tuple(dict.fromkeys(run.solution.source_hash for run in runs)),
        processes=len(runs),
        created=(created[0], created[-1]),
    )


def _problem(run: Run) -> str:
    return run.correctness.problem or "the output does not match the reference"
