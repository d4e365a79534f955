"""``moeprof noise``: what a regression check can see, from records or by simulation. No GPU."""

from __future__ import annotations

from pathlib import Path

import click

from moeprof.cli.options import FOLDER
from moeprof.cli.output import show, show_json
from moeprof.errors import UsageError

MOST_CHECKS = 1_000_000


@click.command("noise")
@click.argument("folder", required=False, type=FOLDER, metavar="[DIR]")
@click.option("--simulate", is_flag=True, help="Simulated noise instead of records.")
@click.option(
    "--checks",
    type=click.IntRange(1, MOST_CHECKS),
    default=1000,
    show_default=True,
    metavar="N",
    help="With --simulate: checks of each scenario and change.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), metavar="S", default=0)
@click.option(
    "--scenario", "names", multiple=True, metavar="NAME", help="With --simulate: only this one."
)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON [default: moeprof's].",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "md", "json"]), default="text", show_default=True
)
def command(
    folder: Path | None,
    simulate: bool,
    checks: int,
    seed: int,
    names: tuple[str, ...],
    policy_file: Path | None,
    form: str,
) -> None:
    """Say how much times vary without any change, and which slowdown a check then finds.

    \b
    noise DIR           of the records in DIR: fresh processes that ran the same thing
    noise --simulate    of checks on hand-made noise: false alarms and slowdowns found, by
                        moeprof's policy and by the rules of other tools
    """
    if simulate == (folder is not None):
        found = "both --simulate and records" if simulate else "nothing to look at"
        raise UsageError(found, do="give a folder of records, or --simulate")
    if simulate:
        _simulate(checks, seed, names, policy_file, form)
    elif folder is not None:
        if names:
            raise UsageError("--scenario without --simulate")
        _records(folder, policy_file, form)


def _records(folder: Path, policy_file: Path | None, form: str) -> None:
    from moeprof.cli.asking import read_policy
    from moeprof.regression.noise import noise_of
    from moeprof.reports.check.baselines import noise_columns
    from moeprof.reports.simulation import columns_markdown
    from moeprof.reports.table import FittedTable
    from moeprof.storage.checks import runs_in
    from moeprof.storage.codec import encode

    runs = runs_in(folder)
    policy = read_policy(policy_file)
    found = noise_of(runs, policy)
    if form == "json":
        show_json("moeprof.noise/1", {"policy": encode(policy), "noise": encode(found)})
    elif form == "md":
        click.echo(columns_markdown(noise_columns(found)))
    else:
        show(FittedTable(noise_columns(found)))


def _simulate(
    checks: int, seed: int, names: tuple[str, ...], policy_file: Path | None, form: str
) -> None:
    from moeprof.cli.asking import read_policy
    from moeprof.regression.simulated import chosen_cases, run_cases
    from moeprof.reports.simulation import (
        DOCUMENT,
        render_simulation,
        simulation_document,
        simulation_markdown,
    )

    cases = chosen_cases(names)
    policy = read_policy(policy_file)
    lines = []
    for line in run_cases(cases, policy, checks, seed):
        lines.append(line)
        click.echo(f"{len(lines)} of {len(cases)}: {line.case.name}", err=True)
    if form == "json":
        show_json(DOCUMENT, simulation_document(lines, policy, checks, seed))
    elif form == "md":
        click.echo(simulation_markdown(lines, policy), nl=False)
    else:
        show(render_simulation(lines, policy))
