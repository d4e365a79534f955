"""Options that several commands share, spelled and explained once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from moeprof.dataset import own_root

Command = TypeVar("Command", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)


def default_traces() -> Path:
    """The checkout's ``traces``, or that of the current folder where moeprof has no checkout."""
    return own_root() if own_root().is_dir() else Path("traces")


def traces_option(command: Command) -> Command:
    """--traces: where records are kept."""
    return click.option(
        "--traces",
        type=FOLDER,
        default=default_traces,
        metavar="DIR",
        help="Records are kept under DIR/runs [default: the checkout's traces].",
    )(command)


def dataset_option(command: Command) -> Command:
    """--dataset: where definitions and workloads are read from."""
    return click.option(
        "--dataset",
        metavar="DIR",
        help="A FlashInfer-Trace dataset [default: $FIB_DATASET_PATH, else the checkout's traces].",
    )(command)


def definition_option(command: Command) -> Command:
    """--definition: by name or alias."""
    return click.option(
        "--definition", metavar="NAME", help="A definition by name or alias (dsv3, tiny)."
    )(command)


def json_option(command: Command) -> Command:
    """--json: one document on stdout instead of the report."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")(
        command
    )
