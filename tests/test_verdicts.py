"""Predictions from known profiles, the judge, and which bars of a waterfall are proven by what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.reconstruct import reconstruct
from moeprof.compare.compare import compare, explain_pair
from moeprof.compare.comparison import Cause
from moeprof.interventions.interventions import Intervention, Kind, with_options
from moeprof.interventions.predictions import Evidence, Prediction, needed_shares, predict_change
from moeprof.interventions.verdicts import (
    Measurement,
    Outcome,
    Verdict,
    bar_verdicts,
    judge,
    tolerance_us,
)
from moeprof.ledger.ceilings import ASSUMED_CEILINGS
from moeprof.records import Run
from moeprof.solutions.catalog import load_solution
from tests.builders import eager_script, make_cpu_run, make_run, stage_info
from tests.comparisons import PAIRS, PIPELINE, ROWS, TOKENS, fused, named, pipeline


def evidence(first: Run, second: Run, host_us: dict[str, dict[str, float]] | None = None):
    before, after = explain_pair(first, second)
    return Evidence(
        before,
        after,
        {side.label: reconstruct(side.run) for side in (before, after)},
        ASSUMED_CEILINGS,
        host_us or {},
    )


def local_only() -> Intervention:
    """On triton_v2, whose stages have the names of ``pipeline``'s."""
    base = load_solution("triton_v2", "cpu").solution
    stages = ("routing", "prepare_moe_input", "swiglu_quant")
    variant = with_options(base, stages, local_only=True)
    return Intervention(Kind.LOCAL_ONLY, "triton_v2", "local pairs only", "x", stages, variant)


def intervention(kind: Kind, *stages: str, solution: str = "triton_v2", name: str = "one"):
    return Intervention(kind, solution, name, "x", stages)


# ---------------------------------------------------------------- predictions


def test_dropping_rows_is_predicted_from_the_work_that_bounds_each_row():
    """An H200 took 13.3 ms for this pipeline; local pairs only, 4.1 ms were seen with sgl's ops."""
    found = evidence(pipeline(), fused())
    shares = needed_shares(local_only(), found.before, ASSUMED_CEILINGS)
    assert set(shares) == {"shuffle_rows", "gemm1", "swiglu_quant", "gemm2", "gather"}
    assert shares["gemm1"] == shares["gemm2"] == pytest.approx(PAIRS / ROWS)  # FLOPs
    assert shares["gather"] == pytest.approx((PAIRS + TOKENS) * 14336 / 1821e6, rel=0.01)  # bytes
    predicted = predict_change(local_only(), found)
    expected = sum(PIPELINE[row][0] * (share - 1.0) for row, share in shares.items())
    assert predicted.change_us == pytest.approx(expected, rel=0.01)
    assert -10_000 < expected < -9_000
    assert "gemm1 x 0.12" in predicted.how and "replayed" in predicted.how


def test_rows_that_a_variant_still_copies_are_not_expected_to_shrink():
    """sgl's shuffle and sum have no bound on the device."""
    base = load_solution("sglang_v2", "cpu").solution
    stages = ("routing", "prepare_moe_input", "gather")
    variant = with_options(base, stages, local_only=True)
    one = Intervention(Kind.LOCAL_ONLY, "triton_v2", "x", "x", stages, variant)
    found = evidence(pipeline(), fused())
    assert set(needed_shares(one, found.before, ASSUMED_CEILINGS)) == {"gemm1", "gemm2"}


def test_a_graph_is_predicted_to_save_what_the_timeline_idles():
    """The hand-made graph pass takes its kernels alone, 1.5 us more, and no gaps between nodes."""
    run = named(make_run(eager_script()), "triton_v2")
    found = evidence(run, fused(7, 9))
    predicted = predict_change(intervention(Kind.GRAPH), found)
    assert predicted.change_us is not None
    bare = sorted(s.span_us for s in run.samples("bare"))[30]
    measured = run.samples("graph")[0].span_us - bare
    assert predicted.change_us == pytest.approx(measured, rel=0.05)
    assert "orchestration" in predicted.how


def test_a_swap_is_predicted_by_busy_time_and_gaps_of_that_stage():
    slow, fast = pipeline(), named(pipeline(scale=0.5), "fast")
    predicted = predict_change(intervention(Kind.SWAP, "gemm1"), evidence(slow, fast))
    assert predicted.change_us == pytest.approx(-0.5 * PIPELINE["gemm1"][0], rel=0.01)


def test_host_code_counts_as_far_as_the_gpu_waits_for_it():
    saving = {"one": {"gemm1": -8.0}}
    host_bound = named(make_run(eager_script(3, 100)), "triton_v2")
    predicted = predict_change(
        intervention(Kind.VIEWS, "gemm1"), evidence(host_bound, fused(7, 9), saving)
    )
    assert predicted.change_us == pytest.approx(-8.0, abs=0.5)
    predicted = predict_change(
        intervention(Kind.VIEWS, "gemm1"), evidence(pipeline(), fused(), saving)
    )
    assert predicted.change_us == pytest.approx(0.0, abs=0.5)
    assert "-8.0 us" in predicted.how


def test_what_cannot_be_predicted_says_why():
    run = named(make_cpu_run(), "triton_v2")
    found = evidence(run, named(make_cpu_run(), "other"))
    for kind in (Kind.GRAPH, Kind.BUFFERS, Kind.FIRST_CALL):
        predicted = predict_change(intervention(kind), found)
        assert predicted.change_us is None and predicted.how


# ---------------------------------------------------------------- the judge


