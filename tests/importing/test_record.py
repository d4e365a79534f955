"""Captures as records: every operation in one place, the identity closed, real captures end to end.

The property test makes traces as no sane program would: several streams, threads and processes,
graphs, open and crossing ranges, launches that the capture lost.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.attribution import profile
from moeprof.analysis.identity import sweep
from moeprof.analysis.lanes import lanes_of
from moeprof.analysis.profiles import UNATTRIBUTED
from moeprof.compare.comparable import Grade, reasons
from moeprof.compare.compare import compare, explain_pair
from moeprof.errors import UsageError
from moeprof.importing.open import read_trace
from moeprof.importing.record import Account, ImportOptions, import_trace, record_of
from moeprof.importing.rules import parse_rules
from moeprof.importing.trace import Gpu
from moeprof.records import Run
from moeprof.reports import phrases
from moeprof.reports.json import run_document
from moeprof.storage import store
from tests import builders
from tests.importing.made_traces import KERNELS, RECORDED, STEPS, TraceBuilder, of_run
from tests.privacy import private_words

DATA = Path(__file__).resolve().parents[1] / "data"
NSYS = sorted((DATA / "nsys").glob("*_*-T*.sqlite")) + sorted(
    (DATA / "nsys").glob("triton*.sqlite")
)
NSYS = [path for path in dict.fromkeys(NSYS) if not path.name.startswith("graph")]
KINETO = sorted((DATA / "kineto").glob("kineto-*.json.gz"))
PLAIN = sorted((DATA / "kineto").glob("plain-*.json.gz"))
OPTIONS = ImportOptions(file="capture.sqlite", num_tokens=56)


def residuals(run: Run) -> list[int]:
    """What the time identity leaves over of each iteration, ns."""
    (timeline,) = run.timelines
    return [
        int(sweep(timeline.operation_sets[i.operation_set], [i]).residual_ns()[0])
        for i in timeline.iterations
    ]


def recorded(solution: str, tokens: int) -> Run:
    return store.load(next((RECORDED / solution).rglob(f"T{tokens}-*.json.gz")))


# ---------------------------------------------------------------- any trace whatever

_NAMES = (*KERNELS, "attention", "memcpy DTOD")


@st.composite
def traces(draw: st.DrawFn) -> TraceBuilder:
    """Forwards in order, with anything strewn in between, on top and beside."""
    builder = TraceBuilder()
    ranged = draw(st.booleans())
    now = 1_000
    for _ in range(draw(st.integers(1, 5))):
        now = builder.forward(now, ranges=ranged, thread=draw(st.sampled_from((1, 1, 2)))) + 300
    moments = st.integers(-500, now + 500)
    for name in draw(st.lists(st.sampled_from(_NAMES), max_size=20)):
        at = draw(moments)
        start = at + draw(st.integers(-50, 900))
        place = draw(st.sampled_from(((100, 0), (100, 0), (100, 1), (200, 0))))
        thread = draw(st.sampled_from((1, 2, 3))) + 10 * (place[0] == 200)
        duration = draw(st.integers(0, 400))
        stream = draw(st.sampled_from((7, 7, 8)))
        if draw(st.booleans()):
            builder.launch(name, at, start, start + duration, thread, place, stream=stream)
        else:  # its launch call is not in the capture
            builder.operation(name, start, start + duration, place=place, stream=stream)
    for _ in range(draw(st.integers(0, 2))):  # graphs
        at, correlation = draw(moments), len(builder.calls) + 1
        builder.call(at, at + 20, correlation, name="cudaGraphLaunch")
        for node, name in enumerate(draw(st.lists(st.sampled_from(_NAMES), max_size=16))):
            start = at + 30 * node + draw(st.integers(0, 20))
            builder.operation(name, start, start + 25, correlation, graph_node=node)
    texts = st.sampled_from(("iteration", "gemm1", "gather", "other"))
    for text in draw(st.lists(texts, max_size=6)):
        begin = draw(moments)
        length = draw(st.integers(-1, 1_500))
        thread = draw(st.sampled_from((1, 2)))
        builder.range(text, begin, begin + length if length >= 0 else -1, thread)
    for _ in range(draw(st.integers(0, 3))):
        builder.call(draw(moments), now, 10_000, name="cudaDeviceSynchronize")
    builder.overhead = draw(
        st.lists(st.tuples(moments, moments).map(sorted).map(tuple), max_size=3)
    )
    return builder


@settings(max_examples=60, deadline=None)
@given(traces(), st.integers(1, 4))
def test_the_identity_closes_and_no_operation_is_lost_or_counted_twice(
    builder: TraceBuilder, most: int
) -> None:
    trace = builder.trace()
    try:
        imported = import_trace(trace, replace(OPTIONS, max_iterations=most))
    except UsageError as error:  # ranges that hold nothing, no whole forward
        assert "\n" not in str(error)
        return
    run, account = imported.run, imported.account
    assert set(residuals(run)) == {0}
    (timeline,) = run.timelines
    counted = Counter(
        bool(operation.stage)
        for iteration in timeline.iterations
        for operation in timeline.operation_sets[iteration.operation_set]
    )
    assert (counted[True], counted[False]) == (account.kept, account.unattributed)
    assert account.total == len(trace.operations)
    assert 1 <= len(timeline.iterations) <= most
    explained = profile(run)
    assert explained.residual_ns == pytest.approx(0, abs=1e-6)
    row = explained.stage(UNATTRIBUTED)
    assert bool(row and row.operations) == bool(account.unattributed and _sound_has_some(run))
    assert store.from_json(json.loads(json.dumps(store.to_json(run)))) == run


def _sound_has_some(run: Run) -> bool:
    """Whether an iteration that the profile is a mean of has an operation in no stage."""
    (timeline,) = run.timelines
    books = [i for i in timeline.iterations if min(i.end_ns) > 0] or list(timeline.iterations)
    return any(
        not operation.stage and end_ns > 0
        for i in books
        for operation, end_ns in zip(
            timeline.operation_sets[i.operation_set], i.end_ns, strict=True
        )
    )


def test_times_are_from_the_host_entry_and_unknown_launches_are_told_apart() -> None:
    builder = TraceBuilder()
    builder.range("iteration", 1_000, 1_900)
    builder.launch("first", 1_010, 1_050, 1_100)
    builder.operation("its call was lost", 1_200, 1_300)
    builder.call(1_400, 1_450, 77, name="cudaEventQuery")
    builder.call(1_500, 1_890, 78, name="cudaDeviceSynchronize")
    builder.call(1_600, 1_700, 79, thread=5, name="cudaDeviceSynchronize")  # a thread of another
    (timeline,) = record_of(builder.trace(), OPTIONS).timelines
    (iteration,) = timeline.iterations
    assert iteration.start_ns == (50, 200) and iteration.end_ns == (100, 300)
    assert iteration.launch_begin_ns == (10, -1) and iteration.launch_end_ns == (15, -1)
    assert iteration.exit_ns == 900
    assert [(c.name, c.begin_ns, c.end_ns) for c in iteration.calls] == [
        ("cudaDeviceSynchronize", 500, 890)
    ]
    assert [o.launch for o in timeline.operation_sets[0]] == ["cudaLaunchKernel", ""]


def test_a_launch_one_nanosecond_before_the_entry_is_not_taken_for_unknown() -> None:
    builder = TraceBuilder()
    builder.launch("busy before", 50, 60, 111)
    for at in (100, 1_000, 2_000):  # the first is launched at 110 and could run from 111 on
        builder.forward(at)
    run = record_of(builder.trace(), OPTIONS)
    iterations = run.timelines[0].iterations
    lanes = lanes_of(run, run.timelines[0].operation_sets[0], iterations[0])
    assert min(interval.begin_ns for lane in lanes for interval in lane.intervals) == 0
    assert [i.launch_begin_ns[0] for i in iterations] == [-2, 0, 0]
    assert [i.launch_end_ns[0] for i in iterations] == [4, 5, 5]


def test_operations_of_a_record_are_in_order_of_start() -> None:
    builder = TraceBuilder()
    builder.range("iteration", 0, 900)
    builder.launch("launched first", 10, 500, 600, stream=8)
    builder.launch("runs first", 20, 100, 200)
    (timeline,) = record_of(builder.trace(), OPTIONS).timelines
    assert [o.name for o in timeline.operation_sets[0]] == ["runs first", "launched first"]
    assert timeline.iterations[0].launch_begin_ns == (20, 10)


def test_stages_are_in_the_order_of_the_steps_whatever_ran_first() -> None:
    """vLLM quantises the rows before it sorts them."""
    kernels = (
        *("void vllm::moe::grouped_topk_fused_kernel<float>()", "_per_token_group_quant_fp8"),
        *("void vllm::moe::moe_align_block_size_kernel<int>()", "fused_moe_kernel"),
        *("void vllm::act_and_mul_kernel<bf16>()", "fused_moe_kernel", "void moe_sum_kernel()"),
    )
    builder = TraceBuilder()
    for at in (0, 1_000, 2_000):
        builder.forward(at, kernels)
    assert record_of(builder.trace(), OPTIONS).solution.stage_names == tuple(STEPS)


def test_a_record_of_forwards_that_all_differ_keeps_fewer_of_them(monkeypatch) -> None:
    """Every launch shape of a server's batches is described; a record must stay readable."""
    builder = TraceBuilder()
    for number in range(64):
        builder.forward(1_000 * number, [f"{kernel}{number}" for kernel in KERNELS], ranges=True)
    monkeypatch.setattr("moeprof.importing.record.MOST_DESCRIBED_BYTES", 30_000)
    imported = import_trace(builder.trace(), OPTIONS)
    assert len(imported.run.timelines[0].iterations) == 8
    assert imported.account == Account(56, 0, 56 * 7, 0, 0)
    assert imported.run.capture is not None
    assert imported.run.capture.notes[0] == "8 of 64 forwards are kept, evenly spread"


