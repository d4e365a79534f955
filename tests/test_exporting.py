"""Exported timelines: what is drawn where, and that it is the record's, to the nanosecond.

Perfetto's own trace processor reads them in ``test_exporting_perfetto``.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.attribution import profile
from moeprof.analysis.identity import attribute
from moeprof.analysis.kernel_names import own_name, qualified_name
from moeprof.analysis.reconstruct import reconstruct
from moeprof.errors import EnvironmentMissing, UsageError
from moeprof.exporting import export
from moeprof.exporting.chosen import Shown
from moeprof.exporting.chrome import chrome_trace, on_threads
from moeprof.exporting.slices import Slices, add_iteration
from moeprof.exporting.timeline import APART_NS, timeline_of
from moeprof.exporting.tracks import Group, Slice, Timeline, Track, in_order, tracks_of
from moeprof.importing.kineto import read_kineto
from moeprof.records import Capture, KernelMetrics, Run
from moeprof.storage import store
from moeprof.timelines import Iteration, Operation, TimelinePass
from tests.builders import Launch, make_cpu_run, make_run, stage_info
from tests.privacy import private_words
from tests.test_identity import timelines

RECORDED = Path(__file__).resolve().parents[1] / "traces" / "recorded" / "h200"


def recorded(solution: str, tokens: int) -> Run:
    (file,) = (RECORDED / solution / "dsv3").glob(f"T{tokens}-*")
    return store.load(file)


def group(timeline: Timeline, begins: str) -> Group:
    return next(one for one in timeline.groups if one.name.startswith(begins))


def track(found: Group, kind: str) -> Track:
    return next(one for one in found.tracks if one.kind == kind)


def lengths_ns(slices: tuple[Slice, ...]) -> Counter[tuple[str, str]]:
    """Time by stage and name."""
    found: Counter[tuple[str, str]] = Counter()
    for one in slices:
        found[str(one.arguments["stage"]), one.name] += one.end_ns - one.begin_ns
    return found


# -- tracks -----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 25))), st.booleans())
def test_no_two_slices_of_a_track_cross(bounds: list[tuple[int, int]], nested: bool) -> None:
    slices = [Slice(begin, begin + length, "k", "kernel") for begin, length in bounds]
    tracks = tracks_of("stream", "GPU", slices, nested=nested)
    kept = Counter((one.begin_ns, one.end_ns) for found in tracks for one in found.slices)
    assert kept == Counter((one.begin_ns, one.end_ns) for one in slices)
    for found in tracks:
        for position, one in enumerate(found.slices):
            for other in found.slices[position + 1 :]:
                apart = one.end_ns <= other.begin_ns
                inside = other.begin_ns >= one.begin_ns and other.end_ns <= one.end_ns
                assert apart or (nested and inside)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 25))))
def test_begins_and_ends_are_well_nested(bounds: list[tuple[int, int]]) -> None:
    slices = [Slice(begin, begin + length, "k", "kernel") for begin, length in bounds]
    for found in tracks_of("calls", "host", slices, nested=True):
        still: list[Slice] = []
        last_ns = 0
        for begins, one in in_order(found):
            moment_ns = one.begin_ns if begins else one.end_ns
            assert moment_ns >= last_ns
            last_ns = moment_ns
            if begins:
                still.append(one)
            else:
                assert still.pop() is one  # what a viewer takes the end for
        assert not still


def test_overlapping_kernels_of_one_stream_stand_on_two_tracks() -> None:
    slices = [
        Slice(0, 50, "a", "kernel"),
        Slice(30, 40, "b", "kernel"),
        Slice(50, 60, "c", "kernel"),
    ]
    first, second = tracks_of("stream", "GPU stream 7", slices, stream=7)
    assert [one.name for one in first.slices] == ["a", "c"]
    assert [one.name for one in second.slices] == ["b"]
    assert (first.name, second.name) == ("GPU stream 7", "GPU stream 7 (overlapping)")
    assert first.stream == second.stream == 7


# -- one iteration ----------------------------------------------------------------------------


@given(timelines(), st.integers(0, 10**9))
def test_busy_and_gaps_cover_the_span_once_for_any_timeline(
    made: tuple[list[Operation], Iteration], origin_ns: int
) -> None:
    operations, iteration = made
    run = make_run(stages=[stage_info(name) for name in "abcd"], passes=("first",))
    found = Slices()
    add_iteration(found, run, Shown(3, tuple(operations), iteration), origin_ns, arrow=1)
    book = attribute(operations, iteration, [o.stage for o in operations])
    expected = Counter({(s.name, s.name): s.busy_ns for s in book.stages if s.busy_ns})
    assert lengths_ns(tuple(found.busy)) == expected
    gaps = lengths_ns(tuple(found.gaps))
    for stage in book.stages:
        for cause in ("host_late", "api", "launch_latency", "dependency"):
            shown = gaps[stage.name, cause]
            if cause == "host_late":
                shown += gaps[stage.name, "gap"]  # where no call was recorded at all
            assert shown == getattr(stage, f"{cause}_ns")
    tiles = sorted(
        [(s.begin_ns, s.end_ns) for s in (*found.busy, *found.gaps)], key=lambda tile: tile
    )
    assert all(end == begin for (_, end), (begin, _) in zip(tiles, tiles[1:], strict=False))
    if tiles:
        first_ns = origin_ns + book.prologue_ns
        assert (tiles[0][0], tiles[-1][1]) == (first_ns, first_ns + book.span_ns)
    kernels = Counter[str]()
    for slices in found.streams.values():
        for one in slices:
            kernels[str(one.arguments["stage"])] += one.end_ns - one.begin_ns
    assert kernels == Counter({s.name: s.kernel_sum_ns for s in book.stages if s.kernel_sum_ns})


def test_an_arrow_leads_from_each_launch_call_to_its_operations() -> None:
    operations = tuple(
        Operation(name, "kernel", "a", 7, "cudaGraphLaunch") for name in ("k1", "k2", "k3")
    )
    iteration = Iteration(0, (20, 30, 60), (28, 40, 70), (5, 5, 45), (15, 15, 50))
    run = make_run(stages=[stage_info("a")], passes=("first",))
    found = Slices()
    assert add_iteration(found, run, Shown(0, operations, iteration), 0, arrow=8) == 3
    assert [call.arrows_out for call in found.calls] == [(8, 9), (10,)]
    assert [call.arguments["launched"] for call in found.calls] == [2, 1]
    assert [kernel.arrows_in for kernel in found.streams[7]] == [(8,), (9,), (10,)]


def test_no_arrow_goes_back_in_time() -> None:
    operations = (Operation("early", "kernel", "a", 7), Operation("k", "kernel", "a", 7))
    iteration = Iteration(0, (20, 30), (28, 40), (25, 5), (27, 15))
    run = make_run(stages=[stage_info("a")], passes=("first",))
    found = Slices()
    assert add_iteration(found, run, Shown(0, operations, iteration), 0, arrow=1) == 1
    assert [kernel.arrows_in for kernel in found.streams[7]] == [(), (1,)]


def test_a_kernel_carries_what_the_record_knows_of_it() -> None:
    known = Operation(
        "void ns::k<int>(int)", "kernel", "a", 7, "cudaLaunchKernel", (3, 2, 1), (128, 1, 1), 64,
        8192, None, 5,
    )  # fmt: skip
    copy = Operation("DTOH", "memcpy", "a", 7, "cudaMemcpyAsync", bytes=128)
    iteration = Iteration(0, (20, 35), (45, 50), (1, 5), (4, 15))
    metrics = KernelMetrics("a", 0, "ns::k", 25.0, dram_fraction=0.5)
    run = make_run(stages=[stage_info("a")], passes=("first",), kernel_metrics=(metrics,))
    found = Slices()
    add_iteration(found, run, Shown(0, (known, copy), iteration), 0, arrow=1)
    kernel, memcpy = found.streams[7]
    assert kernel.name == "k" and kernel.category == "kernel"
    assert kernel.arguments == {
        "stage": "a", "kernel": "void ns::k<int>(int)", "stream": 7, "launch": "cudaLaunchKernel",
        "grid": "3x2x1", "block": "128x1x1", "registers": 64, "shared_bytes": 8192,
        "graph_node": 5, "operation": 0, "gap_before_ns": 0, "overlap_ns": 0,
        "ncu.dram_fraction": 0.5,
    }  # fmt: skip
    assert memcpy.category == "memcpy" and memcpy.arguments["bytes"] == 128
    assert memcpy.arguments["overlap_ns"] == 10  # [35, 45) belongs to the kernel
    assert "registers" not in memcpy.arguments


def test_names_that_steer_a_terminal_are_written_harmlessly() -> None:
    operations = (Operation("k\x1b[31m\ud800\0", "kernel", "a", 7, "launch\n"),)
    run = make_run(stages=[stage_info("a")], passes=("first",))
    found = Slices()
    add_iteration(found, run, Shown(0, operations, Iteration(0, (5,), (9,), (1,), (2,))), 0, 1)
    for one in (*found.calls, *found.streams[7], *found.gaps):
        for text in (one.name, *one.arguments.values()):
            assert str(text).isprintable()
            str(text).encode("utf-8")


@pytest.mark.parametrize(
    ("name", "qualified", "own"),
    [
        ("swiglu_quant_kernel", "swiglu_quant_kernel", "swiglu_quant_kernel"),
        ("void a::b::k<(int)4, c<d>>(int, T2)", "a::b::k", "k"),
        ("void at::native::(anonymous namespace)::k<4>(int)", "at::native::unnamed::k", "k"),
        ("void at::native::<unnamed>::k<(int)4>(int)", "at::native::unnamed::k", "k"),
        ("std::enable_if<(x)1, void>::type f::g<int>(int)", "f::g", "g"),
        ("_ZN7cutlass13device_kernelINS_4gemm6kernelEEEvNT_6ParamsE", "cutlass::device_kernel",
         "device_kernel"),
        ("_ZN2at6native30cut_off_in_the_middle", "at::native::cut_off_in_the_middle",
         "cut_off_in_the_middle"),
        ("_Z" + "9" * 9000, "_Z" + "9" * 9000, "_Z" + "9" * 9000),
        ("", "", ""),
        ("<<<", "<<<", "<<<"),
    ],
)  # fmt: skip
def test_kernels_are_called_alike_whoever_recorded_them(
    name: str, qualified: str, own: str
) -> None:
    assert qualified_name(name) == qualified
    assert own_name(name) == own


# -- a whole record ---------------------------------------------------------------------------


def test_the_median_forward_without_a_profiler() -> None:
    run = make_run()
    timeline = timeline_of(run)
    assert [one.name for one in timeline.groups] == [
        "about this trace", "forward without a profiler (reconstructed)",
    ]  # fmt: skip
    forward = group(timeline, "forward")
    assert [(one.kind, one.name, len(one.slices)) for one in forward.tracks[:5]] == [
        ("iterations", "iterations", 2),
        ("stages", "host: stages", 7),
        ("calls", "host: CUDA calls", 21),
        ("busy", "GPU busy: stage", 21),
        ("stream", "GPU stream 7", 21),
    ]
    reconstruction = reconstruct(run)
    spans = sorted(p.iteration.span_ns for p in reconstruction.predictions)
    whole, span = track(forward, "iterations").slices
    assert span.end_ns - span.begin_ns == whole.arguments["span_ns"] == spans[14]
    about = timeline.groups[0].tracks[0].slices[0]
    assert about.arguments["source"] == "reconstructed"
    assert about.arguments["iterations_recorded"] == 30
    assert about.end_ns == timeline.end_ns


def test_all_iterations_stand_one_after_another_with_their_own_durations() -> None:
    run = make_run()
    timeline = timeline_of(run, "all")
    predictions = reconstruct(run).predictions
    whole = [s for s in track(group(timeline, "forward"), "iterations").slices if s.name != "span"]
    assert [one.name for one in whole] == [f"iteration {n}" for n in range(30)]
    assert [one.end_ns - one.begin_ns for one in whole] == [
        p.iteration.exit_ns for p in predictions
    ]
    assert {b.begin_ns - a.end_ns for a, b in zip(whole, whole[1:], strict=False)} == {APART_NS}
    assert whole[0].begin_ns == 0


def test_one_iteration_by_its_number() -> None:
    run = make_run()
    shown = track(group(timeline_of(run, 29), "forward"), "iterations").slices[0]
    assert shown.name == "iteration 29"
    assert shown.arguments["span_ns"] == reconstruct(run).predictions[29].iteration.span_ns
    for number in (30, -1):
        with pytest.raises(UsageError, match=f"no iteration {number}; expected a number from 0 to"):
            timeline_of(run, number)


def test_stage_sums_of_all_iterations_are_the_means_of_the_profile() -> None:
    """10 iterations or more are trimmed in a profile; of the 9 here none is."""
    run = make_run()
    bare = next(p for p in run.passes if p.name == "bare")
    few = replace(bare, samples=bare.samples[:18])
    run = replace(run, passes=tuple(few if p.name == "bare" else p for p in run.passes))
    explained = profile(run)
    assert explained.source == "reconstructed" and explained.iterations == 9
    forward = group(timeline_of(run, "all"), "forward")
    gaps = lengths_ns(track(forward, "gaps").slices)
    busy = lengths_ns(track(forward, "busy").slices)
    for stage in explained.stages:
        assert busy[stage.name, stage.name] / 9 == pytest.approx(stage.busy_ns)
        for cause in ("host_late", "api", "launch_latency", "dependency"):
            expected = pytest.approx(getattr(stage, f"{cause}_ns"))
            assert gaps[stage.name, cause] / 9 == expected


def test_clocks_are_drawn_from_the_first_iteration_of_their_trial() -> None:
    run = make_run()
    clocks = tuple(replace(run.clocks[0], sm_mhz=1900 + trial) for trial in range(3))
    run = replace(run, clocks=(*clocks, *run.clocks[1:]))
    forward = group(timeline_of(run, "all"), "forward")
    whole = [s for s in track(forward, "iterations").slices if s.name != "span"]
    clock = forward.counters[0]
    assert (clock.name, clock.unit) == ("SM clock (read once after the trial)", "MHz")
    firsts = [next(s for s in whole if s.arguments["trial"] == trial) for trial in range(3)]
    assert clock.points == tuple((one.begin_ns, 1900 + trial) for trial, one in enumerate(firsts))
    one = group(timeline_of(run, 25), "forward")  # of the third trial alone
    assert one.counters[0].points == ((0, 1902),)


def test_clocks_without_a_trial_of_their_own_are_facts_and_no_counter() -> None:
    run = make_run()  # three trials, one reading beside the pass
    timeline = timeline_of(run, "all")
    assert group(timeline, "forward").counters == ()
    assert timeline.facts["clocks.0"] == ("after bare: SM 1980 MHz, memory 3201 MHz, 310.5 W, 44 C")
    assert str(timeline.facts["clocks.1"]).endswith("held down by gpu_idle")


def test_the_replayed_graph_has_gaps_but_no_causes() -> None:
    run = recorded("triton_v2", 901)
    graph = group(timeline_of(run), "replayed")
    assert [one.kind for one in graph.tracks] == ["iterations", "busy", "stream", "gaps"]
    assert {one.name for one in track(graph, "gaps").slices} == {"gap"}
    kernels = track(graph, "stream").slices
    assert [one.arguments["graph_node"] for one in kernels] == list(range(20))
    assert {one.arguments["stage"] for one in kernels} == set(run.solution.stage_names)
    whole = track(graph, "iterations").slices[0]
    assert "gap_ns" in whole.arguments and "host_late_ns" not in whole.arguments


def test_kernels_that_overlap_in_the_recorded_forward_stand_on_two_tracks() -> None:
    """Programmatic dependent launch in FlashInfer's MoE, as the H200 recorded it."""
    forward = group(timeline_of(recorded("flashinfer_moe", 14107)), "forward")
    first, second = (one for one in forward.tracks if one.kind == "stream")
    (early,) = second.slices
    assert early.name == "expandInputRowsKernel"
    over = [s for s in first.slices if s.begin_ns < early.end_ns and s.end_ns > early.begin_ns]
    overlapped_ns = min(over[0].end_ns, early.end_ns) - max(over[0].begin_ns, early.begin_ns)
    assert overlapped_ns == early.arguments["overlap_ns"] > 0


