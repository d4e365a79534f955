"""``moeprof baseline``: record, list, show, accept, prune what later runs are checked against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli.options import (
    COUNT,
    dataset_option,
    definition_option,
    json_option,
    measuring_options,
    traces_option,
)
from moeprof.cli.output import show, show_json, shown_path

if TYPE_CHECKING:
    from moeprof.checking.request import Request
    from moeprof.records import Run
    from moeprof.regression.policy import Policy
    from moeprof.regression.values import Baseline

DOCUMENT = "moeprof.baseline/1"
ALL_DOCUMENT = "moeprof.baselines/1"


@click.group("baseline")
def command() -> None:
    """Record, list, show, accept or prune what later runs are checked against."""


@command.command("record")
@click.option("--solution", required=True, metavar="NAME", help="A name, or the path of a file.")
@click.option("--num-tokens", type=int, metavar="T", help="The workload of T tokens, or a new one.")
@click.option("--workload", metavar="UUID-PREFIX", help="One workload.")
@definition_option
@measuring_options
@dataset_option
@click.option(
    "--processes", type=COUNT, metavar="N", help="Fresh processes [default: the policy's]."
)
@click.option("--name", metavar="B", help="[default: <solution>-T<tokens>].")
@click.option("--note", default="", metavar="TEXT", help="Why, for whoever reads it in git.")
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON: what a check against it asks for.",
)
@click.option("--timeout", "seconds", type=click.FloatRange(1), metavar="S", help="Of a process.")
@click.option("--force", is_flag=True, help="Replace B; the old one stays as history.")
@traces_option
@json_option
def record(
    solution: str,
    processes: int | None,
    name: str | None,
    note: str,
    policy_file: Path | None,
    seconds: float | None,
    force: bool,
    traces: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure a solution in fresh processes and keep them as the baseline B of this GPU.

    Exit codes: 0 ok, 1 wrong result, 2 usage or environment, 130 interrupted; then the finished
    records lie in DIR/checks and `moeprof baseline accept` makes a baseline of them.
    """
    import shutil

    from moeprof.checking.request import DEFAULT_SECONDS
    from moeprof.cli.asking import ends_as_ctrl_c, read_policy, resolved_request
    from moeprof.cli.planning import RunOptions
    from moeprof.storage import baselines

    policy = read_policy(policy_file)
    policy = policy if processes is None else replace(policy, baseline_processes=processes)
    asked = RunOptions(solution=solution, all_workloads=False, passes=None, **options)
    request = resolved_request(asked, seconds or DEFAULT_SECONDS)
    name = name or f"{Path(solution).stem}-T{request.seq_len}"
    baselines.check_name(name)
    with ends_as_ctrl_c():
        runs, folder = _measured(solution, request, policy, traces, name, force)
    _keep(runs, name, policy, note, None, traces, force, as_json)
    shutil.rmtree(folder, ignore_errors=True)  # all of it is in the baseline now


def _measured(
    solution: str, request: Request, policy: Policy, traces: Path, name: str, force: bool
) -> tuple[Sequence[Run], Path]:
    """The runs, and the folder that they were collected in."""
    from moeprof.checking.accept import require_right
    from moeprof.checking.rounds import device_alone, fresh_runs
    from moeprof.checking.trees import working_tree
    from moeprof.cli.asking import say
    from moeprof.storage import baselines
    from moeprof.storage.checks import new_check_folder

    tree = working_tree(solution)
    folder = new_check_folder(traces, solution, request.seq_len)
    runs: list[Run] = []
    processes = policy.baseline_processes
    with device_alone(say):
        for _, run in fresh_runs({"candidate": tree}, request, processes, folder, say):
            runs.append(run)
            require_right(runs)
            if len(runs) == 1 and not force:
                baselines.require_free(traces / "baselines", run.environment.device, name)
    return runs, folder.path


def _keep(
    runs: Sequence[Run],
    name: str,
    policy: Policy,
    note: str,
    sessions: Sequence[str] | None,
    traces: Path,
    replace_old: bool,
    as_json: bool,
) -> None:
    from moeprof.checking.accept import baseline_of
    from moeprof.storage import baselines
    from moeprof.storage.baseline_files import verify

    baseline = baseline_of(runs, name, policy, note, sessions)
    folder = baselines.save(traces / "baselines", baseline, runs, replace_old)
    _show_one(verify(folder), folder, as_json)


