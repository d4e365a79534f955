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
from moeprof.cli.output import show, show_json, shown_path, stdout_kept
from moeprof.cli.supervised import (
    KeepsArguments,
    Supervisor,
    WatchedProgress,
    supervised,
    timeout_options,
)
from moeprof.errors import EXIT_WRONG_RESULT


@click.command("run", cls=KeepsArguments)
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
@timeout_options
@traces_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    traces: Path,
    as_json: bool,
    seconds: float | None,
    supervisor: int | None,
    **options: Any,
) -> None:
    """Run a solution on workloads: check it, measure every stage, keep a record.

    Without a workload option: T=56 of the DeepSeek-V3 definition (dsv3) on a GPU, T=33 of the
    small one (tiny) on a CPU. fib:NAME is a solution of the TraceSet at --dataset: somebody's code,
    which runs only with --trust, in a process of its own. Exit codes: 0 ok, 1 wrong result (or one
    that never came), 2 usage or environment, 130 interrupted; records of finished workloads are
    kept in every case.
    """
    from moeprof.cli.planning import check_solution
    from moeprof.fib.find import is_fib

    solution = options["solution"]
    if supervisor is None and (is_fib(solution) or seconds is not None):
        check_solution(solution, options["dataset"], options["trust"])
        context.exit(supervised(context, [solution], seconds))
    watched = Supervisor(supervisor)
    with watched.told():
        context.exit(_run(context, traces, as_json, watched, supervisor is not None, options))


def _run(
    context: click.Context,
    traces: Path,
    as_json: bool,
    watched: Supervisor,
    ends_after: bool,
    options: dict[str, Any],
) -> int:
    """The exit code. ends_after: this process does nothing but this run."""
    from moeprof.cli.planning import RunOptions, make_plan
    from moeprof.cli.progress import ProgressBar
    from moeprof.records import Run
    from moeprof.storage.store import check_writable, save

    if options["parity"] and not _was_given(context, "weights"):
        options["weights"] = "harness"  # flashinfer-bench knows no other
    folder = traces / "runs"
    finished: list[tuple[Path, Run]] = []
    with stdout_kept(for_good=ends_after):
        plan = make_plan(RunOptions(**options), lambda: watched.begin("loading"))
        watched.idle()
        check_writable(folder)

        def keep(run: Run) -> None:
            finished.append((save(run, folder, plan.definition.alias), run))

        from moeprof.measure.execute import execute

        execute(plan, WatchedProgress(ProgressBar(), watched), keep)
    if as_json:
        _show_json(finished)
    else:
        _show_tables(finished)
    return _report_wrong(finished)


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