def test_a_kernel_within_another_of_its_stream_is_not_drawn_as_a_part_of_it() -> None:
    operations = (Operation("long", "kernel", "a", 7), Operation("short", "kernel", "a", 7))
    iteration = Iteration(0, (20, 30), (90, 40), (1, 5), (4, 15))
    api = TimelinePass("api", (operations,), (iteration,))
    run = make_run(stages=[stage_info("a")], passes=("first",), timelines=(api,))
    streams = [one for one in timeline_of(run).groups[1].tracks if one.kind == "stream"]
    assert [[s.name for s in one.slices] for one in streams] == [["long"], ["short"]]


def test_a_capture_is_called_after_the_profiler_that_made_it() -> None:
    run = make_run(passes=("first", "kernels", "api"))
    assert group(timeline_of(run), "forward").name == "forward under CUPTI"
    capture = Capture("Nsight Systems", "2025.3.2", "3.20", "trace.sqlite", "ranges", 20)
    found = timeline_of(replace(run, capture=capture, clocks=()))
    assert group(found, "forward").name == "forward under Nsight Systems 2025.3.2"
    assert found.facts["capture_file"] == "trace.sqlite"


def test_unsound_iterations_are_left_out_as_in_the_rows() -> None:
    run = make_run(passes=("first", "kernels", "api"))
    api = run.timelines[1]
    lost = replace(api.iterations[4], end_ns=(0, *api.iterations[4].end_ns[1:]))
    broken = TimelinePass(
        "api", api.operation_sets, (*api.iterations[:4], lost, *api.iterations[5:])
    )
    run = replace(run, timelines=(run.timelines[0], broken))
    whole = track(group(timeline_of(run, "all"), "forward"), "iterations").slices
    numbers = [one.arguments["iteration"] for one in whole if one.name != "span"]
    assert numbers == [n for n in range(20) if n != 4]
    with pytest.raises(UsageError, match="no iteration 4"):
        timeline_of(run, 4)


