"""``moeprof check``: is it slower than it was, in which stage, by how much, how surely and why?"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli.check_asked import Asked, policy_of, request_of, require_one_way, typed
from moeprof.cli.check_outputs import FORMATS, FailOn, Outputs, check_files, deliver, exit_code
from moeprof.cli.keeping import keep_check
from moeprof.cli.options import (
    COUNT,
    FOLDER,
    dataset_option,
    definition_option,
    measuring_options,
    traces_option,
)
from moeprof.cli.output import shown_path

if TYPE_CHECKING:
    from moeprof.records import Run
    from moeprof.regression.values import Check
    from moeprof.reports.check.places import Places

WEBHOOK_VARIABLE = "MOEPROF_WEBHOOK_URL"


@click.command("check")
@click.option("--solution", metavar="NAME", help="Measure this one: a name, or a file's path.")
@click.option("--baseline", metavar="B", help="Against this baseline: name, gpu/name or folder.")
@click.option("--against", metavar="REV", help="Against this git revision, measured in turn.")
@click.option("--runs", type=FOLDER, metavar="DIR", help="Judge these records; measures nothing.")
@click.option("--measure-only", is_flag=True, help="Keep the records, to be judged elsewhere.")
@click.option("--num-tokens", type=int, metavar="T", help="The workload of T tokens, or a new one.")
@click.option("--workload", metavar="UUID-PREFIX", help="One workload.")
@definition_option
@measuring_options
@dataset_option
@click.option("--processes", type=COUNT, metavar="N", help="Fresh processes a side and round.")
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON [default: the baseline's, else moeprof's].",
)
@click.option("--no-confirm", is_flag=True, help="Alert without a second round.")
@click.option("--timeout", "seconds", type=click.FloatRange(1), metavar="S", help="Of a process.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option(
    "-o",
    "--output",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write FILE, over an old one: .txt, .md, .json, .xml (JUnit) or .sarif; repeatable.",
)
@click.option("--summary", is_flag=True, help="Append Markdown to $GITHUB_STEP_SUMMARY.")
@click.option(
    "--webhook-env",
    default=WEBHOOK_VARIABLE,
    show_default=True,
    metavar="VARIABLE",
    help="If it holds a URL, alerts are POSTed there as JSON.",
)
@click.option(
    "--webhook-on",
    type=click.Choice(["alert", "always"]),
    default="alert",
    show_default=True,
    help="Which verdicts the webhook is told.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["inconclusive", "regression", "severe", "never"]),
    default="inconclusive",
    show_default=True,
    help="The least that is an exit code other than 0.",
)
@traces_option
@click.pass_context
def command(
    context: click.Context,
    /,
    solution: str | None,
    baseline: str | None,
    against: str | None,
    runs: Path | None,
    measure_only: bool,
    processes: int | None,
    policy_file: Path | None,
    no_confirm: bool,
    seconds: float | None,
    form: str,
    files: tuple[Path, ...],
    summary: bool,
    webhook_env: str,
    webhook_on: str,
    fail_on: FailOn,
    traces: Path,
    **options: Any,
) -> None:
    """Judge whether a solution became slower, stage by stage, in fresh processes.

    \b
    check --solution NAME --baseline B     measure, judge, confirm what is suspected
    check --runs DIR --baseline B          judge records; needs neither torch nor a GPU
    check --solution NAME --against REV    both sides in turn on one device
    check --solution NAME --measure-only   for a machine that cannot judge

    With --baseline the workload and all settings are the baseline's. Exit codes: 0 same or
    improved, 1 regressed or wrong result, 2 usage or not comparable, 3 inconclusive, 130
    interrupted; records of finished processes are kept in DIR/checks.
    """
    check_files(files)
    hook = _webhook(context, webhook_env)
    asked = Asked(
        *(solution, baseline, against, runs, measure_only, processes, policy_file, no_confirm),
        *(seconds, traces, options, typed(context)),
    )
    require_one_way(asked)
    if measure_only:
        _measure_only(asked)
        return
    check, run, records = _judged(asked)
    outputs = Outputs(form, files, summary, hook, webhook_on == "always")
    deliver(outputs, check, _places(outputs, run, solution), records)
    keep_check(traces, check, asked.runs or Path(records))
    context.exit(exit_code(check, fail_on))


# ---------------------------------------------------------------- the three ways


def _judged(asked: Asked) -> tuple[Check, Run | None, str]:
    """The verdict, a run of the candidate, and where the records lie ('' if they were given)."""
    if asked.runs is not None:
        check, run = _judge_runs(asked, asked.runs)
        return check, run, ""
    from moeprof.cli.asking import ends_as_ctrl_c
    from moeprof.storage.checks import CheckFolder
    from moeprof.storage.store import load

    with ends_as_ctrl_c():
        check, path = _check_against(asked) if asked.against else _check_baseline(asked)
    candidates = CheckFolder(path).records("candidate")
    return check, load(candidates[0]) if candidates else None, shown_path(path)


def _judge_runs(asked: Asked, folder: Path) -> tuple[Check, Run]:
    """Twice as many runs as a round needs are two rounds, in the order measured."""
    from moeprof.regression.judge import Confirmation, judge
    from moeprof.storage import baselines
    from moeprof.storage.checks import runs_in

    stored = baselines.open_baseline(baselines.find(asked.baselines, str(asked.baseline)))
    runs = runs_in(folder)
    policy = policy_of(asked, stored.baseline.policy)
    noise = stored.baseline.noise
    size = policy.processes
    if not policy.confirm or len(runs) < 2 * size:
        return judge(stored.runs, runs, policy, noise=noise), runs[0]
    first, again = runs[:size], runs[size:]
    check = judge(stored.runs, first, policy, noise=noise)
    if check.awaiting:
        confirmation = Confirmation(candidate=again, baseline=())
        check = judge(stored.runs, first, policy, confirmation=confirmation, noise=noise)
    return check, runs[0]


def _check_baseline(asked: Asked) -> tuple[Check, Path]:
    from moeprof.checking.check import check_baseline, require_statistics
    from moeprof.checking.request import DEFAULT_SECONDS
    from moeprof.checking.trees import working_tree
    from moeprof.cli.asking import request_as_recorded, say
    from moeprof.storage import baselines
    from moeprof.storage.checks import new_check_folder

    tree = working_tree(str(asked.solution))
    stored = baselines.open_baseline(baselines.find(asked.baselines, str(asked.baseline)))
    policy = policy_of(asked, stored.baseline.policy)
    require_statistics()
    routing = asked.options["routing"] if "routing" in asked.given else None
    request = request_as_recorded(
        stored.runs[0], asked.options["dataset"], routing, asked.seconds or DEFAULT_SECONDS
    )
    folder = new_check_folder(asked.traces, str(asked.solution), request.seq_len)
    return check_baseline(stored, tree, request, policy, folder, say), folder.path


def _check_against(asked: Asked) -> tuple[Check, Path]:
    from moeprof.checking.check import check_trees, require_statistics
    from moeprof.checking.trees import working_tree
    from moeprof.checking.worktree import revision_tree
    from moeprof.cli.asking import say
    from moeprof.storage.checks import new_check_folder

    solution = str(asked.solution)
    after = working_tree(solution)
    policy = policy_of(asked, None)
    require_statistics()
    with ExitStack() as stack:
        before = stack.enter_context(revision_tree(solution, str(asked.against)))
        if after.dirty:
            say("the working tree has changes that are in no commit; they are what is checked")
        elif after.commit == before.commit:
            say(f"{before.label} is what is checked out: both sides run the same code")
        request = request_of(asked)
        folder = new_check_folder(asked.traces, solution, request.seq_len)
        return check_trees(before, after, request, policy, folder, say), folder.path


def _measure_only(asked: Asked) -> None:
    from moeprof.checking.labels import code_labels
    from moeprof.checking.rounds import device_alone, measure
    from moeprof.checking.trees import working_tree
    from moeprof.cli.asking import ends_as_ctrl_c, say
    from moeprof.storage.checks import new_check_folder
    from moeprof.storage.sides import save_sides

    tree = working_tree(str(asked.solution))
    processes = policy_of(asked, None).processes
    request = request_of(asked)
    folder = new_check_folder(asked.traces, str(asked.solution), request.seq_len)
    with ends_as_ctrl_c(), device_alone(say):
        measure({"candidate": tree}, request, processes, folder, say)
    save_sides(folder, code_labels({"candidate": tree}))
    click.echo(f"records {shown_path(folder.path)}")


# ---------------------------------------------------------------- where it goes


def _webhook(context: click.Context, variable: str) -> Any:
    """The webhook, if its variable is set; one that was asked for by name must be."""
    if "webhook_env" not in typed(context) and not os.environ.get(variable):
        return None
    from moeprof.alerts.webhook import webhook

    return webhook(variable, os.environ)


def _places(outputs: Outputs, run: Run | None, solution: str | None) -> Places:
    from moeprof.reports.check.places import NOWHERE

    points = outputs.form in ("sarif", "github") or any(
        path.suffix.lower() == ".sarif" for path in outputs.files
    )
    if run is None or not points:
        return NOWHERE
    from moeprof.checking.places import places_of

    return places_of(run, solution or "")