# ---------------------------------------------------------------- identity


def test_a_record_without_another_to_lean_on_says_what_it_does_not_know() -> None:
    builder = TraceBuilder(gpus=(Gpu(0, "NVIDIA H200", 132, "9.0", 62_914_560, 150_109_880_320),))
    builder.forward(0, ranges=True)
    trace = replace(builder.trace(), driver="580.1", cuda="13.0")
    run = record_of(trace, ImportOptions(file="my.layer.sqlite", num_tokens=7, variant="before"))
    assert run.solution.name == "before" and run.solution.stage_names == tuple(STEPS)
    assert run.workload.definition == "imported:my" and run.workload.seq_len == 7
    assert not run.workload.has_definition and not run.workload.is_callable
    environment = run.environment
    assert (environment.device, environment.multiprocessors) == ("NVIDIA H200", 132)
    assert (environment.driver, environment.cuda, environment.versions) == ("580.1", "13.0", {})
    assert not run.correctness.checked and run.settings.passes == ("api",)
    assert run.capture is not None and run.capture.tool == "Nsight Systems"
    assert record_of(trace, OPTIONS).workload.uuid == record_of(trace, OPTIONS).workload.uuid


@pytest.mark.parametrize(
    "options, said",
    [
        (ImportOptions(name=" "), "--name is ' '"),
        (ImportOptions(name="a\x1bb"), "--name is"),
        (ImportOptions(variant=""), "--variant is ''"),
        (ImportOptions(name="x" * 200), "--name is"),
    ],
)
def test_names_that_cannot_be_shown_are_refused(options: ImportOptions, said: str) -> None:
    builder = TraceBuilder()
    builder.forward(0, ranges=True)
    with pytest.raises(UsageError, match=re.escape(said)):
        record_of(builder.trace(), options)


