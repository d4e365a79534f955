"""CUPTI's records into iterations, on records written by hand with known answers."""

from __future__ import annotations

from moeprof.assemble import Call, Records, Window, assemble, with_node_stages
from moeprof.timelines import Operation, TimelinePass
from moeprof.timing.calibration import latencies

STAGES = ("routing", "gemm1")
COPY = Operation("copy", "kernel", "", 7)
GEMM = Operation("gemm", "kernel", "", 7)
FLUSH = Operation("flush", "kernel", "", 7)


def window(entry: int) -> Window:
    return Window(entry, entry + 900, (entry + 10, entry + 300), (entry + 290, entry + 600))


def records(*entries: int) -> Records:
    """For each entry: a flush before it, a copy from routing and a GEMM from gemm1."""
    found = Records()
    for number, entry in enumerate(entries):
        base = 10 * number
        found.operations.append((entry - 500, entry - 400, base, FLUSH))
        found.operations.append((entry + 450, entry + 700, base + 2, GEMM))  # out of order
        found.operations.append((entry + 100, entry + 200, base + 1, COPY))
        found.calls[base] = Call("cudaLaunchKernel", entry - 600, entry - 590)
        found.calls[base + 1] = Call("cudaLaunchKernel", entry + 20, entry + 60)
        found.calls[base + 2] = Call("cuLaunchKernelEx", entry + 310, entry + 360)
        found.calls[base + 3] = Call("cudaDeviceSynchronize", entry + 610, entry + 890)
        found.calls[base + 4] = Call("cudaEventRecord", entry + 605, entry + 606)
        found.stages |= {base + 1: 1, base + 2: 2}
    return found


def test_operations_find_their_iteration_their_stage_and_their_call() -> None:
    timeline = assemble("api", STAGES, [window(5_000), window(9_000)], records(5_000, 9_000), 0)
    (operations,) = timeline.operation_sets
    assert [(o.name, o.stage, o.launch) for o in operations] == [
        ("copy", "routing", "cudaLaunchKernel"),
        ("gemm", "gemm1", "cuLaunchKernelEx"),
    ]
    for iteration in timeline.iterations:
        assert iteration.start_ns == (100, 450) and iteration.end_ns == (200, 700)
        assert iteration.launch_begin_ns == (20, 310) and iteration.launch_end_ns == (60, 360)
        assert iteration.stage_begin_ns == (10, 300) and iteration.exit_ns == 900


def test_calls_that_launch_nothing_are_kept_if_they_can_block() -> None:
    timeline = assemble("api", STAGES, [window(5_000)], records(5_000), 0)
    (call,) = timeline.iterations[0].calls
    assert (call.name, call.begin_ns, call.end_ns) == ("cudaDeviceSynchronize", 610, 890)


def test_an_iteration_with_other_operations_is_a_set_of_its_own() -> None:
    found = records(5_000, 9_000)
    found.operations.append((9_750, 9_800, 99, FLUSH))
    timeline = assemble("kernels", STAGES, [window(5_000), window(9_000)], found, 3)
    assert [iteration.operation_set for iteration in timeline.iterations] == [0, 1]
    assert [len(operations) for operations in timeline.operation_sets] == [2, 3]
    assert timeline.operation_sets[1][2].stage == "", "an untagged operation has no stage"
    assert all(iteration.dropped == 3 for iteration in timeline.iterations)


def test_without_api_records_there_are_no_launches() -> None:
    found = records(5_000)
    found.calls.clear()
    (iteration,) = assemble("kernels", (), [window(5_000)], found, 0).iterations
    assert iteration.launch_begin_ns == () and iteration.start_ns == (100, 450)


def test_graph_nodes_get_the_stage_of_their_capture() -> None:
    graph = 5 << 32
    nodes = tuple(Operation(f"k{n}", "kernel", "", 7, graph_node=graph + n) for n in range(4))
    stray = Operation("stray", "kernel", "", 7)
    timeline = with_node_stages(TimelinePass("graph", ((*nodes, stray),)), STAGES, (1, 4))
    (named,) = timeline.operation_sets
    assert [o.stage for o in named] == ["routing", "gemm1", "gemm1", "gemm1", ""]
    assert [o.graph_node for o in named[:4]] == [0, 1, 2, 3]


def test_latency_and_gap_are_read_off_the_calibration() -> None:
    entry = 1_000
    found = Records()
    starts = [entry + 2_500, entry + 10_000, *(entry + 300_000 + 2_000 * n for n in range(8))]
    for number, start in enumerate(starts):
        found.operations.append((start, start + 1_000, number, COPY))
        found.calls[number] = Call("cudaLaunchKernel", start - 900, start - 400)
    found.calls[0] = Call("cudaLaunchKernel", entry + 100, entry + 300)
    for number in range(1, 10):
        found.calls[number] = Call("cudaLaunchKernel", entry + 9_000, entry + 9_100)
    timeline = assemble("api", (), [Window(entry, entry + 400_000, (), ())], found, 0)
    assert latencies(timeline) == (2_200, 1_000)


def test_what_was_launched_before_host_entry_belongs_to_no_iteration() -> None:
    found = records(5_000)
    found.operations.append((5_020, 5_040, 50, FLUSH))  # a flush that outlived its synchronise
    found.calls[50] = Call("cudaMemsetAsync", 4_900, 4_950)
    (operations,) = assemble("api", STAGES, [window(5_000)], found, 0).operation_sets
    assert [operation.name for operation in operations] == ["copy", "gemm"]
