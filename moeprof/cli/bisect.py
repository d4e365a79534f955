"""``moeprof bisect``: the first commit in which a stage became slower."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from moeprof.cli.options import (
    COUNT,
    dataset_option,
    definition_option,
    json_option,
    measuring_options,
    traces_option,
)
from moeprof.cli.output import show, show_json

MOST_ROUNDS = 4  # of processes a side and revision, before it is skipped


@click.command("bisect")
@click.option("--solution", required=True, metavar="NAME", help="A name, or a file's path.")
@click.option("--good", required=True, metavar="REV", help="A revision that was fast.")
@click.option("--bad", default="HEAD", show_default=True, metavar="REV", help="One that is slow.")
@click.option("--stage", required=True, metavar="STAGE", help="What is slow; forward: all of it.")
@click.option("--num-tokens", type=int, metavar="T", help="The workload of T tokens, or a new one.")
@click.option("--workload", metavar="UUID-PREFIX", help="One workload.")
@definition_option
@measuring_options
@dataset_option
@click.option("--processes", type=COUNT, metavar="N", help="Fresh processes a side and round.")
@click.option(
    "--most-processes",
    type=COUNT,
    metavar="N",
    help=f"A side and revision, while it is inconclusive [default: {MOST_ROUNDS} rounds].",
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON [default: moeprof's].",
)
@click.option("--no-confirm", is_flag=True, help="Believe a first round.")
@click.option("--timeout", "seconds", type=click.FloatRange(1), metavar="S", help="Of a process.")
@traces_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    solution: str,
    good: str,
    bad: str,
    stage: str,
    processes: int | None,
    most_processes: int | None,
    policy_file: Path | None,
    no_confirm: bool,
    seconds: float | None,
    traces: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the first commit in which a stage is slower than in GOOD, by the test of `check`.

    Revisions are checked out in temporary worktrees and measured in turn with GOOD on this device;
    your working tree, index and branches stay as they are. A revision that does not run is skipped.

    Exit codes: 0 found, 2 usage, or BAD is not slower, 3 inconclusive, or skipped commits are left
    in between, 130 interrupted.
    """
    from moeprof.checking.bisect import Asked, bisect
    from moeprof.checking.request import DEFAULT_SECONDS
    from moeprof.checking.trees import require_repository
    from moeprof.cli.asking import ends_as_ctrl_c, read_policy, resolved_request, say
    from moeprof.cli.planning import RunOptions
    from moeprof.regression.values import EXIT_INCONCLUSIVE
    from moeprof.reports.check.bisect import DOCUMENT, bisect_document, render_found

    policy = read_policy(policy_file)
    policy = policy if processes is None else replace(policy, processes=processes)
    policy = replace(policy, confirm=False) if no_confirm else policy
    require_repository(solution)
    asked = RunOptions(solution=solution, all_workloads=False, passes=None, **options)
    request = resolved_request(asked, seconds or DEFAULT_SECONDS)
    search = Asked(
        solution=solution,
        good=good,
        bad=bad,
        stage="" if stage == "forward" else stage,
        request=request,
        policy=policy,
        most=most_processes or MOST_ROUNDS * policy.processes,
        traces=traces,
    )
    with ends_as_ctrl_c():
        found = bisect(search, say)
    if as_json:
        show_json(DOCUMENT, bisect_document(found))
    else:
        show(render_found(found))
    context.exit(0 if found.first is not None else EXIT_INCONCLUSIVE)
