"""``moeprof history``: every time of a solution over its checks, and where it stepped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprof.cli.options import json_option, traces_option
from moeprof.cli.output import require_free, show, show_json, shown_path
from moeprof.errors import EnvironmentMissing, UsageError, nearest

if TYPE_CHECKING:
    from moeprof.history.values import Entry, Series, Subject
    from moeprof.regression.values import Measure, Noise, Quantity

MEASURES = ("busy", "host", "span", "wall", "orchestration")


@click.command("history")
@click.option("--solution", metavar="NAME", help="Its name in the records.")
@click.option("--stage", metavar="STAGE", help="Draw this one [default: a table of all].")
@click.option(
    "--measure",
    type=click.Choice(MEASURES),
    help="busy or host of a stage; span, wall or orchestration [default: busy, or span].",
)
@click.option("--num-tokens", type=int, metavar="T", help="[default: what was checked last].")
@click.option("--device", metavar="TEXT", help="A GPU whose name holds this.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write an HTML page of all or of the one drawn.",
)
@click.option("--force", is_flag=True, help="Write over FILE.")
@click.option("--rebuild", is_flag=True, help="Read all of DIR/checks again; no --solution needed.")
@traces_option
@json_option
def command(
    solution: str | None,
    stage: str | None,
    measure: Measure | None,
    num_tokens: int | None,
    device: str | None,
    output: Path | None,
    force: bool,
    rebuild: bool,
    traces: Path,
    as_json: bool,
) -> None:
    """Show what a solution's times were in every check, and where they stepped.

    Change points need ruptures (pip install 'moeprof[history]'). Every `moeprof check` goes into
    DIR/history.sqlite. Exit codes: 0 ok, 2 usage or a store that cannot be read.
    """
    if output is not None:
        if output.suffix.lower() != ".html":
            raise UsageError(f"the ending of {output} names no format", ".html")
        require_free(output, force)
    if rebuild:
        _rebuild(traces)
    if solution is None:
        if rebuild:
            return
        raise UsageError("no --solution was given", do=_known(traces))
    entries = _entries(traces, solution)
    subject, others = _subject(entries, num_tokens, device)
    chosen = [] if stage is None and measure is None else [_quantity(stage, measure)]
    every = _series(entries, subject, chosen, traces)
    if output is not None:
        from moeprof.reports.history.page import history_page
        from moeprof.storage.atomic import write_atomically

        write_atomically(output, history_page(every).encode())
        click.echo(f"page {shown_path(output)}", err=as_json)
    if as_json:
        from moeprof.reports.history.json import DOCUMENT, history_document

        show_json(DOCUMENT, history_document(every, others))
        return
    _print(every, others, bool(chosen))


def _print(every: Sequence[Series], others: Sequence[tuple[Subject, int]], drawn: bool) -> None:
    from rich.text import Text

    from moeprof.reports.history.text import render_all, render_series

    if drawn:
        show(render_series(every[0]))
    else:
        show(Text(f"{every[0].subject}", style="bold"), render_all(every))
    for subject, checks in others:
        show(Text(f"also {checks} of {subject}", style="dim"))


def _rebuild(traces: Path) -> None:
    from moeprof.cli.asking import say
    from moeprof.cli.keeping import rebuild_history

    count = rebuild_history(traces, say)
    click.echo(f"{count} check{'s' * (count != 1)} in the history")


def _entries(traces: Path, solution: str) -> tuple[Entry, ...]:
    from moeprof.storage.history import HISTORY_FILE, read

    path = traces / HISTORY_FILE
    found = read(path, solution)
    if found:
        return found
    raise UsageError(f"no check of {solution!r} is in the history", do=_known(traces, solution))


def _known(traces: Path, name: str = "") -> str:
    from moeprof.storage.history import HISTORY_FILE, read

    names = {entry.solution for entry in read(traces / HISTORY_FILE)}
    if not names:
        return "every `moeprof check` puts itself in; --rebuild reads those in DIR/checks"
    return nearest(name, names) if name else f"it holds {', '.join(sorted(names))}"


def _subject(
    entries: Sequence[Entry], num_tokens: int | None, device: str | None
) -> tuple[Subject, tuple[tuple[Subject, int], ...]]:
    """What was checked last of what was asked for, and what else there is."""
    from moeprof.history.series import subjects

    known = subjects(entries)
    fitting = [
        subject
        for subject, _ in known
        if num_tokens in (None, subject.seq_len)
        and (device is None or device.lower() in subject.device.lower())
    ]
    if not fitting:
        raise UsageError(
            "no check fits --num-tokens and --device",
            do="there are " + "; ".join(str(subject) for subject, _ in known),
        )
    return fitting[0], tuple(one for one in known if one[0] != fitting[0])


def _quantity(stage: str | None, measure: Measure | None) -> Quantity:
    from moeprof.regression.values import STAGE_MEASURES, Quantity

    of_stage = stage not in (None, "", "forward")
    measure = measure or ("busy" if of_stage else "span")
    if of_stage != (measure in STAGE_MEASURES):
        raise UsageError(
            f"{measure} is no time of {'a stage' if of_stage else 'the whole forward'}",
            "busy or host" if of_stage else "span, wall or orchestration",
        )
    return Quantity(stage or "" if of_stage else "", measure)


def _series(
    entries: Sequence[Entry], subject: Subject, chosen: Sequence[Quantity], traces: Path
) -> list[Series]:
    from moeprof.history.series import quantities, series_of, with_changes

    own = [entry for entry in entries if entry.subject == subject]
    known = quantities(own)
    noise = _noise(traces, subject)
    every = []
    for quantity in chosen or known:
        found = series_of(own, subject, quantity, noise.get(quantity))
        if found is None:
            do = nearest(str(quantity), [str(one) for one in known])
            raise UsageError(f"no check of {subject} has {quantity}", do=do)
        every.append(found)
    if not every:
        raise UsageError(f"no check of {subject} has times", do="see its verdicts in DIR/checks")
    try:
        return [with_changes(one, noise.get(one.quantity)) for one in every]
    except EnvironmentMissing as error:
        click.secho(f"moeprof: warning: {error}", fg="yellow", err=True)
        return every


def _noise(traces: Path, subject: Subject) -> dict[Quantity, Noise]:
    """What the newest baseline of the subject knows of its noise; none where there is no such."""
    from moeprof.storage.baselines import entries

    own = [
        entry.baseline
        for entry in entries(traces / "baselines")
        if entry.baseline is not None
        and entry.baseline.solution == subject.solution
        and entry.baseline.device == subject.device
        and entry.baseline.routing_hash == subject.routing_hash
        and entry.baseline.workload.definition == subject.definition
        and entry.baseline.workload.seq_len == subject.seq_len
    ]
    newest = max(own, key=lambda baseline: baseline.created, default=None)
    return {one.quantity: one for one in newest.noise} if newest else {}
