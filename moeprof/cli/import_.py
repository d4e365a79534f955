"""``moeprof import``: another profiler's capture as a record like any other.

``moeprof import fib DIR`` shows what a FlashInfer-Bench TraceSet holds, whose solutions
``moeprof run --solution fib:NAME`` measures; nothing is copied.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprof.cli.options import COUNT, json_option, traces_option
from moeprof.cli.output import require_free, show, show_json, shown_path
from moeprof.errors import UsageError

if TYPE_CHECKING:
    from moeprof.importing.trace import Trace
    from moeprof.records import Run

FILE = click.Path(path_type=Path)


@click.command("import")
@click.argument("captures", metavar="FILE | fib DIR", nargs=-1, required=True, type=FILE)
@click.option("--name", metavar="NAME", help="What is computed [default: the file's name].")
@click.option(
    "--variant", metavar="NAME", help="Which way, where captures share a name [default: NAME]."
)
@click.option("--num-tokens", type=click.IntRange(min=1), metavar="T", help="Tokens of a forward.")
@click.option(
    "--like",
    type=FILE,
    metavar="RECORD",
    help="A record of the same solution and workload on this GPU: stages, routing, work.",
)
@click.option("--rules", type=FILE, metavar="FILE", help="Your own rules (TOML), not the shipped.")
@click.option("--iteration", metavar="PATTERN", help="Ranges around one forward each.")
@click.option(
    "--ranges",
    multiple=True,
    metavar="PATTERN=STAGE",
    help="Ranges that are a stage: a step, steps joined by '+', or a name. Repeatable.",
)
@click.option("--process", type=int, metavar="PID", help="Whose work, if several processes ran.")
@click.option("--gpu", type=int, metavar="N", help="On which GPU.")
@click.option(
    "--max-iterations",
    type=COUNT,
    default=1_000,
    show_default=True,
    metavar="N",
    help="Forwards to keep, evenly spread.",
)
@click.option("--nsys", type=FILE, metavar="PATH", help="The nsys that exports a .nsys-rep.")
@click.option("--projection", is_flag=True, help="Print nsys's own view of the ranges; no record.")
@traces_option
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Where to write the record.")
@click.option("--force", is_flag=True, help="Write over FILE if it exists.")
@json_option
def command(
    captures: tuple[Path, ...],
    name: str | None,
    variant: str | None,
    num_tokens: int | None,
    like: Path | None,
    rules: Path | None,
    iteration: str | None,
    ranges: tuple[str, ...],
    process: int | None,
    gpu: int | None,
    max_iterations: int,
    nsys: Path | None,
    projection: bool,
    traces: Path,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Read a capture of another profiler, tell its forwards and stages, keep a record.

    FILE is a .nsys-rep (nsys must be installed), nsys's SQLite or Parquet export, or a trace of
    PyTorch's profiler or of Chrome's format (.json, .json.gz). Stages come from ranges where there
    are any, else from rules on kernel names; PATTERN is a regular expression, searched in the text
    of a range. fib DIR shows what the FlashInfer-Bench TraceSet at DIR holds: nothing is imported
    or run, and it takes --json only. Exit codes: 0 ok, 2 usage or a file that cannot be read.
    """
    folder = _trace_set(captures)
    if folder is not None:
        _show_trace_set(folder, as_json)
        return
    if len(captures) > 1:
        raise UsageError(f"{len(captures)} arguments", "one FILE, or fib DIR")
    (capture,) = captures
    from moeprof.importing.record import ImportOptions, record_of
    from moeprof.importing.rules import compiled, load_rules
    from moeprof.storage.store import load

    if output is not None:
        require_free(output, force)
    options = ImportOptions(
        file=capture.name,
        name=name,
        variant=variant,
        num_tokens=num_tokens,
        rules=load_rules(rules) if rules else None,
        iteration=compiled(iteration, "--iteration") if iteration is not None else None,
        ranges=tuple(map(_stage_range, ranges)),
        process=process,
        gpu=gpu,
        max_iterations=max_iterations,
    )
    known = load(like) if like else None
    trace = trace_in(capture, nsys)
    if projection:
        _show_projection(trace, as_json)
        return
    run = record_of(trace, options, known)
    path = _save(run, traces, output, force)
    _show(run, path, as_json)


def _trace_set(arguments: tuple[Path, ...]) -> Path | None:
    """The folder of a TraceSet, said so or laid out as one."""
    from moeprof.fib.contents import is_trace_set

    if len(arguments) == 2 and str(arguments[0]) == "fib":
        return arguments[1]
    (only,) = arguments if len(arguments) == 1 else (Path(""),)
    return only if len(arguments) == 1 and is_trace_set(only) else None


def _show_trace_set(folder: Path, as_json: bool) -> None:
    from moeprof.fib.contents import read_contents

    contents = read_contents(folder)
    if as_json:
        from moeprof.reports.trace_set import DOCUMENT, contents_document

        show_json(DOCUMENT, contents_document(contents))
        return
    from moeprof.reports.trace_set import render_contents

    show(render_contents(contents, shown_path(folder)))


def trace_in(capture: Path, nsys: Path | None) -> Trace:
    """The capture; a report is exported by nsys first, and the raw export thrown away."""
    from moeprof.importing.open import is_report, read_trace

    if not is_report(capture) or not capture.is_file():
        return read_trace(capture)
    from moeprof.capturing.nsys import export_sqlite

    with tempfile.TemporaryDirectory(prefix="moeprof-") as folder:
        export = Path(folder) / "export.sqlite"
        export_sqlite(capture, export, nsys)
        return read_trace(export)


def _stage_range(text: str) -> tuple[re.Pattern[str], str]:
    from moeprof.importing.rules import compiled

    pattern, equals, stage = text.rpartition("=")
    if not equals or not stage.strip() or not stage.isprintable() or len(stage) > 80:
        raise UsageError(f"--ranges {text!r:.80}", "PATTERN=STAGE", "such as '^mlp.experts=gemm1'")
    return compiled(pattern, "--ranges"), stage.strip()


def _save(run: Run, traces: Path, output: Path | None, force: bool) -> Path:
    from moeprof.storage.store import save, write

    if output is None:
        return save(run, traces / "runs", _alias(run.workload.definition))
    try:
        write(run, output, replace=force)
    except FileExistsError:  # made since it was looked for
        require_free(output, force=False)
    return output


def _alias(definition: str) -> str | None:
    """The short name that moeprof's own dataset has for it."""
    from moeprof.problem.dataset import Dataset, own_root

    try:
        return Dataset(own_root()).definition(definition).alias
    except UsageError:
        return None


def _show(run: Run, path: Path, as_json: bool) -> None:
    if as_json:
        from moeprof.reports.json import run_document

        show_json("moeprof.run/1", {"runs": [{"record": shown_path(path), **run_document(run)}]})
        return
    from moeprof.reports.text import render_run

    show(render_run(run))
    show(f"record {shown_path(path)}")


def _show_projection(trace: Trace, as_json: bool) -> None:
    from moeprof.importing.projection import project, summaries

    rows = summaries(project(trace))
    if as_json:
        from dataclasses import asdict

        show_json("moeprof.projection/1", {"ranges": [asdict(row) for row in rows]})
        return
    from moeprof.reports.projection_text import render_projection

    show(render_projection(rows))