def test_waits_and_other_calls_stand_beside_the_launches() -> None:
    script = (("routing", (Launch("a", 5_000), Launch("b", 9_000, sync=True))),)
    run = make_run(script, stages=[stage_info("routing")], passes=("first", "kernels", "api"))
    calls = track(group(timeline_of(run), "forward"), "calls").slices
    assert [call.name for call in calls] == [
        "cudaLaunchKernel", "cudaLaunchKernel", "cudaStreamSynchronize", "cudaDeviceSynchronize",
    ]  # fmt: skip


def test_a_cpu_record_shows_its_stages_end_to_end() -> None:
    forward = group(timeline_of(make_cpu_run()), "stages by the host clock")
    stages = track(forward, "stages").slices
    assert [one.end_ns - one.begin_ns for one in stages] == [10_000 * n for n in range(1, 8)]
    every = group(timeline_of(make_cpu_run(), "all"), "stages")
    assert len(track(every, "iterations").slices) == 20
    with pytest.raises(UsageError, match="no iteration 20"):
        timeline_of(make_cpu_run(), 20)


# -- Chrome's format --------------------------------------------------------------------------


def chrome(run: Run, which: Any = "median") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(chrome_trace(timeline_of(run, which)))
    return document


def test_chrome_events_follow_the_format() -> None:
    document = chrome(recorded("flashinfer_moe", 14107), "all")
    assert document["displayTimeUnit"] == "ns"
    assert document["otherData"]["num_tokens"] == 14107
    last_us = 0.0
    phases = Counter(event["ph"] for event in document["traceEvents"])
    for event in document["traceEvents"]:
        assert isinstance(event["pid"], int) and isinstance(event.get("tid", 0), int)
        assert event["name"]
        if event["ph"] == "M":
            continue
        assert event["ts"] >= last_us  # in order of time
        last_us = event["ts"]
        if event["ph"] == "X":
            assert event["dur"] >= 0 and isinstance(event["args"], dict)
        elif event["ph"] == "C":
            (value,) = event["args"].values()
            assert isinstance(value, int | float)
        else:
            assert event["ph"] in "sf" and event["cat"] == "ac2g"
            assert event["ph"] == "s" or event["bp"] == "e"
    assert phases["s"] == phases["f"] == 30 * 13
    assert phases["C"] == 3 * 4  # three trials, four quantities


