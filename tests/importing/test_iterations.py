"""Which operations make a forward: by ranges around it, by the walk along rules, inside graphs."""

from __future__ import annotations

import re

import numpy as np
import pytest

from moeprof.errors import UsageError
from moeprof.importing.fit import apply, best_fit
from moeprof.importing.iterations import (
    Forwards,
    range_forwards,
    staged_forwards,
    walked_forwards,
)
from moeprof.importing.keep import spread, undisturbed
from moeprof.importing.placed import Placed, place_operations
from moeprof.importing.record import ImportOptions, record_of
from moeprof.importing.rules import parse_rules, shipped_rules
from moeprof.importing.trace import Trace
from tests.importing.made_traces import KERNELS, TraceBuilder


def names_of(trace: Trace, placed: Placed, forwards: Forwards) -> list[list[str]]:
    """The kernels of each forward, in order of launch."""
    names = [trace.operations.descriptions[number].name for number in placed.description]
    return [
        [name for name, of in zip(names, forwards.of, strict=True) if of == number]
        for number in range(len(forwards))
    ]


def walked(trace: Trace) -> tuple[Placed, Forwards]:
    placed = place_operations(trace, 0)
    fitted = best_fit(shipped_rules(), trace, placed)
    assert fitted is not None
    forwards = walked_forwards(placed, fitted)
    assert forwards is not None
    return placed, forwards


# ---------------------------------------------------------------- ranges


def test_a_range_holds_what_is_launched_in_it_and_nothing_else() -> None:
    builder = TraceBuilder()
    builder.launch("flush", 0, 40, 90)
    end = builder.forward(1_000, ranges=True)
    builder.launch("between", end + 10, end + 30, end + 40)
    builder.forward(3_000, ranges=True)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    forwards = range_forwards(trace, placed)
    assert forwards is not None and names_of(trace, placed, forwards) == [[*KERNELS]] * 2
    assert forwards.entry_ns.tolist() == [1_000, 3_000]
    assert forwards.exit_ns.tolist() == [1_700, 3_700]
    assert (forwards.of < 0).sum() == 2 and forwards.notes == ()


def test_a_launch_counts_and_not_when_the_gpu_got_to_it() -> None:
    builder = TraceBuilder()
    builder.range("iteration", 0, 1_000)
    builder.launch("queued long", 10, 5_000, 6_000)
    builder.launch("launched after", 1_500, 6_100, 6_200)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    forwards = range_forwards(trace, placed)
    assert forwards is not None and names_of(trace, placed, forwards) == [["queued long"]]
    assert forwards.exit_ns.tolist() == [-1], "the host left before the GPU was done"
    assert forwards.notes == (
        "1 ranges end before their last operation does: when the host was done is unknown",
    )


def test_torch_profilers_ranges_and_a_users_own_are_known() -> None:
    for text, domain, pattern in (
        ("moeprof.iteration", "", None),
        ("model.layers.3.mlp", "", re.compile(r"layers\.\d+\.mlp")),
    ):
        builder = TraceBuilder()
        builder.range(text, 0, 800, domain=domain)
        builder.forward(10)
        trace = builder.trace()
        forwards = range_forwards(trace, place_operations(trace, 0), pattern)
        assert forwards is not None and len(forwards) == 1


def test_without_such_ranges_there_are_none_and_a_pattern_without_any_is_refused() -> None:
    builder = TraceBuilder()
    builder.range("iteration", 0, 800, domain="somebody's")
    builder.range("layer\x1b[31m", 0, 800, domain="")
    builder.forward(10)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    assert range_forwards(trace, placed) is None
    with pytest.raises(UsageError, match="no closed range matches 'mlp'; the capture's") as caught:
        range_forwards(trace, placed, re.compile("mlp"))
    assert "'iteration' (1 times)" in str(caught.value) and "\x1b" not in str(caught.value)


def test_ranges_that_were_left_open_or_hold_nothing_are_no_forwards() -> None:
    builder = TraceBuilder()
    builder.range("iteration", 0, -1)
    builder.range("iteration", 100, 150)
    builder.forward(1_000, ranges=True)
    trace = builder.trace()
    forwards = range_forwards(trace, place_operations(trace, 0))
    assert forwards is not None and forwards.entry_ns.tolist() == [1_000]
    assert forwards.notes == ("1 ranges launched nothing here and are left out",)


