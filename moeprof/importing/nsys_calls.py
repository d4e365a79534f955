"""CUDA API calls of an export: those that launched an operation, and those worth a look.

An export may hold ten calls for each operation (attribute queries, error checks). Kept are the same
ones as in our own api pass: what launched, what can block the host, what took long.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moeprof.importing.left_out import LeftOut
from moeprof.importing.names import api_name
from moeprof.importing.nsys_operations import UNNAMED, Operations, process_of
from moeprof.importing.nsys_tables import (
    CALLS,
    STRINGS,
    Interned,
    Tables,
    Values,
    is_thread,
    joined,
    rows,
    usable,
)
from moeprof.importing.trace import CallTable, Numbers
from moeprof.timelines import NOTABLE_NAMES, NOTABLE_NS

MOST_NAMES = 100_000  # CUDA has some thousands of calls


class Calls:
    """The calls of an export while their names are not yet known."""

    def __init__(self, tables: Tables, operations: Operations, left_out: LeftOut) -> None:
        self._launching = np.unique(_keys(operations.processes(), operations.correlation))
        self._notable = _notable_ids(tables)
        self._left_out = left_out
        self._names = Interned(1, MOST_NAMES, "names of API calls")
        pieces: tuple[list[Values], ...] = ([], [], [], [])
        names: list[Numbers] = []
        for chunk in rows(tables, CALLS):
            self._add(chunk.numbers, pieces, names)
        self._start_ns, self._end_ns, self._correlation, self._thread = map(joined, pieces)
        self._name = joined(names, np.int32)
        self._sort()

    def _sort(self) -> None:
        """By start; of several calls with one correlation only the first is kept.

        One column after the other, so that there is only one copy at a time.
        """
        order = np.lexsort((-self._end_ns, self._start_ns))
        key = _keys(process_of(self._thread), self._correlation)[order]
        kept = key < 0
        kept[np.unique(key, return_index=True)[1]] = True
        del key
        self._left_out.add(
            "API calls whose correlation id an earlier call of the process has", int((~kept).sum())
        )
        order = order[kept]
        self._start_ns = self._start_ns[order]
        self._end_ns = self._end_ns[order]
        self._correlation = self._correlation[order]
        self._thread = self._thread[order]
        self._name = self._name[order]

    def _add(
        self, values: Mapping[str, Values], pieces: tuple[list[Values], ...], names: list[Numbers]
    ) -> None:
        start, end, thread = values["start"], values["end"], values["globalTid"]
        sound = usable(start, end) & is_thread(thread)
        self._left_out.add("API calls without usable times or thread", int((~sound).sum()))
        correlation = values["correlationId"]
        correlation = np.where((correlation >= 0) & (correlation < 1 << 32), correlation, -1)
        launches = _among(_keys(process_of(thread), correlation), self._launching)
        notable = _among(values["nameId"], self._notable)
        long = end - start >= NOTABLE_NS  # nonsense where not sound
        kept = sound & (launches & (correlation >= 0) | notable | long)
        for column, piece in zip(pieces, (start, end, correlation, thread), strict=True):
            column.append(piece[kept])
        names.append(self._names.add([values["nameId"][kept]]))

    def name_ids(self) -> Values:
        """Ids of every string that names a call."""
        return self._names.rows()[:, 0]

    def table(self, strings: Mapping[int, str]) -> CallTable:
        """The calls, with their names."""
        names: dict[str, int] = {}
        number = np.empty(len(self._names.rows()), np.int32)
        for position, (string,) in enumerate(self._names.rows().tolist()):
            name = api_name(strings.get(string, UNNAMED))
            number[position] = names.setdefault(name, len(names))
        return CallTable(
            start_ns=self._start_ns,
            end_ns=self._end_ns,
            correlation=self._correlation,
            thread=self._thread,
            name=number[self._name],
            names=tuple(names),
        )


def _keys(process: Values, correlation: Values) -> Values:
    return np.where(correlation < 0, -1, process << 32 | correlation)


def _among(values: Values, known: Values) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of ``values`` are in ``known``, which is sorted."""
    if not len(known):
        return np.zeros(len(values), dtype=np.bool_)
    position = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.asarray(known[position] == values)


def _notable_ids(tables: Tables) -> Values:
    """Ids of the names of calls that can block the host."""
    found = [
        number
        for chunk in rows(tables, STRINGS)
        for number, text in zip(chunk.numbers["id"].tolist(), chunk.texts["value"], strict=True)
        if text and text.startswith("cu") and any(name in text for name in NOTABLE_NAMES)
    ]
    return np.unique(np.array(found, dtype=np.int64))
