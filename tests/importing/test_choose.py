"""Whose work a record is of, where a capture holds that of several processes and GPUs."""

from __future__ import annotations

import numpy as np
import pytest

from moeprof.errors import UsageError
from moeprof.importing.choose import choose
from moeprof.importing.placed import place_operations, threads_of
from moeprof.importing.rules import shipped_rules
from tests.importing.made_traces import KERNELS, TraceBuilder

RULES = shipped_rules()


def three_places() -> TraceBuilder:
    """Process 100 copies much on GPU 0, 200 runs forwards on GPU 1 and one on GPU 0."""
    builder = TraceBuilder()
    for number in range(40):
        builder.launch("memcpy DTOD", 10 * number, 10 * number + 6, 10 * number + 8)
    for at in (0, 1_000, 2_000):
        builder.forward(at, thread=2, place=(200, 1))
    builder.forward(5_000, thread=2, place=(200, 0))
    return builder


def test_the_only_place_is_chosen_without_a_word() -> None:
    builder = TraceBuilder()
    builder.forward(0)
    choice = choose(builder.trace(), RULES)
    assert (choice.place, choice.others, choice.notes) == (0, 0, ())


def test_the_most_moe_operations_win_and_the_others_are_named_with_their_counts() -> None:
    trace = three_places().trace()
    choice = choose(trace, RULES)
    assert trace.operations.places[choice.place] == (200, 1)
    assert choice.others == 47
    (note,) = choice.notes
    assert note.startswith("only process 200 on GPU 1 (21 operations, 18 MoE) is in this record")
    assert "process 100 on GPU 0 (40 operations, 0 MoE)" in note
    assert "process 200 on GPU 0 (7 operations, 6 MoE)" in note
    assert note.endswith("--process and --gpu choose another")


@pytest.mark.parametrize(
    "asked, place",
    [({"process": 100}, (100, 0)), ({"gpu": 0}, (200, 0)), ({"process": 200}, (200, 1))],
)
def test_what_is_asked_for_is_taken(asked: dict[str, int], place: tuple[int, int]) -> None:
    trace = three_places().trace()
    assert trace.operations.places[choose(trace, RULES, **asked).place] == place


@pytest.mark.parametrize("asked", [{"process": 7}, {"gpu": 3}, {"process": 100, "gpu": 1}])
def test_a_place_without_work_is_refused_in_one_line(asked: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="ran nothing in this capture; it holds") as caught:
        choose(three_places().trace(), RULES, **asked)
    assert "process 200 on GPU 1" in str(caught.value) and "\n" not in str(caught.value)


def test_a_capture_without_gpu_work_is_refused_with_the_readers_notes() -> None:
    builder = TraceBuilder(notes=("10 launches of CUDA graphs are one interval each",))
    builder.call(0, 5, 1)
    with pytest.raises(UsageError, match="holds no GPU operation .10 launches of CUDA graphs"):
        choose(builder.trace(), RULES)


def test_correlation_ids_of_two_processes_do_not_mix() -> None:
    builder = TraceBuilder()
    builder.call(10, 15, 1, thread=1, process=100)
    builder.call(1_000, 1_005, 1, thread=2, process=200)
    builder.operation("kernel", 30, 40, 1, place=(100, 0))
    builder.operation("kernel", 1_030, 1_040, 1, place=(200, 0))
    trace = builder.trace()
    for place, moment, thread in ((0, 10, 1), (1, 1_000, 2)):
        placed = place_operations(trace, place)
        assert placed.moment_ns.tolist() == [moment] and placed.thread.tolist() == [thread]


def test_of_two_calls_with_one_correlation_id_the_first_launched() -> None:
    """A runtime call and the driver call inside it share an id in some captures."""
    builder = TraceBuilder()
    builder.call(10, 30, 4, name="cudaLaunchKernel")
    builder.call(12, 28, 4, name="cuLaunchKernel")
    builder.operation("kernel", 40, 50, 4)
    placed = place_operations(builder.trace(), 0)
    assert placed.call.tolist() == [0] and placed.returned_ns.tolist() == [30]
    builder.call(1, 3, 9)  # ids need not grow
    placed = place_operations(builder.trace(), 0)
    assert placed.call.tolist() == [1] and placed.returned_ns.tolist() == [30]


def test_operations_come_in_order_of_launch_and_nodes_of_a_graph_in_order_of_start() -> None:
    builder = TraceBuilder()
    builder.call(50, 60, 2, name="cudaGraphLaunch")
    builder.call(10, 15, 1)
    builder.operation("late", 400, 410, 1, stream=9)  # launched first, runs last
    builder.operation("node 0", 100, 110, 2)
    builder.operation("node 1", 120, 130, 2)
    builder.operation("unlaunched", 30, 40)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    names = [trace.operations.descriptions[number].name for number in placed.description]
    assert names == ["late", "unlaunched", "node 0", "node 1"]
    assert placed.moment_ns.tolist() == [10, 30, 50, 50]
    assert placed.call.tolist() == [0, -1, 1, 1]
    assert placed.thread.tolist() == [1, -1, 1, 1]


def test_threads_without_a_known_process_belong_to_all() -> None:
    builder = TraceBuilder()
    builder.call(0, 5, 1, thread=1, process=100)
    builder.call(0, 5, 2, thread=2, process=200)
    builder.call(0, 5, 3, thread=3)
    builder.threads.pop(3)
    assert threads_of(builder.trace(), 200).tolist() == [2, 3]


def test_the_columns_of_one_place_in_launch_order_are_views() -> None:
    """What keeps a server's capture in memory: 12 bytes an operation are new, not 60."""
    builder = TraceBuilder()
    for at in range(0, 10_000, 1_000):
        builder.forward(at, KERNELS)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    assert np.shares_memory(placed.start_ns, trace.operations.start_ns)
    assert np.shares_memory(placed.description, trace.operations.description)