def test_chrome_events_of_one_thread_nest_and_keep_every_nanosecond() -> None:
    timeline = timeline_of(recorded("flashinfer_moe", 14107), "all")
    document = json.loads(chrome_trace(timeline))
    threads: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            begin_ns = round(event["ts"] * 1e3)
            end_ns = begin_ns + round(event["dur"] * 1e3)
            threads.setdefault((event["pid"], event["tid"]), []).append((begin_ns, end_ns))
    written = {
        (process, thread): [(s.begin_ns, s.end_ns) for s in found.slices]
        for process, one in enumerate(map(on_threads, timeline.groups), start=1)
        for thread, found in enumerate(one.tracks, start=1)
    }
    assert threads == written
    names = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in document["traceEvents"]
        if event["name"] == "thread_name"
    }
    assert [names[2, thread] for thread in range(1, 7)] == [
        "host", "GPU span", "GPU busy: stage", "GPU stream 7", "GPU stream 7 (overlapping)",
        "GPU idle: cause",
    ]  # fmt: skip


def test_chrome_kernels_use_the_words_of_pytorchs_profiler() -> None:
    document = chrome(recorded("triton_v2", 901))
    events = [event for event in document["traceEvents"] if event["ph"] == "X"]
    kernel = next(event for event in events if event["cat"] == "kernel")
    assert kernel["name"].startswith("void at::native::unrolled_elementwise_kernel<")
    assert kernel["args"]["grid"] == [1, 1, 1] and kernel["args"]["registers per thread"] == 32
    assert kernel["args"]["device"] == 0 and kernel["args"]["stream"] == 7
    calls = [event for event in events if event["cat"].startswith("cuda_")]
    by_number = {call["args"]["correlation"]: call for call in calls}
    for event in events:
        if event["cat"] == "kernel" and event["pid"] == 2:
            call = by_number[event["args"]["correlation"]]
            assert call["ts"] + call["dur"] <= event["ts"]
    forward = [event for event in events if event["pid"] == 2]
    assert {
        event["tid"] for event in forward if event["cat"] in ("user_annotation", "cuda_runtime")
    } == {1}
    ranges = [event["name"] for event in forward if event["cat"] == "user_annotation"]
    assert ranges[:3] == ["moeprof.iteration", "moeprof.routing", "moeprof.prepare_moe_input"]
    assert {event["cat"] for event in calls} == {"cuda_runtime", "cuda_driver"}


