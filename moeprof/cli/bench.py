"""``moeprof bench``: solutions beside each other on the same inputs, measured in turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli.bench_outputs import check_files, deliver, exit_code
from moeprof.cli.options import (
    FOLDER,
    dataset_option,
    default_traces,
    definition_option,
    json_option,
    measuring_options,
    trust_option,
)
from moeprof.cli.output import shown_path
from moeprof.errors import UsageError
from moeprof.storage.lookup import is_path

if TYPE_CHECKING:
    from moeprof.bench.cells import Bench
    from moeprof.benching.messages import Request
    from moeprof.storage.benches import BenchFolder, BenchPlan

REFERENCE = "reference"
# what --records reads has been measured: these would ask for something that is not done
_OF_MEASURING = ("num_tokens", "workload", "all_workloads", "definition", "passes", "name")


@click.command("bench")
@click.argument("folders", nargs=-1, metavar="[DIR...]", type=click.Path(path_type=Path))
@click.option(
    "--solutions",
    metavar="A,B,...",
    help="Names or paths of files [default: all that come with moeprof and load here].",
)
@click.option(
    "--baseline",
    metavar="NAME",
    help="What pairwise ratios are over [default: the first solution].",
)
@click.option("--num-tokens", type=int, metavar="T", help="The workload of T tokens, or a new one.")
@click.option("--workload", metavar="UUID-PREFIX", help="One workload.")
@click.option("--all-workloads", is_flag=True, help="Every workload of the definition.")
@definition_option
@measuring_options
@dataset_option
@trust_option
@click.option("--passes", metavar="LIST", help="Comma-separated, such as bare,graph.")
@click.option("--name", metavar="NAME", help="Of the bench's folder [default: the time].")
@click.option("--resume", is_flag=True, help="Go on with the newest unfinished bench like this.")
@click.option("--fresh", is_flag=True, help="Measure anew; a bench of that --name is moved aside.")
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(1),
    metavar="S",
    default=300.0,
    show_default=True,
    help="How long a solution may take for one pass over one workload.",
)
@click.option("--records", is_flag=True, help="Measure nothing: the tables of the records DIR...")
@click.option(
    "-o",
    "--output",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write FILE, over an old one: .md, .html or .json; repeatable.",
)
@click.option(
    "--traces",
    type=FOLDER,
    default=default_traces,
    metavar="DIR",
    help="Benches are kept under DIR/bench [default: the checkout's traces].",
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    folders: tuple[Path, ...],
    solutions: str | None,
    baseline: str | None,
    name: str | None,
    resume: bool,
    fresh: bool,
    seconds: float,
    records: bool,
    files: tuple[Path, ...],
    traces: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure solutions in turn on the same inputs, and show how they compare.

    One process makes weights and inputs once for all, checks every result, then runs pass after
    pass, in which the solutions take turns in balanced orders; five workloads a process. The
    reference is always one of them: speedups are over it. A solution that hangs, crashes, breaks
    the GPU or is wrong is marked, and the rest goes on without it.

    Records lie in traces/bench/NAME. Whatever ends a bench, finished records are kept, and the same
    command with --resume measures what is missing, if plan, sources and GPU are the same. Asked
    again without it, everything is measured anew. With --records nothing is measured: DIR... are
    benches, folders of records (searched in depth) or records.

    Exit codes: 0 every cell right, 1 a wrong result, 2 usage or environment, 4 a cell that timed
    out, crashed or failed, or a solution asked for by name that is not available, 130 interrupted.
    """
    check_files(files)
    if resume and fresh:
        raise UsageError("--resume and --fresh were given together", do="choose one of them")
    if records != bool(folders):
        found = "--records without a DIR" if records else f"{folders[0]} without --records"
        raise UsageError(found, do="--records DIR... shows records, --solutions A,B measures")
    if records:
        _refuse_measuring(context)
        _finish(context, *_of_records(folders, _split(solutions), baseline), files, as_json)
        return
    request = _request(solutions, options)
    _check_baseline(baseline, request)
    folder = _measured(request, traces, name, (resume, fresh), seconds)
    bench = _assembled([folder], (), baseline=baseline)
    _finish(context, bench, [folder], files, as_json)


def _finish(
    context: click.Context,
    bench: Bench,
    folders: Sequence[BenchFolder],
    files: Sequence[Path],
    as_json: bool,
) -> None:
    deliver(bench, files, as_json, [shown_path(one.path) for one in folders])
    unasked = {column.name for one in folders for column in one.plan.solutions if not column.asked}
    context.exit(exit_code(bench, unasked))


# ---------------------------------------------------------------- measuring


def _request(solutions: str | None, options: dict[str, Any]) -> Request:
    """What the measuring process is asked for; cheap checks first, so that a typo is told now."""
    from moeprof.benching.messages import Asked, Request
    from moeprof.cli.planning import RunOptions, check_options
    from moeprof.fib.find import is_fib
    from moeprof.solutions.catalog import check_exists, solution_names

    named = _split(solutions)
    # a TraceSet's solution is of one definition, which then is that of all
    options = {"solution": next(filter(is_fib, named), REFERENCE), **options}
    root = check_options(RunOptions(**options)).root
    for one in named:
        check_exists(one, dataset=root, trusted=options["trust"])
    asked = [Asked(one, True) for one in named] or [Asked(one, False) for one in solution_names()]
    if REFERENCE not in (one.solution for one in asked):
        asked.append(Asked(REFERENCE, False))
    return Request(tuple(asked), options)


