"""The time identity: exact buckets, closure on any timeline, a real capture."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.identity import attribute
from moeprof.analysis.profiles import UNATTRIBUTED, IterationProfile, StageTime
from moeprof.analysis.rows import rows_of, stage_rows
from moeprof.records import StageInfo
from moeprof.timelines import Iteration, Operation


def operation(stage: str, stream: int = 7, name: str = "k") -> Operation:
    return Operation(name, "kernel", stage, stream)


def books(
    *entries: tuple[str, int, int, int, int], streams: tuple[int, ...] = (), exit_ns: int = -1
) -> IterationProfile:
    """entries: (stage, launch begin, launch end, start, end); -1, -1: no launch recorded."""
    operations = [
        operation(entry[0], streams[i] if streams else 7) for i, entry in enumerate(entries)
    ]
    _, begins, ends, starts, stops = zip(*entries, strict=True)
    iteration = Iteration(0, starts, stops, begins, ends, exit_ns=exit_ns)
    return attribute(operations, iteration, [entry[0] for entry in entries])


def test_a_gap_is_split_by_its_launch_call() -> None:
    found = books(("a", 0, 10, 20, 50), ("b", 60, 75, 80, 100), exit_ns=130)
    assert found == IterationProfile(
        wall_ns=130,
        prologue_ns=20,
        span_ns=80,
        epilogue_ns=30,
        stages=(
            StageTime("a", busy_ns=30, kernel_sum_ns=30, operations=1),
            StageTime(
                "b",
                busy_ns=20,
                kernel_sum_ns=20,
                host_late_ns=10,  # 50 to 60: the host has not begun
                api_ns=15,  # 60 to 75: the launch call
                launch_latency_ns=5,
                operations=1,
            ),
        ),
    )
    assert found.residual_ns == 0
    assert found.orchestration_ns == 25


def test_a_queued_launch_leaves_latency_only() -> None:
    _, second = books(("a", 0, 10, 20, 50), ("b", 12, 18, 51, 60)).stages
    assert (second.host_late_ns, second.api_ns, second.launch_latency_ns) == (0, 0, 1)


def test_a_launch_call_that_straddles_the_gap_counts_only_inside_it() -> None:
    _, second = books(("a", 0, 10, 20, 50), ("b", 45, 70, 60, 80)).stages
    assert (second.host_late_ns, second.api_ns, second.launch_latency_ns) == (0, 10, 0)


def test_a_launch_recorded_after_its_start_is_late_for_the_whole_gap() -> None:
    found = books(("a", 0, 10, 20, 50), ("b", 90, 95, 60, 80))
    assert found.stages[1].host_late_ns == 10
    assert found.residual_ns == 0


def test_one_call_that_launches_many() -> None:
    """A graph launch: later nodes start after the call and are charged latency alone."""
    first, second, third = books(
        ("a", 0, 30, 20, 25), ("b", 0, 30, 28, 33), ("c", 0, 30, 34, 40)
    ).stages
    assert (second.api_ns, second.launch_latency_ns) == (3, 0)
    assert (third.api_ns, third.launch_latency_ns) == (0, 1)


def test_an_instant_belongs_to_the_operation_that_started_first() -> None:
    found = books(("a", 0, 1, 10, 50), ("b", 0, 1, 20, 40), ("c", 0, 1, 30, 70), streams=(1, 2, 3))
    a, b, c = found.stages
    assert (a.busy_ns, a.overlap_ns) == (40, 0)
    assert (b.busy_ns, b.overlap_ns) == (0, 20)
    assert (c.busy_ns, c.overlap_ns) == (20, 20)
    assert found.span_ns == 60 and found.residual_ns == 0


def test_equal_starts_go_to_the_earlier_record() -> None:
    a, b = books(("a", 0, 1, 10, 30), ("b", 0, 1, 10, 40)).stages
    assert (a.busy_ns, b.busy_ns, b.overlap_ns) == (20, 10, 20)


def test_held_by_another_stream_is_dependency() -> None:
    """Launched long before, started after the other stream's operation ended."""
    _, second = books(("a", 0, 5, 10, 50), ("b", 6, 9, 53, 60), streams=(1, 2)).stages
    assert (second.dependency_ns, second.launch_latency_ns) == (3, 0)


def test_launched_after_the_other_stream_fell_idle_is_latency() -> None:
    _, second = books(("a", 0, 5, 10, 50), ("b", 48, 51, 53, 60), streams=(1, 2)).stages
    assert (second.dependency_ns, second.api_ns, second.launch_latency_ns) == (0, 1, 2)


def test_not_held_if_its_own_stream_ended_at_the_same_time() -> None:
    *_, third = books(
        ("a", 0, 5, 10, 50), ("b", 0, 5, 20, 50), ("c", 6, 9, 53, 60), streams=(1, 2, 2)
    ).stages
    assert (third.dependency_ns, third.launch_latency_ns) == (0, 3)


def test_without_api_records_the_whole_gap_is_the_hosts() -> None:
    iteration = Iteration(0, (10, 40), (20, 60))
    _, second = attribute([operation("a"), operation("b")], iteration, ["a", "b"]).stages
    assert (second.host_late_ns, second.gap_ns) == (20, 20)


def test_uncollected_operations_take_no_part() -> None:
    found = books(("a", 0, 5, 10, 50), ("b", 6, 9, 0, 0), ("c", 6, 9, -7000, -7000))
    assert found.span_ns == 40 and found.residual_ns == 0
    assert [stage.name for stage in found.stages] == ["a"]


