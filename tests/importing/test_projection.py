"""NVTX projection: nsys's own reports cell by cell, a naive reading of its rules, odd ranges."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.importing.nsys_sqlite import read_nsys_sqlite
from moeprof.importing.projection import Projection, project, summaries
from moeprof.importing.trace import (
    PUSH_POP,
    START_END,
    CallTable,
    OperationTable,
    RangeTable,
    Trace,
    TraceSource,
)
from moeprof.timelines import Operation

DATA = Path(__file__).resolve().parents[1] / "data" / "nsys"
SUMMARIES = sorted(DATA.glob("*_nvtx_gpu_proj_sum.csv"))
PID, THREAD = 7, (7 << 24) + 9


def _cells(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def test_there_are_reports_to_compare_with():
    assert len(SUMMARIES) == 7


@pytest.mark.parametrize("path", SUMMARIES, ids=lambda path: path.name.split("_nvtx")[0])
def test_every_cell_of_both_reports_of_nsys_is_reproduced(path):
    trace = read_nsys_sqlite(DATA / path.name.replace("_nvtx_gpu_proj_sum.csv", ".sqlite"))
    projections = project(trace)
    found = [
        [
            *(row.name, row.style, row.total_projected_ns, row.total_range_ns, row.instances),
            *(row.average_ns, row.median_ns, row.shortest_ns, row.longest_ns, row.deviation_ns),
            *(row.operations, row.average_operations, row.average_level, row.average_children),
        ]
        for row in summaries(projections)
    ]
    assert [list(map(str, row)) for row in found] == _cells(path)
    each = [
        [
            *(row.name, row.projected_start_ns, row.projected_ns, row.start_ns, row.duration_ns),
            *(row.style, row.process, row.thread, row.operations, row.level, row.children),
        ]
        for row in projections
    ]
    expected = _cells(path.with_name(path.name.replace("_sum", "_trace")))
    assert [list(map(str, row)) for row in each] == [row[:11] for row in expected]


def make_trace(
    ranges: list[tuple[int, int, int]],
    launches: list[tuple[int, int, int, list[tuple[int, int]]]],
    styles: list[int] | None = None,
) -> Trace:
    """ranges: start, end, thread; launches: begin, end, thread, operations (start, end)."""
    operations = sorted(
        (start, end, number)
        for number, (_, _, _, made) in enumerate(launches)
        for start, end in made
    )
    order = sorted(range(len(launches)), key=lambda number: launches[number][0])
    count = len(operations)
    threads = {thread for _, _, thread in ranges} | {launch[2] for launch in launches}

    def column(values):
        return np.array(list(values), dtype=np.int64)

    return Trace(
        source=TraceSource("Nsight Systems"),
        operations=OperationTable(
            start_ns=column(operation[0] for operation in operations),
            end_ns=column(operation[1] for operation in operations),
            correlation=column(operation[2] for operation in operations),
            description=np.zeros(count, np.int32),
            place=np.zeros(count, np.int32),
            descriptions=(Operation("k", "kernel", "", 7),),
            places=((PID, 0),),
        ),
        calls=CallTable(
            start_ns=column(launches[number][0] for number in order),
            end_ns=column(launches[number][1] for number in order),
            correlation=column(order),
            thread=column(launches[number][2] for number in order),
            name=np.zeros(len(order), np.int32),
            names=("cudaLaunchKernel",),
        ),
        ranges=RangeTable(
            start_ns=column(start for start, _, _ in ranges),
            end_ns=column(end for _, end, _ in ranges),
            thread=column(thread for _, _, thread in ranges),
            name=np.arange(len(ranges), dtype=np.int32),
            style=np.array(styles or [PUSH_POP] * len(ranges), np.int8),
            names=tuple(("", f"r{number}") for number in range(len(ranges))),
        ),
        threads={thread: (PID, thread & 0xFFFFFF) for thread in threads - {-1}},
    )


def _by_name(trace: Trace) -> dict[str, Projection]:
    return {projection.name: projection for projection in project(trace)}


def test_a_projection_spans_its_operations_with_the_gaps_and_children_inside():
    trace = make_trace(
        [(0, 100, THREAD), (10, 40, THREAD), (50, 90, THREAD), (92, 94, THREAD)],
        [
            (12, 15, THREAD, [(200, 210)]),
            (20, 25, THREAD, [(230, 260), (205, 300)]),  # one call, two operations: a graph
            (60, 65, THREAD, [(400, 450)]),
            (95, 101, THREAD, [(500, 600)]),  # ends after the range it began in
        ],
    )
    found = _by_name(trace)
    row = found[":r0"]
    assert (row.projected_start_ns, row.projected_ns) == (200, 250)
    assert (row.operations, row.level, row.children) == (3, 0, 2)
    row = found[":r1"]
    assert (row.projected_start_ns, row.projected_ns) == (200, 100)
    assert (row.operations, row.level, row.children) == (2, 1, 0)
    assert found[":r2"].projected_ns == 50
    assert ":r3" not in found  # it launched nothing, and is no child of the first


def test_boundaries_are_inclusive_and_other_threads_are_not_looked_at():
    other = THREAD + 1
    trace = make_trace(
        [(10, 20, THREAD), (10, 20, other), (11, 20, THREAD)],
        [(10, 20, THREAD, [(30, 40)]), (12, 13, other, [(50, 60)])],
    )
    found = _by_name(trace)
    assert set(found) == {":r0", ":r1"}
    assert (found[":r0"].projected_start_ns, found[":r1"].projected_start_ns) == (30, 50)
    assert found[":r1"].thread == 10


def test_open_ranges_end_with_the_last_event_of_any_range():
    launches = [(60, 70, THREAD, [(100, 110)]), (85, 95, THREAD, [(200, 210)])]
    trace = make_trace([(0, -1, THREAD), (5, 90, THREAD)], launches)
    assert _by_name(trace)[":r0"].duration_ns == 90
    assert _by_name(trace)[":r0"].operations == 1
    trace = make_trace([(0, -1, THREAD), (5, 90, THREAD), (97, -1, THREAD)], launches)
    assert _by_name(trace)[":r0"].duration_ns == 97
    assert _by_name(trace)[":r0"].operations == 2
    assert project(make_trace([(0, -1, THREAD)], launches)) == ()


def test_ranges_that_changed_thread_are_not_projected_but_can_be_the_last_event():
    trace = make_trace(
        [(0, 500, -1), (1, -1, THREAD)],
        [(300, 310, THREAD, [(400, 410)])],
        styles=[START_END, START_END],
    )
    (row,) = project(trace)
    assert (row.name, row.style, row.duration_ns) == (":r1", "StartEnd", 499)


def test_ranges_with_the_same_times_have_no_level_nor_do_those_inside_them():
    ranges = [(0, 90, THREAD), (0, 90, THREAD), (10, 80, THREAD), (95, 99, THREAD)]
    launches = [(20, 30, THREAD, [(100, 200)]), (96, 97, THREAD, [(300, 400)])]
    found = _by_name(make_trace(ranges, launches))
    assert [found[f":r{number}"].level for number in range(4)] == [None, None, None, 0]
    (row,) = [row for row in summaries(found.values()) if row.name == ":r2"]
    assert row.average_level is None


def test_averages_are_rounded_half_away_from_zero():
    ranges = [(10 * number, 10 * number + 9, THREAD) for number in range(4)]
    launches = [
        (10 * number + 1, 10 * number + 2, THREAD, [(1_000 * number, 1_000 * number + length)])
        for number, length in enumerate([1, 0, 0, 0])
    ]
    trace = make_trace(ranges, launches)
    projections = [
        Projection("x", *[getattr(row, field) for field in Projection.__slots__[1:]])
        for row in project(trace)
    ]
    (row,) = summaries(projections)
    assert (row.average_ns, row.median_ns, row.deviation_ns) == (0.3, 0.0, 0.5)  # 0.25 and 0.5
    (row,) = summaries(projections[:1])
    assert row.deviation_ns == 0.0


def _naive(trace: Trace) -> list[tuple[int, ...]]:
    """The rules as they are written down, each range against every other and every launch."""
    ranges, calls, operations = trace.ranges, trace.calls, trace.operations
    closed = [end for end in ranges.end_ns.tolist() if end != -1]
    if not closed:
        return []
    last = max([*closed, *ranges.start_ns.tolist()])
    every = [
        (start, last if end == -1 else end, thread)
        for start, end, thread in zip(
            ranges.start_ns.tolist(), ranges.end_ns.tolist(), ranges.thread.tolist(), strict=True
        )
    ]
    rows = []
    for start, end, thread in every:
        inside = [
            number
            for number in range(len(calls))
            if calls.thread[number] == thread
            and start <= calls.start_ns[number]
            and calls.end_ns[number] <= end
            and (operations.correlation == calls.correlation[number]).any()
        ]
        if inside and thread != -1:
            mine = np.isin(operations.correlation, calls.correlation[inside])
            first = int(operations.start_ns[mine].min())
            latest = int(operations.end_ns[mine].max())
            rows.append((start, end, thread, first, latest - first, len(inside)))
    return sorted(rows)


TIMES = st.tuples(st.integers(0, 30), st.integers(0, 12))
THREADS = st.sampled_from([THREAD, THREAD + 1])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(TIMES, st.sampled_from([THREAD, THREAD + 1, -1]), st.booleans())),
    st.lists(st.tuples(TIMES, THREADS, st.lists(TIMES, max_size=3))),
)
def test_any_ranges_and_calls_are_projected_as_the_rules_say(ranges, launches):
    trace = make_trace(
        [
            (start, start + length if closed else -1, thread)
            for (start, length), thread, closed in ranges
        ],
        [
            (start, start + length, thread, [(begin, begin + took) for begin, took in made])
            for (start, length), thread, made in launches
        ],
    )
    found = [
        (
            *(row.start_ns, row.start_ns + row.duration_ns, row.thread + (PID << 24)),
            *(row.projected_start_ns, row.projected_ns, row.operations),
        )
        for row in project(trace)
    ]
    assert sorted(found) == _naive(trace)


@settings(max_examples=300, deadline=None)
@given(st.lists(TIMES, min_size=1, max_size=12))
def test_levels_count_the_shortest_enclosing_ranges(times):
    ranges = sorted({(start, start + length, THREAD) for start, length in times})
    launches = [(start, start, THREAD, [(50, 60)]) for start, _, _ in ranges]
    found = {row.name: row for row in project(make_trace(ranges, launches))}
    levels: dict[int, int] = {}
    # shorter ranges come after those that enclose them; with equally short parents any will do
    for number in sorted(
        range(len(ranges)), key=lambda number: ranges[number][0] - ranges[number][1]
    ):
        start, end, _ = ranges[number]
        around = [
            other
            for other, (begin, finish, _) in enumerate(ranges)
            if other != number and begin <= start and finish >= end
        ]
        shortest = min((ranges[other][1] - ranges[other][0] for other in around), default=None)
        possible = {
            levels[other] + 1 for other in around if ranges[other][1] - ranges[other][0] == shortest
        } or {0}
        levels[number] = found[f":r{number}"].level
        assert levels[number] in possible
