"""The work ledger: exact small numbers, fusion, the factors, and the seeds' amplification of 8."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.attribution import profile
from moeprof.errors import RecordError
from moeprof.ledger.ledger import Ceilings, factors, work_rows
from moeprof.ledger.necessary import Geometry, Work, necessary_work
from tests.builders import eager_script, make_run, stage_info

# T = 3 tokens, 16 experts of which 4 local, H = 256, I = 128; 5 local pairs on 2 experts
SMALL = Geometry(3, 16, 4, hidden=256, intermediate=128, pairs=5, active=2)
ROW = 256 + 4 * 2  # e4m3 row and its two scales
STEPS = [name for name, _ in eager_script()]

EXPECTED = {
    "routing": Work(None, 4 * 3 * 16 + 2 * 16 + 2 * (4 * 3 * 8), 0),
    "prepare_moe_input": Work(None, 4 * 3 * 8 + 4 * 5 + 2 * (4 * 5), 0),
    "shuffle_rows": Work(5, 5 * ROW * 2 + 4 * 5, 0),
    "gemm1": Work(
        5, 4 * 5 + 5 * ROW + 2 * (256 * 256 + 4 * 2 * 2) + 2 * 5 * 256, 2 * 5 * 256 * 256
    ),
    "swiglu_quant": Work(5, 5 * 256 * 2 + 5 * (128 + 4), 0),
    "gemm2": Work(
        5, 4 * 5 + 5 * 132 + 2 * (256 * 128 + 4 * 2 * 1) + 2 * 5 * 256, 2 * 5 * 256 * 128
    ),
    "gather": Work(None, 5 * 256 * 2 + 8 * 5 + 2 * 3 * 256, 2 * 5 * 256),
}


@pytest.mark.parametrize("step", STEPS)
def test_necessary_work_of_a_step(step: str) -> None:
    assert necessary_work([step], SMALL) == EXPECTED[step]


def test_a_fused_row_does_not_move_what_only_it_uses() -> None:
    fused = necessary_work(["gemm1", "swiglu_quant"], SMALL)
    apart = [necessary_work([step], SMALL) for step in ("gemm1", "swiglu_quant")]
    intermediate = 2 * 5 * 256  # gemm1_output, bf16
    assert fused.bytes == sum(work.bytes or 0 for work in apart) - 2 * intermediate
    assert fused.flops == apart[0].flops


def test_a_fused_row_still_writes_what_others_read() -> None:
    """The gather needs topk_weights, so routing fused with the sort must write them."""
    fused = necessary_work(["routing", "prepare_moe_input"], SMALL)
    ids = 4 * 3 * 8
    apart = sum((EXPECTED[s].bytes or 0) for s in ("routing", "prepare_moe_input"))
    assert fused.bytes == apart - 2 * ids


def test_the_whole_forward_reads_its_inputs_and_writes_its_output() -> None:
    routing, hidden = 4 * 3 * 16 + 2 * 16, 5 * ROW
    weights = 2 * (256 * 256 + 16) + 2 * (256 * 128 + 8)
    whole = necessary_work(STEPS, SMALL)
    assert whole.bytes == routing + hidden + weights + 2 * 3 * 256


def test_a_stage_of_no_step_needs_nothing() -> None:
    assert necessary_work([], SMALL) == Work(None, 0, 0)


def test_clamped_experts_show_as_an_amplification_of_eight() -> None:
    """T = 14107: all T * 8 pairs run where 14248 are local."""
    run = make_run(eager_script(3, 200_000), tokens=14107, pairs=14248)
    rows = {row.name: row for row in work_rows(run, profile(run))}
    assert rows["gemm1"].executed.rows == 112_856
    assert rows["gemm1"].row_amplification == pytest.approx(7.92, abs=0.005)
    assert rows["gemm1"].flops_amplification == pytest.approx(7.92, abs=0.005)
    assert rows["gather"].row_amplification is None
    # 401 MB in 600 us; 2 * 112856 * 4096 * 7168 FLOPs in 6 ms
    assert rows["shuffle_rows"].gigabytes_per_second == pytest.approx(401e6 / 600e3)
    assert rows["gemm1"].teraflops == pytest.approx(112_856 * 2 * 4096 * 7168 / 6e9)


def test_a_step_of_an_opaque_stage_has_its_rows_but_not_its_bytes() -> None:
    script = (("fused", [launch for _, members in eager_script(1) for launch in members]),)
    opaque = stage_info(
        "fused",
        covers=tuple(STEPS),
        kernel_rules=(("gemm", ("gemm1", "gemm2")),),
        rows_executed=9,
        rows_declared=True,
    )
    run = make_run(script, stages=[opaque])
    gemm1, gemm2, rest = work_rows(run, profile(run))
    assert (gemm1.executed.rows, gemm1.row_amplification, gemm1.rows_declared) == (9, 1.0, True)
    assert gemm1.executed.bytes is None and gemm1.executed.flops == gemm1.necessary.flops
    assert rest.covers == tuple(s for s in STEPS if not s.startswith("gemm"))
    assert rest.executed.bytes is None


def test_a_definition_without_the_axes_is_refused() -> None:
    run = make_run()
    foreign = replace(run, workload=replace(run.workload, constants={"num_experts": 8}))
    with pytest.raises(RecordError, match="has no num_local_experts, hidden_size"):
        work_rows(foreign, profile(foreign))


AMOUNT = st.integers(1, 10**13)


@given(st.floats(1, 1e9), AMOUNT, AMOUNT, AMOUNT, AMOUNT)
def test_the_factors_multiply_to_the_time(
    busy_ns: float, bytes_: int, flops: int, more_bytes: int, more_flops: int
) -> None:
    ceilings = Ceilings(4.2e12, 1.45e15)
    found = factors(busy_ns, Work(1, bytes_, flops), Work(1, more_bytes, more_flops), ceilings)
    assert found is not None
    assert found.busy_ns == pytest.approx(busy_ns, rel=1e-12)


def test_each_factor_has_its_own_meaning() -> None:
    """1 GB needed, 8 GB moved at 4 TB/s peak, 4 ms taken: 8x the work at half the bandwidth."""
    found = factors(4e6, Work(None, 10**9, 0), Work(None, 8 * 10**9, None), Ceilings(4e12, 1e15))
    assert found is not None
    assert found.floor_ns == pytest.approx(250_000)
    assert found.amplification == pytest.approx(8.0)
    assert found.efficiency == pytest.approx(0.5)


def test_no_factors_without_necessary_work() -> None:
    assert factors(10.0, Work(None, 0, 0), Work(1, 5, 5), Ceilings(1e12, 1e15)) is None
