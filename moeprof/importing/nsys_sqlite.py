"""`nsys export --type=sqlite`: opened read-only whatever state it is in, and read as columns.

The file is opened immutable, so nothing is locked, written or left beside it. It may be anyone's,
so it is read as data only: views, virtual tables and generated columns are not looked at, no index
is used, and neither more rows nor more text are taken from it than a file of its size can hold
(pages that point to one another could otherwise repeat for ever).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from moeprof.errors import RecordError
from moeprof.importing.demangle import Demangle, demangled
from moeprof.importing.names import LONGEST, printable
from moeprof.importing.nsys_tables import Chunk, Columns
from moeprof.importing.nsys_trace import trace_of
from moeprof.importing.trace import Trace

CHUNK_ROWS = 20_000
LONGEST_TEXT = 1 << 20  # bytes of one value; an export's own are at most some thousands
SMALLEST_ROW = 6  # bytes that a row of two columns takes at least
_MAGIC = b"SQLite format 3\0"
_MAKE = "export the report: nsys export --type=sqlite FILE.nsys-rep"
_AGAIN = "export the report again, with --force-overwrite=true"


def read_nsys_sqlite(path: Path, demangle: Demangle = demangled) -> Trace:
    """The capture in an SQLite export of Nsight Systems.

    Raises RecordError, in one line, if the file is no sound export.
    """
    with closing(open_read_only(path)) as connection, reading(path):
        return trace_of(SqliteTables(path, connection), demangle)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what SQLite says of a file it cannot read to its end into a RecordError."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError) as error:
        raise damaged(path, error) from error


def open_read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot change the file nor anything beside it.

    Raises RecordError if it is no SQLite file, truncated, or has changes in a journal beside it.
    """
    check_file(path)
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_TEXT)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "query_only=ON"):
            connection.execute(f"PRAGMA {pragma}").close()
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except (sqlite3.Error, UnicodeError) as error:
        connection.close()
        raise damaged(path, error) from error
    return connection


def check_file(path: Path) -> None:
    """Raise RecordError unless the bytes of ``path`` can be a whole SQLite file."""
    try:
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "is no file" if path.exists() else "missing"
            raise RecordError(f"{path}: {found}", "an SQLite export of Nsight Systems", _MAKE)
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(100)
        journals = [path.with_name(path.name + end) for end in ("-wal", "-journal")]
        unsaved = [journal for journal in journals if journal.exists() and journal.stat().st_size]
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}", "a file that can be read") from error
    if len(header) < 100 or not header.startswith(_MAGIC):
        found = f"{path}: {'empty' if not size else 'not an SQLite file'}"
        raise RecordError(found, "an SQLite export of Nsight Systems", _MAKE)
    page = int.from_bytes(header[16:18], "big")
    whole = int.from_bytes(header[28:32], "big") * (65536 if page == 1 else page)
    if header[24:28] == header[92:96] and size < whole:
        raise RecordError(f"{path}: truncated at {size:,} bytes", f"{whole:,}", _AGAIN)
    if unsaved:
        raise RecordError(
            f"{path}: changes not yet in it lie in {unsaved[0].name}",
            "an export that is finished",
            "wait for nsys export to end, or " + _AGAIN,
        )


def damaged(path: Path, error: BaseException) -> RecordError:
    """What to say of a file that SQLite cannot read to its end."""
    said = printable(str(error), 200)
    return RecordError(f"{path}: damaged ({said})", "a sound SQLite file", _AGAIN)


class SqliteTables:
    """Tables of an open export; see ``nsys_tables.Tables``."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.source = str(path)
        self._path, self._connection = path, connection
        self._bytes = path.stat().st_size
        self._text_left = 0
        connection.text_factory = self._text
        self._columns: dict[str, frozenset[str]] = {}

    def columns(self, table: str) -> frozenset[str]:
        """Columns of ``table`` if it is a table that is stored, and not computed when read."""
        found = self._columns.get(table)
        if found is None:
            self._text_left = self._bytes
            stored = self._connection.execute(
                "SELECT 1 FROM sqlite_master WHERE name = ? AND rootpage > 0",
                (table,),
            ).fetchone()
            rows = self._connection.execute(f"PRAGMA table_info({table})") if stored else ()
            found = self._columns[table] = frozenset(str(row[1]) for row in rows)
        return found

    def chunks(self, table: str, columns: Columns) -> Iterator[Chunk]:
        """Rows of ``table``; what is not of a column's type, or of no column, is missing."""
        present = self.columns(table)
        numbers = [_number(name) if name in present else _NONE for name in columns.numbers]
        texts = [_text(name) if name in present else "NULL" for name in columns.texts]
        chosen = ", ".join(numbers + texts)
        self._text_left = self._bytes
        left = self._bytes // SMALLEST_ROW
        cursor = self._connection.execute(f"SELECT {chosen} FROM {table} NOT INDEXED")
        while rows := cursor.fetchmany(CHUNK_ROWS):
            left -= len(rows)
            if left < 0:
                raise self._endless()
            yield _chunk(rows, columns)

    def _text(self, value: bytes) -> str:
        self._text_left -= len(value)
        if self._text_left < 0:
            raise self._endless()
        return value.decode("utf-8", "replace")[:LONGEST]

    def _endless(self) -> RecordError:
        return damaged(self._path, ValueError("it holds more than fits in it"))


_NONE = "0x8000000000000000"  # nsys_tables.MISSING


def _number(name: str) -> str:
    return f'CASE typeof("{name}") WHEN \'integer\' THEN "{name}" ELSE {_NONE} END'


def _text(name: str) -> str:
    return f'CASE typeof("{name}") WHEN \'text\' THEN "{name}" END'


def _chunk(rows: list[tuple[Any, ...]], columns: Columns) -> Chunk:
    width = len(columns.numbers)
    texts = {name: [row[width + n] for row in rows] for n, name in enumerate(columns.texts)}
    numbers = [row[:width] for row in rows] if texts else rows
    flat = np.fromiter(chain.from_iterable(numbers), np.int64, len(rows) * width)
    matrix = flat.reshape(len(rows), width)
    return Chunk({name: matrix[:, n] for n, name in enumerate(columns.numbers)}, texts)