def test_a_like_record_lends_its_identity_and_the_stages_that_cover_the_steps() -> None:
    trace, _ = of_run(recorded("flashinfer_moe", 56), iterations=4)
    like = recorded("flashinfer_moe", 56)
    run = record_of(trace, OPTIONS, like)
    assert run.solution == like.solution and run.workload == like.workload
    assert run.routing == like.routing and run.environment == like.environment
    assert run.correctness == like.correctness and run.passes == ()
    assert (run.settings.passes, run.settings.iterations) == (("api",), 4)
    stages = {operation.stage for operation in run.timelines[0].operation_sets[0]}
    assert stages == {"routing", "dequantise", "cutlass_fused_moe"}
    rows = {row.name: row.operations for row in profile(run).stages}
    assert rows["gemm1"] == rows["gemm2"] == 1 and rows["swiglu_quant"] == 2
    assert run.capture is not None
    assert any(note.startswith("solution, workload, routing") for note in run.capture.notes)
    assert not any("may be of another" in note for note in run.capture.notes)


def test_a_like_record_of_another_solution_is_used_with_a_warning() -> None:
    trace, _ = of_run(recorded("triton_v2", 56), iterations=4)
    run = record_of(trace, OPTIONS, recorded("sglang_v2", 56))
    assert run.capture is not None
    assert any("4 of the 12 kernels of that record are not in" in n for n in run.capture.notes)


