"""``moeprof report``: many records as one page for people, as Markdown, or as JSON."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from moeprof.cli.output import require_free, shown_path
from moeprof.errors import UsageError

FORMATS = ("html", "md", "json")


@click.command("report")
@click.argument(
    "records", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write it [default: report.html, Markdown and JSON to stdout].",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="[default: by FILE's ending, else html].",
)
@click.option("--force", is_flag=True, help="Write over FILE if it exists.")
def command(records: Sequence[Path], output: Path | None, form: str | None, force: bool) -> None:
    """Write what the records RUN... show: stages, waterfalls, timelines, samples, roofline, work.

    RUN is a record or a folder of them, searched in depth. An HTML report is one file that fetches
    nothing. One file that is no record ends the command before anything is written. Exit codes:
    0 ok, 2 usage, a file that cannot be read, or FILE exists.
    """
    form = form or _format_of(output)
    if output is None and form == "html":
        output = Path("report.html")
    if output is not None:
        require_free(output, force)
    with _no_garbage_collection():
        text, count = _written(record_files(records), form)
    if output is None:
        click.echo(text, nl=False)
        return
    _write(output, text, force)
    size = f"{len(text.encode()) / 1e6:.1f} MB"
    click.echo(f"{count} record{'s' * (count != 1)} in {shown_path(output)} ({size})")


def _written(files: Sequence[Path], form: str) -> tuple[str, int]:
    """The report in ``form``, and how many records it shows."""
    from moeprof.reports.survey.build import build
    from moeprof.storage.store import load

    data = build(load(path) for path in files)
    if form == "html":
        from moeprof.reports.html.page import report_page

        text = report_page(data)
    elif form == "md":
        from moeprof.reports.markdown import report_markdown

        text = report_markdown(data)
    else:
        from moeprof.reports.survey.document import report_document

        text = json.dumps(report_document(data), allow_nan=False) + "\n"
    return text, len(data.entries)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Everything read is kept to the end: looking for garbage in it takes a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def record_files(records: Sequence[Path]) -> list[Path]:
    """Each once: the files named, every ``.json.gz`` and ``T*.json`` below the folders named."""
    found: dict[Path, Path] = {}
    for record in records:
        files = [record]
        if record.is_dir():
            files = sorted([*record.rglob("*.json.gz"), *record.rglob("T*.json")])
            if not files:
                raise UsageError(f"there is no record in {record}", "files that end in .json.gz")
        elif not record.exists():
            raise UsageError(
                f"there is no file or folder {record}", do="moeprof list runs shows the records"
            )
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _format_of(output: Path | None) -> str:
    ending = output.suffix.lstrip(".").lower() if output else ""
    return ending if ending in FORMATS else "html"


def _write(output: Path, text: str, force: bool) -> None:
    from moeprof.storage.atomic import write_atomically

    try:
        write_atomically(output, text.encode(), replace=force)
    except FileExistsError:  # made since it was looked for
        require_free(output, force=False)
