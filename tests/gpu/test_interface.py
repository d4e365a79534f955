"""``moeprof.profile`` on a GPU: every pass of a small torch callable with two stages.

Run on a GPU machine: python -m pytest tests/gpu/test_interface.py -m gpu
"""

import io

import pytest
import torch
from rich.console import Console

import moeprof
from moeprof.analysis.attribution import attribute
from moeprof.analysis.attribution import profile as explain
from moeprof.analysis.rows import rows_of, stage_rows
from moeprof.measure.interface import profile
from moeprof.records import PASSES
from moeprof.reports.text import render_run
from moeprof.storage import store

pytestmark = pytest.mark.gpu

LAYERS = 2


@pytest.fixture(scope="module")
def run():
    """Two layers of a product and an activation, and one kernel in no stage."""
    weight = torch.randn(1024, 1024, device="cuda", dtype=torch.bfloat16) / 32
    x = torch.randn(256, 1024, device="cuda", dtype=torch.bfloat16)

    @moeprof.stage("gemm")
    def product(rows):
        return rows @ weight

    def layers(rows):
        for _ in range(LAYERS):
            rows = product(rows)
            with moeprof.stage("activation"):
                rows = torch.nn.functional.silu(rows)
        return rows + 1

    with torch.inference_mode():
        return profile(layers, x, seq_len=256, iterations=10, trials=2, device="cuda")


def books(run):
    """The identity of each iteration of the api pass."""
    api = run.timeline("api")
    assert api is not None
    for iteration in api.iterations:
        operations = api.operation_sets[iteration.operation_set]
        yield attribute(operations, iteration, rows_of(operations, run.solution.stages))


def test_every_pass_has_samples(run):
    measured = {p.name: p for p in run.passes}
    assert list(measured) == [name for name in PASSES if name not in ("kernels", "api")]
    for name, result in measured.items():
        assert result.samples, f"{name}: {result.unavailable}"
    assert run.timeline("kernels") is not None
    assert len(run.timeline("api").iterations) == 10
    assert run.calibration is not None and run.calibration.launch_latency_ns is not None


def test_the_identity_closes_and_no_kernel_is_unattributed(run):
    for book in books(run):
        assert book.residual_ns == 0
        assert book.unattributed_operations == 0
    operations = [o for found in run.timeline("api").operation_sets for o in found]
    assert all(operation.stage for operation in operations)


def test_every_stage_is_busy(run):
    explained = explain(run)
    assert explained.source in ("reconstructed", "api")
    assert [row.name for row in explained.stages] == ["gemm", "activation", "outside"]
    assert all(row.busy_ns > 0 for row in explained.stages)
    launches = {row.name: row.operations for row in explained.stages}
    assert launches["activation"] == LAYERS and launches["outside"] == 1
    assert launches["gemm"] >= LAYERS
    assert explained.residual_ns == pytest.approx(0, abs=1e-3)
    entries = {row.name: row.entries for row in stage_rows(run.solution.stages)}
    assert entries == {"gemm": LAYERS, "activation": LAYERS, "outside": 1}


def test_the_record_is_kept_and_shown(run, tmp_path):
    assert store.load(store.save(run, tmp_path)) == run
    out = io.StringIO()
    Console(file=out, width=160, no_color=True).print(render_run(run))
    assert "not checked" in out.getvalue()


def test_a_synchronising_callable_is_measured_without_a_graph():
    x = torch.ones(64, device="cuda")

    def waits():
        with moeprof.stage("total"):
            return float(x.sum())

    run = profile(waits, iterations=5, trials=1, device="cuda")
    unavailable = {p.name: p.unavailable for p in run.passes if p.unavailable}
    assert set(unavailable) == {"blocked", "graph"}
    assert "stage total waits for the GPU" in unavailable["blocked"]
    assert explain(run).stage("total").busy_ns > 0


def test_what_a_call_writes_into_its_callers_tensor_is_left_there():
    kept = torch.zeros(1024, device="cuda")

    def adds():
        with moeprof.stage("add"):
            return kept.add_(1.0)

    run = profile(adds, iterations=5, trials=1, device="cuda", passes=["bare", "graph"])
    assert bool(kept.isfinite().all())  # no poison in what is not the call's own
    assert any("to check the replay by" in warning for warning in run.warnings)


def test_kernels_that_autograd_launches_from_its_own_thread_belong_to_the_stage_that_waits():
    weight = torch.randn(512, 512, device="cuda", requires_grad=True)
    x = torch.randn(64, 512, device="cuda")

    def step():
        with moeprof.stage("forward"):
            loss = (x @ weight).square().mean()
        with moeprof.stage("backward"):
            return torch.autograd.grad(loss, [weight])

    run = profile(step, iterations=5, trials=1, device="cuda", passes=["bare", "kernels", "api"])
    assert any("launched by other threads" in warning for warning in run.warnings)
    assert all(book.residual_ns == 0 and not book.unattributed_operations for book in books(run))
    rows = {row.name: row for row in explain(run).stages}
    assert rows["forward"].busy_ns > 0
    assert rows["backward"].busy_ns > 0