def test_a_like_record_that_contradicts_the_capture_is_refused() -> None:
    trace, _ = of_run(recorded("triton_v2", 56), iterations=2)
    like = recorded("triton_v2", 56)
    other = replace(trace, gpus=(Gpu(0, "NVIDIA B200"),))
    with pytest.raises(UsageError, match="capture is of an NVIDIA B200, the record of an NVIDIA H"):
        record_of(other, ImportOptions(), like)
    with pytest.raises(UsageError, match="--num-tokens 7 with a record of T = 56"):
        record_of(trace, replace(OPTIONS, num_tokens=7), like)
    assert record_of(replace(trace, gpus=()), OPTIONS, like).environment == like.environment


def test_a_capture_that_nothing_explains_is_refused_with_what_to_give() -> None:
    builder = TraceBuilder()
    builder.range("layer.0", 0, 900, domain="")
    builder.forward(0, [f"mystery_{number}" for number in range(7)])
    with pytest.raises(UsageError) as caught:
        record_of(builder.trace(), OPTIONS)
    said = str(caught.value)
    assert "the shipped rules find none among its 7 operations (most time: mystery_0" in said
    assert "give --iteration PATTERN (ranges around a forward) or --rules FILE" in said
    assert said.endswith("its ranges: layer.0") and "\n" not in said
    mine = parse_rules('[[rule]]\nkernel = "nothing"\nstep = "gemm1"\n', "mine.toml")
    with pytest.raises(UsageError, match="the rules 'mine' find none"):
        record_of(builder.trace(), replace(OPTIONS, rules=mine))


def test_ranges_that_hold_nothing_do_not_hide_what_rules_find() -> None:
    builder = TraceBuilder()
    builder.range("iteration", 20_000, 30_000)
    for at in (0, 1_000, 2_000):
        builder.forward(at)
    run = record_of(builder.trace(), OPTIONS)
    assert run.capture is not None and run.capture.forwards == 3
    assert run.capture.notes[0].startswith("1 ranges mark forwards, but none launched")


def test_a_users_rules_come_before_ranges() -> None:
    builder = TraceBuilder()
    for at in (0, 1_000, 2_000):
        builder.forward(at, ranges=True)
    mine = parse_rules(
        '[[rule]]\nkernel = "GroupProblemShape"\nsteps = ["gemm1", "gemm2"]\n', "mine.toml"
    )
    imported = import_trace(builder.trace(), replace(OPTIONS, rules=mine))
    assert imported.account == Account(6, 15, 0, 0, 0)
    assert imported.run.capture is not None and imported.run.capture.stages_by == "rules"
    assert any("less than half" in note for note in imported.run.capture.notes)


# ---------------------------------------------------------------- reports and comparisons


def test_reports_say_whose_capture_it_is_and_how_it_was_read() -> None:
    builder = TraceBuilder()
    for at in (0, 1_000, 2_000):
        builder.launch("flush", at, at + 20, at + 100)
        builder.forward(at + 200, ranges=True)
    run = record_of(builder.trace(), replace(OPTIONS, max_iterations=2))
    explained = profile(run)
    heading = dict(phrases.heading(run))
    assert heading["capture"] == (
        "capture.sqlite of Nsight Systems 2025.3.2, schema 3.20.3: 3 forwards, 2 of them kept; "
        "stages told by ranges"
    )
    assert heading["result"] == "not checked: a capture holds no result"
    assert phrases.source(run, explained).startswith("The forward under Nsight Systems: host")
    assert explained.findings == (
        "host figures are those of a forward under Nsight Systems, upper bounds",
    )
    assert dict(phrases.notes(run, explained))["time"].startswith("wall 0.7 us = prologue 0.0 + ")
    labels = [label for label, _ in phrases.notes(run, explained)]
    assert labels.count("capture") == 2 and "trust" not in labels
    walked = record_of(replace(builder.trace(), ranges=TraceBuilder().trace().ranges), OPTIONS)
    said = dict(phrases.notes(walked, profile(walked)))["time"]
    assert said.startswith("prologue 0.0 + span 0.7 us, host exit unknown; of the span, GPU busy")
    document = run_document(run)
    assert document["capture"]["forwards"] == 3 and document["capture"]["stages_by"] == "ranges"
    assert run_document(builders.make_run())["capture"] is None