def test_ranges_around_nothing_at_all_are_refused_with_the_readers_reason() -> None:
    builder = TraceBuilder(notes=("10 launches of CUDA graphs are one interval each",))
    builder.range("iteration", 0, 500)
    builder.launch("flush", 600, 650, 700)
    trace = builder.trace()
    with pytest.raises(UsageError, match="none launched an operation that.*graphs are one"):
        range_forwards(trace, place_operations(trace, 0))


def test_of_nested_ranges_the_outer_one_is_the_forward() -> None:
    builder = TraceBuilder()
    builder.range("layer", 0, 2_000, domain="")
    builder.range("layer.mlp", 100, 1_000, domain="")
    builder.forward(100)
    trace = builder.trace()
    forwards = range_forwards(trace, place_operations(trace, 0), re.compile("layer"))
    assert forwards is not None and forwards.entry_ns.tolist() == [0]
    assert forwards.notes == ("1 ranges inside others of that name are ignored",)


def test_two_threads_have_forwards_of_their_own_at_the_same_time() -> None:
    builder = TraceBuilder()
    builder.forward(0, ranges=True, thread=1)
    builder.forward(50, ranges=True, thread=2, stream=8)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    forwards = range_forwards(trace, placed)
    assert forwards is not None and len(forwards) == 2
    for number, thread in enumerate((1, 2)):
        assert set(placed.thread[forwards.of == number]) == {thread}


def test_what_another_thread_launches_meanwhile_belongs_to_the_forward() -> None:
    builder = TraceBuilder()
    builder.forward(0, ranges=True)
    builder.launch("helper", 250, 900, 950, thread=2, stream=9)
    builder.launch("later helper", 5_000, 5_100, 5_200, thread=2, stream=9)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    forwards = range_forwards(trace, placed)
    assert forwards is not None
    ((*names,),) = names_of(trace, placed, forwards)
    assert "helper" in names and "later helper" not in names


# ---------------------------------------------------------------- the walk


def test_forwards_without_ranges_end_where_routing_begins_again() -> None:
    builder = TraceBuilder()
    for at in (0, 1_000, 2_000):
        builder.launch("attention", at, at + 20, at + 90)
        builder.forward(at + 100)
    placed, forwards = walked(trace := builder.trace())
    assert names_of(trace, placed, forwards) == [[*KERNELS]] * 3
    assert (forwards.of < 0).sum() == 3, "attention lies between forwards"
    assert forwards.exit_ns.tolist() == [-1] * 3


def test_what_no_rule_names_inside_a_forward_is_in_it() -> None:
    builder = TraceBuilder()
    builder.forward(0)
    builder.launch("shared expert", 345, 360, 370)
    builder.launch("norm", 900, 920, 930)
    builder.forward(1_000)
    placed, forwards = walked(trace := builder.trace())
    first, second = names_of(trace, placed, forwards)
    assert first == [*KERNELS[:4], "shared expert", *KERNELS[4:]] and second == [*KERNELS]


def test_forwards_that_the_capture_cut_are_left_out_and_counted() -> None:
    builder = TraceBuilder()
    for number, kernel in enumerate(KERNELS[4:]):  # its routing was before the capture
        builder.launch(kernel, 10 * number, 10 * number + 6, 10 * number + 8)
    for at in (1_000, 2_000, 3_000):
        builder.forward(at)
    builder.forward(4_000, KERNELS[:6])
    placed, forwards = walked(trace := builder.trace())
    assert names_of(trace, placed, forwards) == [[*KERNELS]] * 3
    assert forwards.notes == ("2 forwards are not whole in the capture and are left out",)


def test_one_graph_launch_holds_the_forwards_of_many_layers() -> None:
    builder = TraceBuilder()
    for step in range(3):
        launched, now = 100_000 * step, 100_000 * step + 50
        builder.call(launched, launched + 20, step + 1, name="cudaGraphLaunch")
        for layer in range(58):
            for number, kernel in enumerate(("attention", *KERNELS)):
                node = 8 * layer + number
                builder.operation(kernel, now, now + 20, step + 1, graph_node=node)
                now += 25
    placed, forwards = walked(trace := builder.trace())
    assert len(forwards) == 3 * 58
    assert names_of(trace, placed, forwards) == [[*KERNELS]] * (3 * 58)
    (timeline,) = record_of(trace, ImportOptions(file="x.sqlite")).timelines
    (layer_kernels,) = timeline.operation_sets  # alike, without their numbers in the graph
    assert {operation.graph_node for operation in layer_kernels} == {None}
    # the 2nd layer could run when the 1st was over, long after the one launch call returned
    assert forwards.entry_ns[0] == 50 + 20  # the first attention's end
    assert forwards.entry_ns[1] == 50 + 8 * 25 + 20


