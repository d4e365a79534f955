"""The local store of everything that was checked: ``<traces>/history.sqlite``.

    checks      one row a check, its findings and labels in it as JSON
    processes   one row a fresh process of either side
    times       one row a quantity and source of a process: its summary, us

A rollback journal, not WAL: a check writes once in minutes, in one transaction of milliseconds, so
readers need no log beside the writer's; WAL would keep two more files that must be copied together
and memory shared by all who read, which network file systems lack. A kill leaves a journal that the
next who opens the store rolls back. Two that write wait for each other.

What cannot be read is named and left as it is: nothing is made anew but by ``rebuild``, which reads
the checks again, keeps what else the old file can still tell, and puts the new file in place by one
rename, the damaged one beside it. The store holds nothing that cannot be told again, but for checks
of records that lie elsewhere (``check --runs``).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moeprof.errors import MoeprofError, RecordError, ResourceExhausted
from moeprof.history.values import CodeLabel, Entry, ProcessTimes
from moeprof.records import WorkloadIdentity
from moeprof.regression.values import Finding, Quantity
from moeprof.storage.codec import decode, encode
from moeprof.storage.locks import locked

HISTORY_FILE = "history.sqlite"
SCHEMA_VERSION = 1
APPLICATION_ID = 0x6D6F6570  # 'moep': another program's file is never taken for ours
BUSY_SECONDS = 30.0
REBUILD = "moeprof history --rebuild makes it again from the checks and keeps this file beside it"

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE checks (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL,
    solution TEXT NOT NULL,
    definition TEXT NOT NULL,
    seq_len INTEGER NOT NULL,
    device TEXT NOT NULL,
    source_hash TEXT NOT NULL,
    "commit" TEXT NOT NULL,
    dirty INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    exit_code INTEGER NOT NULL,
    headline TEXT NOT NULL,
    rest TEXT NOT NULL
) STRICT;
CREATE INDEX checks_of_a_solution ON checks (solution, created);
CREATE TABLE processes (
    id INTEGER PRIMARY KEY,
    check_id INTEGER NOT NULL REFERENCES checks ON DELETE CASCADE,
    side TEXT NOT NULL,
    number INTEGER NOT NULL,
    created TEXT NOT NULL,
    source_hash TEXT NOT NULL,
    UNIQUE (check_id, side, number)
) STRICT;
CREATE TABLE times (
    process_id INTEGER NOT NULL REFERENCES processes ON DELETE CASCADE,
    stage TEXT NOT NULL,
    measure TEXT NOT NULL,
    source TEXT NOT NULL,
    us REAL NOT NULL,
    PRIMARY KEY (process_id, stage, measure, source)
) STRICT, WITHOUT ROWID;
"""


def add(path: Path, entries: Sequence[Entry]) -> None:
    """Put ``entries`` in, all or none, each over an older one of its key.

    Makes the store where there is none. RecordError if it is damaged, foreign or newer;
    ResourceExhausted, with everything as it was, if it cannot be written.
    """
    with _explained(path), _place_locked(path):
        if not path.exists():
            _make(path)
        _insert(path, entries)


def read(path: Path, solution: str | None = None) -> tuple[Entry, ...]:
    """The entries of a solution, or all, oldest first; none where there is no store.

    RecordError if the store is damaged, foreign or newer.
    """
    if not path.exists():
        return ()
    with _explained(path), _opened(path) as connection:
        return _entries(connection, solution)


def rebuild(
    path: Path, entries: Sequence[Entry], later: Callable[[], Sequence[Entry]] = tuple
) -> tuple[int, Path | None]:
    """Make the store anew of ``entries`` (those of all checks) and of what only the old one tells.

    later: asked for checks that ended meanwhile, when no other can write any more. How many entries
    it has, and where a damaged old file was put.
    """
    with _explained(path), _place_locked(path):
        known = {entry.key: entry for entry in (*_only_there(path), *entries, *later())}
        draft = path.with_name(f".{path.name}.{os.getpid()}.new")
        draft.unlink(missing_ok=True)
        try:
            _make(draft)
            _insert(draft, tuple(known.values()))
            aside = _put_aside(path)
            os.replace(draft, path)
        finally:
            for left in (draft, _journal(draft)):
                left.unlink(missing_ok=True)
    return len(known), aside


def _only_there(path: Path) -> tuple[Entry, ...]:
    """What no check can tell again, as far as the old store can be read."""
    try:
        return tuple(entry for entry in read(path) if not entry.in_checks)
    except RecordError:
        return ()


def _put_aside(path: Path) -> Path | None:
    """Move what cannot be read out of the way; a sound store is replaced by the rename alone."""
    journal = _journal(path)
    try:
        read(path, solution="")
        journal.unlink(missing_ok=True)  # rolled back by now; the next file must not meet it
        return None
    except RecordError:
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = path.with_name(f"{path.name}.replaced-{moment}")
        if journal.exists():
            os.replace(journal, _journal(aside))
        os.replace(path, aside)
        return aside


def _journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


