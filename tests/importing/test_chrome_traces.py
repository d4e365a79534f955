"""Chrome traces of other tools: which tracks show the GPU, calls, ranges, begins and ends."""

from __future__ import annotations

import json
import time

import pytest

from moeprof.errors import RecordError
from moeprof.importing import gathered
from moeprof.importing.chrome_tracks import shown_by, transfer_name
from moeprof.importing.kineto import read_kineto
from moeprof.importing.trace import PUSH_POP, START_END, TraceSource
from moeprof.timelines import Operation


@pytest.fixture
def read(tmp_path):
    """``read(events)``: the trace of a file with these events; header: what else it holds."""

    def reading(events, **header):
        path = tmp_path / "trace.json"
        path.write_text(json.dumps({**header, "traceEvents": events} if header else events))
        return read_kineto(path)

    return reading


def named(pid, process="", tid=None, thread=""):
    """The metadata of a track."""
    events = [{"ph": "M", "name": "process_name", "pid": pid, "args": {"name": process}}]
    thread_name = {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid}
    return events + ([{**thread_name, "args": {"name": thread}}] if thread else [])


def complete(name, ts, dur, pid, tid, **fields):
    return {"ph": "X", "name": name, "ts": ts, "dur": dur, "pid": pid, "tid": tid, **fields}


def operations_of(trace):
    table = trace.operations
    return [
        (*table.places[place], table.descriptions[number].stream, table.descriptions[number].name)
        for place, number in zip(table.place, table.description, strict=True)
    ]


def ranges_of(trace):
    table = trace.ranges
    return [
        (table.names[name][1], int(start), int(end))
        for name, start, end in zip(table.name, table.start_ns, table.end_ns, strict=True)
    ]


def test_a_trace_of_jax_as_xprof_writes_it(read):
    """Modules and steps that XLA draws on the GPU's process are no operations."""
    details = "regs:32 static_shared:1024 dynamic_shared:512 grid:8,2,1 block:128,1,1 occ_pct:50.0"
    trace = read(
        [
            *named(1, "/device:GPU:0", 14, "Stream #14(Compute)"),
            *named(1, "/device:GPU:0", 15, "Stream #15(MemcpyD2H)"),
            *named(1, "/device:GPU:0", 100, "XLA Modules"),
            *named(701, "/host:CPU", 7, "python"),
            complete("jit_moe", 100, 50, 1, 100),
            complete(
                "loop_fusion",
                *(110, 20.001, 1, 14),
                args={"correlation_id": "42", "kernel_details": details},
            ),
            complete(
                "MemcpyD2H",
                *(140, 5, 1, 15),
                args={"correlation_id": 43, "memcpy_details": "size:4096 dest:0 async:1"},
            ),
            complete("cuLaunchKernel", 100, 5, 701, 7, args={"correlation_id": "42"}),
            complete("PjitFunction(moe)", 90, 70, 701, 7),
        ],
        displayTimeUnit="ns",
        metadata={"highres-ticks": True},
    )
    assert trace.source == TraceSource("Chrome trace")
    assert trace.operations.descriptions == (
        Operation(
            *("loop_fusion", "kernel", "", 14),
            grid=(8, 2, 1),
            block=(128, 1, 1),
            registers=32,
            shared_bytes=1536,
        ),
        Operation("memcpy DTOH", "memcpy", "", 15, bytes=4096),
    )
    assert trace.operations.places == ((701, 0),)
    assert trace.operations.start_ns.tolist() == [110_000, 140_000]
    assert trace.operations.end_ns.tolist() == [130_001, 145_000]
    assert trace.operations.correlation.tolist() == [42, 43]
    assert trace.calls.names == ("cuLaunchKernel",)
    assert trace.calls.correlation.tolist() == [42]
    assert ranges_of(trace) == [("PjitFunction(moe)", 90_000, 160_000)]
    assert trace.notes == ("1 operations were launched by calls that the file does not hold",)


