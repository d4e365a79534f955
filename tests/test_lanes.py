"""Lanes of one iteration: their intervals are the time identity's, on any timeline."""

from __future__ import annotations

from collections import Counter

from hypothesis import given

from moeprof.analysis.attribution import profile
from moeprof.analysis.identity import attribute
from moeprof.analysis.lanes import CAUSES, Lane, Lanes, lanes_of, median_lanes
from moeprof.analysis.reconstruct import reconstruct
from moeprof.records import Run
from moeprof.timelines import Iteration, Operation
from tests.builders import Launch, make_cpu_run, make_run, stage_info
from tests.test_identity import timelines


def lane(lanes: tuple[Lane, ...], kind: str) -> Lane:
    return next(one for one in lanes if one.kind == kind)


def shown(run: Run) -> Lanes:
    reconstruction = reconstruct(run)
    found = median_lanes(run, profile(run, reconstruction), reconstruction)
    assert found is not None
    return found


@given(timelines())
def test_idle_intervals_are_the_gaps_of_the_identity(
    made: tuple[list[Operation], Iteration],
) -> None:
    operations, iteration = made
    stages = [stage_info(name) for name in "abcd"]
    run = make_run(stages=stages, passes=("first",))
    book = attribute(operations, iteration, [o.stage for o in operations])
    expected = {
        (stage.name, cause): getattr(stage, field)
        for stage in book.stages
        for field, cause in CAUSES.items()
        if getattr(stage, field)
    }
    found: Counter[tuple[str, str]] = Counter()
    for one in lanes_of(run, operations, iteration):
        if one.kind == "idle":
            for interval in one.intervals:
                assert interval.end_ns > interval.begin_ns
                found[interval.row, interval.name] += interval.end_ns - interval.begin_ns
    assert found == expected


def test_the_iteration_shown_is_the_median_of_the_undisturbed_ones() -> None:
    run = make_run()
    found = shown(run)
    spans = sorted(
        max(p.iteration.end_ns) - min(p.iteration.start_ns) for p in reconstruct(run).predictions
    )
    assert found.source == "reconstructed"
    assert (found.among, found.span_ns) == (30, spans[14])
    assert [one.kind for one in found.lanes] == ["stages", "calls", "gpu", "idle"]
    kernels = lane(found.lanes, "gpu").intervals
    assert [interval.name for interval in kernels[:4]] == [
        "routing_0", "routing_1", "routing_2", "prepare_moe_input_0",
    ]  # fmt: skip
    assert sum(i.end_ns - i.begin_ns for i in kernels) == 15 * 2_000 + 6 * 20_000


def test_waits_are_calls_of_no_stage_and_queries_are_left_out() -> None:
    script = (("routing", (Launch("a", 5_000), Launch("b", 9_000, sync=True))),)
    found = shown(make_run(script, stages=[stage_info("routing")]))
    calls = lane(found.lanes, "calls").intervals
    assert [(call.name, call.row) for call in calls] == [
        ("cudaLaunchKernel", "routing"),
        ("cudaLaunchKernel", "routing"),
        ("cudaStreamSynchronize", ""),
    ]


def test_a_graph_launch_is_one_call_and_streams_have_lanes_of_their_own() -> None:
    operations = [Operation(name, "kernel", "a", stream, "cudaGraphLaunch") for name, stream in
                  (("k1", 7), ("k2", 7), ("k3", 9))]  # fmt: skip
    iteration = Iteration(0, (20, 30, 32), (28, 40, 45), (5, 5, 5), (15, 15, 15))
    run = make_run(stages=[stage_info("a")], passes=("first",))
    found = lanes_of(run, operations, iteration)
    assert len(lane(found, "calls").intervals) == 1
    assert [one.label for one in found if one.kind == "gpu"] == ["GPU stream 7", "GPU stream 9"]


def test_operations_without_a_time_are_not_shown() -> None:
    run = make_run(stages=[stage_info("a")], passes=("first",))
    iteration = Iteration(0, (0, 30), (0, 40))
    found = lanes_of(run, [Operation("lost", "kernel", "a", 7), Operation("k", "kernel", "a", 7)],
                     iteration)  # fmt: skip
    assert [interval.name for interval in lane(found, "gpu").intervals] == ["k"]


def test_under_the_profiler_where_the_forward_cannot_be_reconstructed() -> None:
    run = make_run(passes=("first", "kernels", "api"))
    found = shown(run)
    assert found.source == "api"
    spans = sorted(max(i.end_ns) - min(i.start_ns) for i in run.timeline("api").iterations)
    assert (found.among, found.span_ns) == (20, spans[9])


def test_a_stage_clock_shows_stages_end_to_end() -> None:
    found = shown(make_cpu_run())
    (only,) = found.lanes
    assert [i.end_ns - i.begin_ns for i in only.intervals] == [10_000 * n for n in range(1, 8)]
    assert only.intervals[-1].end_ns == found.span_ns == 280_000