@pytest.mark.parametrize(
    ("predicted", "measured", "noise", "verdict"),
    [
        (-9_700.0, -9_400.0, 20.0, Verdict.PROVEN),  # 3 % off
        (-9_700.0, -8_600.0, 20.0, Verdict.UNPROVEN),  # 11 % off
        (-20.0, -17.1, 1.0, Verdict.PROVEN),  # within 3 us
        (-20.0, -16.9, 1.0, Verdict.UNPROVEN),
        (-5.0, +5.0, 1.0, Verdict.UNPROVEN),
        (0.5, -1.0, 2.0, Verdict.NO_EFFECT),
        (-40.0, -1.0, 2.0, Verdict.UNPROVEN),  # nothing seen of what was predicted
        (0.0, -40.0, 2.0, Verdict.UNPROVEN),
        (1.0, -1.0, 0.1, Verdict.PROVEN),
    ],
)
def test_the_judge(predicted, measured, noise, verdict):
    outcome = judge(
        intervention(Kind.SWAP, "gemm1"),
        Prediction(predicted, "x"),
        Measurement(measured, noise, 100.0),
        "cuda",
    )
    assert outcome.verdict == verdict
    assert bool(outcome.why) == (verdict == Verdict.UNPROVEN)


def test_a_miss_that_noise_would_cover_says_so():
    outcome = judge(
        intervention(Kind.VIEWS), Prediction(-10.0, "x"), Measurement(-2.0, 6.0, 1e3), "cuda"
    )
    assert outcome.verdict == Verdict.UNPROVEN
    assert outcome.why == "the prediction misses by 8.0 us, which the noise would cover"


@given(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5))
def test_the_tolerance_is_three_microseconds_or_a_tenth_of_the_larger(predicted, measured):
    found = tolerance_us(predicted, measured)
    assert found == max(3.0, 0.1 * abs(predicted), 0.1 * abs(measured))
    assert found == tolerance_us(measured, predicted)


def test_what_is_not_judged():
    measured, predicted = Measurement(-5.0, 1.0, 9.0), Prediction(-5.0, "x")
    one = intervention(Kind.BUFFERS)
    assert judge(one, predicted, measured, "cpu").verdict == Verdict.NOT_JUDGED
    first = intervention(Kind.FIRST_CALL)
    assert judge(first, Prediction(None, "x"), measured, "cuda").verdict == Verdict.REPORTED
    failed = judge(one, predicted, Measurement(problem="wrong"), "cuda")
    assert (failed.verdict, failed.why) == (Verdict.FAILED, "wrong")
    impossible = judge(replace(one, impossible="no"), None, Measurement(), "cuda")
    assert (impossible.verdict, impossible.why) == (Verdict.IMPOSSIBLE, "no")
    nothing = judge(one, Prediction(None, "no timeline"), measured, "cuda")
    assert (nothing.verdict, nothing.why) == (Verdict.UNPROVEN, "no timeline")


# ---------------------------------------------------------------- bars


def verdicts(first: Run, second: Run, *outcomes: tuple[Intervention, Verdict]):
    """Verdict of each bar by (part, cause)."""
    comparison = compare(*explain_pair(first, second))
    made = [
        Outcome(one, Prediction(-1.0, "x"), Measurement(-1.0, 0.1, 9.0), verdict)
        for one, verdict in outcomes
    ]
    found = bar_verdicts(comparison, made)
    assert [one.bar for one in found] == list(comparison.bars)
    return {(one.bar.part, one.bar.cause): one.verdict for one in found}


def test_bars_are_proven_by_what_addresses_them_and_nothing_else():
    local = local_only()  # its options are not the GEMMs', but the rows they get are
    graphs = [intervention(Kind.GRAPH, solution=s) for s in ("triton_v2", "flashinfer_moe")]
    found = verdicts(
        pipeline(),
        fused(),
        (local, Verdict.PROVEN),
        (graphs[0], Verdict.PROVEN),
        (graphs[1], Verdict.UNPROVEN),
        (intervention(Kind.SWAP, "routing"), Verdict.PROVEN),
    )
    assert not {"gemm1", "gemm2", "gather"} & set(local.stages)
    for step in ("shuffle_rows", "gemm1", "gemm2", "gather"):
        assert found[step, Cause.AMPLIFICATION] == Verdict.PROVEN
    assert found["gemm1", Cause.EFFICIENCY] == Verdict.NOT_TESTED
    assert found["routing", Cause.EFFICIENCY] == Verdict.PROVEN
    assert found["dequantise", Cause.ONE_SIDED] == Verdict.NOT_TESTED
    host = {v for (_, cause), v in found.items() if cause in (Cause.ORCHESTRATION,)}
    assert host <= {Verdict.UNPROVEN}  # one of the two graphs missed


def test_of_two_solutions_that_run_as_many_rows_dropping_them_tells_nothing():
    local = replace(local_only(), stages=tuple(PIPELINE))
    slow = pipeline()
    fast = named(pipeline(scale=0.9), "fast")
    found = verdicts(slow, fast, (local, Verdict.PROVEN))
    assert set(found.values()) == {Verdict.SAME_STAGE}


def test_a_bar_between_two_runs_of_the_same_stage_is_marked_so():
    stages = [stage_info(name, rows_executed=56) for name, _ in eager_script()]
    other = [replace(s, backend="triton") if s.name == "gather" else s for s in stages]
    first = named(make_run(eager_script(3, 200_000), stages=stages), "first")
    second = named(make_run(eager_script(3, 100_000), stages=other), "second")
    swap = intervention(Kind.SWAP, "gather", solution="first")
    found = verdicts(first, second, (swap, Verdict.UNPROVEN))
    assert found["gather", Cause.EFFICIENCY] == Verdict.UNPROVEN
    assert found["gemm1", Cause.EFFICIENCY] == Verdict.SAME_STAGE
