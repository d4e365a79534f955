"""Options that several commands share, spelled and explained once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from moeprof.presets import PRESETS
from moeprof.problem.dataset import own_root

Command = TypeVar("Command", bound=Callable[..., Any])

FOLDER = click.Path(path_type=Path, file_okay=False)
COUNT = click.IntRange(1, 100_000)

_INPUTS = (
    click.option(
        "--routing",
        default="auto",
        show_default=True,
        metavar="SPEC",
        help="auto (recorded, else uniform), recorded, uniform, zipf:S, balanced, single, "
        "file:PATH.",
    ),
    click.option(
        "--weights",
        type=click.Choice(["quantised", "harness"]),
        default="quantised",
        show_default=True,
        help="Amax-scaled real weights, or FlashInfer-Bench's random tensors.",
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True
    ),
    click.option(
        "--l2",
        type=click.Choice(["flush", "warm"]),
        default="flush",
        show_default=True,
        help="The L2 cache before each iteration.",
    ),
    click.option(
        "--seed", type=click.IntRange(0, 2**31 - 1), metavar="S", default=0, show_default=True
    ),
    click.option("--allow-no-local-work", is_flag=True, help="Run even if no token comes here."),
)
_SIZES = (
    click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        help="; ".join(
            f"{name}: {p.warmup} warm-ups, {p.iterations} iterations, {p.trials} trials"
            for name, p in PRESETS.items()
        )
        + " [default: default on a GPU, quick on a CPU].",
    ),
    click.option(
        "--warmup", type=click.IntRange(0, 100_000), metavar="N", help="Untimed forwards."
    ),
    click.option("--iterations", type=COUNT, metavar="N", help="Samples per pass."),
    click.option("--trials", type=COUNT, metavar="N", help="Repetitions of the bare pass."),
)


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


def trust_option(command: Command) -> Command:
    """--trust: the user's word that a TraceSet's code may run."""
    return click.option(
        "--trust",
        is_flag=True,
        help="Run foreign code: a fib:NAME solution of the dataset. For this command only.",
    )(command)


def definition_option(command: Command) -> Command:
    """--definition: by name or alias."""
    return click.option(
        "--definition", metavar="NAME", help="A definition by name or alias (dsv3, tiny)."
    )(command)


def measuring_options(command: Command) -> Command:
    """Inputs, device and sizes of a measurement, by the names of ``planning.RunOptions``."""
    for option in reversed((*_INPUTS, *_SIZES)):
        command = option(command)
    return command


def input_options(command: Command) -> Command:
    """What a forward is run on, and where: the same without the sizes."""
    for option in reversed(_INPUTS):
        command = option(command)
    return command


def json_option(command: Command) -> Command:
    """--json: one document on stdout instead of the report."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")(
        command
    )
