"""Which range of host code encloses each launch call, innermost first, thread by thread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprof.importing.nesting import Indices, Nest, groups, nesting_order
from moeprof.importing.placed import Placed, threads_of
from moeprof.importing.trace import Times, Trace


@dataclass(frozen=True, slots=True, eq=False)
class Launches:
    """Where and when [N] launch calls happened: thread (-1: unknown), begin and end."""

    thread: Times
    begin_ns: Times
    end_ns: Times


def launches_of(placed: Placed) -> Launches:
    """The launch calls of the operations of a place."""
    return Launches(placed.thread, placed.moment_ns, placed.returned_ns)


def enclosed(trace: Trace, process: int, launches: Launches, wanted: NDArray[np.bool_]) -> Indices:
    """The innermost range around each launch call, on its thread; -1 without one.

    wanted: of each name in ``trace.ranges.names`` whether such ranges count. Ranges that were left
    open, or end before they begin, enclose nothing.
    """
    ranges = trace.ranges
    found = np.full(len(launches.thread), -1, dtype=np.int64)
    if not len(ranges) or not wanted.any():
        return found
    counts = wanted[ranges.name] & np.isin(ranges.thread, threads_of(trace, process))
    by_thread = dict(groups(launches.thread, np.flatnonzero(launches.thread >= 0)))
    for thread, mine in groups(ranges.thread, np.flatnonzero(counts)):
        launched = by_thread.get(thread)
        if launched is None:
            continue
        mine = mine[nesting_order(ranges.start_ns[mine], ranges.end_ns[mine])]
        nest = Nest(ranges.start_ns[mine], ranges.end_ns[mine])
        inner = nest.innermost(launches.begin_ns[launched], launches.end_ns[launched])
        found[launched] = np.where(inner >= 0, mine[np.maximum(inner, 0)], -1)
    return found
