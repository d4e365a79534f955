"""``moeprof list``: what there is to run, and what was run. Reads files only, imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from moeprof.cli.options import dataset_option, definition_option, json_option, traces_option
from moeprof.cli.output import show, show_json, shown_path


@click.group("list")
def command() -> None:
    """List solutions, stages, workloads or runs."""


@command.command("solutions")
@json_option
def solutions(as_json: bool) -> None:
    """The solutions that come with moeprof; a file of your own is given to run by its path."""
    from moeprof.solutions.sources import solution_files

    rows = [{"name": file.name, "summary": file.summary} for file in solution_files()]
    _show("solutions", rows, as_json)


@command.command("stages")
@json_option
def stages(as_json: bool) -> None:
    """The seven steps in order, each with the backends that can perform it."""
    from moeprof.solutions.sources import stage_backends

    rows = [
        {"step": step, "backend": file.name, "module": file.module, "summary": file.summary}
        for step, files in stage_backends().items()
        for file in files
    ]
    _show("stages", rows, as_json)


@command.command("workloads")
@definition_option
@dataset_option
@json_option
def workloads(definition: str | None, dataset: str | None, as_json: bool) -> None:
    """The workloads of one definition or of all."""
    from moeprof.problem.dataset import Dataset, dataset_root

    data = Dataset(dataset_root(dataset, os.environ))
    chosen = [data.definition(definition)] if definition else data.definitions()
    rows = [
        {
            "definition": known.alias or known.name,
            "num_tokens": workload.seq_len,
            "uuid": workload.uuid,
            "local_expert_offset": workload.local_expert_offset,
            "routed_scaling_factor": workload.routed_scaling_factor,
            "routing": _routing(data.recorded_routing(workload)),
        }
        for known in chosen
        for workload in sorted(data.workloads(known), key=lambda workload: workload.seq_len)
    ]
    _show("workloads", rows, as_json)


@command.command("runs")
@click.option("--solution", metavar="NAME", help="Only runs of this solution.")
@definition_option
@click.option("--num-tokens", type=int, metavar="T", help="Only runs on T tokens.")
@traces_option
@json_option
def runs(
    solution: str | None,
    definition: str | None,
    num_tokens: int | None,
    traces: Path,
    as_json: bool,
) -> None:
    """The records under --traces, oldest first, by their file names alone."""
    from moeprof.storage.store import find_runs

    found = find_runs(traces / "runs", solution, definition, num_tokens)
    rows = [
        {
            "solution": run.solution,
            "definition": run.definition,
            "num_tokens": run.seq_len,
            "uuid": run.uuid,
            "created": run.created,
            "record": shown_path(run.path),
        }
        for run in found
    ]
    _show("runs", rows, as_json)


def _routing(files: Mapping[str, Any] | None) -> str:
    if files is None:
        return "not recorded"
    here = all(file.path.exists() for file in files.values())
    return "recorded" if here else "recorded elsewhere; synthetic uniform here"


def _show(what: str, rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        show_json(f"moeprof.{what}/1", {what: list(rows)})
    elif rows:
        show(_table(rows[0], rows))
    else:
        show(f"no {what}")


def _table(headings: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        numeric = isinstance(rows[0][heading], (int, float))
        table.add_column(heading.replace("_", " "), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    return table
