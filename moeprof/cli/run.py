"""``moeprof run``: execute a solution, check it, measure its stages, keep a record a workload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from moeprof.cli.options import (
    dataset_option,
    definition_option,
    json_option,
    measuring_options,
    traces_option,
    trust_option,
)
from moeprof.cli.output import show, show_json, shown_path
from moeprof.errors import EXIT_WRONG_RESULT


@click.command("run")
@click.option(
    "--solution", required=True, metavar="NAME", help="A name, a file's path, or fib:NAME."
)
@click.option("--num-tokens", type=int, metavar="T", help="The workload of T tokens, or a new one.")
@click.option("--workload", metavar="UUID-PREFIX", help="One workload.")
@click.option("--all-workloads", is_flag=True, help="Every workload of the definition.")
@definition_option
@measuring_options
@dataset_option
@trust_option
@click.option("--passes", metavar="LIST", help="Comma-separated, such as bare,kernels,api.")
@click.option(
    "--parity",
    type=click.Choice(["0.1.2", "main", "both"]),
    help="Also time as flashinfer-bench does: 0.1.2's event pairs, main's CUPTI span; GPU only. "
    "Its sizes (10 warm-ups, 50 iterations, 3 trials) and, unless chosen, --weights harness.",
)
@traces_option
@json_option
@click.pass_context
def command(context: click.Context, /, traces: Path, as_json: bool, **options: Any) -> None:
    """Run a solution on workloads: check it, measure every stage, keep a record.

    Without a workload option: T=56 of the DeepSeek-V3 definition (dsv3) on a GPU, T=33 of the
    small one (tiny) on a CPU. Exit codes: 0 ok, 1 wrong result, 2 usage or environment,
    130 interrupted; records of finished workloads are kept in every case.
    """
    from moeprof.cli.planning import RunOptions, make_plan
    from moeprof.cli.progress import ProgressBar
    from moeprof.records import Run
    from moeprof.storage.store import check_writable, save

    if options["parity"] and not _was_given(context, "weights"):
        options["weights"] = "harness"  # flashinfer-bench knows no other
    plan = make_plan(RunOptions(**options))
    folder = traces / "runs"
    check_writable(folder)
    finished: list[tuple[Path, Run]] = []

    def keep(run: Run) -> None:
        finished.append((save(run, folder, plan.definition.alias), run))

    from moeprof.measure.execute import execute

    execute(plan, ProgressBar(), keep)
    if as_json:
        _show_json(finished)
    else:
        _show_tables(finished)
    context.exit(_report_wrong(finished))


def _was_given(context: click.Context, option: str) -> bool:
    return context.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT


def _show_json(finished: list[tuple[Path, Any]]) -> None:
    from moeprof.reports.json import run_document

    runs = [{"record": shown_path(path), **run_document(run)} for path, run in finished]
    show_json("moeprof.run/1", {"runs": runs})


def _show_tables(finished: list[tuple[Path, Any]]) -> None:
    from moeprof.reports.text import render_run, render_runs

    runs = [run for _, run in finished]
    show(render_run(runs[0]) if len(runs) == 1 else render_runs(runs))
    paths = [path for path, _ in finished]
    where = paths[0] if len(paths) == 1 else paths[0].parent
    show(f"{'record' if len(paths) == 1 else f'{len(paths)} records in'} {shown_path(where)}")


def _report_wrong(finished: list[tuple[Path, Any]]) -> int:
    """One line on stderr for each wrong result; the exit code."""
    wrong = [run for _, run in finished if not run.correctness.passed]
    for run in wrong:
        what = f"{run.solution.name} on T={run.workload.seq_len} ({run.workload.uuid[:8]})"
        problem = run.correctness.problem or "the output does not match the reference"
        click.secho(f"moeprof: wrong result: {what}: {problem}", fg="red", err=True)
    return EXIT_WRONG_RESULT if wrong else 0
