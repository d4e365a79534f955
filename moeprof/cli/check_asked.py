"""The command line of ``check``: whether it names one thing to check, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from moeprof.errors import UsageError

if TYPE_CHECKING:
    from moeprof.checking.request import Request
    from moeprof.regression.policy import Policy

# a baseline fixes these; --routing and --dataset may have to say where files are
_FIXED_BY_BASELINE = (
    *("num_tokens", "workload", "definition", "weights", "device", "preset", "warmup"),
    *("iterations", "trials", "l2", "seed", "allow_no_local_work"),
)
_OF_MEASURING = (*_FIXED_BY_BASELINE, "routing", "dataset", "solution", "against", "seconds")


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line, but for outputs. options: those of ``run``; given: which were typed."""

    solution: str | None
    baseline: str | None
    against: str | None
    runs: Path | None
    measure_only: bool
    processes: int | None
    policy_file: Path | None
    no_confirm: bool
    seconds: float | None
    traces: Path
    options: dict[str, Any]
    given: tuple[str, ...]

    @property
    def baselines(self) -> Path:
        """The store."""
        return self.traces / "baselines"


def require_one_way(asked: Asked) -> None:
    """Raise UsageError unless the options name one thing to check and one to check it against."""
    ways = [
        option
        for option, chosen in (
            ("--baseline", asked.baseline is not None),
            ("--against", asked.against is not None),
            ("--measure-only", asked.measure_only),
        )
        if chosen
    ]
    if len(ways) != 1:
        found = f"{' and '.join(ways)} were given together" if ways else "nothing to check against"
        raise UsageError(found, do="choose one of --baseline, --against and --measure-only")
    if asked.runs is not None and asked.baseline is None:
        raise UsageError("--runs without --baseline", do="name the baseline to judge them by")
    if (asked.runs is None) == (asked.solution is None):
        raise UsageError("--runs and --solution", "one of them", "--runs judges, --solution runs")
    if asked.runs is not None:
        _refuse(asked, _OF_MEASURING, "nothing is measured with --runs")
    elif asked.baseline is not None:
        _refuse(asked, _FIXED_BY_BASELINE, "the baseline fixes its workload and settings")


def _refuse(asked: Asked, names: Sequence[str], why: str) -> None:
    given = [name for name in names if name in asked.given]
    if given:
        option = {"seconds": "timeout"}.get(given[0], given[0]).replace("_", "-")
        raise UsageError(f"--{option} was given, but {why}", do="leave it out")


def typed(context: click.Context) -> tuple[str, ...]:
    """The parameters that the user typed, by name."""
    return tuple(
        name
        for name in context.params
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE
    )


def policy_of(asked: Asked, stored: Policy | None) -> Policy:
    """stored: the baseline's, None without one. What was typed comes before it."""
    from moeprof.cli.asking import read_policy

    policy = stored
    if policy is None or asked.policy_file is not None:
        policy = read_policy(asked.policy_file)
    if asked.processes is not None:
        policy = replace(policy, processes=asked.processes)
    return replace(policy, confirm=False) if asked.no_confirm else policy


def request_of(asked: Asked) -> Request:
    """What each process is asked where no baseline fixes it."""
    from moeprof.checking.request import DEFAULT_SECONDS
    from moeprof.cli.asking import resolved_request
    from moeprof.cli.planning import RunOptions

    options = RunOptions(
        solution=str(asked.solution), all_workloads=False, passes=None, **asked.options
    )
    return resolved_request(options, asked.seconds or DEFAULT_SECONDS)
