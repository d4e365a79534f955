"""CUDA API calls of an export: those that launched an operation, and those worth a look.

An export may hold ten calls for each operation (attribute queries, error checks). Kept are the same
ones as in our own api pass: what launched, what can block the host, what took long.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moeprof.importing.names import api_name
from moeprof.importing.nsys_operations import UNNAMED, Operations, process_of
from moeprof.importing.nsys_tables import (
    CALLS,
    MISSING,
    STRINGS,
    LeftOut,
    Tables,
    Values,
    is_thread,
    joined,
    rows,
    usable,
)
from moeprof.importing.trace import CallTable
from moeprof.timelines import NOTABLE_NAMES, NOTABLE_NS


class Calls:
    """The calls of an export while their names are not yet known."""

    def __init__(self, tables: Tables, operations: Operations, left_out: LeftOut) -> None:
        self._launching = np.unique(_keys(operations.processes(), operations.correlation))
        self._notable = _notable_ids(tables)
        self._left_out = left_out
        pieces: tuple[list[Values], ...] = ([], [], [], [], [])
        for chunk in rows(tables, CALLS):
            self._add(chunk.numbers, pieces)
        self.start_ns, self.end_ns, self.correlation, self.thread, self._name = map(joined, pieces)

    def _add(self, values: Mapping[str, Values], pieces: tuple[list[Values], ...]) -> None:
        start, end, thread = values["start"], values["end"], values["globalTid"]
        sound = usable(start, end) & is_thread(thread)
        self._left_out.add("API calls without usable times or thread", int((~sound).sum()))
        correlation = values["correlationId"]
        correlation = np.where((correlation >= 0) & (correlation < 1 << 32), correlation, -1)
        launches = _among(_keys(process_of(thread), correlation), self._launching)
        notable = _among(values["nameId"], self._notable)
        long = end - start >= NOTABLE_NS  # nonsense where not sound
        kept = sound & (launches & (correlation >= 0) | notable | long)
        for column, piece in zip(
            pieces, (start, end, correlation, thread, values["nameId"]), strict=True
        ):
            column.append(piece[kept])

    def name_ids(self) -> Values:
        """Ids of every string that names a call."""
        return np.asarray(np.unique(self._name[self._name != MISSING]))

    def table(self, strings: Mapping[int, str]) -> CallTable:
        """In order of start; of several calls with one correlation only the first is kept."""
        order = np.lexsort((-self.end_ns, self.start_ns))
        correlation = self.correlation[order]
        key = _keys(process_of(self.thread[order]), correlation)
        _, first = np.unique(key, return_index=True)
        kept = correlation < 0
        kept[first] = True
        self._left_out.add(
            "API calls whose correlation id an earlier call of the process has", int((~kept).sum())
        )
        order = order[kept]
        ids, position = np.unique(self._name[order], return_inverse=True)
        spelled = [api_name(strings.get(number, UNNAMED)) for number in ids.tolist()]
        names = tuple(dict.fromkeys(spelled))
        index = {name: number for number, name in enumerate(names)}
        number = np.array([index[name] for name in spelled], np.int32)
        return CallTable(
            start_ns=self.start_ns[order],
            end_ns=self.end_ns[order],
            correlation=self.correlation[order],
            thread=self.thread[order],
            name=number[position] if len(order) else np.empty(0, np.int32),
            names=names,
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
