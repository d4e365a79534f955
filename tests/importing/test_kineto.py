"""Traces of PyTorch's profiler: what each category becomes, on hand-made files and real ones."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from moeprof.errors import RecordError
from moeprof.importing.cuda_calls import call_name
from moeprof.importing.kineto import read_kineto
from moeprof.importing.trace import PUSH_POP, Gpu, TraceSource
from moeprof.storage import store
from moeprof.timelines import Operation
from tests.importing.kineto_files import HOST, THREAD, KinetoFile, Raw, two_iterations

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "traces" / "recorded" / "h200"
REAL = sorted((ROOT / "tests" / "data" / "kineto").glob("*.json.gz"))
WITH_RANGES = [path for path in REAL if path.name.startswith("kineto-")]


@pytest.fixture
def read(tmp_path):
    """``read(file)``: the trace of a hand-made file."""

    def reading(file, name="trace.pt.trace.json"):
        return read_kineto(file.save(tmp_path / name))

    return reading


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz", "worker.17.pt.trace.json.gz"])
def test_every_category_of_a_hand_made_trace(read, name):
    trace = read(two_iterations(), name)
    operations, calls, ranges = trace.operations, trace.calls, trace.ranges
    assert trace.source == TraceSource("PyTorch profiler", "", "1")
    assert trace.notes == ()
    assert trace.cuda == "13.0" and trace.driver == ""
    assert trace.gpus == (Gpu(0, "NVIDIA H200", 132, "9.0", None, 150109880320),)
    assert operations.start_ns.tolist() == [
        *(1_006_000, 1_013_000, 1_026_000),
        *(1_106_000, 1_113_000, 1_126_000),
    ]
    assert (operations.end_ns - operations.start_ns).tolist() == [1_000, 3_007, 50_000] * 2
    assert operations.correlation.tolist() == [10, 11, 12, 20, 21, 22]
    launched = {"grid": (132, 1, 1), "block": (128, 1, 1), "registers": 64, "shared_bytes": 3072}
    assert [operations.descriptions[n] for n in operations.description] == 2 * [
        Operation("memset", "memset", "", 7, bytes=512),
        Operation("scale_kernel(float const*, int)", "kernel", "", 7, **launched),
        Operation("gemm_kernel", "kernel", "", 7, **launched),
    ]
    assert operations.places == ((HOST, 0),)
    assert operations.place.tolist() == [0] * 6
    # cudaGetLastError took 200 ns and launched nothing
    assert [calls.names[n] for n in calls.name] == 2 * [
        *("cudaMemsetAsync", "cudaLaunchKernel", "cuLaunchKernelEx", "cudaDeviceSynchronize")
    ]
    assert calls.start_ns.tolist()[:4] == [1_002_000, 1_008_000, 1_021_000, 1_050_000]
    assert calls.end_ns.tolist()[:4] == [1_005_000, 1_013_000, 1_025_000, 1_080_000]
    assert calls.correlation.tolist() == [10, 11, 12, 13, 20, 21, 22, 23]
    assert [ranges.names[n] for n in ranges.name] == [
        *(("", "ProfilerStep#0"), ("moeprof", "iteration")),
        *(("moeprof", "routing"), ("moeprof", "gemm1")),
        *(("", "ProfilerStep#1"), ("moeprof", "iteration")),
        *(("moeprof", "routing"), ("moeprof", "gemm1")),
    ]
    assert ranges.start_ns.tolist()[:4] == [999_000, 1_000_000, 1_001_000, 1_020_000]
    assert ranges.end_ns.tolist()[:4] == [1_094_000, 1_090_001, 1_019_000, 1_049_000]
    assert set(ranges.style.tolist()) == {PUSH_POP}
    (thread,) = {*calls.thread.tolist(), *ranges.thread.tolist()}
    assert trace.threads == {thread: (HOST, THREAD)}
    assert trace.overhead_ns.tolist() == [[1_120_500, 2_902_705]]


def test_what_begins_together_comes_outermost_first(read):
    file = KinetoFile().kernel("k", 9_000, 1_000, 4)
    file.range("inner", 5_000, 1_000).range("outer", 5_000, 3_000).range("earlier", 4_000, 10)
    ranges = read(file).ranges
    assert [ranges.names[n][1] for n in ranges.name] == ["earlier", "outer", "inner"]


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("moeprof.gemm1", ("moeprof", "gemm1")),
        ("moeprof.a.b", ("moeprof", "a.b")),
        ("moeprof.", ("", "moeprof.")),
        ("moeprof", ("", "moeprof")),
        ("moeprofX.gemm1", ("", "moeprofX.gemm1")),
        ("vllm.forward", ("", "vllm.forward")),
    ],
)
def test_only_ranges_called_as_moeprof_calls_them_are_in_its_domain(read, name, pair):
    trace = read(KinetoFile().kernel("k", 9_000, 1_000, 4).range(name, 5_000, 1_000))
    assert trace.ranges.names == (pair,)


def test_copies_are_called_as_a_record_calls_them(read):
    file = KinetoFile()
    names = {
        "Memcpy HtoD (Pageable -> Device)": "memcpy HTOD",
        "Memcpy DtoH (Device -> Pinned)": "memcpy DTOH",
        "Memcpy DtoD (Device -> Device)": "memcpy DTOD",
        "Memcpy PtoP (Device -> Device)": "memcpy PTOP",
        "Memcpy <unknown> (Device -> Unknown)": "memcpy UNKNOWN",
    }
    for number, name in enumerate(names):
        file.on_gpu("gpu_memcpy", name, 1_000 * number + 500, 100, number + 1, bytes=64 + number)
    described = read(file).operations.descriptions
    assert [(one.name, one.kind, one.bytes) for one in described] == [
        (name, "memcpy", 64 + number) for number, name in enumerate(names.values())
    ]


def test_nodes_of_graphs_are_told_apart_and_zero_is_none(read):
    file = KinetoFile().call("cudaGraphLaunch", 1_000, 5_000, 9)
    for number, node in enumerate((0, 8_589_934_592, 8_589_934_593)):
        file.kernel("k", 7_000 + 2_000 * number, 1_000, 9, **{"graph id": 2, "graph node id": node})
    operations = read(file).operations
    assert [one.graph_node for one in operations.descriptions] == [
        *(None, 8_589_934_592, 8_589_934_593)
    ]
    assert operations.correlation.tolist() == [9, 9, 9]


@pytest.mark.parametrize(
    ("name", "cbid", "said"),
    [
        ("INVALID", 468, "cudaGetDriverEntryPointByVersion"),
        ("cuda439", 439, "cudaGetKernel"),
        ("cuda444", 444, "cudaInitDevice"),
        ("INVALID", 519, "cudaMemGetMemPool"),
        ("INVALID", 522, "cudaDeviceGetP2PAtomicCapabilities"),
        ("INVALID", 500, "INVALID"),
        ("INVALID", 523, "INVALID"),
        ("INVALID", 438, "INVALID"),
        ("INVALID", None, "INVALID"),
        ("cudaLaunchKernel", 468, "cudaLaunchKernel"),
        ("cudaLaunchKernel_v7000", 211, "cudaLaunchKernel"),
        ("cuMemcpyDtoHAsync_v2", None, "cuMemcpyDtoHAsync"),
    ],
)
def test_calls_that_kineto_cannot_name_are_named_by_their_number(name, cbid, said):
    assert call_name(name, cbid) == said


def test_a_driver_call_is_not_looked_up_among_the_runtimes(read):
    file = KinetoFile().kernel("k", 9_000, 1_000, 4)
    file.call("INVALID", 1_000, 5_000, 4, cbid=468)
    file.call("INVALID", 2_000, 5_000, 5, cbid=468, cat="cuda_driver")
    assert read(file).calls.names == ("cudaGetDriverEntryPointByVersion", "INVALID")


def test_categories_of_the_first_kineto_are_the_same_ones(read):
    file = KinetoFile()
    file.complete("Kernel", "k", 9_000, 1_000, 0, 7, args={"stream": 7, "correlation": 3})
    file.complete("Memset", "Memset (Device)", 8_000, 100, 0, 7, args={"correlation": 2})
    file.complete("Runtime", "cudaLaunchKernel", 1_000, 5_000, HOST, THREAD, args={})
    file.complete("Operator", "aten::mm", 1_000, 9_000, HOST, THREAD, args={})
    trace = read(file)
    assert [one.kind for one in trace.operations.descriptions] == ["kernel", "memset"]
    assert trace.calls.names == ("cudaLaunchKernel",)
    assert len(trace.ranges) == 0


def test_events_of_other_categories_are_no_ranges(read, tmp_path):
    file = KinetoFile()
    file.complete("mine", "custom", 1_000, 50_000, HOST, THREAD)
    file.event("B", None, "begun", ts=2, pid=HOST, tid=THREAD)
    file.complete("gpu_user_annotation", "moeprof.gemm1", 9_000, 1_000, 0, 7)
    trace = read(file.kernel("k", 9_000, 1_000, 4))
    assert len(trace.ranges) == 0 and len(trace.operations) == 1
    bare = tmp_path / "bare.json"  # no header says whose it is
    bare.write_text(f"[{file.events[2]}, {file.events[3]}]")
    assert len(read_kineto(bare).ranges) == 0


def test_operations_of_two_gpus_belong_to_the_one_process_of_the_file(read):
    file = two_iterations()
    file.kernel("k", 1_500_000, 1_000, 90, device=1, stream=20).call(
        "cudaLaunchKernel", 1_490_000, 6_000, 90
    )
    operations = read(file).operations
    assert operations.places == ((HOST, 0), (HOST, 1))
    assert operations.place.tolist() == [0] * 6 + [1]


def test_where_two_processes_made_calls_the_correlation_id_tells_whose_an_operation_is(read):
    file = KinetoFile()
    file.call("cudaLaunchKernel", 1_000, 5_000, 1, pid=100).call(
        "cudaLaunchKernel", 1_000, 5_000, 2, pid=200
    )
    file.call("cudaLaunchKernel", 1_500, 5_000, 3, pid=100).call(
        "cudaLaunchKernel", 1_500, 5_000, 3, pid=200
    )
    for number in range(1, 5):
        file.kernel("k", 10_000 * number, 1_000, number)
    trace = read(file)
    operations = trace.operations
    assert [operations.places[n] for n in operations.place] == [
        *((100, 0), (200, 0), (-1, 0), (-1, 0))
    ]
    assert operations.correlation.tolist() == [1, 2, -1, 4]
    assert trace.notes == (
        "1 operations were launched by calls that the file does not hold",
        "1 operations name a launch call that two processes have",
    )


def test_a_kernel_that_says_another_process_than_its_gpu_belongs_to_that_one(read):
    """As moeprof's export of a replayed graph beside the forward: no call launched it there."""
    file = KinetoFile().call("cudaLaunchKernel", 1_000, 5_000, 1, pid=1).kernel("k", 9_000, 10, 1)
    args = {"device": 0, "stream": 7}
    file.complete("kernel", "replayed", 9_000, 10, 2, 7, args=args)
    operations = read(file).operations
    places = [operations.places[n] for n in operations.place]
    names = [operations.descriptions[n].name for n in operations.description]
    assert dict(zip(names, places, strict=True)) == {"k": (1, 0), "replayed": (2, 0)}