def test_a_forward_could_run_from_its_launch_or_from_the_end_of_what_was_before() -> None:
    builder = TraceBuilder()
    builder.launch("busy until 117", 0, 20, 117)
    builder.forward(100)  # launched at 110, runs at 130
    builder.launch("beside it on another stream", 1_900, 1_950, 2_900, stream=9)
    builder.forward(2_000)
    builder.forward(3_000)
    _, forwards = walked(builder.trace())
    # of the second one nothing more is known than that it ran from 2,030 on
    assert forwards.entry_ns.tolist() == [117, 2_029, 3_010]


def test_the_router_may_be_a_kernel_that_no_rule_knows() -> None:
    builder = TraceBuilder()
    for at in (0, 1_000, 2_000):
        builder.forward(at, ("my router", *KERNELS[1:]))
    placed, forwards = walked(trace := builder.trace())
    assert names_of(trace, placed, forwards) == [[*KERNELS[1:]]] * 3


def test_a_stray_kernel_with_a_routers_name_begins_no_forward() -> None:
    builder = TraceBuilder()
    builder.launch(KERNELS[0], 0, 20, 30)  # once, while the program warmed up
    for number in range(8):
        builder.forward(1_000 * (number + 1), ("my router", *KERNELS[1:]))
    placed, forwards = walked(trace := builder.trace())
    assert names_of(trace, placed, forwards)[1:] == [[*KERNELS[1:]]] * 7


def test_a_router_of_several_kernels_begins_one_forward() -> None:
    builder = TraceBuilder()
    for at in (0, 2_000, 4_000):
        builder.forward(at, KERNELS[:1])
        builder.forward(at + 100, KERNELS[:1])
        builder.forward(at + 200)
    placed, forwards = walked(trace := builder.trace())
    assert names_of(trace, placed, forwards) == [[KERNELS[0], KERNELS[0], *KERNELS]] * 3


def test_what_lacks_a_gemm_is_no_forward() -> None:
    builder = TraceBuilder()
    for at in (0, 1_000, 2_000, 3_000):
        builder.forward(at)
        builder.forward(at + 700, KERNELS[:2])  # a router for other work
    placed, forwards = walked(trace := builder.trace())
    assert names_of(trace, placed, forwards) == [[*KERNELS]] * 4
    assert forwards.notes == ("4 forwards are not whole in the capture and are left out",)


def test_a_range_is_a_forward_of_its_own_to_the_rules() -> None:
    """Nothing is counted across: the second GEMM of one range is not the first of the next."""
    rules = parse_rules(
        '[[rule]]\nkernel = "my_gemm"\nsteps = ["gemm1", "gemm2"]\n'
        '[[rule]]\nkernel = "sum"\nstep = "gather"\n',
        "mine",
    )
    builder = TraceBuilder()
    for number in range(3):
        builder.range("iteration", 1_000 * number, 1_000 * number + 900)
        for position, kernel in enumerate(("my_gemm", "my_gemm", "my_gemm")):
            at = 1_000 * number + 100 * position
            builder.launch(kernel, at, at + 20, at + 90)
    builder.launch("sum", 5_000, 5_020, 5_030)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    forwards = range_forwards(trace, placed)
    assert forwards is not None
    fitted = apply(rules, trace, placed, forwards.of)
    assert [fitted.walk.labels[number] for number in fitted.walk.label[:9]] == [
        *("gemm1", "gemm2", "gemm2") * 3
    ]
    assert fitted.walk.label[9] == -1, "outside every range"


def test_a_forward_in_chunks_is_one_forward() -> None:
    """A long prompt: rows are sorted and multiplied in two halves, the router runs once."""
    builder = TraceBuilder()
    for at in (0, 3_000, 6_000):
        builder.forward(at)
        builder.forward(at + 1_000, ("unknown", *KERNELS[1:]))
    trace = builder.trace()
    placed = place_operations(trace, 0)
    fitted = best_fit(shipped_rules(), trace, placed)
    assert fitted is not None
    forwards = walked_forwards(placed, fitted)
    assert forwards is not None and len(forwards) == 3
    labels = [fitted.walk.labels[number] for number in fitted.walk.label if number >= 0]
    assert labels.count("gemm1") == labels.count("gemm2") == 6


