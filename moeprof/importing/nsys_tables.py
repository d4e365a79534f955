"""What is read of an export of Nsight Systems: its tables and columns, and rows as numbers.

One list for every file format that ``nsys export`` writes, and for what a scrubbed export may hold.
Tables are created lazily and columns come and go between schema versions, so a table or an optional
column that is absent reads as having no rows or no values; only ``needed`` ones must exist.

Nothing is believed: a value that is no whole number reads as MISSING, and what follows from that is
decided where the rows are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moeprof.errors import RecordError

MISSING = -(2**63)
LATEST = 2**61  # ns: times beyond, 73 years, are unsound, and sums of two others fit 64 bits
KNOWN_SCHEMAS = ((3, 16), (3, 25))
EXPORT_AGAIN = "export the report again: nsys export --type=sqlite FILE.nsys-rep"

Values = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of one table that are read. ``needed``: those without which it cannot be.

    context: whether a capture can be read without the table.
    """

    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    context: bool = False


_OPERATION = ("start", "end", "deviceId", "streamId", "correlationId", "globalPid", "graphNodeId")
KERNEL, MEMCPY, MEMSET = (f"CUPTI_ACTIVITY_KIND_{kind}" for kind in ("KERNEL", "MEMCPY", "MEMSET"))
GRAPH, CALLS = "CUPTI_ACTIVITY_KIND_GRAPH_TRACE", "CUPTI_ACTIVITY_KIND_RUNTIME"
STRINGS, RANGES, OVERHEAD = "StringIds", "NVTX_EVENTS", "PROFILER_OVERHEAD"
EXPORT, SYSTEM, DIAGNOSTICS = "META_DATA_EXPORT", "TARGET_INFO_SYSTEM_ENV", "DIAGNOSTIC_EVENT"
GPUS, DEVICES = "TARGET_INFO_GPU", "TARGET_INFO_CUDA_DEVICE"
NAMES = ("mangledName", "demangledName", "shortName")
SHAPE = (
    *("gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ"),
    *("registersPerThread", "staticSharedMemory", "dynamicSharedMemory"),
)

READ: dict[str, Columns] = {
    EXPORT: Columns(texts=("name", "value"), needed=("name", "value"), context=True),
    STRINGS: Columns(("id",), ("value",), needed=("id", "value")),
    KERNEL: Columns((*_OPERATION, *NAMES, *SHAPE), needed=("start", "end")),
    MEMCPY: Columns((*_OPERATION, "bytes", "copyKind"), needed=("start", "end")),
    MEMSET: Columns((*_OPERATION, "bytes"), needed=("start", "end")),
    GRAPH: Columns(("start", "end"), needed=("start", "end")),
    CALLS: Columns(
        ("start", "end", "globalTid", "correlationId", "nameId"),
        needed=("start", "end", "globalTid", "correlationId", "nameId"),
    ),
    RANGES: Columns(
        ("start", "end", "eventType", "globalTid", "endGlobalTid", "textId", "domainId"),
        ("text",),
        needed=("start", "end", "eventType", "globalTid"),
    ),
    OVERHEAD: Columns(("start", "end"), needed=("start", "end"), context=True),
    DIAGNOSTICS: Columns(("severity",), ("text",), needed=("severity", "text"), context=True),
    GPUS: Columns(
        ("id", "smCount", "computeMajor", "computeMinor", "l2CacheSize", "totalMemory"),
        ("name",),
        needed=("id",),
        context=True,
    ),
    DEVICES: Columns(("gpuId", "cudaId", "pid"), needed=("gpuId", "cudaId", "pid"), context=True),
    SYSTEM: Columns(texts=("name", "value"), needed=("name", "value"), context=True),
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one table: [n] numbers, MISSING where there is none, and n texts, by column."""

    numbers: dict[str, Values]
    texts: dict[str, list[str | None]] = field(default_factory=dict)


class Tables(Protocol):
    """An export of any file format. ``source``: what errors call it."""

    source: str

    def columns(self, table: str) -> frozenset[str]:
        """Columns that ``table`` has; empty if there is no such table."""

    def chunks(self, table: str, columns: Columns) -> Iterator[Chunk]:
        """All rows of a table that exists, in pieces; every one of ``columns`` is in each."""


def rows(tables: Tables, table: str) -> Iterator[Chunk]:
    """The rows of ``table`` in pieces, none if it does not exist or is ``unread``.

    Raises RecordError if a needed column is missing and the table is no mere context.
    """
    present, read = tables.columns(table), READ[table]
    lacking = [column for column in read.needed if column not in present]
    if not present or (lacking and read.context):
        return
    if lacking:
        low, high = (".".join(map(str, version)) for version in KNOWN_SCHEMAS)
        raise RecordError(
            f"{tables.source}: its table {table} has no column {lacking[0]}",
            f"an export of schema {low} to {high}",
            EXPORT_AGAIN,
        )
    yield from tables.chunks(table, read)


def unread(tables: Tables) -> list[str]:
    """A note for each table that is there but lacks what it would be read for."""
    return [
        f"its table {table} has no column {column} and was not read"
        for table, read in READ.items()
        if read.context
        for column in read.needed
        if tables.columns(table) and column not in tables.columns(table)
    ]


def usable(start_ns: Values, end_ns: Values) -> NDArray[np.bool_]:
    """Which pairs of times can be an interval."""
    known = (np.abs(start_ns) <= LATEST) & (np.abs(end_ns) <= LATEST) & (start_ns != MISSING)
    return np.asarray(known & (end_ns != MISSING) & (end_ns >= start_ns))


def is_thread(global_id: Values) -> NDArray[np.bool_]:
    """Which ids can be a thread's; -1 stands for no one thread in a trace."""
    return np.asarray((global_id != MISSING) & (global_id != -1))


def joined(pieces: list[Any], kind: type[np.signedinteger[Any]] = np.int64) -> NDArray[Any]:
    """Pieces of a column as one, freed."""
    whole = np.concatenate(pieces) if pieces else np.empty(0, dtype=kind)
    pieces.clear()
    return whole


class Interned:
    """Distinct rows of whole numbers, numbered as they appear."""

    def __init__(self, width: int, most: int, what: str) -> None:
        self._width, self._most, self._what = width, most, what
        self._number: dict[bytes, int] = {}

    def add(self, columns: list[Values]) -> NDArray[np.int32]:
        """The number of each row [n] of ``columns``, which are ``width`` arrays [n].

        Raises RecordError once there are more distinct ones than ``most``.
        """
        matrix = np.ascontiguousarray(np.stack(columns, axis=1))
        keys: Any = matrix.view(np.dtype((np.void, 8 * self._width))).ravel().tolist()
        number = self._number
        for key in dict.fromkeys(keys):  # in order: the same file always gives the same trace
            if key not in number:
                number[key] = len(number)
        if len(number) > self._most:
            raise RecordError(
                f"more than {self._most:,} different {self._what}",
                "a capture of one workload",
                "capture fewer iterations, or export less: nsys export --times START/END",
            )
        return np.fromiter(map(number.__getitem__, keys), np.int32, len(keys))

    def rows(self) -> Values:
        """The distinct rows [k, width]."""
        whole = b"".join(self._number)
        return np.frombuffer(whole, dtype=np.int64).reshape(-1, self._width)
