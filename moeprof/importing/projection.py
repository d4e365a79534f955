"""NVTX ranges projected onto the GPU, by the rules of `nsys stats --report nvtx_gpu_proj_sum`.

For comparison with nsys only. An operation belongs to every range that encloses its launch call on
the same thread; a range's projection is from the start of its first operation to the end of its
last, idle gaps included and ranges inside it not subtracted. Also by those rules: ranges that end
on another thread than they began on are not projected; one that was never closed ends with the last
event of any range; a launch counts as one operation, be it of a whole graph; the level of a range
is how many ranges enclose it in turn, each the shortest around the one before.

Not decided there: which of several equally short ranges encloses one, and the level of ranges with
exactly the same times, which enclose each other; the first is taken, and the level is None.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Generic, TypeVar

import numpy as np

from moeprof.importing.trace import PUSH_POP, Trace

Value = TypeVar("Value")
_Span = tuple[int, int, int]  # first start, last end, how many
_NOTHING: _Span = (2**63 - 1, -(2**63), 0)


@dataclass(frozen=True, slots=True)
class Projection:
    """One range, as a row of nsys's nvtx_gpu_proj_trace. ``operations``: launches inside it."""

    name: str  # 'domain:text'
    style: str  # 'PushPop' or 'StartEnd'
    process: int
    thread: int
    start_ns: int
    duration_ns: int
    projected_start_ns: int
    projected_ns: int
    operations: int
    level: int | None
    children: int


@dataclass(frozen=True, slots=True)
class RangeSummary:
    """All ranges of one name and style, as a row of nvtx_gpu_proj_sum, rounded as nsys does."""

    name: str
    style: str
    total_projected_ns: int
    total_range_ns: int
    instances: int
    average_ns: float
    median_ns: float
    shortest_ns: int
    longest_ns: int
    deviation_ns: float
    operations: int
    average_operations: float
    average_level: float | None
    average_children: float


def summaries(projections: Iterable[Projection]) -> tuple[RangeSummary, ...]:
    """By name and style, the longest total first."""
    groups: dict[tuple[str, str], list[Projection]] = {}
    for projection in projections:
        groups.setdefault((projection.name, projection.style), []).append(projection)
    rows = [_summary(*key, group) for key, group in groups.items()]
    return tuple(sorted(rows, key=lambda row: (-row.total_projected_ns, row.name, row.style)))


def _summary(name: str, style: str, group: list[Projection]) -> RangeSummary:
    projected = [projection.projected_ns for projection in group]
    operations = [projection.operations for projection in group]
    levels = [projection.level for projection in group if projection.level is not None]
    return RangeSummary(
        name=name,
        style=style,
        total_projected_ns=sum(projected),
        total_range_ns=sum(projection.duration_ns for projection in group),
        instances=len(group),
        average_ns=_tenths(statistics.fmean(projected)),
        median_ns=_tenths(statistics.median(projected)),
        shortest_ns=min(projected),
        longest_ns=max(projected),
        deviation_ns=_tenths(statistics.stdev(projected)) if len(group) > 1 else 0.0,
        operations=sum(operations),
        average_operations=_tenths(statistics.fmean(operations)),
        average_level=_tenths(statistics.fmean(levels)) if levels else None,
        average_children=_tenths(statistics.fmean([part.children for part in group])),
    )


def _tenths(value: float) -> float:
    """Rounded as SQLite does: halves away from zero, where Python takes the even digit."""
    return float(Decimal(value).quantize(Decimal("0.1"), ROUND_HALF_UP))


def project(trace: Trace) -> tuple[Projection, ...]:
    """Every range that encloses a launch, in order of projected start, longest first."""
    ranges = trace.ranges
    closed = ranges.end_ns[ranges.end_ns != -1]
    if not len(closed):
        return ()
    last = int(max(closed.max(), ranges.start_ns.max()))
    ends = np.where(ranges.end_ns == -1, last, ranges.end_ns)
    launches = _launches(trace)
    found: list[Projection] = []
    for thread, ids in trace.threads.items():
        rows = np.flatnonzero(ranges.thread == thread)
        intervals = list(zip(ranges.start_ns[rows].tolist(), ends[rows].tolist(), strict=True))
        parents = _parents(intervals)
        levels = _levels(parents)
        enclosed = _enclosed(intervals, launches.get(thread, []))
        children = [0] * len(rows)
        for parent, (_, _, operations) in zip(parents, enclosed, strict=True):
            if parent is not None and operations:
                children[parent] += 1
        for position, (row, (begin, end)) in enumerate(zip(rows.tolist(), intervals, strict=True)):
            first, latest, operations = enclosed[position]
            if operations:
                domain, text = ranges.names[ranges.name[row]]
                found.append(
                    Projection(
                        name=f"{domain}:{text}",
                        style="PushPop" if ranges.style[row] == PUSH_POP else "StartEnd",
                        process=ids[0],
                        thread=ids[1],
                        start_ns=begin,
                        duration_ns=end - begin,
                        projected_start_ns=first,
                        projected_ns=latest - first,
                        operations=operations,
                        level=levels[position],
                        children=children[position],
                    )
                )
    return tuple(sorted(found, key=lambda row: (row.projected_start_ns, -row.projected_ns)))


