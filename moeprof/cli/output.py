"""stdout: reports for people, or one JSON document. Progress and errors are stderr's.

A reader that closes the pipe early (``head``) ends the output, never the command: its exit code
still says whether the result was right.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

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

    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    console = PipeConsole(width=width, highlight=False)
    try:
        for renderable in renderables:
            console.print(renderable)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()


def show_json(schema: str, content: Mapping[str, Any]) -> None:
    """Print one document, ``schema`` (such as 'moeprof.run/1') first."""
    try:
        click.echo(json.dumps({"schema": schema, **content}, indent=2, allow_nan=False))
    except BrokenPipeError:
        discard_stdout()


def discard_stdout() -> None:
    """Send what is still buffered nowhere, so that Python's last flush cannot fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def require_free(output: Path, force: bool) -> None:
    """Raise UsageError if ``output`` is a folder, or exists and may not be written over."""
    if output.is_dir():
        raise UsageError(f"{output} is a folder", "the name of a file")
    if output.exists() and not force:
        raise UsageError(f"{output} exists", do="--force writes over it")


def shown_path(path: Path) -> str:
    """``path`` from the current folder, short enough to type."""
    return os.path.relpath(path)