def _check_baseline(baseline: str | None, request: Request) -> None:
    """Said before minutes of measuring. A file's solution may have another name than the file."""
    names = [asked.solution for asked in request.solutions if asked.solution != REFERENCE]
    if baseline is not None and baseline not in names and not any(map(is_path, names)):
        raise UsageError(f"no solution {baseline!r} in this bench", ", ".join(names))


def _split(solutions: str | None) -> tuple[str, ...]:
    if solutions is None:
        return ()
    names = tuple(name.strip() for name in solutions.split(",") if name.strip())
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice or not names:
        found = f"{twice} is named twice" if twice else "--solutions names none"
        raise UsageError(found, "names or files, divided by commas, each once")
    return names


def _measured(
    request: Request, traces: Path, name: str | None, ways: tuple[bool, bool], seconds: float
) -> BenchFolder:
    """The folder of the finished bench. Ctrl-C and a cancelled job leave it to be resumed."""
    from moeprof.benching.bench import bench
    from moeprof.cli.asking import ends_as_ctrl_c
    from moeprof.cli.progress import BenchBar
    from moeprof.storage.benches import (
        check_name,
        create,
        is_bench,
        open_folder,
        taken,
        to_resume,
    )
    from moeprof.storage.store import check_writable

    resume, fresh = ways
    if name:
        check_name(name)
    if resume:
        to_resume(traces, name)  # what cannot be is said before anything is loaded
    elif name and not fresh and is_bench(traces / "bench" / name):
        raise taken(traces / "bench" / name)
    check_writable(traces / "bench")
    bar = BenchBar()

    def folder_for(plan: BenchPlan) -> BenchFolder:
        if resume:
            return _resumed(to_resume(traces, name), plan)
        return create(traces, name, plan, fresh)

    with ends_as_ctrl_c():
        try:
            return bench(request, folder_for, bar, seconds)
        except KeyboardInterrupt:
            if bar.folder is not None:
                kept = open_folder(bar.folder.path)
                done = len(kept.plan.cells) - len(kept.missing())
                bar.say(
                    f"{done} of {len(kept.plan.cells)} cells are in {shown_path(kept.path)}; "
                    "the same command with --resume goes on with it"
                )
            raise


def _resumed(candidates: Sequence[BenchFolder], plan: BenchPlan) -> BenchFolder:
    """The newest that was begun with this very plan; UsageError says how the newest differs."""
    from moeprof.storage.benches import difference

    found = [difference(one.plan, plan) for one in candidates]
    if "" in found:
        return candidates[found.index("")]
    raise UsageError(
        f"bench {candidates[0].path.name} cannot be resumed: {found[0]}",
        do="restore it, or leave --resume out to measure anew",
    )


# ---------------------------------------------------------------- reading


def _refuse_measuring(context: click.Context) -> None:
    from moeprof.cli.check_asked import typed

    given = [one for one in typed(context) if one in (*_OF_MEASURING, "resume", "fresh", "seconds")]
    if given:
        option = {"seconds": "timeout"}.get(given[0], given[0]).replace("_", "-")
        raise UsageError(f"--{option} was given, but nothing is measured with --records",
                         do="leave it out")  # fmt: skip


def _of_records(
    records: Sequence[Path], solutions: Sequence[str], baseline: str | None
) -> tuple[Bench, list[BenchFolder]]:
    """The bench that records make. In a folder of benches these alone count, failures too."""
    from moeprof.cli.report import record_files
    from moeprof.storage.benches import BENCH_FILE, open_folder
    from moeprof.storage.store import load

    inside = {path: [file.parent for file in path.rglob(BENCH_FILE)] for path in records}
    found = {folder for folders in inside.values() for folder in folders}
    folders = [open_folder(path) for path in sorted(found)]
    others = [path for path in records if not inside[path]]
    runs = [load(file) for file in record_files(others)] if others else []
    return _assembled(folders, runs, solutions, baseline), folders


def _assembled(
    folders: Sequence[BenchFolder],
    runs: Sequence[Any],
    solutions: Sequence[str] = (),
    baseline: str | None = None,
) -> Bench:
    from moeprof.bench.cells import assemble

    names = dict.fromkeys(name for folder in folders for name in folder.plan.names)
    every = [*runs, *(run for folder in folders for run in folder.runs())]
    newest = {
        (run.solution.name, run.workload.uuid): run.created
        for run in sorted(every, key=lambda run: run.created)
    }
    failures = [
        failure
        for folder in folders
        for failure in folder.failures()
        # what failed in one bench may have been measured in a later one
        if newest.get((failure.solution, failure.uuid), "") < folder.created
    ]
    if solutions:
        wanted = {*solutions, REFERENCE}
        every = [run for run in every if run.solution.name in wanted]
        failures = [failure for failure in failures if failure.solution in wanted]
    return assemble(every, failures, solutions or tuple(names), baseline=baseline)