def _launches(trace: Trace) -> dict[int, list[tuple[int, int, int, int]]]:
    """By thread: begin and end of each launching call, first start and last end it caused."""
    operations, calls = trace.operations, trace.calls
    processes = np.array([pid for pid, _ in operations.places] or [0])[operations.place]
    times: dict[tuple[int, int], tuple[int, int]] = {}
    for *key, start, end in zip(
        processes.tolist(),
        operations.correlation.tolist(),
        operations.start_ns.tolist(),
        operations.end_ns.tolist(),
        strict=True,
    ):
        first, last = times.get((key[0], key[1]), (start, end))
        times[key[0], key[1]] = min(first, start), max(last, end)
    found: dict[int, list[tuple[int, int, int, int]]] = {}
    for begin, end, correlation, thread in zip(
        calls.start_ns.tolist(),
        calls.end_ns.tolist(),
        calls.correlation.tolist(),
        calls.thread.tolist(),
        strict=True,
    ):
        span = times.get((trace.threads[thread][0], correlation)) if correlation >= 0 else None
        if span is not None:
            found.setdefault(thread, []).append((begin, end, *span))
    return found


class _Prefixes(Generic[Value]):
    """Combines the values at the first so many of ``size`` positions, in log(size) steps."""

    def __init__(self, size: int, empty: Value, combine: Callable[[Value, Value], Value]) -> None:
        self._tree = [empty] * (size + 1)  # Fenwick's
        self._empty, self._combine = empty, combine

    def add(self, position: int, value: Value) -> None:
        """Combine ``value`` with what is at ``position``."""
        node = position + 1
        while node < len(self._tree):
            self._tree[node] = self._combine(self._tree[node], value)
            node += node & -node

    def first(self, count: int) -> Value:
        """What the values at positions below ``count`` combine to."""
        whole = self._empty
        while count:
            whole = self._combine(whole, self._tree[count])
            count -= count & -count
        return whole


def _together(one: _Span, other: _Span) -> _Span:
    return min(one[0], other[0]), max(one[1], other[1]), one[2] + other[2]


def _enclosed(
    ranges: list[tuple[int, int]], launches: list[tuple[int, int, int, int]]
) -> list[_Span]:
    """Of each range: first start and last end of operations launched inside it, and launches."""
    begins = sorted(begin for begin, _, _, _ in launches)
    inside = _Prefixes(len(begins), _NOTHING, _together)
    pending = sorted(launches, key=lambda launch: launch[1], reverse=True)
    found = [_NOTHING] * len(ranges)
    # by rising end: all launches added so far end within the range, and those of them that also
    # begin within it come last by begin, which is first here as positions count from the latest
    for position in sorted(range(len(ranges)), key=lambda position: ranges[position][1]):
        start, end = ranges[position]
        while pending and pending[-1][1] <= end:
            begin, _, first, last = pending.pop()
            inside.add(len(begins) - 1 - bisect_left(begins, begin), (first, last, 1))
        found[position] = inside.first(len(begins) - bisect_left(begins, start))
    return found


def _parents(ranges: list[tuple[int, int]]) -> list[int | None]:
    """Of each range the position of the shortest other one that encloses it."""
    same: dict[tuple[int, int], list[int]] = {}
    for position, interval in enumerate(ranges):
        same.setdefault(interval, []).append(position)
    starts = sorted({start for start, _ in ranges})
    around: _Prefixes[tuple[int, int]] = _Prefixes(len(starts), (2**63, -1), min)
    parents: list[int | None] = [None] * len(ranges)
    # by falling end, longer ones first: all that enclose a range have been added before it
    for (start, end), twins in sorted(same.items(), key=lambda item: (-item[0][1], item[0][0])):
        place = bisect_left(starts, start)
        outer = around.first(place + 1)[1]
        for position in twins:
            if len(twins) > 1:  # the same times: each encloses the other
                parents[position] = twins[1] if position == twins[0] else twins[0]
            elif outer >= 0:
                parents[position] = outer
        around.add(place, (end - start, twins[0]))
    return parents


def _levels(parents: list[int | None]) -> list[int | None]:
    """How many ranges enclose each in turn; None where that goes round in a circle."""
    levels: dict[int, int | None] = {}
    for position in range(len(parents)):
        path: list[int] = []
        seen: set[int] = set()
        at: int | None = position
        while at is not None and at not in levels and at not in seen:
            path.append(at)
            seen.add(at)
            at = parents[at]
        level = -1 if at is None else levels.get(at)
        for inner in reversed(path):
            level = None if level is None else level + 1
            levels[inner] = level
    return [levels[position] for position in range(len(parents))]
