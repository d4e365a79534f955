"""``moeprof export``: moeprof's solutions and records in the forms of other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprof.cli.options import json_option
from moeprof.cli.output import show, show_json, shown_path, stdout_kept
from moeprof.errors import UsageError

if TYPE_CHECKING:
    from moeprof.fib.dataset_files import Asked, Export
    from moeprof.fib.schema import FibSolution

DOCUMENT = "moeprof.export/1"
TRACES_DOCUMENT = "moeprof.export-traces/1"
ALL = "all"
# flashinfer-bench's defaults fail every kernel that quantises between the products
CONTEST_TOLERANCES = ("--atol", "1.0", "--rtol", "0.3", "--required-matched-ratio", "0.9")


@click.group("export")
def command() -> None:
    """Write solutions in the form that FlashInfer-Bench runs, and records as its traces."""


@command.command("fib")
@click.option(
    "--solution",
    "names",
    required=True,
    metavar="NAME[,NAME...]",
    help="Names, paths of your own files, or 'all'.",
)
@click.option(
    "--dataset",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The dataset to add to, or a new folder.",
)
@click.option(
    "--definition",
    metavar="NAME",
    default="dsv3",
    show_default=True,
    help="A definition by name or alias (dsv3, tiny).",
)
@click.option("--author", metavar="NAME", default="moeprof", show_default=True)
@click.option(
    "--num-tokens",
    metavar="T[,T...]",
    help="Only workloads of so many tokens [default: all of the definition].",
)
@click.option(
    "--routing",
    metavar="SPEC",
    help="What blobs that are written hold: uniform, zipf:S, balanced, single, file:PATH [default: "
    "uniform in a new dataset; none in one that has workloads].",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), metavar="S", default=0, show_default=True
)
@click.option(
    "--style",
    type=click.Choice(["destination", "value"]),
    default="destination",
    show_default=True,
    help="Fill an output that is given (11 parameters), or return one (10).",
)
@click.option("--force", is_flag=True, help="Replace a solution of this author and name.")
@json_option
def fib(
    names: str,
    dataset: Path,
    definition: str,
    author: str,
    num_tokens: str | None,
    routing: str | None,
    seed: int,
    style: str,
    force: bool,
    as_json: bool,
) -> None:
    """Write solutions, and what they need, as a FlashInfer-Bench dataset.

    Sources are self-contained: the stages' own files and the little of moeprof they import, with a
    main.py whose run calls them in order, uninstrumented. A new dataset gets the definition, its
    workloads and a synthetic routing each; in an existing one nothing is changed but what --force
    allows. Exit codes: 0 ok, 2 usage.
    """
    from moeprof.fib.dataset_files import check_root, choose_definition, plan
    from moeprof.fib.layout import check_segment

    chosen = _chosen(names)
    check_segment(author, "--author")
    asked = _asked(num_tokens, routing, seed)
    check_root(dataset)
    target = choose_definition(dataset, definition)

    from moeprof.cli.planning import choose_device
    from moeprof.solutions.composition import exported

    device, in_place = choose_device("auto"), style == "destination"
    with stdout_kept():  # a file of a user's may print while it is loaded
        solutions = [exported(name, target, author, device, in_place) for name in chosen]
    export = plan(dataset, target, solutions, asked, force)
    export.write()
    _show_json(export, solutions) if as_json else _show(export, solutions)


def _chosen(names: str) -> tuple[str, ...]:
    """The solutions asked for, each once; UsageError for one that does not exist."""
    from moeprof.fib.find import is_fib
    from moeprof.solutions.catalog import check_exists, solution_names

    asked = [name.strip() for name in names.split(",") if name.strip()]
    if asked == [ALL]:
        return solution_names()
    if not asked:
        raise UsageError("--solution names none", "NAME[,NAME...] or all")
    for name in asked:
        if is_fib(name):
            raise UsageError(f"{name} is of a dataset already", "a solution of moeprof, or a file")
        check_exists(name)
    return tuple(dict.fromkeys(asked))


def _asked(num_tokens: str | None, routing: str | None, seed: int) -> Asked:
    from moeprof.fib.dataset_files import SYNTHETIC, Asked
    from moeprof.problem.dataset import check_num_tokens
    from moeprof.problem.routing import parse_spec

    spec = None if routing is None else parse_spec(routing)
    if spec is not None and spec.kind not in SYNTHETIC:
        raise UsageError(f"--routing {spec.kind} cannot be written", ", ".join(SYNTHETIC))
    sizes = []
    for text in (num_tokens or "").split(","):
        if text.strip():
            if not text.strip().isdecimal():
                raise UsageError(f"--num-tokens {num_tokens!r}", "numbers, such as 7,56,901")
            sizes.append(int(text))
            check_num_tokens(sizes[-1])
    return Asked(spec, seed, tuple(dict.fromkeys(sizes)))


def _show(export: Export, solutions: list[FibSolution]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for what, action, detail in _rows(export):
        table.add_row(what, action, detail)
    show(Text(f"{shown_path(export.root)}: {export.definition.name}"), table)
    for warning in export.warnings:
        show(Text(f"note: {warning}"))
    show(Text(f"run it: {' '.join(_command(export, solutions))}"))


def _rows(export: Export) -> list[tuple[str, str, str]]:
    """What, action and detail; blobs of one kind are one row."""
    rows: dict[tuple[str, str, str], int] = {}
    for file in export.files:
        folder = file.path.parts[0]
        what = {"definitions": "definition", "workloads": "workloads", "blob": "blobs"}.get(folder)
        row = (what or file.path.stem, file.action, file.detail)
        rows[row] = rows.get(row, 0) + 1
    return [
        (what, f"{count} {action}" if what == "blobs" else action, detail)
        for (what, action, detail), count in rows.items()
    ]


def _command(export: Export, solutions: list[FibSolution]) -> list[str]:
    """How flashinfer-bench runs what was exported, within the contest's tolerances."""
    names = [solution.name for solution in solutions]
    return [
        *("flashinfer-bench", "run", "--local", shown_path(export.root)),
        *("--definitions", export.definition.name, "--solutions", *names),
        *("--use-isolated-runner", *CONTEST_TOLERANCES),
    ]


