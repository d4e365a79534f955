"""The committed H200 records: what the README and the docs claim must follow from them."""

from __future__ import annotations

import getpass
import gzip
import os
import socket
import statistics
from functools import cache
from pathlib import Path

import pytest

from moeprof.analysis.attribution import attribute, graph_rows, profile
from moeprof.analysis.checks import findings
from moeprof.analysis.reconstruct import reconstruct
from moeprof.analysis.rows import rows_of, stage_rows
from moeprof.records import Run
from moeprof.storage import store

RECORDED = Path(__file__).resolve().parents[1] / "traces" / "recorded"
ALONE, BENCH = "h200", "h200-bench"  # a process for each solution; all in turn on one card
SEEDS = ("reference", "sglang_v1", "sglang_v2", "triton_v1", "triton_v2", "flashinfer_moe")
CUTEDSL = ("cutedsl_v3", "cutedsl_v3_2")
NINE = (*SEEDS, "triton_v3", *CUTEDSL)
SETS = [*((ALONE, name) for name in SEEDS), *((BENCH, name) for name in NINE)]
CAPTURED = [(folder, name) for folder, name in SETS if name != "reference"]


@cache
def runs(folder: str, solution: str) -> tuple[Run, ...]:
    files = sorted((RECORDED / folder / solution).rglob("*.json.gz"))
    return tuple(store.load(file) for file in files)


def run(folder: str, solution: str, tokens: int) -> Run:
    return next(run for run in runs(folder, solution) if run.workload.seq_len == tokens)


@pytest.mark.parametrize(("folder", "solution"), SETS)
def test_every_workload_is_there_and_right(folder: str, solution: str) -> None:
    found = runs(folder, solution)
    assert len({run.workload.uuid for run in found}) == 19
    for record in found:
        assert record.environment.device == "NVIDIA H200"
        assert record.correctness.passed and record.correctness.relative_l2 <= 0.04
        assert record.correctness.matched_ratio >= 0.85
        assert all(stage.relative_l2 <= 0.04 for stage in record.correctness.stages)
        assert record.routing.local_pairs >= 1


@pytest.mark.parametrize(("folder", "solution"), SETS)
def test_the_identity_closes_on_every_iteration(folder: str, solution: str) -> None:
    for record in runs(folder, solution):
        timeline = record.timeline("api")
        assert timeline is not None and len(timeline.iterations) == 20
        order = [row.name for row in stage_rows(record.solution.stages)]
        for iteration in timeline.iterations:
            operations = timeline.operation_sets[iteration.operation_set]
            rows = rows_of(operations, record.solution.stages)
            book = attribute(operations, iteration, rows, order)
            assert book.residual_ns == 0
            assert all(operation.stage for operation in operations), "an operation outside stages"


@pytest.mark.parametrize(("folder", "solution"), SETS)
def test_the_reconstructed_span_meets_the_bare_one(folder: str, solution: str) -> None:
    """In turn with others the GPU meets its power cap: graph and bare passes of 1.6 to 14 ms then
    had orchestration readings up to 41 us apart, and the records say so."""
    differing = []
    for record in runs(folder, solution):
        explained = profile(record)
        assert explained.source == "reconstructed"
        check = explained.span_check
        assert check is not None
        miss = abs(check.predicted_us - check.measured_us)
        assert miss <= max(3.0, 0.05 * check.measured_us), record.workload.seq_len
        if explained.trust.verdict == "differ":
            differing.append(record.workload.seq_len)
    assert not differing or (folder == BENCH and min(differing) > 10_000)


def test_stamping_the_host_clock_changes_the_bare_span_by_less_than_two_per_cent() -> None:
    found = []
    for folder, solution in SETS:
        for record in runs(folder, solution):
            stamping = reconstruct(record).stamping
            assert stamping is not None
            assert stamping.fraction - stamping.noise <= 0.02, (
                folder,
                solution,
                record.workload.seq_len,
            )
            found.append(stamping.fraction)
    assert abs(statistics.median(found)) <= 0.005


