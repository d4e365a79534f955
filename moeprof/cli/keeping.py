"""Checks into the history: each as it ends, and all of them again for ``history --rebuild``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprof.errors import MoeprofError

if TYPE_CHECKING:
    from moeprof.history.values import Entry
    from moeprof.regression.values import Check


def keep_check(traces: Path, check: Check, folder: Path) -> None:
    """Put a check that has just ended into the history of ``traces``.

    folder: its own, or where the records lie that were judged. The verdict stands whatever comes of
    this: what fails is one line on stderr.
    """
    from moeprof.storage.history import HISTORY_FILE, add

    try:
        entry = _entry_of_folder(traces, check, folder)
        if entry is not None:
            add(traces / HISTORY_FILE, [entry])
    except MoeprofError as error:
        click.secho(f"moeprof: warning: not in the history: {error}", fg="yellow", err=True)


def rebuild_history(traces: Path, say: Callable[[str], None]) -> int:
    """Make the history anew of every check in ``traces``; how many entries it has.

    A check that cannot be read is named and left out.
    """
    from moeprof.storage.history import HISTORY_FILE, rebuild

    seen: set[str] = set()

    def unread() -> Sequence[Entry]:
        return _entries_of_checks(traces, seen, say)

    count, aside = rebuild(traces / HISTORY_FILE, unread(), unread)
    if aside is not None:
        say(f"the old file could not be read; it is {aside.name} now")
    return count


def _entries_of_checks(traces: Path, seen: set[str], say: Callable[[str], None]) -> Sequence[Entry]:
    """Of the folders whose names are not in ``seen``, to which they are added."""
    from moeprof.storage.checks import CHECK_FILE, load_check

    found = []
    for path in sorted((traces / "checks").glob(f"[!.]*/{CHECK_FILE}")):
        if path.parent.name in seen:
            continue
        seen.add(path.parent.name)
        try:
            found.append(_own_entry(load_check(path), path.parent))
        except MoeprofError as error:
            say(f"left out: {error}")
    return found


def _entry_of_folder(traces: Path, check: Check, folder: Path) -> Entry | None:
    """The entry of a check; None for records in ``checks`` that have a verdict already."""
    from moeprof.history.entries import entry_of
    from moeprof.reports.check.phrases import headline
    from moeprof.storage.checks import CheckFolder, load_check, runs_in, save_check

    own = CheckFolder(folder)
    if folder.resolve().parent != (traces / "checks").resolve():
        return entry_of(check, headline(check), {"candidate": runs_in(folder)})
    try:
        kept = load_check(folder)
    except MoeprofError:  # measured with --measure-only, judged now
        save_check(own, check)
        kept = check
    return _own_entry(kept, folder) if kept == check else None


def _own_entry(check: Check, folder: Path) -> Entry:
    from moeprof.history.entries import entry_of
    from moeprof.history.values import Side
    from moeprof.reports.check.phrases import headline
    from moeprof.storage.checks import CheckFolder
    from moeprof.storage.sides import load_sides
    from moeprof.storage.store import load

    own = CheckFolder(folder)
    sides: tuple[Side, ...] = ("baseline", "candidate")
    runs = {side: [load(record) for record in own.records(side)] for side in sides}
    return entry_of(check, headline(check), runs, folder.name, load_sides(own))
