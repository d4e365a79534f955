"""Runs of fresh processes to a baseline: whose they are, how noisy, under which policy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from moeprof.errors import UsageError, WrongResult
from moeprof.records import Run
from moeprof.regression.policy import FEWEST_PROCESSES, Policy
from moeprof.regression.values import Baseline
from moeprof.storage.checks import require_one_subject


def baseline_of(
    runs: Sequence[Run],
    name: str,
    policy: Policy,
    note: str = "",
    sessions: Sequence[str] | None = None,
) -> Baseline:
    """What ``runs`` amount to; the files are the store's to name.

    sessions: which of the runs were measured together, None if all were. UsageError for too few
    runs or runs of different work, WrongResult where one is wrong.
    """
    from moeprof.regression.noise import noise_of

    require_right(runs)
    require_one_subject(runs, "a baseline")
    if len(runs) < FEWEST_PROCESSES:
        raise UsageError(
            f"{len(runs)} processes make no baseline",
            f"at least {FEWEST_PROCESSES}, better {Policy().baseline_processes}",
        )
    first = runs[0]
    return Baseline(
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        solution=first.solution.name,
        source_hash=first.solution.source_hash,
        workload=first.workload,
        routing_hash=first.routing.histogram_hash,
        device=first.environment.device,
        driver=first.environment.driver,
        policy=policy,
        runs=(),
        noise=noise_of(runs, policy, sessions),
        note=note,
    )


def require_right(runs: Sequence[Run]) -> None:
    """Raise WrongResult if any of ``runs`` is wrong: it has no times."""
    for run in runs:
        if not run.correctness.passed:
            problem = run.correctness.problem or "the output does not match the reference"
            raise WrongResult(
                f"{run.solution.name} on T={run.workload.seq_len} is wrong: {problem}"
            )