def test_clamped_rows_are_eight_times_what_is_needed_and_flashinfers_are_not() -> None:
    clamped = run(ALONE, "triton_v2", 14107)
    executed = {stage.name: stage.rows_executed for stage in clamped.solution.stages}
    for name in ("shuffle_rows", "gemm1", "swiglu_quant", "gemm2"):
        assert executed[name] == 8 * 14107
        assert executed[name] / clamped.routing.local_pairs == pytest.approx(8.07, abs=0.01)
    opaque = run(ALONE, "flashinfer_moe", 14107).solution.stages[-1]
    assert opaque.rows_declared and opaque.rows_executed == clamped.routing.local_pairs


def graph_us(record: Run) -> float:
    """The median latency of the replayed graph."""
    return statistics.median(sample.span_us for sample in record.samples("graph"))


@pytest.mark.parametrize("other", ["triton_v2", "sglang_v2", "flashinfer_moe"])
def test_triton_v3_is_the_fastest_of_the_four_under_graph_replay(other: str) -> None:
    for record in runs(BENCH, "triton_v3"):
        beaten = run(BENCH, other, record.workload.seq_len)
        assert beaten.routing.histogram_hash == record.routing.histogram_hash
        assert graph_us(record) <= graph_us(beaten), record.workload.seq_len


@pytest.mark.parametrize("tokens", [11948, 14107])
def test_triton_v3_is_twice_as_fast_as_flashinfer_with_many_tokens(tokens: int) -> None:
    """The bar is 1.8; 2.3 was measured."""
    ratio = graph_us(run(BENCH, "flashinfer_moe", tokens)) / graph_us(
        run(BENCH, "triton_v3", tokens)
    )
    assert ratio >= 1.8


@pytest.mark.parametrize("solution", CUTEDSL)
@pytest.mark.parametrize(
    ("stage", "multiply_adds"), [("gemm1", 4096 * 7168), ("gemm2", 7168 * 2048)]
)
def test_cutedsls_products_keep_the_tensor_cores_busy(
    solution: str, stage: str, multiply_adds: int
) -> None:
    """At least 700 TFLOP/s on needed rows; GEMM1 of v3.2 includes SwiGLU and quantisation."""
    record = run(BENCH, solution, 14107)
    row = next(row for row in profile(record).stages if row.name.split("+")[0] == stage)
    teraflops = 2 * multiply_adds * record.routing.local_pairs / row.busy_ns / 1e3
    assert teraflops >= 700, f"{teraflops:.0f} TFLOP/s"


@pytest.mark.parametrize(("folder", "solution"), CAPTURED)
def test_graph_nodes_carry_the_stage_of_their_capture(folder: str, solution: str) -> None:
    for record in runs(folder, solution):
        graph, api = record.timeline("graph"), record.timeline("api")
        assert graph is not None and api is not None
        replayed, eager = graph.operation_sets[0], api.operation_sets[0]
        assert [op.stage for op in replayed] == [op.stage for op in eager]
        assert [op.name for op in replayed] == [op.name for op in eager]


@pytest.mark.parametrize(("folder", "solution"), CAPTURED)
def test_rows_of_the_graph_add_up_to_what_its_events_read(folder: str, solution: str) -> None:
    """Apart from the node-by-node gaps, the outer events add their own floor of a few us."""
    for record in runs(folder, solution):
        rows = graph_rows(record)
        total_us = sum(row.time_ns for row in rows) / 1e3
        events_us = statistics.median(sample.span_us for sample in record.samples("graph"))
        assert abs(events_us - total_us) <= max(8.0, 0.02 * events_us), record.workload.seq_len
        eager = {row.name: row.busy_ns for row in profile(record).stages}
        for row in rows:  # the same kernels: seldom above 10 % apart, prepare_moe_input's atomics
            assert row.busy_ns == pytest.approx(eager[row.name], rel=0.35, abs=3_000), row.name


def test_only_clocks_and_hosts_are_doubted() -> None:
    for folder, solution in SETS:
        for record in runs(folder, solution):
            for finding in findings(record):
                assert finding.startswith(("clocks were throttled", "stamping")), finding


def test_nothing_of_this_machine_or_its_user_is_in_them() -> None:
    known = [os.environ.get(name, "") for name in ("HOME", "PATH", "PWD", "VIRTUAL_ENV")]
    forbidden = [word for word in (*known, getpass.getuser() + "@", socket.gethostname()) if word]
    for file in RECORDED.rglob("*.json.gz"):
        assert not store.leaks(gzip.decompress(file.read_bytes()).decode(), forbidden), file
        assert file.stat().st_size < 2_000_000
