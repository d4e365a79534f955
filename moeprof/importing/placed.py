"""The operations of one place, each beside the API call that launched it, in order of launch.

A correlation id is unique within one process only, so calls are looked up among that process's.
Launch order is the order of the host, and of operations of one call (a graph) the order of start.
Where a capture holds no call for an operation, its start stands for the moment of launch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprof.importing.nesting import Indices
from moeprof.importing.trace import Times, Trace


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Operations of one place [N], in order of launch.

    operation: index in ``Trace.operations``. call: index in ``Trace.calls`` of the launching call,
    -1 if unknown. moment_ns, returned_ns: when that call began and ended (the operation's start
    where unknown). thread: of that call, -1 if unknown. process: of the place.
    """

    process: int
    operation: Indices
    start_ns: Times
    end_ns: Times
    description: NDArray[np.int32]
    call: Indices
    moment_ns: Times
    returned_ns: Times
    thread: Times

    def __len__(self) -> int:
        return len(self.operation)

    @property
    def duration_ns(self) -> Times:
        """Plain durations; 0 for one that ends before it starts."""
        found: Times = np.maximum(0, self.end_ns - self.start_ns)
        return found


def place_operations(trace: Trace, place: int) -> Placed:
    """The operations of ``trace.operations.places[place]`` with their launch calls."""
    operations, calls = trace.operations, trace.calls
    process = operations.places[place][0]
    mine = np.flatnonzero(operations.place == place)
    call = _calls_of(trace, operations.correlation[mine], process)
    known = call >= 0
    start_ns = operations.start_ns[mine]
    moment_ns, returned_ns = start_ns.copy(), start_ns.copy()
    thread = np.full(len(mine), -1, dtype=np.int64)
    moment_ns[known] = calls.start_ns[call[known]]
    returned_ns[known] = calls.end_ns[call[known]]
    thread[known] = calls.thread[call[known]]
    order = np.lexsort((start_ns, moment_ns))
    return Placed(
        process=process,
        operation=mine[order],
        start_ns=start_ns[order],
        end_ns=operations.end_ns[mine][order],
        description=operations.description[mine][order],
        call=call[order],
        moment_ns=moment_ns[order],
        returned_ns=returned_ns[order],
        thread=thread[order],
    )


def threads_of(trace: Trace, process: int) -> set[int]:
    """The thread numbers of a process; those that the capture does not assign belong to all."""
    owners = {thread: owner for thread, (owner, _) in trace.threads.items()}
    seen = {*np.unique(trace.calls.thread).tolist(), *np.unique(trace.ranges.thread).tolist()}
    return {thread for thread in seen if owners.get(thread, process) == process}


def _calls_of(trace: Trace, correlation: Times, process: int) -> Indices:
    """For each correlation id the first call of the process with it, -1 without one."""
    calls = trace.calls
    threads = np.fromiter(threads_of(trace, process), dtype=np.int64)
    own = np.flatnonzero((calls.correlation >= 0) & np.isin(calls.thread, threads))
    ids = calls.correlation[own]
    order = np.argsort(ids, kind="stable")  # of calls with one id the first comes first
    ids, own = ids[order], own[order]
    at = np.searchsorted(ids, correlation)
    inside = at < len(ids)
    found = np.full(len(correlation), -1, dtype=np.int64)
    found[inside] = np.where(ids[at[inside]] == correlation[inside], own[at[inside]], -1)
    found[correlation < 0] = -1
    return found