# ---------------------------------------------------------------- one connection


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a store that was found sound. Rolls back what a kill left."""
    if path.stat().st_size == 0:  # SQLite would take it for a new one; ours are never empty
        raise RecordError(f"{path} is empty", "a history", REBUILD)
    mode = "rw" if os.access(path, os.W_OK) else "ro"
    address = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(address, timeout=BUSY_SECONDS, isolation_level=None, uri=True)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        _require_ours(connection, path)
        yield connection
    finally:
        connection.close()


def _require_ours(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise RecordError(f"{path} is a database of another program", "a history of moeprof")
    if version != SCHEMA_VERSION:
        raise RecordError(f"{path} has schema {version}", f"{SCHEMA_VERSION}", "update moeprof")
    (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise sqlite3.DatabaseError(state)


def _make(path: Path) -> None:
    """An empty store at ``path``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.empty")
    draft.unlink(missing_ok=True)
    try:
        connection = sqlite3.connect(draft)
        try:
            connection.executescript(_SCHEMA)
        finally:
            connection.close()
        os.replace(draft, path)
    finally:
        for left in (draft, _journal(draft)):
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def _place_locked(path: Path) -> Iterator[None]:
    """No other makes or replaces the store meanwhile; the lock dies with its holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent, BUSY_SECONDS):
        yield


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What SQLite and the disk say, as one line."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "malformed" in str(error):  # of the schema
            raise RecordError(f"{path} is damaged ({error})", do=REBUILD) from None
        do = "free disk space, or choose a --traces folder that you can write to"
        raise ResourceExhausted(f"{path} cannot be used: {error}", do=do) from None
    except sqlite3.DatabaseError as error:
        found = " ".join(str(error).split())
        raise RecordError(f"{path} is damaged ({found:.120})", do=REBUILD) from None
    except (ValueError, RecursionError) as error:  # a text in it that is not what was written
        raise RecordError(f"{path} is damaged ({error!s:.120})", do=REBUILD) from None
    except RecordError as error:
        known = str(error).startswith(str(path))
        raise error if known else RecordError(f"{path} is damaged: {error}", do=REBUILD) from None
    except MoeprofError:
        raise
    except OSError as error:
        do = "choose a --traces folder that you can write to"
        raise ResourceExhausted(f"{path} cannot be used: {error.strerror}", do=do) from None


# ---------------------------------------------------------------- rows


def _insert(path: Path, entries: Sequence[Entry]) -> None:
    with _opened(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for entry in entries:
                connection.execute("DELETE FROM checks WHERE key = ?", (entry.key,))
                _insert_one(connection, entry)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # it may have rolled back by itself
                connection.execute("ROLLBACK")
            raise


def _insert_one(connection: sqlite3.Connection, entry: Entry) -> None:
    rest = {
        "in_checks": entry.in_checks,
        "workload": encode(entry.workload),
        "routing_hash": entry.routing_hash,
        "findings": encode(entry.findings),
        "code": encode(entry.code),
        "against": encode(entry.against),
    }
    columns = {
        "key": entry.key,
        "created": entry.created,
        "solution": entry.solution,
        "definition": entry.workload.definition,
        "seq_len": entry.workload.seq_len,
        "device": entry.device,
        "source_hash": entry.source_hash,
        '"commit"': entry.code.commit,
        "dirty": int(entry.code.dirty),
        "verdict": entry.verdict,
        "exit_code": entry.exit_code,
        "headline": entry.headline,
        "rest": json.dumps(rest, allow_nan=False, ensure_ascii=False),
    }
    marks = ", ".join("?" * len(columns))
    check = connection.execute(
        f"INSERT INTO checks ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values())
    ).lastrowid
    for one in entry.processes:
        row = (check, one.side, one.number, one.created, one.source_hash)
        process = connection.execute(
            "INSERT INTO processes (check_id, side, number, created, source_hash)"
            " VALUES (?, ?, ?, ?, ?)",
            row,
        ).lastrowid
        connection.executemany(
            "INSERT INTO times VALUES (?, ?, ?, ?, ?)",
            [(process, q.stage, q.measure, source, us) for q, source, us in one.times_us],
        )


def _entries(connection: sqlite3.Connection, solution: str | None) -> tuple[Entry, ...]:
    connection.execute("BEGIN")  # all three tables as of one moment
    where, given = ("", ()) if solution is None else (" WHERE solution = ?", (solution,))
    chosen = f"SELECT id FROM checks{where}"
    times: dict[int, list[tuple[Quantity, str, float]]] = {}
    for process, stage, measure, source, us in connection.execute(
        "SELECT process_id, stage, measure, source, us FROM times JOIN processes"
        f" ON processes.id = process_id WHERE check_id IN ({chosen})",
        given,
    ):
        quantity = decode(Quantity, {"stage": stage, "measure": measure})
        times.setdefault(process, []).append((quantity, source, us))
    processes: dict[int, list[ProcessTimes]] = {}
    for number, check, side, place, created, source_hash in connection.execute(
        "SELECT id, check_id, side, number, created, source_hash FROM processes"
        f" WHERE check_id IN ({chosen}) ORDER BY check_id, side, number",
        given,
    ):
        own = tuple(times.get(number, ()))
        processes.setdefault(check, []).append(ProcessTimes(side, place, created, source_hash, own))
    rows = connection.execute(
        "SELECT id, key, created, solution, device, source_hash, verdict, exit_code, headline, rest"
        f" FROM checks{where} ORDER BY created, key",
        given,
    ).fetchall()
    connection.execute("COMMIT")
    return tuple(_entry(row[1:], tuple(processes.get(row[0], ()))) for row in rows)


def _entry(row: tuple[Any, ...], processes: tuple[ProcessTimes, ...]) -> Entry:
    key, created, solution, device, source_hash, verdict, exit_code, headline, text = row
    rest = json.loads(text)
    try:
        return Entry(
            key=key,
            in_checks=bool(rest["in_checks"]),
            created=created,
            solution=solution,
            source_hash=source_hash,
            workload=decode(WorkloadIdentity, rest["workload"]),
            routing_hash=str(rest["routing_hash"]),
            device=device,
            verdict=verdict,
            exit_code=exit_code,
            headline=headline,
            findings=decode(tuple[Finding, ...], rest["findings"]),
            processes=processes,
            code=decode(CodeLabel, rest["code"]),
            against=decode(CodeLabel, rest["against"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"check {key!r} lacks {error}") from None
