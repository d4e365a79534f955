"""The operations of one place, each beside the API call that launched it, in order of launch.

A correlation id is unique within one process only, so calls are looked up among that process's.
Launch order is the order of the host, and of operations of one call (a graph) the order of start.
Where a capture holds no call for an operation, its start stands for the moment of launch.

A server's capture has millions of operations, so columns are views of the capture's where its order
is the launch order already, and what follows from others is computed when asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moeprof.importing.nesting import Indices
from moeprof.importing.trace import CallTable, Numbers, Times, Trace

UNKNOWN = -1


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Operations of one place [N], in order of launch.

    call: index in ``calls`` of the launching call, -1 if unknown. moment_ns: when that call began,
    the operation's start where unknown. process: of the place.
    """

    process: int
    calls: CallTable
    start_ns: Times
    end_ns: Times
    description: Numbers
    call: Numbers
    moment_ns: Times

    def __len__(self) -> int:
        return len(self.start_ns)

    @property
    def duration_ns(self) -> Times:
        """Plain durations; 0 for one that ends before it starts."""
        found: Times = np.maximum(0, self.end_ns - self.start_ns)
        return found

    @property
    def returned_ns(self) -> Times:
        """When the launching call ended, the operation's start where it is unknown."""
        return self._of_call(self.calls.end_ns, self.start_ns)

    @property
    def thread(self) -> Times:
        """Of the launching call, -1 where it is unknown."""
        return self._of_call(self.calls.thread, np.full(len(self), UNKNOWN, dtype=np.int64))

    def part(self, some: Indices | slice) -> Placed:
        """Only these operations, in this order."""
        return replace(
            self,
            start_ns=self.start_ns[some],
            end_ns=self.end_ns[some],
            description=self.description[some],
            call=self.call[some],
            moment_ns=self.moment_ns[some],
        )

    def _of_call(self, column: Times, otherwise: Times) -> Times:
        if not len(column):
            return otherwise
        found: Times = np.where(self.call >= 0, column[self.call], otherwise)
        return found


def place_operations(trace: Trace, place: int) -> Placed:
    """The operations of ``trace.operations.places[place]`` with their launch calls."""
    operations, calls = trace.operations, trace.calls
    process = operations.places[place][0]
    mine = operations.place == place
    chosen: Indices | slice = slice(None) if mine.all() else np.flatnonzero(mine)
    start_ns = operations.start_ns[chosen]
    call = _calls_of(trace, operations.correlation[chosen], process)
    moment_ns = np.where(call >= 0, calls.start_ns[call], start_ns) if len(calls) else start_ns
    placed = Placed(
        process=process,
        calls=calls,
        start_ns=start_ns,
        end_ns=operations.end_ns[chosen],
        description=operations.description[chosen],
        call=call,
        moment_ns=moment_ns,
    )
    if bool((moment_ns[1:] >= moment_ns[:-1]).all()):
        return placed
    return placed.part(np.lexsort((start_ns, moment_ns)))


def threads_of(trace: Trace, process: int) -> NDArray[np.int64]:
    """The thread numbers of a process; those that the capture does not assign belong to all."""
    owners = {thread: owner for thread, (owner, _) in trace.threads.items()}
    seen = np.union1d(trace.calls.thread, trace.ranges.thread).tolist()
    own = [thread for thread in seen if owners.get(thread, process) == process]
    return np.array(own, dtype=np.int64)


def _calls_of(trace: Trace, correlation: Times, process: int) -> Numbers:
    """For each correlation id the first call of the process with it, -1 without one."""
    calls = trace.calls
    usable = (calls.correlation >= 0) & np.isin(calls.thread, threads_of(trace, process))
    own: Indices | None = None if usable.all() else np.flatnonzero(usable)
    ids = calls.correlation if own is None else calls.correlation[own]
    if not bool((ids[1:] >= ids[:-1]).all()):
        order = np.argsort(ids, kind="stable")  # of calls with one id the first comes first
        ids, own = ids[order], order if own is None else own[order]
    if not len(ids):
        return np.full(len(correlation), UNKNOWN, dtype=np.int32)
    at = np.minimum(np.searchsorted(ids, correlation), len(ids) - 1)
    hit = (ids[at] == correlation) & (correlation >= 0)
    found = np.where(hit, at if own is None else own[at], UNKNOWN)
    return found.astype(np.int32)
