"""``moeprof verify``: do records and another profiler's capture of the same work agree?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprof.cli.options import definition_option, json_option, traces_option
from moeprof.cli.output import show, show_json, shown_path
from moeprof.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from moeprof.records import Run

EXIT_DIFFERS = 1


@click.command("verify")
@click.argument("records", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--against",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A capture that moeprof import reads, or a record.",
)
@click.option("--num-tokens", type=int, metavar="T", help="Where RUN is a name: of T tokens.")
@click.option("--workload", metavar="UUID-PREFIX", help="Where RUN is a name: of this workload.")
@definition_option
@click.option(
    "--tolerance-percent",
    type=click.FloatRange(0, 100),
    default=2.0,
    show_default=True,
    metavar="P",
    help="Busy times may differ by P %, ...",
)
@click.option(
    "--tolerance-us",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    metavar="U",
    help="... or by U us where that is more.",
)
@click.option(
    "--nsys",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="The nsys that exports a .nsys-rep.",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "md", "json"]), default="text", show_default=True
)
@json_option
@traces_option
def command(
    records: tuple[str, ...],
    against: Path,
    num_tokens: int | None,
    workload: str | None,
    definition: str | None,
    tolerance_percent: float,
    tolerance_us: float,
    nsys: Path | None,
    form: str,
    as_json: bool,
    traces: Path,
) -> int:
    """Compare records with a capture of the same work, stage by stage: operations and busy time.

    RUN is a record's file, or a solution whose newest record is meant; several are fresh processes
    of one solution, and a time anywhere between theirs agrees. A capture without ranges of its own
    is imported with its options first (moeprof import FILE --like RUN), then its record verified.
    Exit codes: 0 all agree, 1 something differs, 2 usage or not comparable.
    """
    _require_numbers(tolerance_percent, tolerance_us)
    from moeprof.compare.agreement import Tolerance, agree
    from moeprof.storage.lookup import Wanted
    from moeprof.storage.store import load

    wanted = Wanted(num_tokens, workload, definition)
    paths = [_record(record, wanted, traces) for record in records]
    runs = [load(path) for path in paths]
    other = _other(against, runs[0], nsys)
    agreement = agree(runs, other, Tolerance(tolerance_percent / 100, tolerance_us))
    if as_json or form == "json":
        from moeprof.reports.agreement_json import DOCUMENT, agreement_document

        shown = [shown_path(path) for path in paths]
        show_json(DOCUMENT, agreement_document(agreement, shown, shown_path(against)))
    elif form == "md":
        from moeprof.reports.agreement_markdown import agreement_markdown

        click.echo(agreement_markdown(agreement), nl=False)
    else:
        from moeprof.reports.agreement_text import render_agreement

        show(render_agreement(agreement), _files(paths, against))
    return EXIT_OK if agreement.agrees else EXIT_DIFFERS


def _require_numbers(*tolerances: float) -> None:
    for tolerance in tolerances:
        if not math.isfinite(tolerance):  # which no range of click's refuses
            raise UsageError(f"a tolerance of {tolerance}", "a number")


def _record(name: str, wanted: object, traces: Path) -> Path:
    """The file that a RUN argument means."""
    from moeprof.storage.lookup import Wanted, is_path, one_workload, workloads_of

    assert isinstance(wanted, Wanted)
    if is_path(name):
        return Path(name)
    return one_workload({name: workloads_of(traces, name, wanted)}, wanted)[name]


def _other(against: Path, like: Run, nsys: Path | None) -> Run:
    """FILE as a record: one of moeprof's own as it is, a capture by the record's stages."""
    from moeprof.storage.store import is_record, load

    if is_record(against):
        return load(against)
    from moeprof.cli.import_ import trace_in
    from moeprof.importing.record import ImportOptions, record_of

    trace = trace_in(against, nsys)
    try:
        return record_of(trace, ImportOptions(file=against.name), like)
    except UsageError as error:
        raise UsageError(
            f"{shown_path(against)}: {error}",
            do="if it takes options, moeprof import FILE --like RUN first, and verify its record",
        ) from None


def _files(paths: Sequence[Path], against: Path) -> str:
    shown = "\n        ".join(shown_path(path) for path in paths)
    return f"records {shown}\nagainst {shown_path(against)}"