@command.command("list")
@click.option("--all", "every", is_flag=True, help="Also what was replaced.")
@traces_option
@json_option
def list_(every: bool, traces: Path, as_json: bool) -> None:
    """The baselines, each with its GPU, its work and what it can see; damaged ones are named."""
    from moeprof.storage.baselines import entries

    found = [e for e in entries(traces / "baselines") if every or not e.is_history]
    if as_json:
        shown = [
            {
                "name": entry.name,
                "gpu": entry.gpu,
                "history": entry.is_history,
                "problem": entry.problem or None,
                **(_document(entry.baseline) if entry.baseline else {}),
            }
            for entry in found
        ]
        show_json(ALL_DOCUMENT, {"baselines": shown})
        return
    from moeprof.reports.check.baselines import render_baselines

    show(render_baselines(found))


@command.command("show")
@click.argument("name", metavar="B")
@traces_option
@json_option
def show_(name: str, traces: Path, as_json: bool) -> None:
    """One baseline: its work, its policy, the noise of every time and what a check can see."""
    from moeprof.storage.baselines import find, open_baseline

    stored = open_baseline(find(traces / "baselines", name))
    _show_one(stored.baseline, stored.folder, as_json)


@command.command("accept")
@click.argument(
    "folders", nargs=-1, required=True, metavar="RUNS...", type=click.Path(path_type=Path)
)
@click.option("--name", required=True, metavar="B", help="The baseline to replace or make.")
@click.option("--note", required=True, metavar="WHY", help="Why the change is meant.")
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON [default: that of the B it replaces].",
)
@traces_option
@json_option
def accept(
    folders: Sequence[Path],
    name: str,
    note: str,
    policy_file: Path | None,
    traces: Path,
    as_json: bool,
) -> None:
    """Make the runs of a check (its folder in DIR/checks) or of a folder the new baseline B.

    Several folders are sessions measured at different times: their spread is noise too. The old B
    stays as B@date.
    """
    from moeprof.cli.asking import read_policy, say
    from moeprof.storage import baselines
    from moeprof.storage.baseline_files import verify
    from moeprof.storage.checks import runs_in

    root = traces / "baselines"
    baselines.check_name(name)
    groups = [(str(number), runs_in(folder)) for number, folder in enumerate(folders)]
    runs = [run for _, group in groups for run in group]
    sessions = [session for session, group in groups for _ in group]
    old = root / baselines.gpu_folder(runs[0].environment.device) / name
    policy = read_policy(policy_file)
    if old.exists() and policy_file is None:
        policy = verify(old).policy
    if len(runs) < policy.baseline_processes:
        say(
            f"{len(runs)} processes; the policy wants {policy.baseline_processes} of a baseline, "
            "since it is not measured again when a change is confirmed"
        )
    several = sessions if len(folders) > 1 else None
    _keep(runs, name, policy, note, several, traces, True, as_json)


@command.command("prune")
@click.option("--keep", type=click.IntRange(0), required=True, metavar="N", help="Of each history.")
@click.option("--yes", is_flag=True, help="Remove them; without it they are only named.")
@traces_option
def prune(keep: int, yes: bool, traces: Path) -> None:
    """Remove all but the newest N of what each baseline replaced, never a current one."""
    from moeprof.storage.baselines import entries, remove

    histories: dict[tuple[str, str], list[Path]] = {}
    for entry in entries(traces / "baselines"):
        if entry.is_history:
            key = (entry.gpu, entry.name.partition("@")[0])
            histories.setdefault(key, []).append(entry.folder)
    doomed = [path for paths in histories.values() for path in sorted(paths)[: len(paths) - keep]]
    for path in doomed:
        if yes:
            remove(path)
        click.echo(f"{'removed' if yes else 'would remove'} {shown_path(path)}")
    if not doomed:
        click.echo("nothing to remove")
    elif not yes:
        click.echo("nothing was removed: --yes does it")


def _show_one(baseline: Baseline, folder: Path, as_json: bool) -> None:
    if as_json:
        place = {"folder": shown_path(folder), "gpu": folder.parent.name}
        show_json(DOCUMENT, {**place, **_document(baseline)})
        return
    from moeprof.reports.check.baselines import render_baseline

    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    show(render_baseline(baseline, f"{folder.parent.name}/{folder.name}", size_bytes))
    show(f"baseline {shown_path(folder)}")


def _document(baseline: Baseline) -> dict[str, Any]:
    from moeprof.storage.codec import encode

    document: dict[str, Any] = encode(baseline)
    return document
