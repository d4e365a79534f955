"""Where a bench's tables go: stdout and files; and the exit code that says how it went."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprof.errors import (
    EXIT_INCOMPLETE,
    EXIT_OK,
    EXIT_WRONG_RESULT,
    EnvironmentMissing,
    UsageError,
)

if TYPE_CHECKING:
    from moeprof.bench.cells import Bench

ENDINGS = (".md", ".html", ".json")
SHOWN_FAILURES = 20  # lines on stderr; the tables name them all


def check_files(files: Sequence[Path]) -> None:
    """UsageError unless each can be written and its ending names a format, EnvironmentMissing if
    a page's plots cannot be had: all this is said before minutes are spent on measuring."""
    for path in files:
        if path.suffix.lower() == ".html" and importlib.util.find_spec("plotly") is None:
            raise EnvironmentMissing(f"{path} needs plotly", do="pip install plotly, or choose .md")
        if path.suffix.lower() not in ENDINGS:
            raise UsageError(f"the ending of {path} names no format", ", ".join(ENDINGS))
        if path.is_dir() or not path.absolute().parent.is_dir():
            what = "is a folder" if path.is_dir() else "lies in no folder that exists"
            raise UsageError(f"{path} {what}", "the name of a file")


def deliver(bench: Bench, files: Sequence[Path], as_json: bool, folders: Sequence[str]) -> None:
    """Print the tables, write the files, and say on stderr what is missing or wrong."""
    from moeprof.cli.output import show, show_json
    from moeprof.storage.atomic import write_atomically

    if as_json:
        from moeprof.reports.bench_json import DOCUMENT, bench_document

        show_json(DOCUMENT, bench_document(bench))
    else:
        from moeprof.reports.bench_text import render_bench

        show(render_bench(bench))
        if folders:
            show(f"records in {', '.join(folders)}")
    _tell(bench)
    for path in files:
        write_atomically(path, written(bench, path.suffix.lower()).encode())


def written(bench: Bench, ending: str) -> str:
    """The bench as the text of a file."""
    if ending == ".md":
        from moeprof.reports.bench_markdown import bench_markdown

        return bench_markdown(bench)
    if ending == ".html":
        from moeprof.reports.bench_html import bench_page

        return bench_page(bench)
    from moeprof.reports.bench_json import DOCUMENT, bench_document

    return json.dumps({"schema": DOCUMENT, **bench_document(bench)}, indent=1) + "\n"


def exit_code(bench: Bench, unasked: Collection[str]) -> int:
    """unasked: solutions that nobody named, of which one may be not available."""
    kinds = {
        failure.kind
        for failure in bench.failures
        if not (failure.kind == "not available" and failure.solution in unasked)
    }
    if "wrong result" in kinds:
        return EXIT_WRONG_RESULT
    return EXIT_INCOMPLETE if kinds else EXIT_OK


def _tell(bench: Bench) -> None:
    """One line a cell; what is not available one line a solution."""
    lines = dict.fromkeys(
        f"{one.kind}: {one.solution}: {one.message}"
        if one.kind == "not available"
        else f"{one.kind}: {one.solution} on T={one.seq_len} ({one.uuid[:8]}): {one.message}"
        for one in bench.failures
    )
    shown = list(lines)[:SHOWN_FAILURES]
    if len(lines) > len(shown):
        shown.append(f"{len(lines) - len(shown)} more such cells")
    for line in shown:
        click.secho(f"moeprof: {line}", fg="red", err=True)