def test_tracks_that_are_called_by_their_identifiers(read):
    trace = read(
        [
            complete("gemm", 10, 5, "Device 1", "Stream 21"),
            complete("cudaLaunchKernel", 1, 5, "Host 3", "CUDA API 3"),
            complete("layer", 0, 9, "Host 3", "NVTX 3"),
        ]
    )
    assert [one[1:] for one in operations_of(trace)] == [(1, 21, "gemm")]
    (process,) = {process for process, _ in trace.threads.values()}
    assert process == trace.operations.places[0][0] < -1
    assert len({thread for _, thread in trace.threads.values()}) == 2
    assert ranges_of(trace) == [("layer", 0, 9_000)]


def test_the_profiler_of_pytorch_before_kineto(read):
    trace = read(
        [
            complete("aten::mm", 1, 5, "CPU functions", 0, args={}),
            complete("volta_sgemm", 10, 5, "CUDA functions", 0, args={}),
            complete("volta_sgemm", 10, 5, "CUDA functions", 1, args={}),
        ]
    )
    assert [one[1:] for one in operations_of(trace)] == [
        *((0, 0, "volta_sgemm"), (1, 0, "volta_sgemm"))
    ]
    assert [name for name, _, _ in ranges_of(trace)] == ["aten::mm"]


def test_one_kernel_of_two_shapes_and_streams_is_three_descriptions(read):
    shapes = ({"grid": [1, 1, 1]}, {"grid": [2, 1, 1]}, {"grid": [2, 1, 1]})
    trace = read(
        [
            complete("k", 10 * n, 5, "GPU 0", f"stream {max(n, 1)}", args=args)
            for n, args in enumerate(shapes)
        ]
    )
    assert [(one.grid[0], one.stream) for one in trace.operations.descriptions] == [
        *((1, 1), (2, 1), (2, 2))
    ]


def test_gpu_and_host_tracks_of_one_process_share_it(read):
    trace = read(
        [
            *named(5, "server", 1, "main"),
            *named(5, "server", 2, "GPU stream 7"),
            *named(6, "other", 1, "main"),
            complete("step", 0, 100, 5, 1),
            complete("elsewhere", 0, 100, 6, 1),
            complete("k", 10, 5, 5, 2),
        ]
    )
    assert operations_of(trace) == [(5, 0, 7, "k")]
    assert [name for name, _, _ in ranges_of(trace)] == ["step", "elsewhere"]


def test_a_process_called_a_gpu_is_one_whatever_its_threads_are_called(read):
    events = [
        *named(0, "python3"),
        {"ph": "M", "name": "process_labels", "pid": 0, "args": {"labels": "GPU 3"}},
        complete("k", 10, 5, 0, 7),
        complete("copy engine", 20, 5, 0, "copies"),
    ]
    trace = read(events)
    assert [one[:3] for one in operations_of(trace)] == [(-1, 3, 7), (-1, 3, 1)]
    assert "2 operations name no launch call (no correlation id)" in trace.notes


@pytest.mark.parametrize(
    ("process", "thread", "said"),
    [
        ("GPU 0", "", (False, 0)),
        ("gpu:3", "", (False, 3)),
        ("/job:w/replica:0/task:0/device:GPU:2", "", (False, 2)),
        ("NVIDIA H200 (GPU 1)", "", (False, 1)),
        ("Device 4", "", (False, 4)),
        ("python3", "stream 7 ", (False, 0)),
        ("python3", "Stream #7(Compute)", (False, 0)),
        ("python3", "CUDA stream 13", (False, 0)),
        ("/device:CPU:0", "", (True, 0)),
        ("/host:CPU", "python", (True, 0)),
        ("gpu_worker.py", "MainThread", (True, 0)),
        ("my GPU 0 server", "", (True, 0)),
        ("server", "downstream 7", (True, 0)),
        ("server", "stream reader", (True, 0)),
        ("GPU", "", (True, 0)),
    ],
)
def test_names_of_tracks(process, thread, said):
    (shown,) = shown_by(((1, 2),), {1: [process]}, {(1, 2): [thread]})
    assert (shown.host, shown.gpu) == said
    assert (shown.stream is None) == shown.host


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Memcpy DtoH (Device -> Pinned)", "memcpy DTOH"),
        ("MemcpyD2D", "memcpy DTOD"),
        ("memcpyHtoD", "memcpy HTOD"),
        ("Memcpy", "memcpy UNKNOWN"),
        ("Memset (Device)", "memset"),
        ("MemsetKernel", "memset"),
        ("memory_efficient_attention", ""),
        ("void copy_kernel(int)", ""),
    ],
)
def test_copies_of_any_spelling(name, said):
    assert transfer_name(name) == said


