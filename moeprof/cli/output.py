"""stdout: reports for people, or one JSON document. Progress and errors are stderr's.

What a solution prints is no report: while one runs, ``stdout_kept`` sends it to stderr.

A reader that closes the pipe early (``head``) ends the output, never the command: its exit code
still says whether the result was right.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from moeprof.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH_WITHOUT_TERMINAL = 160  # a table in a log file or a pipe is not folded to 80 columns


def show(*renderables: RenderableType) -> None:
    """Print for a person."""
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> NoReturn:  # rich's own ends the process with exit code 1
            raise BrokenPipeError

    stream = _reports()
    width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
    console = PipeConsole(file=stream, width=width, highlight=False)
    try:
        for renderable in renderables:
            console.print(renderable)
        stream.flush()
    except BrokenPipeError:
        discard_stdout()


def show_json(schema: str, content: Mapping[str, Any]) -> None:
    """Print one document, ``schema`` (such as 'moeprof.run/1') first."""
    try:
        text = json.dumps({"schema": schema, **content}, indent=2, allow_nan=False)
        click.echo(text, file=_reports())
    except BrokenPipeError:
        discard_stdout()


def discard_stdout() -> None:
    """Send what is still buffered nowhere, so that Python's last flush cannot fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, _reports().fileno())
    os.close(null)


_own: TextIO | None = None  # where reports go while others' prints are kept off stdout


def _reports() -> TextIO:
    return sys.stdout if _own is None else _own


@contextmanager
def stdout_kept(for_good: bool = False) -> Iterator[None]:
    """Within, whatever code prints to stdout goes to stderr, and reports alone to stdout.

    for_good: afterwards too, as a thread that the code left behind may go on printing; then this
    process shall only end.
    """
    global _own
    before, kept = sys.stdout, None
    before.flush()
    if _is_descriptor(before, 1):  # C's printf as well
        kept = os.dup(1)
        os.dup2(2, 1)
        _own = open(kept, "w", encoding=before.encoding, errors=before.errors)
    else:
        _own = before
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        if not for_good:
            _own.flush()
            sys.stdout = before
            if kept is not None:
                os.dup2(kept, 1)
                _own.close()
            _own = None


def _is_descriptor(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError):  # a test's, or a notebook's
        return False


def require_free(output: Path, force: bool) -> None:
    """Raise UsageError if ``output`` is a folder, or exists and may not be written over."""
    if output.is_dir():
        raise UsageError(f"{output} is a folder", "the name of a file")
    if output.exists() and not force:
        raise UsageError(f"{output} exists", do="--force writes over it")


def shown_path(path: Path) -> str:
    """``path`` from the current folder, short enough to type."""
    return os.path.relpath(path)
