"""Where a check's verdict goes: stdout, files, the step summary of a workflow, a webhook.

What cannot be written is found before minutes are spent on measuring. The verdict stands whatever
becomes of them: a summary or a webhook that fails is one line on stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import click

from moeprof.errors import MoeprofError, UsageError

if TYPE_CHECKING:
    from moeprof.alerts.webhook import Webhook
    from moeprof.regression.values import Check
    from moeprof.reports.check.places import Places

FORMATS = ("text", "md", "json", "junit", "sarif", "github")
# a file's format by its ending
ENDINGS: Mapping[str, str] = MappingProxyType(
    {".txt": "text", ".md": "md", ".json": "json", ".xml": "junit", ".sarif": "sarif"}
)
SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
TEXT_WIDTH = 150  # of a report in a file
FailOn = Literal["inconclusive", "regression", "severe", "never"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What was asked for. hook: None where there is none; always: it is told of every verdict."""

    form: str
    files: tuple[Path, ...]
    summary: bool
    hook: Webhook | None
    always: bool


def check_files(files: Sequence[Path]) -> None:
    """Raise UsageError unless each can be written and its ending names a format."""
    for path in files:
        if path.suffix.lower() not in ENDINGS:
            endings = ", ".join(f"{end} ({form})" for end, form in ENDINGS.items())
            raise UsageError(f"the ending of {path} names no format", endings)
        if path.is_dir() or not path.absolute().parent.is_dir():
            what = "is a folder" if path.is_dir() else "lies in no folder that exists"
            raise UsageError(f"{path} {what}", "the name of a file")


def deliver(outputs: Outputs, check: Check, places: Places, records: str) -> None:
    """Print, write and tell. records: where they lie, '' if nothing was measured."""
    _print(outputs.form, check, places, records)
    for path in outputs.files:
        _write(path, written(check, ENDINGS[path.suffix.lower()], places))
    if outputs.summary:
        _append_summary(check)
    if outputs.hook is not None and (outputs.always or check.exit_code == 1):
        _tell(outputs.hook, check)


def written(check: Check, form: str, places: Places) -> str:
    """The check in ``form``, ending in a newline."""
    if form == "md":
        from moeprof.reports.check.markdown import check_markdown

        return check_markdown(check)
    if form == "junit":
        from moeprof.reports.check.junit import check_junit

        return check_junit(check, plain_text(check))
    if form == "sarif":
        from moeprof.reports.check.sarif import check_sarif

        return _json(check_sarif(check, places))
    if form == "json":
        from moeprof.reports.check.json import DOCUMENT, check_document

        return _json({"schema": DOCUMENT, **check_document(check)})
    return plain_text(check)


def plain_text(check: Check) -> str:
    """The report for people without colours."""
    import io

    from rich.console import Console

    from moeprof.reports.check.text import render_check

    buffer = io.StringIO()
    Console(file=buffer, width=TEXT_WIDTH, highlight=False, no_color=True).print(
        render_check(check)
    )
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def exit_code(check: Check, fail_on: FailOn) -> int:
    """The command's: the check's own, unless the user asked to be failed by less."""
    code = check.exit_code
    if code == 2 or check.wrong_result and fail_on != "never":
        return code
    if fail_on == "never" or code == 3 and fail_on != "inconclusive":
        return 0
    if code == 1 and fail_on == "severe" and not any(f.severe for f in check.alerts):
        return 0
    return code


def _print(form: str, check: Check, places: Places, records: str) -> None:
    from moeprof.cli.output import show

    if form in ("text", "github"):
        from moeprof.reports.check.text import render_check

        if form == "github":
            from moeprof.reports.check.annotations import check_annotations

            _echo(check_annotations(check, places))
        show(render_check(check))
        if records:
            show(f"records {records}")
    else:
        _echo(written(check, form, places))


def _echo(text: str) -> None:
    """Print; a reader that has left ends the output and not the command."""
    from moeprof.cli.output import discard_stdout

    try:
        click.echo(text, nl=False)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()


def _write(path: Path, text: str) -> None:
    from moeprof.storage.atomic import write_atomically

    write_atomically(path, text.encode())


def _append_summary(check: Check) -> None:
    from moeprof.reports.check.markdown import check_markdown

    path = os.environ.get(SUMMARY_VARIABLE, "")
    if not path:
        _warn(f"--summary: {SUMMARY_VARIABLE} is not set; there is no step summary to add to")
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(check_markdown(check) + "\n")
    except OSError as error:
        _warn(f"--summary: the file of {SUMMARY_VARIABLE} cannot be written: {error.strerror}")


def _tell(hook: Webhook, check: Check) -> None:
    from moeprof.alerts.message import alert_message
    from moeprof.alerts.webhook import post

    try:
        post(hook, alert_message(check))
    except MoeprofError as error:
        _warn(str(error))


def _json(document: Mapping[str, object]) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _warn(text: str) -> None:
    click.secho(f"moeprof: warning: {text}", fg="yellow", err=True)