def test_begins_and_ends_of_a_thread_nest_and_unclosed_ones_stay_open(read):
    track = {"pid": 5, "tid": 1}
    trace = read(
        [
            complete("k", 10, 5, "GPU 0", 7),
            {"ph": "B", "name": "outer", "ts": 0, **track},
            {"ph": "B", "name": "inner", "ts": 2.5, **track},
            {"ph": "E", "ts": 4, **track},
            {"ph": "B", "name": "other thread", "ts": 3, "pid": 5, "tid": 2},
            {"ph": "E", "ts": 9.001, **track},
            {"ph": "E", "ts": 10, **track},
        ]
    )
    assert ranges_of(trace) == [
        ("outer", 0, 9_001),
        ("inner", 2_500, 4_000),
        ("other thread", 3_000, -1),
    ]
    assert set(trace.ranges.style.tolist()) == {PUSH_POP}
    assert "left out: 1 ends of events without a begin" in trace.notes


def test_async_begins_and_ends_meet_by_id_across_threads(read):
    def phase(ph, name, ts, tid, **key):
        return {"ph": ph, "cat": "request", "name": name, "ts": ts, "pid": 5, "tid": tid, **key}

    trace = read(
        [
            complete("k", 10, 5, "GPU 0", 7),
            phase("b", "request", 1, 1, id="0x1"),
            phase("b", "request", 2, 1, id="0x2"),
            phase("e", "request", 5, 2, id="0x1"),
            phase("e", "request", 9, 2, id="0x2"),
            phase("b", "local", 3, 1, id2={"local": "0x1"}),
            phase("b", "local", 3.5, 1, id2={"global": "0x2"}),
            phase("e", "local", 4, 1, id2={"local": "0x1"}),
            phase("e", "local", 6, 1, id2={"global": "0x2"}),
        ]
    )
    assert ranges_of(trace) == [
        ("request", 1_000, 5_000),
        ("request", 2_000, 9_000),
        ("local", 3_000, 4_000),
        ("local", 3_500, 6_000),
    ]
    assert set(trace.ranges.style.tolist()) == {START_END}


def test_operations_and_calls_without_an_end_are_left_out(read):
    trace = read(
        [
            complete("k", 10, 5, "GPU 0", 7),
            {"ph": "B", "name": "endless kernel", "ts": 20, "pid": "GPU 0", "tid": 7},
            {"ph": "B", "name": "cudaLaunchKernel", "ts": 20, "pid": 5, "tid": 1},
        ]
    )
    assert [one.name for one in trace.operations.descriptions] == ["k"]
    assert len(trace.calls) == 0
    assert {*trace.notes[:2]} == {
        "left out: 1 GPU operations without an end",
        "left out: 1 API calls without an end",
    }


@pytest.mark.parametrize(
    ("event", "note"),
    [
        ({"ph": "X", "name": "r", "pid": 5, "tid": 1, "dur": 2}, "events without usable times"),
        ({"ph": "B", "name": "r", "pid": 5, "tid": 1, "ts": -2}, "events without usable times"),
        ({"ph": "X", "pid": 5, "tid": 1, "ts": 1, "dur": 2}, "events without a name or track"),
        ({"ph": "X", "name": "r", "pid": [], "ts": 1, "dur": 2}, "events without a name or track"),
        ({"ph": "E", "pid": 5, "tid": 1, "ts": 1}, "ends of events without a begin"),
        (
            {"ph": "b", "name": "r", "pid": 5, "tid": 1, "ts": 1, "id": {}},
            "begins of events without a sound id",
        ),
        ({"name": "r", "ts": 1, "dur": 2}, "entries that are no events"),
        ({"ph": "XX", "name": "r"}, "entries that are no events"),
        ({"ph": ["X"]}, "entries that are no events"),
        (7, "entries that are no events"),
    ],
)
def test_unsound_events_are_left_out_counted_and_named(read, event, note):
    trace = read([event, complete("k", 10, 5, "GPU 0", 7)])
    assert len(trace.operations) == 1 and len(trace.ranges) == 0
    assert [line for line in trace.notes if line.startswith(f"left out: 1 {note}")]


