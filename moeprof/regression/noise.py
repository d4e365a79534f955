"""How much each quantity varies without any change, and the smallest slowdown that can be found.

From runs of one source in fresh processes (an A/A measurement). The spread is that of what a check
compares: process summaries, divided by the process's pace where that helps. Where the runs are of
several sessions (other hours, other days), the spread between sessions counts apart: fresh
processes of one hour do not show it, and a stored baseline meets it in full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from moeprof.errors import UsageError
from moeprof.records import Run
from moeprof.regression.limits import families_of, limits_of
from moeprof.regression.paces import with_paces
from moeprof.regression.policy import Policy
from moeprof.regression.series import read_series
from moeprof.regression.sides import sides_of
from moeprof.regression.statistics import Array, scipy_stats
from moeprof.regression.tables import make_table
from moeprof.regression.values import Measure, Noise

POWER = 0.8
EACH = 0.9  # of the two or three conditions that may each fail a true slowdown


def noise_of(
    runs: Sequence[Run], policy: Policy, sessions: Sequence[str] | None = None
) -> tuple[Noise, ...]:
    """The noise of every quantity of ``runs``, at least three fresh processes of one source.

    sessions: the session of each run; by default all are of one.
    """
    if len(runs) < 3:
        raise UsageError(
            f"{len(runs)} runs", "at least 3 fresh processes", "a spread needs several of them"
        )
    if sessions is not None and len(sessions) != len(runs):
        raise UsageError(f"{len(sessions)} sessions of {len(runs)} runs", "one for each run")
    series = [read_series(run) for run in runs]
    table = make_table([(series, series)])
    if not table.quantities:
        return ()
    whole, _ = sides_of(with_paces(table.measures, table.rounds))
    logs, _ = whole.logs(whole.gains_by_pace)
    process, session = _spreads(logs, list(sessions or [""] * len(runs)))
    family = families_of(table.measures)
    gpu = runs[0].environment.device_kind == "cuda"
    limits = limits_of(table.measures, whole.typical_us, policy, gpu=gpu)
    return tuple(
        Noise(
            quantity=quantity,
            process=float(process[i]),
            session=None if session is None else float(session[i]),
            processes=len(runs),
            detectable=detectable(
                policy,
                quantity.measure,
                math.hypot(float(process[i]), float(limits.deviation[i])),
                0.0 if session is None else float(session[i]),
                family.count(family[i]),
                float(limits.floor_us[i] / whole.typical_us[i]),
            ),
        )
        for i, quantity in enumerate(table.quantities)
    )


def _spreads(logs: Array, sessions: Sequence[str]) -> tuple[Array, Array | None]:
    """Standard deviations [Q] of logs [Q, P]: of processes in a session, and of sessions."""
    groups = [
        logs[:, [i for i, name in enumerate(sessions) if name == session]]
        for session in dict.fromkeys(sessions)
    ]
    free = sum(group.shape[1] - 1 for group in groups)
    if free < 1:  # one process a session: they cannot be told apart
        return np.std(logs, axis=1, ddof=1), None
    squares = np.sum([np.var(group, axis=1) * group.shape[1] for group in groups], axis=0)
    process = np.sqrt(squares / free)
    if len(groups) < 2:
        return process, None
    means = np.stack([group.mean(axis=1) for group in groups], axis=1)
    inside = np.mean([np.square(process) / group.shape[1] for group in groups], axis=0)
    return process, np.sqrt(np.maximum(0.0, np.var(means, axis=1, ddof=1) - inside))


def detectable(
    policy: Policy,
    measure: Measure,
    process: float,
    session: float = 0.0,
    quantities: int = 7,
    absolute_floor: float = 0.0,
) -> float:
    """The smallest slowdown, a fraction, that a check finds 8 times in 10. Of a stored baseline.

    process, session: standard deviations of the logarithm. quantities: how many are tested
    together. absolute_floor: the absolute floor as a fraction of the time.

    An estimate: it asks for 90 % at each condition of ``decide`` by itself (compared with the
    simulation in the tests).
    """
    stats = scipy_stats()
    host = measure in ("host", "orchestration")
    least = policy.host_relative_floor if host else policy.relative_floor
    screening = policy.screening_alpha if measure == "busy" else policy.host_screening_alpha
    rounds = 2 if policy.confirm else 1
    error = [
        process * math.sqrt(1 / policy.baseline_processes + 1 / (policy.processes * count))
        for count in (1, rounds)
    ]
    reach = float(stats.norm.ppf(EACH))

    def needed(alpha: float, one_error: float, size: int) -> float:
        return (float(stats.t.isf(alpha, size - 2)) + reach) * one_error

    size = policy.baseline_processes + policy.processes
    noise = math.hypot(error[1], math.sqrt(1.5) * session)
    floor = math.log1p(max(least, absolute_floor, policy.noise_factor * noise))
    conditions = [
        floor + float(stats.norm.ppf(POWER)) * math.hypot(error[1], session),
        needed(policy.alert_alpha / quantities, error[1], size + policy.processes * (rounds - 1)),
    ]
    if policy.confirm:
        conditions.append(needed(screening / quantities, error[0], size))
        conditions.append(needed(policy.confirmation_alpha, error[0], size))
    return math.expm1(max(conditions))
