"""Real captures of Nsight Systems: what is in them, and that it is what our own records hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.importing.nsys_sqlite import read_nsys_sqlite
from moeprof.storage import store
from tests.importing.traces import check_sound

DATA = Path(__file__).resolve().parents[1] / "data" / "nsys"
CAPTURES = sorted(DATA.glob("*.sqlite"))
FLUSH = "FillFunctor<signed char>"  # empties the L2 cache before each iteration


def _operations(trace):
    return [
        trace.operations.descriptions[number] for number in trace.operations.description.tolist()
    ]


def _launched_by(trace):
    """The launching call of each operation, by name."""
    names = dict(
        zip(
            trace.calls.correlation.tolist(),
            (trace.calls.names[number] for number in trace.calls.name.tolist()),
            strict=True,
        )
    )
    return [names.get(correlation) for correlation in trace.operations.correlation.tolist()]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_captures_are_read_whole_and_without_complaint(path):
    trace = read_nsys_sqlite(path)
    check_sound(trace)
    assert trace.source.schema == "3.20.3"
    assert [(gpu.name, gpu.multiprocessors, gpu.compute_capability) for gpu in trace.gpus] == [
        ("NVIDIA H200", 132, "9.0")
    ]
    assert len(trace.operations.places) == 1
    assert all(_launched_by(trace)), "every operation's launch is in the capture"
    if not path.name.startswith("graphlevel"):
        assert trace.notes == ()
    if path.stem != "h200_two_iterations":
        assert (trace.driver, trace.cuda) == ("580.159.04", "13.0")


@pytest.mark.parametrize(
    ("solution", "tokens"),
    [
        *(("triton_v2", 1), ("triton_v2", 56), ("triton_v2", 14107), ("sglang_v2", 56)),
        *(("sglang_v2", 14107), ("flashinfer_moe", 56), ("flashinfer_moe", 14107)),
    ],
)
def test_kernels_and_launches_are_those_of_our_own_record(root, solution, tokens):
    trace = read_nsys_sqlite(DATA / f"{solution}-T{tokens}.sqlite")
    (path,) = (root / "traces/recorded/h200" / solution / "dsv3").glob(f"T{tokens}-*.json.gz")
    (api,) = [timeline for timeline in store.load(path).timelines if timeline.name == "api"]
    recorded = [replace(operation, stage="") for operation in api.operation_sets[0]]
    described = zip(_operations(trace), _launched_by(trace), strict=True)
    imported = [replace(operation, launch=call) for operation, call in described]
    iterations = Counter(
        _comparable(operation) for operation in imported if FLUSH not in operation.name
    )
    assert iterations == Counter({_comparable(op): 0 for op in recorded}) + Counter(
        20 * [_comparable(operation) for operation in recorded]
    )


def _comparable(operation):
    """Without registers of Triton's kernels, which were compiled by another version of it."""
    triton = operation.launch == "cuLaunchKernelEx"
    return replace(operation, registers=None) if triton else operation


def test_ranges_of_a_capture():
    trace = read_nsys_sqlite(DATA / "triton_v2-T56.sqlite")
    names = Counter(trace.ranges.names[number] for number in trace.ranges.name.tolist())
    stages = ("routing", "prepare_moe_input", "shuffle_rows", "gemm1", "swiglu_quant", "gemm2")
    assert names == {("moeprof", name): 20 for name in ("iteration", *stages, "gather")}


def test_nodes_of_a_replayed_graph_and_its_launches():
    trace = read_nsys_sqlite(DATA / "graph-triton_v2-T56.sqlite")
    launched = zip(_operations(trace), _launched_by(trace), strict=True)
    nodes = Counter(
        operation.graph_node for operation, call in launched if call == "cudaGraphLaunch"
    )
    assert len(nodes) == 20 and set(nodes.values()) == {10}
    assert None not in nodes


def test_graphs_as_a_whole_leave_only_the_flushes():
    trace = read_nsys_sqlite(DATA / "graphlevel-triton_v2-T56.sqlite")
    assert [FLUSH in operation.name for operation in _operations(trace)] == [True] * 10
    (note,) = trace.notes
    assert note.startswith("10 launches of CUDA graphs are one interval each")