def test_our_own_reader_reads_back_the_same_times(tmp_path: Path) -> None:
    run = recorded("reference", 7)
    path = tmp_path / "trace.json.gz"
    export(run, path, iterations="all")
    forward = group(timeline_of(run, "all"), "forward")
    read = read_kineto(path)
    operations, calls, ranges = read.operations, read.calls, read.ranges
    known = sum(len(one.slices) for one in forward.tracks if one.kind == "stream")
    graph = run.timeline("graph")
    assert graph is None and len(operations) == known
    streams = sorted(
        (s.begin_ns, s.end_ns, str(s.arguments["kernel"]), str(s.arguments.get("grid")))
        for one in forward.tracks if one.kind == "stream"
        for s in one.slices
    )  # fmt: skip
    described = [operations.descriptions[number] for number in operations.description]
    assert streams == sorted(
        zip(
            operations.start_ns.tolist(),
            operations.end_ns.tolist(),
            [one.name for one in described],
            ["x".join(map(str, one.grid)) if one.grid else "None" for one in described],
            strict=True,
        )
    )
    begun = dict(zip(calls.correlation.tolist(), calls.start_ns.tolist(), strict=True))
    launches = {
        arrow: one.begin_ns for found in forward.tracks for one in found.slices
        for arrow in one.arrows_out
    }  # fmt: skip
    assert {n: begun[n] for n in operations.correlation.tolist()} == launches
    names = [ranges.names[number] for number in ranges.name]
    assert names.count(("moeprof", "iteration")) == 30
    found = Counter(
        zip((text for _, text in names), ranges.start_ns.tolist(), ranges.end_ns.tolist(),
            strict=True)
    )  # fmt: skip
    stages = track(forward, "stages").slices
    for one in stages:
        assert found[one.name, one.begin_ns, one.end_ns] == 1
    assert len(names) == 30 + len(stages)
    assert read.notes == ()