def _show_json(export: Export, solutions: list[FibSolution]) -> None:
    from moeprof.solutions.composition import source_of

    show_json(
        DOCUMENT,
        {
            "dataset": shown_path(export.root),
            "definition": export.definition.name,
            "solutions": [
                {
                    "name": solution.name,
                    "author": solution.author,
                    "language": solution.spec.language,
                    "entry_point": solution.spec.entry_point,
                    "destination_passing_style": solution.spec.destination_passing_style,
                    "dependencies": list(solution.spec.dependencies),
                    "sources": [source.path for source in solution.sources],
                    "hash": solution.hash,
                    "source_hash": source_of(solution.description),
                }
                for solution in solutions
            ],
            "files": [
                {"path": str(file.path), "action": file.action, "detail": file.detail}
                for file in export.files
            ],
            "warnings": list(export.warnings),
            "command": _command(export, solutions),
        },
    )


@command.command("traces")
@click.argument(
    "records", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path)
)
@click.option(
    "--dataset",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    metavar="DIR",
    help="The dataset that holds the solutions and workloads.",
)
@click.option(
    "--timer",
    type=click.Choice(["0.1.2", "main"]),
    help="Whose latency, where the records hold both.",
)
@json_option
def traces(records: tuple[Path, ...], dataset: Path, timer: str | None, as_json: bool) -> None:
    """Write records as Traces of a FlashInfer-Bench dataset, with their stages beside them.

    RUN is a record or a folder of them, made by moeprof run --parity of a solution and a workload
    that the dataset holds. Records of the solution 'reference' are no traces: the others' speedup
    is over them. Nothing is written unless every record can be. The same again changes nothing.
    Exit codes: 0 ok, 2 usage, or a record that is no evaluation.
    """
    from moeprof.cli.report import record_files
    from moeprof.fib.trace_files import add_traces, write_stages
    from moeprof.reports.fib_traces import by_path, plan_traces, written_document, written_lines
    from moeprof.storage.store import load

    runs = {shown_path(path): load(path) for path in record_files(records)}
    planned = plan_traces(dataset, runs, timer)
    for one in planned:
        write_stages(dataset, one.stage_path, one.stages)
    files = by_path(planned).items()
    written = [done for path, some in files for done in add_traces(dataset, path, some)]
    if as_json:
        document = written_document(planned, written)
        show_json(TRACES_DOCUMENT, {"dataset": shown_path(dataset), **document})
    else:
        for line in written_lines(written):
            show(line)
        show(f"{len(written)} trace(s) with their stages in {shown_path(dataset)}")