def test_captures_compare_with_captures_of_the_same_tool_alone() -> None:
    own = recorded("triton_v2", 56)
    trace, _ = of_run(own, iterations=6, ranges=True)
    capture = record_of(trace, OPTIONS, own)
    found = reasons(own, capture, ("own", "capture"))
    (timer,) = [reason for reason in found if reason.name == "timer"]
    assert timer.grade == Grade.NEVER
    assert timer.sentence == (
        "the timer differs: CUDA events for own, a capture of Nsight Systems for capture"
    )
    other, _ = of_run(recorded("sglang_v2", 56), iterations=6, ranges=True)
    second = record_of(other, OPTIONS, recorded("sglang_v2", 56))
    assert not [r for r in reasons(capture, second, ("a", "b")) if r.grade > Grade.CAUTION]
    comparison = compare(*explain_pair(capture, second))
    assert sum(bar.delta_ns for bar in comparison.bars) == comparison.delta_ns
    torch = replace(trace, source=replace(trace.source, tool="PyTorch profiler"))
    third = record_of(torch, OPTIONS, own)
    assert [r.grade for r in reasons(capture, third, ("a", "b")) if r.name == "timer"] == [
        Grade.NEVER
    ]


# ---------------------------------------------------------------- real captures


@pytest.mark.parametrize("path", [*NSYS, *KINETO, *PLAIN], ids=lambda path: path.name)
def test_real_captures_are_read_whole_and_the_identity_closes(path: Path) -> None:
    trace = read_trace(path)
    imported = import_trace(trace, ImportOptions(file=path.name))
    run, account = imported.run, imported.account
    assert run.capture is not None and set(residuals(run)) == {0}
    kept = len(run.timelines[0].iterations)
    # nothing in a forward is in no stage, and of what lies outside one flush a forward is left
    assert (account.unattributed, account.spare, account.elsewhere) == (0, 0, 0)
    assert account.outside == run.capture.forwards == kept
    assert account.total == len(trace.operations)
    assert run.capture.stages_by == ("rules" if path in PLAIN else "ranges")


@pytest.mark.parametrize("path", [*NSYS, *KINETO], ids=lambda path: path.name)
def test_rules_agree_with_ranges_on_every_operation_of_real_captures(path: Path) -> None:
    trace = read_trace(path)
    ranged = import_trace(trace, OPTIONS).run.timelines[0]
    without = replace(trace, ranges=replace(trace.ranges, names=(("", ""),) * 99))
    ruled = import_trace(without, OPTIONS).run.timelines[0]
    assert len(ranged.iterations) == len(ruled.iterations) >= 3
    compared = 0
    for one, other in zip(ranged.iterations, ruled.iterations, strict=True):
        pairs = zip(
            ranged.operation_sets[one.operation_set],
            ruled.operation_sets[other.operation_set],
            strict=True,
        )
        for by_range, by_rule in pairs:
            inside = by_range.stage == "cutlass_fused_moe" and by_rule.stage in STEPS[1:]
            assert by_range.stage == by_rule.stage or inside
            compared += 1
    assert compared >= 30


def test_a_replayed_graph_is_told_by_rules_and_a_graph_without_nodes_refused() -> None:
    run = record_of(read_trace(DATA / "nsys" / "graph-triton_v2-T56.sqlite"), OPTIONS)
    assert run.capture is not None
    assert (run.capture.forwards, run.capture.stages_by) == (10, "rules")
    explained = profile(run)
    assert explained.orchestration_ns == 0.0, "one call launches all: nothing waits for the host"
    assert explained.stage(UNATTRIBUTED) is None
    with pytest.raises(UsageError, match="--cuda-graph-trace=node"):
        record_of(read_trace(DATA / "nsys" / "graphlevel-triton_v2-T56.sqlite"), OPTIONS)


def test_a_record_names_nobody_and_no_path() -> None:
    words = private_words()
    for path in (NSYS[0], KINETO[0], PLAIN[0]):
        run = record_of(read_trace(path), ImportOptions(file=path.name))
        text = json.dumps(store.to_json(run)) + json.dumps(run_document(run))
        assert not store.leaks(text, words - {path.name})
