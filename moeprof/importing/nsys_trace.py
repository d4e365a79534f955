"""An export of Nsight Systems, of whatever file format, to a Trace.

Rows are read in pieces into columns; names are looked up last, in one pass over the table of
strings, and only those that something refers to are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from moeprof.errors import RecordError
from moeprof.importing.demangle import MANGLED, Demangle
from moeprof.importing.left_out import LeftOut
from moeprof.importing.names import printable
from moeprof.importing.nsys_calls import Calls
from moeprof.importing.nsys_context import (
    diagnostics,
    gpus,
    overhead,
    versions,
    whole_graphs,
)
from moeprof.importing.nsys_operations import UNNAMED, Operations
from moeprof.importing.nsys_ranges import Ranges
from moeprof.importing.nsys_tables import (
    CALLS,
    EXPORT,
    KERNEL,
    MEMCPY,
    MEMSET,
    MISSING,
    RANGES,
    STRINGS,
    Tables,
    Values,
    rows,
    unread,
)
from moeprof.importing.trace import CallTable, RangeTable, Trace


def trace_of(tables: Tables, demangle: Demangle) -> Trace:
    """The capture that ``tables`` hold. Raises RecordError if they are no export of nsys."""
    require_export(tables)
    about, left_out = versions(tables), LeftOut()
    operations = Operations(tables, left_out)
    calls = Calls(tables, operations, left_out)
    ranges = Ranges(tables, left_out)
    ids = [part.name_ids() for part in (operations, calls, ranges)]
    strings = _strings(tables, np.unique(np.concatenate(ids)), left_out)
    spelled = _kernel_names(strings, ids[0], demangle)
    notes = [*about.notes, *unread(tables), *whole_graphs(tables), *diagnostics(tables)]
    missing = _MissingNames()
    trace_calls, trace_ranges = calls.table(strings), ranges.table(strings)
    trace_operations = operations.table(_naming(strings, spelled, missing))
    if not len(operations.start_ns):
        kinds = any(tables.columns(table) for table in (KERNEL, MEMCPY, MEMSET))
        notes.append(
            "no GPU operation is in the capture; "
            + ("it may end before the GPU worked" if kinds else "record with nsys profile -t cuda")
        )
    return Trace(
        source=about.source,
        operations=trace_operations,
        calls=trace_calls,
        ranges=trace_ranges,
        gpus=gpus(tables),
        threads=_threads(trace_calls, trace_ranges),
        overhead_ns=overhead(tables, left_out),
        notes=(*notes, *missing.notes(), *left_out.notes()),
        driver=about.driver,
        cuda=about.cuda,
    )


def require_export(tables: Tables) -> None:
    """Raise RecordError unless there is a table that every export, or every useful one, has."""
    if not any(tables.columns(table) for table in (EXPORT, KERNEL, CALLS, RANGES)):
        raise RecordError(
            f"{tables.source}: none of an export's tables",
            "an export of Nsight Systems",
            "nsys export --type=sqlite FILE.nsys-rep",
        )


def _threads(calls: CallTable, ranges: RangeTable) -> dict[int, tuple[int, int]]:
    numbers = np.unique(np.concatenate([calls.thread, ranges.thread])).tolist()
    return {
        number: ((number >> 24) & 0xFFFFFF, number & 0xFFFFFF) for number in numbers if number != -1
    }


def _strings(tables: Tables, wanted: Values, left_out: LeftOut) -> dict[int, str]:
    """Texts by id, of those ids that are wanted."""
    found: dict[int, str] = {}
    again = 0
    wanted = wanted[wanted != MISSING]
    for chunk in rows(tables, STRINGS):
        ids = chunk.numbers["id"]
        for row in np.flatnonzero(np.isin(ids, wanted)).tolist():
            text = chunk.texts["value"][row]
            if text is not None:
                again += int(ids[row]) in found
                found.setdefault(int(ids[row]), text)
    left_out.add("strings whose id an earlier one has", again)
    return found


def _kernel_names(strings: Mapping[int, str], ids: Values, demangle: Demangle) -> dict[str, str]:
    return demangle([strings[number] for number in ids.tolist() if number in strings])


class _MissingNames:
    """Counts kernels whose name is not what a record of our own would hold."""

    def __init__(self) -> None:
        self.unnamed = self.foreign = 0

    def notes(self) -> list[str]:
        found = []
        if self.unnamed:
            found.append(f"{self.unnamed:,} kernels have no name in the export")
        if self.foreign:
            found.append(
                f"{self.foreign:,} kernels have the name that Nsight Systems gives them, which "
                "spells templates in another way than a record does: libstdc++ could not be asked"
            )
        return found


def _naming(
    strings: Mapping[int, str], spelled: Mapping[str, str], missing: _MissingNames
) -> Callable[[int, int, int], str]:
    """Names of kernels from the ids of their mangled, demangled and short name."""

    def name_of(mangled: int, demangled: int, short: int) -> str:
        raw = strings.get(mangled, "")
        if raw in spelled:
            return printable(spelled[raw]) or UNNAMED
        if raw and not raw.startswith("_Z"):
            return printable(raw)
        name = strings.get(demangled) or raw or strings.get(short) or ""
        missing.unnamed += not name
        missing.foreign += bool(MANGLED.fullmatch(raw))
        return printable(name) or UNNAMED

    return name_of