def test_what_the_host_did_nests_on_one_thread_in_chromes_format() -> None:
    made = timeline_of(make_run())
    host, span, *rest = on_threads(group(made, "forward")).tracks
    assert (host.name, span.name) == ("host", "GPU span")
    assert [one.category for one in host.slices[:5]] == [
        "iteration", "stage", "call", "call", "call",
    ]  # fmt: skip
    assert len(host.slices) == 1 + 7 + 21 and [one.name for one in span.slices] == ["span"]
    assert [one.kind for one in rest] == ["busy", "stream", "gaps"]


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.perfetto-trace", "a.pftrace"])
def test_the_ending_names_the_format(name: str, tmp_path: Path) -> None:
    export(make_run(), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    if ".json" in name:
        assert content == chrome_trace(timeline_of(make_run()))
    else:
        assert content.startswith(b"\n")  # the first packet of the message Trace


def test_nothing_is_written_over_without_force(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists; --force"):
        export(make_run(), path)
    assert path.read_text() == "mine"
    export(make_run(), path, force=True)
    assert json.loads(path.read_text())["traceEvents"]


@pytest.mark.parametrize("name", ["trace", "trace.txt", "trace.json.bz2"])
def test_an_unknown_ending_is_refused_with_those_that_are_known(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.perfetto-trace.*\.json.*\.nsys-rep"):
        export(make_run(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        export(make_run(), tmp_path / "a.json", force=True)


def test_without_perfetto_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "perfetto"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "perfetto", None)
    with pytest.raises(EnvironmentMissing, match=r"pip install perfetto.*\.json"):
        export(make_run(), tmp_path / "a.pftrace")
    assert not list(tmp_path.iterdir())
    export(make_run(), tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a.json", "a.pftrace"])
def test_nothing_of_this_machine_or_its_user_is_in_a_trace(name: str, tmp_path: Path) -> None:
    run = recorded("triton_v2", 7)
    export(run, tmp_path / name, iterations="all")
    text = (tmp_path / name).read_bytes().decode("utf-8", "replace")
    assert not store.leaks(text, private_words())
