"""``moeprof compare``: why one solution takes longer than another, from their records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprof.cli.options import definition_option, traces_option
from moeprof.cli.output import show, show_json, shown_path
from moeprof.errors import UsageError

if TYPE_CHECKING:
    from moeprof.compare.comparable import Reason
    from moeprof.records import Run
    from moeprof.storage.lookup import Wanted


@click.command("compare")
@click.argument("solutions", nargs=-1, required=True, metavar="A B [C ...]")
@click.option("--num-tokens", type=int, metavar="T", help="The workload of T tokens.")
@click.option("--workload", metavar="UUID-PREFIX", help="One workload.")
@click.option("--all-workloads", is_flag=True, help="Tables over every workload that all have.")
@definition_option
@click.option(
    "--reference",
    default="reference",
    show_default=True,
    metavar="NAME",
    help="With --all-workloads: the solution that speedups are over.",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "md", "json"]), default="text", show_default=True
)
@click.option("--force", is_flag=True, help="Compare although the driver or the clocks differ.")
@traces_option
def command(
    solutions: tuple[str, ...],
    num_tokens: int | None,
    workload: str | None,
    all_workloads: bool,
    definition: str | None,
    reference: str,
    form: str,
    force: bool,
    traces: Path,
) -> None:
    """Explain the difference between two records: a waterfall from A to B that adds up.

    A and B are records, or solutions looked up under DIR/runs (newest first), then DIR/recorded.
    Records of different work are refused, each reason named, and so are those measured under
    different drivers or clocks unless --force is given. Exit codes: 0 ok, 2 usage or refused.
    """
    from moeprof.storage.lookup import Wanted

    wanted = Wanted(num_tokens, workload, definition)
    if all_workloads:
        _compare_all(_distinct(solutions), wanted, reference, form, force, traces)
    elif len(solutions) != 2:
        raise UsageError(
            f"{len(solutions)} records to compare", "two", "--all-workloads takes more solutions"
        )
    else:
        _compare_two(solutions, wanted, form, force, traces)


def _compare_two(
    solutions: tuple[str, ...], wanted: Wanted, form: str, force: bool, traces: Path
) -> None:
    from moeprof.compare.comparable import reasons, require_comparable, source_reasons, told
    from moeprof.compare.compare import compare, explain_pair, labels_of
    from moeprof.storage.store import load

    paths = _two_paths(solutions, wanted, traces)
    first, second = load(paths[0]), load(paths[1])
    labels = labels_of(first, second)
    what = " and ".join(f"{n} ({shown_path(p)})" for n, p in zip(labels, paths, strict=True))
    found = reasons(first, second, labels)
    require_comparable(found, what, force)
    before, after = explain_pair(first, second)
    found = (*found, *source_reasons(before.profile, after.profile, labels))
    require_comparable(found, what, force)
    comparison = compare(before, after)
    records = [shown_path(path) for path in paths]
    against = told(found)
    if form == "json":
        from moeprof.reports.compare_json import DOCUMENT, comparison_document

        show_json(DOCUMENT, comparison_document(comparison, records, against))
    elif form == "md":
        from moeprof.reports.compare_markdown import comparison_markdown

        click.echo(comparison_markdown(comparison, against), nl=False)
        click.echo(f"- records: {', '.join(f'`{record}`' for record in records)}")
    else:
        from moeprof.reports.compare_text import render_comparison

        show(render_comparison(comparison, against))
        show(f"records {records[0]}\n        {records[1]}")


def _two_paths(solutions: tuple[str, ...], wanted: Wanted, traces: Path) -> tuple[Path, Path]:
    """Paths as given; of names the records of one workload that both have."""
    from moeprof.storage import lookup
    from moeprof.storage.lookup import is_path

    first, second = solutions
    if is_path(first) and is_path(second):
        return Path(first), Path(second)
    if not is_path(first) and not is_path(second):
        found = lookup.workloads_of_all(traces, solutions, wanted)
        if len(found) < 2:
            raise UsageError(f"{first} twice", "two solutions", "give the paths of two records")
        chosen = lookup.one_workload(found, wanted)
        return chosen[first], chosen[second]
    given, name = (first, second) if is_path(first) else (second, first)
    other = lookup.same_workload(Path(given), lookup.workloads_of(traces, name, wanted), name)
    return (Path(given), other) if given is first else (other, Path(given))


def _compare_all(
    solutions: tuple[str, ...],
    wanted: Wanted,
    reference: str,
    form: str,
    force: bool,
    traces: Path,
) -> None:
    from moeprof.compare.tables import make_table
    from moeprof.storage.lookup import find_all

    paths = find_all(traces, solutions, reference, wanted)
    workloads, against = _load_comparable(paths, solutions, force)
    known = any(reference in runs for runs in workloads)
    table = make_table(workloads, solutions, reference if known else None)
    if not table.rows:
        raise UsageError(f"no workload can be compared: {'; '.join(table.left_out)}")
    cpu = workloads[0][solutions[0]].environment.device_kind == "cpu"
    if form == "json":
        from moeprof.reports.compare_json import ALL_DOCUMENT, overview_document

        used = [{name: shown_path(p) for name, p in files.items()} for files in paths]
        show_json(ALL_DOCUMENT, {**overview_document(table, against), "records": used})
    elif form == "md":
        from moeprof.reports.compare_markdown import overview_markdown

        click.echo(overview_markdown(table, cpu, against), nl=False)
        click.echo(f"\nRecords: {_folders(paths)}")
    else:
        from moeprof.reports.overview_text import render_overview

        show(render_overview(table, cpu, against), f"records of {_folders(paths)}")


def _load_comparable(
    paths: Sequence[dict[str, Path]], solutions: Sequence[str], force: bool
) -> tuple[list[dict[str, Run]], tuple[str, ...]]:
    """Every record, once it is known that those of one workload may be compared."""
    from moeprof.compare.comparable import reasons, require_comparable, told
    from moeprof.storage.store import load

    loaded: list[dict[str, Run]] = []
    found: list[Reason] = []
    for files in paths:
        runs = {name: load(path) for name, path in files.items()}
        first = solutions[0]
        for name, run in runs.items():
            if name != first:
                tokens = f" at T={run.workload.seq_len:,}"
                between = reasons(runs[first], run, (first + tokens, name + tokens))
                found.extend(r for r in between if r.name not in ("wrong result", "no samples"))
        loaded.append(runs)
    require_comparable(found, " and ".join(solutions), force)
    return loaded, told(found)


def _distinct(solutions: Sequence[str]) -> tuple[str, ...]:
    if len(set(solutions)) < len(solutions):
        raise UsageError("a solution is named twice", do="name each once")
    return tuple(solutions)


def _folders(paths: Sequence[dict[str, Path]]) -> str:
    """The folders that the records lie in, each once."""
    folders = {shown_path(path.parent) for files in paths for path in files.values()}
    return ", ".join(sorted(folders))