@pytest.mark.parametrize("phase", ["i", "I", "C", "s", "t", "f", "P", "N", "O", "D", "R", "c"])
def test_other_phases_of_the_format_are_passed_over_silently(read, phase):
    event = {"ph": phase, "name": "n", "pid": 5, "tid": 1, "ts": 1, "id": 3}
    trace = read([event, complete("k", 10, 5, "GPU 0", 7)])
    assert not [line for line in trace.notes if "left out" in line]


@pytest.mark.parametrize("stream", ["stream 7", ""])
def test_kernels_by_category_beside_ranges_by_track(read, stream):
    """An exporter that knows Kineto's word for kernels but not for ranges."""
    trace = read(
        [
            *named(9, "GPU 0", 7, stream),
            complete("k", 10, 5, 9, 7, cat="kernel", args={"device": 0, "stream": 7}),
            complete("projected layer", 10, 5, 9, 8),
            complete("layer", 1, 20, 5, 1, cat="nvtx"),
        ]
    )
    assert [one.name for one in trace.operations.descriptions] == ["k"]
    assert ranges_of(trace) == [("layer", 1_000, 21_000)]


def test_many_tracks_are_settled_in_time_and_many_events_refused(read, monkeypatch):
    events = [complete("r", 10 + n, 5, 5, n) for n in range(20_000)]
    events += [complete("k", 10 + n, 5, "GPU 0", n) for n in range(20_000)]
    began = time.process_time()
    trace = read(events)
    assert len(trace.operations) == len(trace.ranges) == len(trace.threads) == 20_000
    assert time.process_time() - began < 5
    monkeypatch.setattr(gathered, "MOST_EVENTS", 39_999)
    with pytest.raises(RecordError, match="too many events; expected at most 39,999"):
        read(events)


def test_without_any_gpu_track_it_is_refused(read):
    with pytest.raises(RecordError, match="no GPU operation in it; expected kernels"):
        read([complete("work", 0, 5, 1, 1), complete("gpu wait", 0, 5, 1, "gpu waiter")])


def test_what_moeprof_exports_it_reads(make_run, tmp_path):
    """The forward's own group: same kernels, same times, calls that launched them, stages."""
    chrome = pytest.importorskip("moeprof.exporting.chrome")
    timeline = pytest.importorskip("moeprof.exporting.timeline")
    exported = timeline.timeline_of(make_run(), 0)
    path = tmp_path / "exported.json"
    path.write_bytes(chrome.chrome_trace(exported))
    trace = read_kineto(path)
    table = trace.operations
    shown = 0
    for number, group in enumerate(exported.groups, start=1):
        streams = [track for track in group.tracks if track.kind == "stream"]
        slices = sorted((one.begin_ns, one.end_ns) for track in streams for one in track.slices)
        mine = [place == (number, 0) for place in map(table.places.__getitem__, table.place)]
        times = zip(table.start_ns[mine].tolist(), table.end_ns[mine].tolist(), strict=True)
        assert sorted(times) == slices
        shown += len(slices)
    assert shown == len(table) > 0
    launched = [one for one in table.correlation.tolist() if one > 0]
    assert set(launched) <= set(trace.calls.correlation.tolist()) and launched
    tracks = [track for group in exported.groups for track in group.tracks]
    stages = [one.name for track in tracks if track.kind == "stages" for one in track.slices]
    assert ("moeprof", "iteration") in trace.ranges.names
    assert {("moeprof", stage) for stage in stages} <= set(trace.ranges.names) and stages