def test_a_kernel_whose_launch_the_window_missed_stays_and_is_counted(read):
    trace = read(
        two_iterations().kernel("late", 2_000_000, 10, 777).kernel("odd", 2_100_000, 10, 0)
    )
    assert len(trace.operations) == 8
    assert trace.operations.correlation.tolist()[-2:] == [777, -1]
    assert trace.notes == (
        "1 operations name no launch call (no correlation id)",
        "1 operations were launched by calls that the file does not hold",
    )


def test_a_trace_without_gpu_operations_is_refused_in_one_line(tmp_path):
    path = KinetoFile().range("step", 1_000, 5_000).save(tmp_path / "cpu.json")
    with pytest.raises(RecordError) as caught:
        read_kineto(path)
    assert str(caught.value) == (
        f"{path}: no GPU operation in it; expected kernels, copies or memsets; profile with GPU"
        " activities (ProfilerActivity.CUDA)"
    )


def test_a_trace_of_unsound_operations_only_is_refused_and_says_why(tmp_path):
    path = KinetoFile().kernel("k", 0, 0, 4).kernel("k", 0, 0, 5).save(tmp_path / "t.json")
    with pytest.raises(RecordError, match=r"left out: 2 kernels without usable times"):
        read_kineto(path)


def test_names_of_hosts_jobs_and_paths_do_not_enter_the_trace(read):
    file = two_iterations()
    file.header["distributedInfo"] = {"backend": "nccl", "pg_config": ["secret-group"]}
    file.header["PT_PROFILER_JOB_NAME"] = "secret-job"
    said = repr(read(file))
    assert "secret" not in said and "somebody" not in said