def test_rows_without_operations_are_shown_in_order() -> None:
    found = attribute([operation("b")], Iteration(0, (5,), (9,)), ["b"], rows=("a", "b"))
    assert found.stages[0] == StageTime("a")
    assert found.stages[1].busy_ns == 4


def test_no_operations_at_all() -> None:
    found = attribute([], Iteration(0, (), (), exit_ns=70), [], rows=("a",))
    assert (found.span_ns, found.residual_ns, found.wall_ns, found.epilogue_ns) == (0, 0, 70, 70)


def test_kernel_rules_split_a_stage_by_order_of_match() -> None:
    stage = StageInfo(
        "fused", ("gemm1", "swiglu_quant", "gemm2"), "x", (), (),
        kernel_rules=(("gemm", ("gemm1", "gemm2")), ("act", ("swiglu_quant",))),
    )  # fmt: skip
    names = ["scan", "gemm<8>", "act", "gemm<64>", "gemm<64>"]
    operations = [operation("fused", name=name) for name in names] + [operation("")]
    expected = ["fused", "gemm1", "swiglu_quant", "gemm2", "gemm2", UNATTRIBUTED]
    assert list(rows_of(operations, [stage])) == expected
    rows = [row.name for row in stage_rows([stage])]
    assert rows == ["gemm1", "swiglu_quant", "gemm2", "fused"]


TIME = st.integers(1, 400)


@st.composite
def timelines(draw: st.DrawFn) -> tuple[list[Operation], Iteration]:
    """Any times at all: overlaps, zero lengths, equal starts, launches before, within and after."""
    count = draw(st.integers(0, 12))
    starts = draw(st.lists(TIME, min_size=count, max_size=count))
    lengths = draw(st.lists(st.integers(0, 90), min_size=count, max_size=count))
    begins = draw(st.lists(st.integers(-1, 500), min_size=count, max_size=count))
    calls = draw(st.lists(st.integers(0, 60), min_size=count, max_size=count))
    streams = draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    stages = draw(st.lists(st.sampled_from("abcd"), min_size=count, max_size=count))
    recorded = draw(st.booleans())
    iteration = Iteration(
        0,
        tuple(starts),
        tuple(s + n for s, n in zip(starts, lengths, strict=True)),
        tuple(begins) if recorded else (),
        tuple(b + c for b, c in zip(begins, calls, strict=True)) if recorded else (),
        exit_ns=600,
    )
    return [operation(a, b) for a, b in zip(stages, streams, strict=True)], iteration


@given(timelines())
def test_the_books_close_for_any_timeline(made: tuple[list[Operation], Iteration]) -> None:
    operations, iteration = made
    found = attribute(operations, iteration, [o.stage for o in operations])
    assert found.residual_ns == 0
    covered = {
        t for s, e in zip(iteration.start_ns, iteration.end_ns, strict=True) for t in range(s, e)
    }
    assert sum(stage.busy_ns for stage in found.stages) == len(covered)
    for stage in found.stages:
        parts = (stage.busy_ns, stage.overlap_ns, stage.host_late_ns, stage.api_ns)
        assert min(*parts, stage.launch_latency_ns, stage.dependency_ns) >= 0
        assert stage.busy_ns + stage.overlap_ns == stage.kernel_sum_ns
    assert found.prologue_ns + found.span_ns + (found.epilogue_ns or 0) == 600


CAPTURE = """
select o.start, o.end, o.streamId, r.start, r.end, o.kind from (
    select start, end, streamId, correlationId, 'kernel' as kind from CUPTI_ACTIVITY_KIND_KERNEL
    union all
    select start, end, streamId, correlationId, 'memset' from CUPTI_ACTIVITY_KIND_MEMSET
) o join CUPTI_ACTIVITY_KIND_RUNTIME r using (correlationId) order by o.start
"""
RANGES = """
select s.value, e.start, e.end from NVTX_EVENTS e join StringIds s on s.id = e.textId
where e.eventType = 59 order by e.start
"""


def test_a_real_capture_closes_as_documented(shared: Path) -> None:
    """Two iterations on an H200 under Nsight Systems: the published figures, to the ns."""
    path = shared / "data" / "nsys" / "h200_two_iterations.sqlite"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as capture:
        records = capture.execute(CAPTURE).fetchall()
        ranges = capture.execute(RANGES).fetchall()
    iterations = [(begin, end) for name, begin, end in ranges if name == "iter"]
    stages = [entry for entry in ranges if entry[0] != "iter"]
    found = []
    for entry, exit_ns in iterations:
        mine = [r for r in records if entry <= r[3] < exit_ns]
        rows = [next(n for n, b, e in stages if b <= record[3] < e) for record in mine]
        columns = [tuple(record[i] - entry for record in mine) for i in (0, 1, 3, 4)]
        timeline = Iteration(0, *columns)
        operations = [operation(row, record[2]) for row, record in zip(rows, mine, strict=True)]
        found.append(attribute(operations, timeline, rows))
    totals = [
        (
            book.span_ns,
            sum(s.busy_ns for s in book.stages),
            sum(s.host_late_ns for s in book.stages),
            sum(s.api_ns for s in book.stages),
            sum(s.launch_latency_ns for s in book.stages),
            book.residual_ns,
        )
        for book in found
    ]
    assert totals == [
        (249_921, 214_369, 0, 34_464, 1_088, 0),
        (219_553, 212_193, 0, 4_630, 2_730, 0),
    ]
    assert [stage.name for stage in found[0].stages] == ["GEMM1", "act"]
    assert found[0].stages[0].operations == 2  # the GEMM owns a hidden memset
