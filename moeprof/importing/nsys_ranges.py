"""NVTX ranges of an export, with the names of their domains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprof.importing.left_out import LeftOut
from moeprof.importing.names import printable
from moeprof.importing.nsys_operations import process_of
from moeprof.importing.nsys_tables import (
    MISSING,
    RANGES,
    Chunk,
    Interned,
    Tables,
    Values,
    is_thread,
    joined,
    rows,
    usable,
)
from moeprof.importing.trace import PUSH_POP, START_END, RangeTable

# ENUM_NSYS_EVENT_TYPE; 70 and 71 are ranges of NVTX's text protocol
DOMAIN, _PUSH_POP, _START_END = 75, (59, 70), (60, 71)
RANGE_TYPES = (*_PUSH_POP, *_START_END)
_TEXT, _ID, _NOTHING = 0, 1, 2  # where a name stands
_TOO_MANY = (3, 0)
MOST_TEXTS = 1_000_000  # different names; those of ranges that come later are left out


class Ranges:
    """The ranges of an export while names in its table of strings are not yet known."""

    def __init__(self, tables: Tables, left_out: LeftOut) -> None:
        self._left_out = left_out
        self._texts: dict[str, int] = {}
        self._names = Interned(4, 4 * MOST_TEXTS, "names of ranges")
        self._domains: dict[tuple[int, int], tuple[int, int]] = {}
        self._pieces: tuple[list[Any], ...] = ([], [], [], [], [])
        for chunk in rows(tables, RANGES):
            self._add_domains(chunk)
            self._add(chunk)
        self._start_ns, self._end_ns, self._thread = map(joined, self._pieces[:3])
        self._name, self._style = (joined(pieces, np.int32) for pieces in self._pieces[3:])
        self._sort()

    def _sort(self) -> None:
        """By start, outer ranges first; one column after the other to save copies."""
        last = np.where(self._end_ns == -1, np.iinfo(np.int64).max, self._end_ns)
        order = np.lexsort((-last, self._start_ns))
        self._start_ns = self._start_ns[order]
        self._end_ns = self._end_ns[order]
        self._thread = self._thread[order]
        self._name = self._name[order]
        self._style = self._style[order]

    def _add_domains(self, chunk: Chunk) -> None:
        rows = np.flatnonzero(chunk.numbers["eventType"] == DOMAIN)
        process = process_of(chunk.numbers["globalTid"][rows]).tolist()
        domain = chunk.numbers["domainId"][rows].tolist()
        for pid, number, place in zip(process, domain, self._places(chunk, rows), strict=True):
            if place != _TOO_MANY:
                self._domains.setdefault((pid, number), place)

    def _places(self, chunk: Chunk, rows: NDArray[np.intp]) -> list[tuple[int, int]]:
        """Where the name of each of ``rows`` stands, and its number there."""
        found = []
        texts, known = chunk.texts["text"], self._texts
        ids = chunk.numbers["textId"][rows].tolist()
        for row, number in zip(rows.tolist(), ids, strict=True):
            text = texts[row]
            if number != MISSING:  # nsys prefers the registered string, too
                found.append((_ID, number))
            elif text is None:
                found.append((_NOTHING, 0))
            elif text in known or len(known) < MOST_TEXTS:
                found.append((_TEXT, known.setdefault(text, len(known))))
            else:
                found.append(_TOO_MANY)
        return found

    def _add(self, chunk: Chunk) -> None:
        values = chunk.numbers
        kind, start, thread = values["eventType"], values["start"], values["globalTid"]
        is_open = values["end"] == MISSING
        end = np.where(is_open, start, values["end"])
        is_range = np.isin(kind, RANGE_TYPES)
        sound = usable(start, end) & is_thread(thread)
        self._left_out.add(
            "NVTX ranges without usable times or thread", int((is_range & ~sound).sum())
        )
        chosen = np.flatnonzero(is_range & sound)
        place = np.array(self._places(chunk, chosen), dtype=np.int64).reshape(-1, 2)
        named = place[:, 0] != _TOO_MANY[0]
        self._left_out.add(
            f"NVTX ranges whose names come after {MOST_TEXTS:,} different ones",
            int((~named).sum()),
        )
        chosen, place = chosen[named], place[named]
        owner, ended_on = thread[chosen], values["endGlobalTid"][chosen]
        domain = np.maximum(values["domainId"][chosen], 0)
        name = self._names.add([process_of(owner), domain, place[:, 0], place[:, 1]])
        # -1 means open, so a range that was closed at -1 is said to have ended at 0
        closed = np.where(end[chosen] == -1, 0, end[chosen])
        columns = (
            start[chosen],
            np.where(is_open[chosen], -1, closed),
            np.where((ended_on != MISSING) & (ended_on != owner), -1, owner),
            name,
            np.where(np.isin(kind[chosen], _PUSH_POP), PUSH_POP, START_END).astype(np.int8),
        )
        for pieces, piece in zip(self._pieces, columns, strict=True):
            pieces.append(piece)

    def name_ids(self) -> Values:
        """Ids of every string that names a range or a domain."""
        names = self._names.rows()
        ids = names[names[:, 2] == _ID, 3]
        domains = [number for kind, number in self._domains.values() if kind == _ID]
        return np.unique(np.concatenate([ids, np.array(domains, dtype=np.int64)]))

    def table(self, strings: Mapping[int, str]) -> RangeTable:
        """The ranges, with their names."""
        texts = list(self._texts)

        def text(kind: int, number: int) -> str:
            if kind == _ID:
                return printable(strings.get(number, ""))
            return printable(texts[number]) if kind == _TEXT else ""

        distinct: dict[tuple[str, str], int] = {}
        number = np.empty(len(self._names.rows()), np.int32)
        for position, (pid, domain, kind, where) in enumerate(self._names.rows().tolist()):
            known = self._domains.get((pid, domain))
            owner = text(*known) if known else f"domain {domain}" if domain else ""
            number[position] = distinct.setdefault((owner, text(kind, where)), len(distinct))
        return RangeTable(
            start_ns=self._start_ns,
            end_ns=self._end_ns,
            thread=self._thread,
            name=number[self._name],
            style=self._style.astype(np.int8),
            names=tuple(distinct),
        )
