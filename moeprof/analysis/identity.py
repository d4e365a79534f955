"""The time identity of one iteration: every nanosecond of the span owned once, by one row.

Operations are swept in order of start (ties: order of record). An instant covered by several
belongs to the one that started first; the rest is overlap. A gap, idle time of the whole GPU before
an operation, is charged to that operation's row and split by its launch call [begin, end]:

    host_late       from the end of everything earlier until the host begins the launch call
    api             from there until the launch call returns
    launch_latency  from there until the operation starts
    dependency      that same last part, if the launch had returned before the GPU fell idle and
                    the operations that ended last are all on other streams: what held the
                    operation was then another stream, not the launch

Each part is clipped to the gap, so the identity closes for any input whatever: zero lengths, equal
starts, one call that launches many operations (a graph), calls recorded after the start. Whether
such input is believable is ``checks``' question. Without API records the whole gap is counted as
host_late, an upper bound of the host's share.

Iterations that launched the same operations are swept together, as arrays of integers (30 to 120
iterations of up to 400 operations in each record: one at a time they cost a report seconds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeprof.analysis.profiles import IterationProfile, StageTime
from moeprof.timelines import Iteration, Operation

Times = NDArray[np.int64]
Flags = NDArray[np.bool_]

# the fields of StageTime after its name, in their order
FIELDS = (
    "busy_ns",
    "overlap_ns",
    "kernel_sum_ns",
    "host_late_ns",
    "api_ns",
    "launch_latency_ns",
    "dependency_ns",
    "operations",
)
NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Iterations [I] of operations [N] in order of start: element [i, n] is the n-th of the sweep.

    position: of the operation in the record; counted: whether CUPTI timed it; what is not counted
    comes last and means nothing. The gap before it is [idle_ns, start_ns), empty where the GPU was
    busy; host_late ends at call_ns and api at returned_ns. held: the rest is dependency.
    """

    position: NDArray[np.intp]
    counted: Flags
    start_ns: Times
    end_ns: Times
    idle_ns: Times
    call_ns: Times
    returned_ns: Times
    owned_ns: Times
    held: Flags

    def orchestration_ns(self) -> Times:
        """host_late + api of each iteration, [I]."""
        return self._total(self.returned_ns - self.idle_ns)

    def latency_ns(self) -> Times:
        """launch_latency + dependency of each iteration, [I]."""
        return self._total(self.start_ns - self.returned_ns)

    def residual_ns(self) -> Times:
        """What busy time and gaps leave over of each span, [I]: 0, or there is a bug here."""
        last = np.iinfo(np.int64).max
        first_ns = np.where(self.counted, self.start_ns, last).min(axis=1, initial=last)
        last_ns = np.where(self.counted, self.end_ns, NEVER).max(axis=1, initial=NEVER)
        span_ns = np.where(self.counted.any(axis=1), last_ns - first_ns, 0)
        return span_ns - self._total(self.owned_ns + self.start_ns - self.idle_ns)

    def _total(self, amounts: Times) -> Times:
        total: Times = np.where(self.counted, amounts, 0).sum(axis=1)
        return total


def collected(iteration: Iteration, position: int) -> bool:
    """Whether CUPTI timed this operation at all: one that ended before host entry is not real."""
    return iteration.end_ns[position] > 0


def attribute(
    operations: Sequence[Operation],
    iteration: Iteration,
    row_of: Sequence[str],
    rows: Sequence[str] = (),
) -> IterationProfile:
    """Charge every nanosecond of one iteration's span to a row: see ``attribute_all``."""
    return attribute_all(operations, [iteration], row_of, rows)[0]


def attribute_all(
    operations: Sequence[Operation],
    iterations: Sequence[Iteration],
    row_of: Sequence[str],
    rows: Sequence[str] = (),
) -> list[IterationProfile]:
    """Charge every nanosecond of the span of each iteration to a row.

    row_of: the row of each operation (``rows.rows_of``). rows: rows to show in this order even
    where they have no operation; further ones follow in order of first start.
    """
    swept = sweep(operations, iterations)
    names = list(dict.fromkeys((*rows, *row_of)))
    number = {name: position for position, name in enumerate(names)}
    row_index = np.array([number[name] for name in row_of], dtype=np.intp)[swept.position]
    tallies = _tallies(swept, row_index, len(names))
    shown = range(len(dict.fromkeys(rows)))
    found: list[IterationProfile] = []
    for i, iteration in enumerate(iterations):
        extra: Sequence[int] = ()
        if len(names) > len(shown):
            extra = _first_seen(row_index[i][swept.counted[i]], len(shown))
        stages = tuple(StageTime(names[row], *tallies[i][row]) for row in (*shown, *extra))
        found.append(_close(iteration, swept, i, stages))
    return found


