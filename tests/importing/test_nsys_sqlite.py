"""SQLite exports of Nsight Systems to traces: what each table becomes, and what is left out."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from moeprof.errors import RecordError
from moeprof.importing.nsys_sqlite import read_nsys_sqlite
from moeprof.importing.trace import PUSH_POP, START_END, Gpu, TraceSource
from moeprof.timelines import Operation
from tests.importing import nsys_files as files
from tests.importing.nsys_files import Export


@pytest.fixture
def read(tmp_path):
    """``read(export)``: the trace of a hand-made export."""

    def reading(export, **options):
        return read_nsys_sqlite(export.save(tmp_path / "capture.sqlite"), **options)

    return reading


@pytest.mark.parametrize("schema", ["3.16.1", "3.20.3", "3.25.0"])
def test_every_table_of_a_capture_in_each_known_schema(read, schema):
    trace = read(files.two_iterations(schema))
    operations, calls, ranges = trace.operations, trace.calls, trace.ranges
    assert trace.source == TraceSource("Nsight Systems", "2025.3.2.0", schema)
    assert trace.notes == ()
    assert operations.start_ns.tolist() == [
        *(1_006_000, 1_013_000, 1_026_000),
        *(1_106_000, 1_113_000, 1_126_000),
    ]
    assert (operations.end_ns - operations.start_ns).tolist() == [1_000, 3_000, 50_000] * 2
    assert operations.description.tolist() == [2, 0, 1] * 2
    launched = {"grid": (132, 1, 1), "block": (128, 1, 1), "registers": 64, "shared_bytes": 3072}
    assert operations.descriptions == (
        Operation("scale_kernel(float const*, int)", "kernel", "", 7, **launched),
        Operation("gemm_kernel", "kernel", "", 7, **launched),
        Operation("memset", "memset", "", 7, bytes=512),
    )
    assert operations.places == ((files.PID, 0),)
    assert operations.place.tolist() == [0] * 6
    assert calls.names == tuple(
        f"cuda{name}" for name in ("MemsetAsync", "LaunchKernel", "DeviceSynchronize")
    )
    assert calls.name.tolist() == [0, 1, 1, 2] * 2
    assert calls.start_ns.tolist()[:4] == [1_002_000, 1_008_000, 1_021_000, 1_050_000]
    assert calls.end_ns.tolist()[:4] == [1_005_000, 1_012_000, 1_025_000, 1_080_000]
    assert calls.correlation[calls.name != 2].tolist() == operations.correlation.tolist()
    thread = files.global_id(files.PID, files.TID)
    assert set(calls.thread.tolist()) == set(ranges.thread.tolist()) == {thread}
    assert trace.threads == {thread: (files.PID, files.TID)}
    assert ranges.names == (("moeprof", "iteration"), ("moeprof", "routing"), ("moeprof", "gemm1"))
    assert ranges.name.tolist() == [0, 1, 2] * 2
    assert ranges.start_ns.tolist()[:3] == [1_000_000, 1_001_000, 1_020_000]
    assert ranges.end_ns.tolist()[:3] == [1_090_000, 1_019_000, 1_049_000]
    assert set(ranges.style.tolist()) == {PUSH_POP}
    gpu = Gpu(0, "NVIDIA H200", 132, "9.0", 62_914_560, 150_109_880_320)
    assert trace.gpus == (gpu,)


@pytest.mark.parametrize("schema", ["2.9.0", "3.26.1", "4.0", "soon", ""])
def test_an_unknown_schema_is_read_by_column_names_and_said(read, schema):
    export = files.two_iterations()
    export.rows["META_DATA_EXPORT"][2]["value"] = schema
    trace = read(export)
    assert len(trace.operations) == 6
    (note,) = trace.notes
    assert "3.16 to 3.25 are known here" in note


@pytest.mark.parametrize("table", [files.KERNEL, files.CALLS, "NVTX_EVENTS", "StringIds"])
def test_a_table_without_a_needed_column_is_refused_in_one_line(read, table, monkeypatch):
    columns = files.LAYOUT[table].replace("end ", "").replace(" value", "")
    monkeypatch.setitem(files.LAYOUT, table, columns)
    with pytest.raises(RecordError, match=f"its table {table} has no column (end|value)") as caught:
        read(files.two_iterations())
    assert "\n" not in str(caught.value)


def test_context_without_a_needed_column_is_passed_over_and_said(read, monkeypatch):
    for table in ("META_DATA_EXPORT", "TARGET_INFO_GPU", "DIAGNOSTIC_EVENT", "PROFILER_OVERHEAD"):
        columns = files.LAYOUT[table].replace("value", "").replace("id ", "").replace("end", "")
        monkeypatch.setitem(files.LAYOUT, table, columns.replace("text", ""))
    export = files.two_iterations()
    export.diagnostic(3, "stopped")
    export.overhead(1, 2)
    trace = read(export)
    assert (len(trace.operations), len(trace.calls), trace.gpus) == (6, 8, ())
    assert trace.notes[1:] == (
        "its table META_DATA_EXPORT has no column value and was not read",
        "its table PROFILER_OVERHEAD has no column end and was not read",
        "its table DIAGNOSTIC_EVENT has no column text and was not read",
        "its table TARGET_INFO_GPU has no column id and was not read",
    )


@pytest.mark.parametrize("table", [files.KERNEL, files.CALLS, "NVTX_EVENTS", "StringIds"])
def test_tables_that_were_never_created_read_as_empty(read, table):
    export = files.two_iterations()
    del export.rows[table]
    trace = read(export)
    assert len(trace.operations) == (2 if table == files.KERNEL else 6)
    assert len(trace.ranges) == (0 if table == "NVTX_EVENTS" else 6)
    notes = "".join(trace.notes)
    assert ("kernels have no name" in notes) == (table == "StringIds")


def test_times_may_be_negative_and_open_ranges_have_no_end(read):
    export = Export()
    export.kernel("k", -5_000, -4_000, launched=(-9_000, -6_000))
    export.range("iteration", -10_000, None)
    export.range("gemm1", -9_500, -1)
    trace = read(export)
    assert trace.operations.start_ns.tolist() == [-5_000]
    assert trace.calls.start_ns.tolist() == [-9_000]
    assert trace.ranges.start_ns.tolist() == [-10_000, -9_500]
    assert trace.ranges.end_ns.tolist() == [-1, 0]  # -1 stands for a range that is open


def test_names_of_ranges_stand_in_text_or_in_strings_and_domains_belong_to_processes(read):
    export = Export()
    export.range("a", 1, 2, domain="one", registered=False)
    export.range("b", 3, 4, domain="two", registered=True)
    export.range("c", 5, 6, domain="other", pid=77, tid=78)
    export.range("d", 7, 8, domain="")
    export.range("e", 9, 10, domain="", domainId=9)
    export.range("", 11, 12, domain="", registered=False, text=None)
    both = export.range("unseen", 13, 14, domain="", registered=False)
    both["textId"] = export.string("seen")
    export.range("mark", 15, None, kind=files.MARK)
    assert read(export).ranges.names == (
        *(("one", "a"), ("two", "b"), ("other", "c"), ("", "d")),
        *(("domain 9", "e"), ("", ""), ("", "seen")),
    )


def test_start_end_ranges_and_those_that_end_on_another_thread(read):
    export = Export()
    export.range("here", 1, 9, kind=files.START_END)
    export.range("there", 2, 8, kind=files.START_END, endGlobalTid=files.global_id(files.PID, 9))
    export.range("text protocol", 3, 7, kind=70)
    ranges = read(export).ranges
    assert ranges.style.tolist() == [START_END, START_END, PUSH_POP]
    thread = files.global_id(files.PID, files.TID)
    assert ranges.thread.tolist() == [thread, -1, thread]


def test_only_calls_that_launched_or_are_notable_are_kept(read):
    export = Export()
    export.kernel("k", 50_000, 60_000, launched=(1_000, 1_100))
    export.call("cudaFuncGetAttributes_v3020", 2_000, 3_999)
    export.call("cudaFuncSetAttribute_v9000", 4_000, 6_000)
    export.call("cuStreamSynchronize_ptsz", 6_000, 6_010)
    export.call("cudaMalloc_v3020", 7_000, 7_010)
    export.call("cudaLaunchKernel_v7000", 8_000, 8_100, correlation=7)  # its kernel was not seen
    # same correlation as the kernel's launch, in another process
    export.call("cudaLaunchKernel_v7000", 9_000, 9_100, correlation=101, pid=77)
    trace = read(export)
    names = [trace.calls.names[number] for number in trace.calls.name.tolist()]
    assert names == [
        *("cudaLaunchKernel", "cudaFuncSetAttribute", "cuStreamSynchronize_ptsz", "cudaMalloc")
    ]
    assert trace.notes == ()


def test_of_calls_with_one_correlation_only_the_first_can_be_a_launch(read):
    export = Export()
    export.kernel("k", 50_000, 60_000, correlationId=5)
    export.call("cuLaunchKernel", 1_010, 1_090, correlation=5)
    export.call("cudaLaunchKernel_v7000", 1_000, 1_100, correlation=5)
    trace = read(export)
    assert trace.calls.start_ns.tolist() == [1_000]
    assert trace.notes == (
        "left out: 1 API calls whose correlation id an earlier call of the process has",
    )


def test_processes_and_gpus_are_told_apart(read):
    export = Export(gpu=False)
    export.gpu(3, "NVIDIA B200")
    export.gpu(1)
    export.kernel("k", 10, 20)
    export.kernel("k", 11, 21, deviceId=1)
    export.kernel("k", 12, 22, pid=7_000_077)
    export.add("TARGET_INFO_CUDA_DEVICE", gpuId=3, cudaId=0, pid=7_000_077)
    trace = read(export)
    assert trace.operations.places == ((files.PID, 0), (files.PID, 1), (7_000_077, 3))
    assert trace.operations.place.tolist() == [0, 1, 2]
    assert len(trace.operations.descriptions) == 1
    assert [(gpu.number, gpu.name) for gpu in trace.gpus] == [
        (1, "NVIDIA H200"),
        (3, "NVIDIA B200"),
    ]


def test_copies_are_named_as_in_our_own_records(read):
    export = Export()
    for kind in (1, 2, 8, 10, 11, 99):
        export.memcpy(kind * 100, kind * 100 + 50, bytes=kind, copyKind=kind)
    names = [description.name for description in read(export).operations.descriptions]
    assert names == [
        *("memcpy HTOD", "memcpy DTOH", "memcpy DTOD", "memcpy PTOP", "memcpy UVM_HTOD"),
        "memcpy UNKNOWN",
    ]


def test_names_of_kernels_are_what_our_own_records_hold(read):
    export = Export()
    export.kernel("void f<(int)8>(T1)", 1, 2, mangled="_Z1fILi8EiEvT0_")
    export.kernel("nvjet_sm90", 3, 4)
    export.kernel("gather_kernel(...)", 5, 6, mangled="gather_kernel")
    export.kernel("only_demangled(int)", 5, 6, mangled="")
    export.kernel("void g<(int)8>(T1)", 7, 8, mangled="_Z1gILi8EiEvT0_junk")  # gives up on it
    assert [description.name for description in read(export).operations.descriptions] == [
        *(
            "void f<8, int>(int)",
            "nvjet_sm90",
            "gather_kernel",
            "only_demangled(int)",
            "_Z1gILi8EiEvT0_junk",
        )
    ]


def test_names_as_nsys_spells_them_where_libstdcxx_does_not_answer(read):
    export = Export()
    export.kernel("void f<(int)8>(T1)", 1, 2, mangled="_Z1fILi8EiEvT0_")
    trace = read(export, demangle=lambda names: {})
    assert trace.operations.descriptions[0].name == "void f<(int)8>(T1)"
    assert "libstdc++ could not be asked" in trace.notes[0]


def test_nodes_of_graphs(read):
    export = Export()
    export.kernel("k", 10, 20, graphNodeId=(2 << 32) + 5)
    export.memset(30, 40, graphNodeId=0)
    nodes = [description.graph_node for description in read(export).operations.descriptions]
    assert nodes == [(2 << 32) + 5, None]


def test_graphs_recorded_as_a_whole_are_said_and_how_to_see_their_kernels(read):
    export = Export()
    export.add(files.GRAPH, start=1, end=2, graphId=1)
    export.add(files.GRAPH, start=3, end=4, graphId=1)
    first, second = read(export).notes
    assert first.startswith("2 launches of CUDA graphs are one interval each")
    assert "--cuda-graph-trace=node" in first
    assert second.startswith("no GPU operation is in the capture; record with")


def test_what_the_profiler_says_went_wrong_without_paths(read):
    export = files.two_iterations()
    export.diagnostic(1, "Number of CUDA events collected: \t1,442.")
    export.diagnostic(2, "Not all CUDA events might have been collected.")
    export.diagnostic(2, "12 CUDA events were dropped.")
    for _ in range(2):
        export.diagnostic(3, "cannot open /home/ann/lib.so as ann@host HOME=/x\nthen \x1b[31mstops")
    assert read(export).notes == (
        "Nsight Systems said: 12 CUDA events were dropped.",
        "Nsight Systems said: cannot open [...] as [...] [...] then \ufffd[31mstops (2 times)",
    )


def test_versions_of_driver_and_cuda_and_overhead(read):
    export = files.two_iterations()
    export.overhead(300, 400)
    export.overhead(100, 250)
    export.overhead(9, 8)
    for name, value in (
        *(("NvDriverVersion", "580.159.04"), ("CudaDriverVersion", "13000")),
        *(("Hostname", "vm"), ("NvDriverVersion", "1")),
    ):
        export.add("TARGET_INFO_SYSTEM_ENV", name=name, value=value)
    trace = read(export)
    assert (trace.driver, trace.cuda) == ("580.159.04", "13.0")
    assert trace.overhead_ns.tolist() == [[100, 250], [300, 400]]
    assert trace.notes == ("left out: 1 intervals of profiler overhead without usable times",)


def test_rows_that_cannot_be_are_left_out_and_counted(read):
    export = files.two_iterations()
    export.kernel("k", 0, 0)
    export.kernel("k", 20, 10)
    export.kernel("k", None, 10)
    export.memcpy(10, "soon")
    export.memset(1 << 62, (1 << 62) + 1)
    export.memset(-(1 << 62), 5)
    export.call("cudaMalloc_v3020", 10, None)
    export.call("cudaMalloc_v3020", 10, 20)["globalTid"] = None
    export.range("r", 5, 4)
    export.range("r", 5, 6)["globalTid"] = b"thread"
    export.range("r", 5, 6)["globalTid"] = -1
    trace = read(export)
    assert len(trace.operations) == 6
    assert trace.notes == (
        "left out: 1 GPU operations that the profiler could not time (start and end are 0)",
        "left out: 5 GPU operations without usable times",
        "left out: 2 API calls without usable times or thread",
        "left out: 3 NVTX ranges without usable times or thread",
    )


def test_values_that_cannot_be_are_missing_and_the_row_stays(read):
    export = Export()
    export.kernel(
        "k",
        *(10, 20),
        **{"gridX": 0, "blockY": -1, "registersPerThread": "many", "staticSharedMemory": 1.5},
        **{"streamId": -3, "correlationId": 1 << 40, "deviceId": None, "globalPid": None},
    )
    export.memset(30, 40, bytes=-1)
    operations = read(export).operations
    assert operations.descriptions == (
        Operation("k", "kernel", "", -1),
        Operation("memset", "memset", "", 7),
    )
    assert operations.correlation[0] == -1
    assert operations.places == ((-1, -1), (files.PID, 0))


def test_of_ranges_that_begin_together_the_outer_comes_first(read):
    export = Export()
    for name, end in (("inner", 20), ("open", None), ("outer", 30)):
        export.range(name, 10, end)
    ranges = read(export).ranges
    assert [ranges.names[n][1] for n in ranges.name.tolist()] == ["open", "outer", "inner"]


def test_texts_that_are_no_utf8_are_repaired(tmp_path):
    path = files.two_iterations().save(tmp_path / "capture.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE StringIds SET value = CAST(x'67ff31' AS TEXT) WHERE value = 'gemm1'"
        )
        connection.commit()
    assert ("moeprof", "g\ufffd1") in read_nsys_sqlite(path).ranges.names


def test_names_come_out_on_one_line_and_without_control_characters(read):
    export = Export()
    hostile = "<script>'; DROP TABLE x;--\x1b[2J\n\u202egemm\x00"
    clean = "<script>'; DROP TABLE x;--\ufffd[2J \ufffdgemm\ufffd"
    export.kernel(hostile, 1, 2, launched=(0, 1))
    export.range(hostile, 1, 2, domain=hostile)
    export.call(f"cudaMalloc{hostile}", 1, 2)
    trace = read(export)
    assert trace.operations.descriptions[0].name == clean
    assert trace.ranges.names == ((clean, clean),)
    assert trace.calls.names == ("cudaLaunchKernel", f"cudaMalloc{clean}")


def test_the_same_rows_in_any_order_are_the_same_trace(read, tmp_path):
    export = files.two_iterations()
    first = read(export)
    (tmp_path / "capture.sqlite").unlink()
    for table in (files.KERNEL, files.MEMSET, files.CALLS, "NVTX_EVENTS"):
        export.rows[table].reverse()
    second = read(export)
    for table in ("operations", "calls", "ranges"):
        one, two = getattr(first, table), getattr(second, table)
        np.testing.assert_array_equal(one.start_ns, two.start_ns)
        np.testing.assert_array_equal(one.end_ns, two.end_ns)
    assert _names(first) == _names(second)


def _names(trace):
    operations, ranges = trace.operations, trace.ranges
    return (
        [operations.descriptions[number] for number in operations.description.tolist()],
        [ranges.names[number] for number in ranges.name.tolist()],
    )
