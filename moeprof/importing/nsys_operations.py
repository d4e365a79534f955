"""GPU operations of an export: kernels, copies and memsets as columns, descriptions stored once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from moeprof.importing.left_out import LeftOut
from moeprof.importing.nsys_tables import (
    DEVICES,
    KERNEL,
    MEMCPY,
    MEMSET,
    MISSING,
    NAMES,
    SHAPE,
    Chunk,
    Interned,
    Tables,
    Values,
    joined,
    rows,
    usable,
)
from moeprof.importing.trace import Numbers, OperationTable
from moeprof.timelines import Operation

UNNAMED = "(no name)"
# CUpti_ActivityMemcpyKind, and the kinds of unified memory that nsys adds to it
COPY_KINDS = (
    *("UNKNOWN", "HTOD", "DTOH", "HTOA", "ATOH", "ATOA", "ATOD", "DTOA", "DTOD", "HTOH", "PTOP"),
    *("UVM_HTOD", "UVM_DTOH", "UVM_DTOD"),
)
MOST_DESCRIPTIONS = 2_000_000
_KINDS = (KERNEL, MEMCPY, MEMSET)
# what distinguishes descriptions: the table, then these columns, MISSING in tables without them
_KEY = ("streamId", "graphNodeId", *NAMES, *SHAPE, "bytes", "copyKind")
_FIRST_NAME = 1 + _KEY.index(NAMES[0])


class Operations:
    """The operations of an export while its names are not yet known."""

    def __init__(self, tables: Tables, left_out: LeftOut) -> None:
        self._left_out = left_out
        self._keys = Interned(1 + len(_KEY), MOST_DESCRIPTIONS, "kernels, shapes and copies")
        self._places = Interned(2, 10_000, "processes and GPUs")
        columns: tuple[list[Values], ...] = ([], [], [])
        numbers: tuple[list[Numbers], ...] = ([], [])
        for kind, table in enumerate(_KINDS):
            for chunk in rows(tables, table):
                self._add(kind, chunk, columns, numbers)
        self.start_ns, self.end_ns, self.correlation = (joined(pieces) for pieces in columns)
        self._description, self._place = (joined(pieces, np.int32) for pieces in numbers)
        self._gpu_of = _gpu_numbers(tables)
        self._sort()

    def _sort(self) -> None:
        """By start, one column after the other so that there is only one copy at a time."""
        order = np.lexsort((self.correlation, self.end_ns, self.start_ns))
        self.start_ns = self.start_ns[order]
        self.end_ns = self.end_ns[order]
        self.correlation = self.correlation[order]
        self._description = self._description[order]
        self._place = self._place[order]

    def _add(
        self,
        kind: int,
        chunk: Chunk,
        columns: tuple[list[Values], ...],
        numbers: tuple[list[Numbers], ...],
    ) -> None:
        values = chunk.numbers
        start, end = values["start"], values["end"]
        untimed = (start == 0) & (end == 0)
        sound = usable(start, end)
        self._left_out.add(
            "GPU operations that the profiler could not time (start and end are 0)",
            int(untimed.sum()),
        )
        self._left_out.add("GPU operations without usable times", int((~sound).sum()))
        kept = sound & ~untimed
        if not kept.any():
            return
        count = int(kept.sum())
        missing = np.full(count, MISSING)
        key = [values[name][kept] if name in values else missing for name in _KEY]
        correlation = values["correlationId"][kept]
        known = (correlation >= 0) & (correlation < 1 << 32)
        for pieces, piece in zip(
            columns, (start[kept], end[kept], np.where(known, correlation, -1)), strict=True
        ):
            pieces.append(piece)
        numbers[0].append(self._keys.add([np.full(count, kind), *key]))
        place = [process_of(values["globalPid"][kept]), values["deviceId"][kept]]
        numbers[1].append(self._places.add(place))

    def name_ids(self) -> Values:
        """Ids of every string that names a kernel."""
        names = self._keys.rows()[:, _FIRST_NAME : _FIRST_NAME + len(NAMES)]
        return np.asarray(np.unique(names[names != MISSING]))

    def processes(self) -> Values:
        """The process of each operation [N]."""
        return np.asarray(self._places.rows()[:, 0][self._place])

    def table(self, name_of: Callable[[int, int, int], str]) -> OperationTable:
        """name_of: from the ids of mangled, demangled and short name."""
        distinct: dict[Operation, int] = {}
        keys = self._keys.rows()
        number = np.empty(len(keys), np.int32)
        for position, key in enumerate(keys):
            description = _described(key.tolist(), name_of)
            number[position] = distinct.setdefault(description, len(distinct))
        places: dict[tuple[int, int], int] = {}
        place = np.empty(len(self._places.rows()), np.int32)
        for position, (pid, device) in enumerate(self._places.rows().tolist()):
            gpu = self._gpu_of.get((pid, device), device if 0 <= device < 1 << 31 else -1)
            place[position] = places.setdefault((pid, gpu), len(places))
        return OperationTable(
            start_ns=self.start_ns,
            end_ns=self.end_ns,
            correlation=self.correlation,
            description=number[self._description],
            place=place[self._place],
            descriptions=tuple(distinct),
            places=tuple(places),
        )


def process_of(global_id: Values) -> Values:
    """Process id within nsys's serialised ids of processes and threads; -1 where there is none."""
    return np.where(global_id == MISSING, -1, (global_id >> 24) & 0xFFFFFF)


def _gpu_numbers(tables: Tables) -> Mapping[tuple[int, int], int]:
    """(process id, CUDA's number of a device in that process) to the GPU's number."""
    found: dict[tuple[int, int], int] = {}
    for chunk in rows(tables, DEVICES):
        columns = (chunk.numbers[name].tolist() for name in ("pid", "cudaId", "gpuId"))
        for pid, device, gpu in zip(*columns, strict=True):
            if 0 <= gpu < 1 << 31:
                found.setdefault((pid, device), gpu)
    return found


def _described(key: list[int], name_of: Callable[[int, int, int], str]) -> Operation:
    kind, stream, node, mangled, demangled, short, *shape, size, copy = key
    node_number = node if node not in (MISSING, 0) else None
    stream = stream if 0 <= stream < 1 << 32 else -1
    if kind == 0:
        static, dynamic = shape[7], shape[8]
        return Operation(
            name=name_of(mangled, demangled, short),
            kind="kernel",
            stage="",
            stream=stream,
            grid=_dimensions(shape[0:3]),
            block=_dimensions(shape[3:6]),
            registers=_within(shape[6], 1 << 16),
            shared_bytes=static + dynamic
            if _within(static, 1 << 31) is not None and _within(dynamic, 1 << 31) is not None
            else None,
            graph_node=node_number,
        )
    copied = COPY_KINDS[copy] if 0 <= copy < len(COPY_KINDS) else COPY_KINDS[0]
    return Operation(
        name="memset" if kind == 2 else f"memcpy {copied}",
        kind="memset" if kind == 2 else "memcpy",
        stage="",
        stream=stream,
        bytes=_within(size, 1 << 60),
        graph_node=node_number,
    )


def _within(value: int, limit: int) -> int | None:
    return value if 0 <= value < limit else None


def _dimensions(values: list[int]) -> tuple[int, int, int] | None:
    x, y, z = values
    return (x, y, z) if all(0 < value < 1 << 31 for value in values) else None