def test_two_batches_on_two_streams_are_walked_apart() -> None:
    builder = TraceBuilder()
    for number in range(4):
        builder.forward(1_000 * number, stream=7)
        builder.forward(1_000 * number + 45, stream=8)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    fitted = best_fit(shipped_rules(), trace, placed)
    assert fitted is not None and fitted.lane is not None
    forwards = walked_forwards(placed, fitted)
    assert forwards is not None and len(forwards) == 8
    assert names_of(trace, placed, forwards) == [[*KERNELS]] * 8
    streams = np.array([d.stream for d in trace.operations.descriptions])[placed.description]
    assert all(len(set(streams[forwards.of == number])) == 1 for number in range(8))


def test_rules_of_both_gemms_alone_begin_anew_after_the_second() -> None:
    rules = parse_rules('[[rule]]\nkernel = "my_gemm"\nsteps = ["gemm1", "gemm2"]\n', "mine")
    builder = TraceBuilder()
    for number in range(6):
        builder.launch("my_gemm", 100 * number, 100 * number + 20, 100 * number + 60)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    forwards = walked_forwards(placed, apply(rules, trace, placed))
    assert forwards is not None and names_of(trace, placed, forwards) == [["my_gemm"] * 2] * 3


def test_stage_ranges_alone_tell_forwards_too() -> None:
    label = np.array([2, -1, 0, 1, -1, 2, -1, 0, 0, 1, 2])
    builder = TraceBuilder()
    for number in range(len(label)):
        builder.launch("kernel", 10 * number, 10 * number + 6, 10 * number + 8)
    placed = place_operations(builder.trace(), 0)
    forwards = staged_forwards(placed, label, ("attend", "mix", "emit"))
    assert forwards is not None  # 'emit' came first in this capture, so it begins a forward
    assert forwards.of.tolist() == [0, 0, 0, 0, -1, 1, 1, 1, 1, 1, 2]
    forwards = staged_forwards(placed, label, ("routing", "gemm1", "gather"))
    assert forwards is not None  # steps have an order of their own
    assert forwards.of.tolist() == [-1, -1, 0, 0, 0, 0, -1, 1, 1, 1, 1]
    assert forwards.notes == ("the first forward is not whole in the capture and is left out",)


# ---------------------------------------------------------------- how many


def many(count: int) -> tuple[Trace, Placed, Forwards]:
    builder = TraceBuilder()
    for number in range(count):
        builder.forward(1_000 * number, ranges=True)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    forwards = range_forwards(trace, placed)
    assert forwards is not None
    return trace, placed, forwards


def test_at_most_so_many_forwards_are_kept_evenly_spread() -> None:
    _, _, forwards = many(50)
    kept = spread(forwards, 5)
    assert kept.entry_ns.tolist() == [0, 12_000, 24_000, 37_000, 49_000]
    assert sorted(set(kept.of.tolist())) == [-1, 0, 1, 2, 3, 4]
    assert (kept.of >= 0).sum() == 5 * 7
    assert kept.notes == ("5 of 50 forwards are kept, evenly spread",)
    assert spread(forwards, 50) is forwards and len(spread(forwards, 1)) == 1


def test_long_forwards_are_kept_in_smaller_number_and_one_too_long_is_refused() -> None:
    _, _, forwards = many(50)
    assert len(spread(forwards, 1_000, most_operations=70)) == 10
    assert len(spread(forwards, 1_000, most_operations=7)) == 1
    with pytest.raises(
        UsageError, match="a forward of 7 operations; expected at most 6; give --it"
    ):
        spread(forwards, 1_000, most_operations=6)


def test_forwards_that_the_profiler_held_up_are_left_out_unless_most_are() -> None:
    _, placed, forwards = many(10)
    held = undisturbed(forwards, placed, np.array([[3_100, 3_200], [500, 550], [900, 950]]))
    assert held.entry_ns.tolist() == [1_000, 2_000, *range(4_000, 10_000, 1_000)]
    assert "2 forwards in which the profiler itself held" in held.notes[-1]
    all_along = undisturbed(forwards, placed, np.array([[0, 20_000]]))
    assert (
        len(all_along) == 10 and "held up 10 of 10 forwards; they are kept" in all_along.notes[-1]
    )
    assert undisturbed(forwards, placed, np.array([[750, 990]])) is forwards
    nested = undisturbed(forwards, placed, np.array([[1_500, 4_100], [1_600, 1_610]]))
    assert nested.entry_ns.tolist() == [0, *range(5_000, 10_000, 1_000)]