# -- real traces ----------------------------------------------------------------------------


def _plain(path):
    return json.loads(gzip.decompress(path.read_bytes()), parse_float=Decimal)["traceEvents"]


def _recorded(path):
    """Our own record of the same solution and workload."""
    solution, tokens = re.fullmatch(r"\w+-(\w+)-T(\d+)\.json\.gz", path.name).groups()
    return store.load(next((RECORDED / solution / "dsv3").glob(f"T{tokens}-*.json.gz")))


def _ns(number):
    exact = Decimal(number) * 1000
    assert exact == int(exact)
    return int(exact)


def test_there_are_real_traces_with_ranges_and_without():
    assert len(WITH_RANGES) == 3 and len(REAL) == 5


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_every_operation_of_a_real_trace_with_its_exact_times(path):
    """Against the same events read with the standard library as decimal numbers."""
    trace = read_kineto(path)
    events = [e for e in _plain(path) if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    events.sort(key=lambda event: event["ts"])
    operations = trace.operations
    assert trace.notes == ()
    assert operations.start_ns.tolist() == [_ns(event["ts"]) for event in events]
    assert operations.end_ns.tolist() == [_ns(event["ts"] + event["dur"]) for event in events]
    assert operations.correlation.tolist() == [event["args"]["correlation"] for event in events]
    described = [operations.descriptions[n] for n in operations.description]
    for one, event in zip(described, events, strict=True):
        assert one.stream == event["args"]["stream"] == event["tid"]
        if event["cat"] == "kernel":
            assert one.name == event["name"] and one.grid == tuple(event["args"]["grid"])
            assert one.registers == event["args"]["registers per thread"]
        else:
            assert one.bytes == event["args"]["bytes"]
    assert trace.gpus == (Gpu(0, "NVIDIA H200", 132, "9.0", None, 150109880320),)


@pytest.mark.parametrize("path", WITH_RANGES, ids=lambda path: path.name)
def test_operations_in_each_range_of_a_real_trace(path):
    """By range the operations whose launch call lies in it, counted twice: from the columns and
    from the events as the standard library reads them."""
    events = [event for event in _plain(path) if event.get("ph") == "X"]
    launches = Counter(
        event["args"]["correlation"]
        for event in events
        if event["cat"] in ("kernel", "gpu_memcpy", "gpu_memset")
    )
    calls = [event for event in events if event["cat"] in ("cuda_runtime", "cuda_driver")]
    expected = Counter()
    for one in events:
        if one["cat"] == "user_annotation":
            begin, end = one["ts"], one["ts"] + one["dur"]
            inside = [call for call in calls if begin <= call["ts"] and call["tid"] == one["tid"]]
            expected[one["name"]] += sum(
                launches[call["args"]["correlation"]]
                for call in inside
                if call["ts"] + call["dur"] <= end
            )
    trace = read_kineto(path)
    found = Counter()
    launched = np.isin(trace.calls.correlation, trace.operations.correlation)
    for start, end, thread, name in zip(
        *(getattr(trace.ranges, column) for column in ("start_ns", "end_ns", "thread", "name")),
        strict=True,
    ):
        inside = (trace.calls.start_ns >= start) & (trace.calls.end_ns <= end) & launched
        found[".".join(trace.ranges.names[name])] += int(
            (inside & (trace.calls.thread == thread)).sum()
        )
    assert found == expected
    # three iterations of the stages and launches that our own CUPTI pass saw
    stages = Counter(one.stage for one in _recorded(path).timeline("api").operation_sets[0])
    expected_by_stage = {f"moeprof.{stage}": 3 * count for stage, count in stages.items()}
    assert found == {"moeprof.iteration": 3 * stages.total(), **expected_by_stage}


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_a_real_traces_kernels_are_called_as_our_own_records_call_them(path):
    """Kineto demangles as the CUPTI pass does: imported kernels meet recorded ones by name."""
    ours = {one.name for one in _recorded(path).timeline("api").operation_sets[0]}
    flush = "vectorized_elementwise_kernel<4, at::native::FillFunctor<signed char>"
    theirs = {o.name for o in read_kineto(path).operations.descriptions if flush not in o.name}
    assert theirs <= ours and len(theirs) >= 10
    if path in WITH_RANGES:
        assert theirs == ours


PROFILED = """
import sys, torch
from torch.profiler import ProfilerActivity, profile, record_function
matrix = torch.ones(8, 8)
with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
    for _ in range(3):
        with record_function("moeprof.iteration"), record_function("moeprof.gemm1"):
            matrix @ matrix
profiler.export_chrome_trace(sys.argv[1])
"""


def test_a_trace_written_here_by_torch_is_read_but_for_the_gpu_it_lacks(tmp_path):
    """The layout of the installed PyTorch, with a kernel put in as a CUDA build would. In a process
    of its own: torch.profiler imports Triton, whose interpreter must be switched on before."""
    path = tmp_path / "cpu.json"
    subprocess.run([sys.executable, "-c", PROFILED, str(path)], check=True, timeout=300)
    with pytest.raises(RecordError, match="no GPU operation"):
        read_kineto(path)
    text = path.read_text()
    kernel = KinetoFile().kernel("k", 1_000, 500, 4).events[0]
    path.write_text(text.replace('"traceEvents": [', f'"traceEvents": [{kernel},', 1))
    ranges = read_kineto(path).ranges
    assert [ranges.names[n] for n in ranges.name] == 3 * [
        ("moeprof", "iteration"),
        ("moeprof", "gemm1"),
    ]
    written = [
        (_ns(e["ts"]), _ns(e["ts"] + e["dur"]))
        for e in json.loads(text, parse_float=Decimal)["traceEvents"]
        if e.get("cat") == "user_annotation"
    ]
    assert list(zip(ranges.start_ns, ranges.end_ns, strict=True)) == sorted(written)
    assert (ranges.start_ns[1::2] >= ranges.start_ns[::2]).all()
    assert (ranges.end_ns[1::2] <= ranges.end_ns[::2]).all()


def test_raw_is_no_json_string():  # the tests' own tool
    assert '"ts": 1.500' in KinetoFile().event("X", "kernel", "k", ts=Raw("1.500")).events[0]