def sweep(operations: Sequence[Operation], iterations: Sequence[Iteration]) -> Sweep:
    """Sweep iterations of the same operations; the arithmetic of the identity is here alone."""
    shape = (len(iterations), len(operations))

    def column(values: Sequence[Sequence[int]]) -> Times:
        return np.array(values, dtype=np.int64).reshape(shape)

    unknown = (-1,) * len(operations)
    start_ns = column([i.start_ns for i in iterations])
    end_ns = column([i.end_ns for i in iterations])
    begin_ns = column([i.launch_begin_ns or unknown for i in iterations])
    return_ns = column([i.launch_end_ns or unknown for i in iterations])
    counted = end_ns > 0
    last = np.iinfo(np.int64).max
    position = np.argsort(np.where(counted, start_ns, last), axis=1, kind="stable")

    def ordered(values: NDArray[Any]) -> NDArray[Any]:
        return np.take_along_axis(values, position, axis=1)

    counted, start_ns = ordered(counted), ordered(start_ns)
    end_ns = np.maximum(ordered(end_ns), start_ns)
    begin_ns, return_ns = ordered(begin_ns), ordered(return_ns)
    covered_ns = _before(np.where(counted, end_ns, NEVER), start_ns[:, :1])
    idle_ns = np.minimum(covered_ns, start_ns)
    known = begin_ns != -1
    call_ns = np.where(known, np.clip(begin_ns, idle_ns, start_ns), start_ns)
    returned_ns = np.where(known, np.clip(return_ns, call_ns, start_ns), start_ns)
    streams = np.array([o.stream for o in operations], dtype=np.int64)[position]
    others_only = _others_only(streams, np.where(counted, end_ns, NEVER), covered_ns)
    return Sweep(
        position=position,
        counted=counted,
        start_ns=start_ns,
        end_ns=end_ns,
        idle_ns=idle_ns,
        call_ns=call_ns,
        returned_ns=returned_ns,
        owned_ns=np.maximum(0, end_ns - np.maximum(start_ns, covered_ns)),
        held=others_only & known & (return_ns <= idle_ns),
    )


def _before(ends_ns: Times, first_ns: Times) -> Times:
    """For each operation the latest end of those before it in the sweep; first_ns for the first."""
    through = np.maximum.accumulate(ends_ns, axis=1)
    return np.concatenate((first_ns, through[:, :-1]), axis=1)


def _others_only(streams: Times, ends_ns: Times, covered_ns: Times) -> Flags:
    """Whether all operations that ended last before each operation ran on other streams."""
    distinct = np.unique(streams)
    found = np.zeros(streams.shape, dtype=np.bool_)
    if len(distinct) < 2:
        return found
    never = np.full((len(streams), 1), NEVER)
    for stream in distinct:
        mine = streams == stream
        own_ns = _before(np.where(mine, ends_ns, NEVER), never)
        found |= mine & (own_ns < covered_ns)
    found[:, 0] = False  # nothing ran before it
    return found


def _tallies(swept: Sweep, row_index: NDArray[np.intp], rows: int) -> list[list[list[int]]]:
    """[I][row][FIELDS], summed over the operations that were counted."""
    latency_ns = swept.start_ns - swept.returned_ns
    amounts = (
        swept.owned_ns,
        swept.end_ns - swept.start_ns - swept.owned_ns,
        swept.end_ns - swept.start_ns,
        swept.call_ns - swept.idle_ns,
        swept.returned_ns - swept.call_ns,
        np.where(swept.held, 0, latency_ns),
        np.where(swept.held, latency_ns, 0),
        np.ones_like(swept.start_ns),
    )
    iterations = len(row_index)
    cell = row_index + rows * np.arange(iterations)[:, None]
    found = np.zeros((iterations * rows, len(FIELDS)), dtype=np.int64)
    for field, amount in enumerate(amounts):
        np.add.at(found[:, field], cell[swept.counted], amount[swept.counted])
    tallies: list[list[list[int]]] = found.reshape(iterations, rows, len(FIELDS)).tolist()
    return tallies


def _first_seen(row_index: NDArray[np.intp], least: int) -> list[int]:
    """Rows from ``least`` on that have an operation, in order of its start."""
    return [row for row in dict.fromkeys(row_index.tolist()) if row >= least]


def _close(
    iteration: Iteration, swept: Sweep, i: int, stages: tuple[StageTime, ...]
) -> IterationProfile:
    counted = swept.counted[i]
    any_counted = bool(counted.any())
    first_ns = int(swept.start_ns[i, 0]) if any_counted else 0
    last_ns = int(swept.end_ns[i][counted].max()) if any_counted else 0
    wall_ns = iteration.exit_ns if iteration.exit_ns >= 0 else None
    return IterationProfile(
        wall_ns=wall_ns,
        prologue_ns=first_ns,
        span_ns=last_ns - first_ns,
        epilogue_ns=None if wall_ns is None else wall_ns - last_ns,
        stages=stages,
    )
