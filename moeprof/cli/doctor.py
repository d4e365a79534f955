"""``moeprof doctor``: what this machine can measure, and the install line for the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from moeprof.cli.options import json_option, traces_option
from moeprof.cli.output import show, show_json


@click.command("doctor")
@traces_option
@json_option
def command(traces: Path, as_json: bool) -> None:
    """Say what this machine can measure and how to get the rest.

    Imports every library in a process of its own and runs every tool, which takes a few seconds.
    Exit code 0, whatever is missing.
    """
    from moeprof.machine.capabilities import probe

    capabilities = probe(traces / "runs")
    if as_json:
        found = [dataclasses.asdict(capability) for capability in capabilities]
        show_json("moeprof.doctor/1", {"capabilities": found})
        return

    from rich.table import Table
    from rich.text import Text

    table = Table("", "what", "found", "enables", "to get it", box=None, pad_edge=False)
    for capability in capabilities:
        mark = Text("ok", "green") if capability.ok else Text("--", "yellow")
        facts = (capability.name, capability.found, capability.enables, capability.install or "")
        table.add_row(mark, *map(Text, facts))
    show(table)
