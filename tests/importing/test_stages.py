"""The stage of every operation: ranges, other threads, nodes of graphs, and when rules step in."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from moeprof.importing.iterations import iteration_names, range_forwards
from moeprof.importing.nesting import Nest
from moeprof.importing.placed import place_operations
from moeprof.importing.record import ImportOptions, import_trace
from moeprof.importing.stages import (
    charge_other_threads,
    node_stages,
    open_ranges,
    range_stages,
    stage_bounds,
)
from moeprof.importing.trace import Trace
from moeprof.timelines import Iteration, Operation, TimelinePass
from tests import builders
from tests.importing.made_traces import KERNELS, STEPS, TraceBuilder


def told(trace: Trace, mapping: tuple[tuple[re.Pattern[str], str], ...] = ()) -> list[str]:
    """The stage of each operation by ranges, in order of launch."""
    stages = range_stages(trace, place_operations(trace, 0), mapping)
    assert stages is not None
    return [stages.labels[number] if number >= 0 else "" for number in stages.label]


def test_the_innermost_range_that_names_a_stage_counts_and_no_other() -> None:
    builder = TraceBuilder()
    builder.range("iteration", 0, 1_000)
    builder.range("experts", 10, 500)
    builder.range("gemm1", 100, 300)
    builder.range("cutlass", 150, 250, domain="somebody's")
    for at in (5, 50, 120, 200, 280, 400, 700):
        builder.launch("kernel", at, at + 10, at + 20)
    assert told(builder.trace()) == ["", "experts", "gemm1", "gemm1", "gemm1", "experts", ""]


def test_texts_that_name_a_stage() -> None:
    builder = TraceBuilder()
    texts = {
        ("gemm1", ""): "gemm1",
        ("gemm1+swiglu_quant", "mine"): "gemm1+swiglu_quant",
        ("gemm3", "mine"): "",
        ("moeprof.gather", ""): "gather",
        ("moeprof.iteration", ""): "",
        ("my own part", "moeprof"): "my own part",
        ("iteration", "moeprof"): "",
        ("outside", "moeprof"): "outside (stage)",  # the name of a row that has a meaning
        (" ", "moeprof"): "",
        ("aten::mm", ""): "",
    }
    for number, (text, domain) in enumerate(texts):
        builder.range(text, 100 * number, 100 * number + 90, domain=domain)
        builder.launch("kernel", 100 * number + 10, 100 * number + 20, 100 * number + 30)
    assert told(builder.trace()) == list(texts.values())


def test_a_users_patterns_name_stages_and_the_first_that_matches_counts() -> None:
    builder = TraceBuilder()
    for number, text in enumerate(("mlp.gate", "mlp.experts.up", "mlp.experts.down", "gemm1")):
        builder.range(text, 100 * number, 100 * number + 90, domain="")
        builder.launch("kernel", 100 * number + 10, 100 * number + 20, 100 * number + 30)
    mapping = (
        (re.compile(r"experts\.up"), "gemm1"),
        (re.compile(r"^mlp"), "rest"),
        (re.compile("gemm1"), "gemm2"),
    )
    assert told(builder.trace(), mapping) == ["rest", "gemm1", "rest", "gemm2"]


def test_a_range_on_another_thread_says_nothing_of_a_launch() -> None:
    builder = TraceBuilder()
    builder.range("gemm1", 0, 1_000, thread=2)
    builder.range("gemm2", 0, 100, thread=1)
    builder.launch("here", 10, 20, 30, thread=1)
    builder.launch("there", 10, 21, 30, thread=2)
    builder.launch("neither", 500, 510, 520, thread=1)
    assert told(builder.trace()) == ["gemm2", "gemm1", ""]


def test_open_ranges_are_ignored_counted_and_named() -> None:
    builder = TraceBuilder()
    builder.range("gemm1", 0, -1)
    builder.range("gather", 5, -1)
    builder.range("iteration", 0, -1)
    builder.range("open, and of no interest", 0, -1, domain="")
    builder.range("gemm2", 0, 100)
    builder.launch("kernel", 10, 20, 30)
    builder.launch("later", 200, 210, 230)
    trace = builder.trace()
    assert told(trace) == ["gemm2", ""]
    notes = open_ranges(trace, (), iteration_names(trace.ranges, None))
    assert notes == ("3 ranges were left open and are ignored (gemm1, iteration, gather)",)


def test_what_other_threads_launch_counts_for_the_stage_open_at_that_moment() -> None:
    builder = TraceBuilder()
    builder.forward(0, ranges=True)
    builder.launch("during gemm1", 307, 800, 810, thread=2, stream=9)
    builder.launch("between stages", 395, 820, 830, thread=2, stream=9)
    builder.launch("in no forward", 5_000, 5_010, 5_020, thread=2, stream=9)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    stages, forwards = range_stages(trace, placed), range_forwards(trace, placed)
    assert stages is not None and forwards is not None
    charged = charge_other_threads(stages, trace, placed, forwards)
    names = [trace.operations.descriptions[number].name for number in placed.description]
    found = {
        name: charged.labels[number] if number >= 0 else ""
        for name, number in zip(names, charged.label.tolist(), strict=True)
    }
    assert found["during gemm1"] == "gemm1"
    assert found["between stages"] == found["in no forward"] == ""
    assert charged.notes[0].startswith("1 operations were launched by other threads; each counts")
    assert (stages.label >= 0).sum() == 7, "the first value is as it was"


def test_a_graphs_nodes_take_their_stages_from_a_record_that_knows_them() -> None:
    builder = TraceBuilder()
    for step in range(4):
        builder.range("iteration", 1_000 * step, 1_000 * step + 900)
        builder.call(1_000 * step + 10, 1_000 * step + 30, step + 1, name="cudaGraphLaunch")
        for node, kernel in enumerate(("mine", "mine", "other", "mine")):
            start = 1_000 * step + 100 + 50 * node
            builder.operation(kernel, start, start + 40, step + 1, graph_node=(7 << 32) + node)
    trace = builder.trace()
    placed = place_operations(trace, 0)
    everything = np.ones(len(placed), dtype=np.bool_)
    stages = ("routing", "gemm1", "gemm2", "gemm2")
    nodes = tuple(
        Operation(name, "kernel", stage, 7, graph_node=node)
        for node, (name, stage) in enumerate(
            zip(("mine", "mine", "other", "mine"), stages, strict=True)
        )
    )
    like = builders.make_run()
    times = Iteration(0, (1, 2, 3, 4), (2, 3, 4, 5))
    like = replace(like, timelines=(TimelinePass("graph", (nodes,), (times,)),), passes=())
    found = node_stages(trace, placed, everything, like)
    assert found is not None and found.by == "graph nodes"
    assert [found.labels[number] for number in found.label[:4]] == [*stages]
    run = import_trace(trace, ImportOptions(file="g.sqlite"), like).run
    assert run.capture is not None and run.capture.stages_by == "graph nodes"
    assert [o.stage for o in run.timelines[0].operation_sets[0]] == [*stages]
    # the same numbers under other names are another graph
    renamed = tuple(replace(node, name=f"{node.name}!") for node in nodes)
    other = replace(like, timelines=(TimelinePass("graph", (renamed,), (times,)),))
    assert node_stages(trace, placed, everything, other) is None
    assert node_stages(trace, placed, everything, replace(like, timelines=())) is None


def test_host_times_of_stages_are_kept_where_each_is_entered_once() -> None:
    builder = TraceBuilder()
    builder.forward(0, ranges=True)
    builder.forward(1_000, ranges=True)
    builder.range("gemm1", 1_650, 1_660)  # the second forward enters gemm1 twice
    trace = builder.trace()
    placed = place_operations(trace, 0)
    stages, forwards = range_stages(trace, placed), range_forwards(trace, placed)
    assert stages is not None and forwards is not None
    bounds = stage_bounds(stages, trace, forwards)
    assert bounds is not None
    gemm1 = stages.labels.index("gemm1")
    assert [column[:, gemm1].tolist() for column in bounds] == [[305, -1], [320, -1]]
    first, second = import_trace(trace).run.timelines[0].iterations
    assert first.stage_begin_ns == tuple(100 * number + 5 for number in range(7))
    assert first.stage_end_ns == tuple(100 * number + 20 for number in range(7))
    assert second.stage_begin_ns == second.stage_end_ns == ()


def test_stage_ranges_around_little_of_the_time_do_not_hide_what_rules_know() -> None:
    builder = TraceBuilder()
    for at in (0, 1_000, 2_000):
        builder.range("iteration", at, at + 900)
        builder.range("routing", at + 5, at + 20)
        builder.forward(at)
    run = import_trace(builder.trace(), ImportOptions(file="x.sqlite")).run
    assert run.capture is not None and run.capture.stages_by == "rules"
    assert run.solution.stage_names == tuple(STEPS)
    assert "stage ranges hold only 14 % of the forwards' GPU time" in run.capture.notes


def test_forwards_without_any_stage_are_unattributed_and_say_so() -> None:
    builder = TraceBuilder()
    builder.range("iteration", 0, 900)
    builder.forward(0, [f"unknown {number}" for number in range(7)])
    imported = import_trace(builder.trace(), ImportOptions(file="x.sqlite"))
    assert (imported.account.kept, imported.account.unattributed) == (0, 7)
    assert imported.run.solution.stages == () and imported.run.capture is not None
    assert any("everything is unattributed" in note for note in imported.run.capture.notes)


def test_ranges_around_many_forwards_say_so() -> None:
    builder = TraceBuilder()
    for step in range(2):
        builder.range("iteration", 10_000 * step, 10_000 * step + 9_000)
        for layer in range(8):
            builder.forward(10_000 * step + 1_000 * layer)
    run = import_trace(builder.trace(), ImportOptions(file="x.sqlite")).run
    assert run.capture is not None and run.capture.forwards == 2
    assert any("each range holds 8.0 forwards" in note for note in run.capture.notes)


def test_ranges_that_cross_have_the_last_begun_as_the_innermost() -> None:
    """Start/end ranges need not nest; each moment is looked up against a plain search."""
    random = np.random.default_rng(3)
    begin = np.sort(random.integers(0, 1_000, 200))
    end = begin + random.integers(0, 300, 200)
    order = np.lexsort((-end, begin))
    begin, end = begin[order], end[order]
    moments = random.integers(0, 1_300, 500)
    until = moments + random.integers(0, 50, 500)
    found = Nest(begin, end).innermost(moments, until)
    for moment, last, inner in zip(moments, until, found, strict=True):
        around = [k for k in range(200) if begin[k] <= moment and end[k] >= last]
        assert inner == (around[-1] if around else -1)


def test_kernels_of_the_tests_are_those_that_the_rules_know() -> None:
    builder = TraceBuilder()
    for at in (0, 1_000, 2_000):
        builder.forward(at, KERNELS)
    run = import_trace(builder.trace(), ImportOptions(file="x.sqlite")).run
    assert [o.stage for o in run.timelines[0].operation_sets[0]] == STEPS
