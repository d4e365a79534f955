"""An SQLite export of Nsight Systems without what is nobody's business, to be shown or kept.

An export holds every environment variable of the profiled process, names of users, hosts and
processes, command lines, paths and serial numbers. A scrubbed one is written anew with only the
tables and columns that ``nsys_sqlite`` reads (``nsys_tables.READ``), of those only rows that it
uses, and of the strings only those referred to. So the same trace is read from both.

    from moeprof.importing.scrub import scrub_nsys_sqlite
    scrub_nsys_sqlite(Path("capture.sqlite"), Path("scrubbed.sqlite"), iterations=3)

Kept as they are: names of kernels and calls, process and thread numbers, times, and names of NVTX
ranges but for words that look like a path. Whoever writes secrets into those should not share them.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moeprof.errors import RecordError, ResourceExhausted, UsageError
from moeprof.importing.nsys_context import VERSION, without_paths
from moeprof.importing.nsys_operations import process_of
from moeprof.importing.nsys_ranges import DOMAIN, RANGE_TYPES
from moeprof.importing.nsys_sqlite import SqliteTables, open_read_only, read_nsys_sqlite, reading
from moeprof.importing.nsys_tables import (
    CALLS,
    DIAGNOSTICS,
    EXPORT,
    KERNEL,
    MEMCPY,
    MEMSET,
    MISSING,
    NAMES,
    RANGES,
    READ,
    STRINGS,
    SYSTEM,
    Chunk,
    Values,
    rows,
)
from moeprof.importing.nsys_trace import require_export

Window = tuple[int, int]

# words that look like an absolute or home path, or name a user at a host
_PATH = re.compile(r"(?<!\w)(?:~|[A-Za-z]:\\|/|\\\\)[^\s,;)\]}]*|(?<!\S)[^\s@]+@\S*")
_VERSIONS = {
    EXPORT: ("EXPORT_PRODUCT_VERSION", "EXPORT_SCHEMA_VERSION"),
    SYSTEM: ("NvDriverVersion", "CudaDriverVersion"),
}
_SERIOUS = (2, 3)  # diagnostics that are kept: warnings and errors


def scrub_nsys_sqlite(
    source: Path,
    destination: Path,
    iterations: int | None = None,
    window_ns: Window | None = None,
) -> None:
    """Write what a reader uses of ``source`` to the new file ``destination``.

    iterations: keep only the first so many ranges named 'iteration'. window_ns: keep only what
    began in that time of the host, and what was launched in it. Raises UsageError if
    ``destination`` exists, RecordError if ``source`` is no export or has no such ranges,
    ResourceExhausted if the disk is full; ``destination`` is then not there.
    """
    window = window_ns if iterations is None else _window(source, iterations)
    if destination.exists():
        raise UsageError(f"{destination} exists", "a name for a new file", "choose another")
    beside = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    try:
        with closing(open_read_only(source)) as connection:
            _copy(source, connection, beside, window)
        os.replace(beside, destination)
    except (OSError, sqlite3.Error) as error:
        raise ResourceExhausted(f"{destination} could not be written: {error}") from error
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def _window(source: Path, iterations: int) -> Window:
    """From the start of the first iteration to the end of the last that is kept."""
    if iterations < 1:
        raise UsageError(f"{iterations} iterations", "1 or more")
    ranges = read_nsys_sqlite(source, demangle=lambda names: {}).ranges
    named = [number for number, name in enumerate(ranges.names) if name[1] == "iteration"]
    found = np.flatnonzero(np.isin(ranges.name, named) & (ranges.end_ns != -1))[:iterations]
    if not len(found):
        raise RecordError(
            f"{source}: no closed NVTX range named iteration",
            "one around each iteration to cut at",
            "scrub it without cutting",
        )
    return int(ranges.start_ns[found].min()), int(ranges.end_ns[found].max())


def _copy(source: Path, read: sqlite3.Connection, path: Path, window: Window | None) -> None:
    tables = SqliteTables(source, read)
    with reading(source):
        require_export(tables)
        present = [table for table in READ if {*READ[table].needed} <= tables.columns(table)]
    kept = _Kept(tables, window)
    with closing(sqlite3.connect(path, isolation_level=None)) as write:
        for pragma in ("journal_mode=OFF", "synchronous=OFF"):
            write.execute(f"PRAGMA {pragma}").close()
        write.execute("BEGIN")
        # calls before what they launched; strings last, when it is known which are referred to
        for table in sorted(READ, key=lambda table: (table == STRINGS, table != CALLS)):
            chunks = kept.rows(table)
            if table in present:
                _create(write, table)
            while chunk := _next(chunks, source):
                _insert(write, table, chunk)
        write.execute("COMMIT")


def _next(chunks: Iterator[Chunk], source: Path) -> Chunk | None:
    with reading(source):
        return next(chunks, None)


def _create(connection: sqlite3.Connection, table: str) -> None:
    read = READ[table]
    declared = [f"{name} INTEGER" for name in read.numbers] + [
        f"{name} TEXT" for name in read.texts
    ]
    if table == STRINGS:
        declared[0] += " NOT NULL PRIMARY KEY"
    connection.execute(f"CREATE TABLE {table} ({', '.join(declared)})")


def _insert(connection: sqlite3.Connection, table: str, chunk: Chunk) -> None:
    """Add rows, NULL where a value is missing."""
    numbers = [
        [None if value == MISSING else value for value in column.tolist()]
        for column in chunk.numbers.values()
    ]
    marks = ", ".join("?" * (len(chunk.numbers) + len(chunk.texts)))
    connection.executemany(
        f"INSERT OR IGNORE INTO {table} VALUES ({marks})",
        zip(*numbers, *chunk.texts.values(), strict=True),
    )


class _Kept:
    """Which rows of each table are kept, and what is taken out of their texts."""

    def __init__(self, tables: SqliteTables, window: Window | None) -> None:
        self._tables, self._window = tables, window
        self._launches: list[Values] = []
        self._named: list[Values] = []  # ids of strings
        self._spoken: list[Values] = []  # of those, names that the profiled program's author gave

    def rows(self, table: str) -> Iterator[Chunk]:
        """Kept rows of ``table``, at least one a chunk."""
        for chunk in rows(self._tables, table):
            kept = self._chosen(table, chunk)
            if kept.any():
                yield self._cleaned(table, _taken(chunk, kept))

    def _chosen(self, table: str, chunk: Chunk) -> NDArray[np.bool_]:
        values = chunk.numbers
        if table in _VERSIONS:
            return _versions(chunk, _VERSIONS[table])
        if table == DIAGNOSTICS:
            return np.asarray(np.isin(values["severity"], _SERIOUS))
        if table == STRINGS:
            # a string without an id would be given one that something may refer to
            has_id = values["id"] != MISSING
            return np.asarray(has_id & np.isin(values["id"], _distinct(self._named)))
        if table == RANGES:
            is_domain = values["eventType"] == DOMAIN
            is_range = np.isin(values["eventType"], RANGE_TYPES)
            return np.asarray(is_domain | is_range & self._begun(values["start"]))
        if self._window is None or "start" not in values:
            return np.ones(len(next(iter(values.values()))), dtype=np.bool_)
        if table == CALLS:
            kept = self._begun(values["start"])
            self._launches.append(_launches(values["globalTid"], values["correlationId"])[kept])
            return kept
        if table in (KERNEL, MEMCPY, MEMSET):
            key = _launches(values["globalPid"], values["correlationId"])
            return np.asarray(np.isin(key, _distinct(self._launches)))
        return self._begun(values["start"])

    def _begun(self, start_ns: Values) -> NDArray[np.bool_]:
        if self._window is None:
            return np.ones(len(start_ns), dtype=np.bool_)
        return np.asarray((start_ns >= self._window[0]) & (start_ns <= self._window[1]))

    def _cleaned(self, table: str, chunk: Chunk) -> Chunk:
        if table == RANGES:
            self._spoken.append(chunk.numbers["textId"])
            self._named.append(chunk.numbers["textId"])
            texts = [text and _PATH.sub("[...]", text) for text in chunk.texts["text"]]
            return Chunk(chunk.numbers, {"text": texts})
        if table == STRINGS:
            spoken = np.isin(chunk.numbers["id"], _distinct(self._spoken)).tolist()
            texts = [
                _PATH.sub("[...]", text) if text and said else text
                for text, said in zip(chunk.texts["value"], spoken, strict=True)
            ]
            return Chunk(chunk.numbers, {"value": texts})
        if table == DIAGNOSTICS:
            texts = [text and without_paths(text) for text in chunk.texts["text"]]
            return Chunk(chunk.numbers, {"text": texts})
        if table in (KERNEL, CALLS):
            columns = NAMES if table == KERNEL else ("nameId",)
            self._named += [np.unique(chunk.numbers[name]) for name in columns]
        return chunk


def _distinct(pieces: list[Values]) -> Values:
    whole = np.unique(np.concatenate([*pieces, np.empty(0, dtype=np.int64)]))
    pieces[:] = [whole]
    return whole


def _launches(global_id: Values, correlation: Values) -> Values:
    return process_of(global_id) << 32 | np.where(correlation < 0, -1, correlation)


def _versions(chunk: Chunk, wanted: tuple[str, ...]) -> NDArray[np.bool_]:
    pairs = zip(chunk.texts["name"], chunk.texts["value"], strict=True)
    kept = [name in wanted and bool(VERSION.fullmatch(value or "")) for name, value in pairs]
    return np.array(kept, dtype=np.bool_)


def _taken(chunk: Chunk, kept: NDArray[np.bool_]) -> Chunk:
    chosen = np.flatnonzero(kept).tolist()
    return Chunk(
        {name: column[kept] for name, column in chunk.numbers.items()},
        {name: [column[row] for row in chosen] for name, column in chunk.texts.items()},
    )
