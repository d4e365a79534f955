"""`nsys export --type=parquetdir`: a folder with one Parquet file a table, read as columns.

The same tables and columns as in an SQLite export, so what they mean is decided in the same place
(``nsys_trace``). pyarrow is an optional dependency and is imported only when such a folder is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from moeprof.errors import EnvironmentMissing, RecordError
from moeprof.importing.demangle import Demangle, demangled
from moeprof.importing.names import LONGEST, printable
from moeprof.importing.nsys_tables import MISSING, Chunk, Columns, Values
from moeprof.importing.nsys_trace import trace_of
from moeprof.importing.trace import Trace

CHUNK_ROWS = 20_000
SPARE_ROWS = 10_000  # on top of one row for each byte of a file: times do not compress further
_MAKE = "nsys export --type=parquetdir FILE.nsys-rep"


def read_nsys_parquet(folder: Path, demangle: Demangle = demangled) -> Trace:
    """The capture in a folder of Parquet files that nsys exported.

    Raises RecordError, in one line, if it is no sound export, and EnvironmentMissing without
    pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise EnvironmentMissing(
            f"reading {folder} needs pyarrow ({error})", do="pip install 'moeprof[parquet]'"
        ) from error
    if not folder.is_dir():
        raise RecordError(f"{folder}: no folder", "one of Parquet files of Nsight Systems", _MAKE)
    try:
        return trace_of(ParquetTables(folder, parquet), demangle)
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        said = printable(str(error), 200)
        raise RecordError(
            f"{folder}: damaged ({said})", "sound Parquet files", f"export again: {_MAKE}"
        ) from error


class ParquetTables:
    """Tables in a folder; see ``nsys_tables.Tables``. parquet: the module ``pyarrow.parquet``."""

    def __init__(self, folder: Path, parquet: Any) -> None:
        self.source = str(folder)
        self._folder, self._parquet = folder, parquet
        self._columns: dict[str, frozenset[str]] = {}

    def columns(self, table: str) -> frozenset[str]:
        """Columns of ``table`` that hold whole numbers or texts, named as in SQLite."""
        found = self._columns.get(table)
        if found is None:
            found = frozenset()
            if self._path(table).is_file():
                with self._open(table) as file:
                    names = [field.name for field in file.schema_arrow]
                found = frozenset(name for name in names if names.count(name) == 1)
            self._columns[table] = found
        return found

    def chunks(self, table: str, columns: Columns) -> Iterator[Chunk]:
        """Rows of ``table``; what is not of a column's type, or of no column, is missing."""
        chosen = sorted(self.columns(table).intersection(columns.numbers + columns.texts))
        texts = [name for name in columns.texts if name in chosen]
        left = self._path(table).stat().st_size + SPARE_ROWS
        # as dictionaries: a long text that is repeated a million times is stored, and read, once
        with self._open(table, read_dictionary=texts) as file:
            for batch in file.iter_batches(CHUNK_ROWS, columns=chosen, use_threads=False):
                left -= batch.num_rows
                if left < 0:
                    raise ValueError(f"{table} has more rows than fit in its file")
                batch.validate()
                yield _chunk(batch, columns)

    def _path(self, table: str) -> Path:
        return self._folder / f"{table}.parquet"

    def _open(self, table: str, **options: Any) -> Any:
        limits = {"thrift_string_size_limit": 1 << 24, "thrift_container_size_limit": 1 << 20}
        return self._parquet.ParquetFile(self._path(table), **limits, **options)


def _chunk(batch: Any, columns: Columns) -> Chunk:
    names = set(batch.schema.names)
    count = batch.num_rows
    return Chunk(
        {
            name: _numbers(batch.column(name)) if name in names else np.full(count, MISSING)
            for name in columns.numbers
        },
        {
            name: _texts(batch.column(name)) if name in names else [None] * count
            for name in columns.texts
        },
    )


def _numbers(column: Any) -> Values:
    """[n] MISSING where NULL; unsigned 64-bit values wrap as they do in SQLite."""
    import pyarrow

    if not pyarrow.types.is_integer(column.type):
        return np.full(len(column), MISSING)
    values: Values = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    if column.null_count:
        values[column.is_null().to_numpy(zero_copy_only=False)] = MISSING
    return values


def _texts(column: Any) -> list[str | None]:
    import pyarrow

    types = pyarrow.types
    if not types.is_dictionary(column.type):
        return [None] * len(column)
    if not (
        types.is_string(column.type.value_type) or types.is_large_string(column.type.value_type)
    ):
        return [None] * len(column)
    spelled: list[str | None] = [
        None if value is None else value[: 4 * LONGEST].decode("utf-8", "replace")[:LONGEST]
        for value in column.dictionary.cast(pyarrow.large_binary()).to_pylist()
    ]
    return [None if n is None else spelled[n] for n in column.indices.to_pylist()]
