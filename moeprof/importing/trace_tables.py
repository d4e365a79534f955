"""Rows of numbers to the tables of a Trace: in order, and each operation with its process.

An event on a GPU's track says which GPU, and mostly only the call with the same correlation id says
which process. Where one process alone made calls and ranges, it made the operations too.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from moeprof.importing.trace import CallTable, OperationTable, RangeTable, Times
from moeprof.timelines import NOTABLE_NAMES, NOTABLE_NS, Operation

UNKNOWN = -1  # correlation id, process
Identifier = int | str  # a process or thread: most tools use numbers, some names
Track = tuple[Identifier, Identifier]  # process, thread


def owners(tracks: tuple[Track, ...]) -> Times:
    """The process id of each track; a process that is named by text gets a negative one."""
    named: dict[Identifier, int] = {}
    for process, _ in tracks:
        if process not in named:
            is_id = isinstance(process, int) and abs(process) < 2**31
            named[process] = int(process) if is_id else -2 - len(named)
    return np.array([named[process] for process, _ in tracks], dtype=np.int64)


def threads(
    tracks: tuple[Track, ...], owner: Times, used: Iterable[int]
) -> dict[int, tuple[int, int]]:
    """Of each used track its process and thread; a thread named by text gets a negative number."""
    found = {}
    for number in used:
        thread = tracks[number][1]
        is_id = isinstance(thread, int)
        found[number] = (int(owner[number]), int(thread) if is_id else -2 - number)
    return found


def operation_table(
    rows: Times,
    calls: Times,
    range_tracks: Times,
    owner: Times,
    descriptions: tuple[Operation, ...],
) -> tuple[OperationTable, list[str]]:
    """Operations in order of start, each with the process that launched it, and what is doubtful.

    rows: start, end, correlation, description, GPU, and the track whose process it is or -1.
    """
    order = np.argsort(rows[:, 0], kind="stable")
    correlation, own_track = rows[order, 2], rows[order, 5]
    by_call, ambiguous = _launching_process(correlation, calls, owner)
    hosts = np.unique(owner[np.concatenate((calls[:, 3], range_tracks))])
    only = int(hosts[0]) if len(hosts) == 1 else UNKNOWN
    process = np.where(by_call != UNKNOWN, by_call, only)
    if len(owner):
        process = np.where(own_track >= 0, owner[np.maximum(own_track, 0)], process)
    process[ambiguous] = UNKNOWN
    correlation[ambiguous] = UNKNOWN
    pairs = np.stack((process, rows[order, 4]), axis=1)
    places, place = np.unique(pairs, axis=0, return_inverse=True)
    table = OperationTable(
        start_ns=rows[order, 0],
        end_ns=rows[order, 1],
        correlation=correlation,
        description=rows[order, 3].astype(np.int32),
        place=place.reshape(-1).astype(np.int32),
        descriptions=descriptions,
        places=tuple((int(process), int(gpu)) for process, gpu in places),
    )
    return table, _doubts(correlation, by_call, int(ambiguous.sum()))


def _launching_process(
    correlation: Times, calls: Times, owner: Times
) -> tuple[Times, NDArray[np.bool_]]:
    """For each id the process whose call has it (UNKNOWN: none), and where several have."""
    known = calls[calls[:, 2] >= 0]
    pairs = np.unique(np.stack((known[:, 2], owner[known[:, 3]]), axis=1), axis=0)
    ids, first, count = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    found = np.full(len(correlation), UNKNOWN, dtype=np.int64)
    ambiguous = np.zeros(len(correlation), dtype=np.bool_)
    if len(ids):
        at = np.minimum(np.searchsorted(ids, correlation), len(ids) - 1)
        matched = ids[at] == correlation
        found[matched] = pairs[first[at[matched]], 1]
        ambiguous = matched & (count[at] > 1)
    return found, ambiguous


def _doubts(correlation: Times, by_call: Times, ambiguous: int) -> list[str]:
    """What is in the trace and yet incomplete."""
    unnamed = int((correlation < 0).sum()) - ambiguous
    absent = int(((correlation >= 0) & (by_call == UNKNOWN)).sum())
    found = {
        "operations name no launch call (no correlation id)": unnamed,
        "operations were launched by calls that the file does not hold": absent,
        "operations name a launch call that two processes have": ambiguous,
    }
    return [f"{count:,} {what}" for what, count in found.items() if count]


def call_table(rows: Times, launching: Times, names: tuple[str, ...]) -> CallTable:
    """Calls that launched, can block the host or took long, as in the api pass of a record."""
    notable = np.array([any(part in name for part in NOTABLE_NAMES) for name in names], bool)
    kept = np.isin(rows[:, 2], launching[launching >= 0])
    kept |= rows[:, 1] - rows[:, 0] >= NOTABLE_NS
    if len(names):
        kept |= notable[rows[:, 4]]
    rows = rows[kept]
    order = np.lexsort((-rows[:, 1], rows[:, 0]))
    return CallTable(
        start_ns=rows[order, 0],
        end_ns=rows[order, 1],
        correlation=rows[order, 2],
        thread=rows[order, 3],
        name=rows[order, 4].astype(np.int32),
        names=names,
    )


def range_table(rows: Times, names: tuple[tuple[str, str], ...]) -> RangeTable:
    """In order of start; of those that start together the longest, which encloses, first."""
    end_ns = np.where(rows[:, 1] < 0, np.iinfo(np.int64).max, rows[:, 1])
    order = np.lexsort((-end_ns, rows[:, 0]))
    return RangeTable(
        start_ns=rows[order, 0],
        end_ns=rows[order, 1],
        thread=rows[order, 2],
        name=rows[order, 3].astype(np.int32),
        style=rows[order, 4].astype(np.int8),
        names=names,
    )
