"""Where the spans go: the identity of each account, the gaps to the fastest, the stages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moeprof.analysis.attribution import profile
from moeprof.bench import causes
from moeprof.bench.causes import explain
from moeprof.bench.cells import assemble
from moeprof.compare.comparison import Cause
from tests.bench.hand import explained, timed
from tests.builders import make_cpu_run
from tests.comparisons import named

NAMES = ["triton_v2", "flashinfer_moe"]
TOKENS = 14107


@pytest.fixture(scope="module")
def runs():
    return explained()


@pytest.fixture(scope="module")
def found(runs):
    return explain(assemble(runs, (), NAMES))


def account(found, name, row=1):
    return next(one for one in found[row].accounts if one.solution == name)


def test_an_account_adds_up_to_its_span(found):
    for one in (account for explanation in found for account in explanation.accounts):
        parts = one.gemm_us + one.other_us + one.stepless_us + one.gaps_us + one.host_us
        assert parts == pytest.approx(one.span_us, abs=1e-3)
        assert sum(us for _, us in one.busy) == pytest.approx(
            one.gemm_us + one.other_us + one.stepless_us
        )


def test_busy_time_by_what_it_is_for(runs, found):
    one, other = account(found, "triton_v2"), account(found, "flashinfer_moe")
    assert one.gemm_us == pytest.approx(6415.6 + 3699.1)
    assert one.other_us == pytest.approx(79 + 199 + 278 + 342.9 + 426.1)
    assert one.stepless_us == 0.0
    assert other.gemm_us == pytest.approx(850.9 + 482.5)
    assert other.stepless_us == pytest.approx(773.4)  # the cast that nobody asked for
    assert one.rows_factor == pytest.approx(TOKENS * 8 / 13982) and other.rows_factor == 1.0
    assert (one.launches, other.launches) == (7, 10)
    own = profile(next(r for r in runs if r.solution.name == "triton_v2"
                       and r.workload.seq_len == TOKENS))  # fmt: skip
    assert (one.source, one.span_us) == (own.source, pytest.approx(own.span_ns / 1e3))


def test_the_gap_to_the_fastest_is_the_sum_of_its_causes(found):
    explanation = found[1]
    assert explanation.fastest == "flashinfer_moe"
    fast, slow = account(found, "flashinfer_moe"), account(found, "triton_v2")
    assert (fast.gap_us, fast.causes) == (0.0, ())
    assert slow.gap_us == pytest.approx(slow.span_us - fast.span_us, abs=0.002)
    split = dict(slow.causes)
    assert sum(split.values()) == pytest.approx(slow.gap_us, abs=1e-6)
    assert split[Cause.AMPLIFICATION] > 0.8 * slow.gap_us
    assert split[Cause.ONE_SIDED] == pytest.approx(-773.4, abs=0.01)


def test_rows_stand_by_their_first_step_and_what_has_none_last(found):
    steps = "routing prepare_moe_input shuffle_rows gemm1 swiglu_quant gemm2 gather".split()
    assert found[1].rows == (*steps, "dequantise")
    assert found[1].first_steps == (*steps, "")


def test_waiting_for_another_stream_is_a_gap(runs):
    own = profile(runs[0])
    waits = replace(own.stages[0], dependency_ns=5_000.0)
    waiting = replace(own, stages=(waits, *own.stages[1:]), span_ns=own.span_ns + 5_000.0)
    before, after = (causes._account("a", runs[0], one, None, ()) for one in (own, waiting))
    assert after.gaps_us == pytest.approx(before.gaps_us + 5.0)
    assert after.host_us == before.host_us


def test_only_the_rows_asked_for_are_explained(runs):
    bench = assemble(runs, (), NAMES)
    (only,) = explain(bench, [1])
    assert only == explain(bench)[1]


def test_without_stage_times_a_solution_is_named(runs):
    plain = named(
        replace(runs[-1], passes=timed("plain", TOKENS, 5.0).passes, timelines=()), "plain"
    )
    bench = assemble([*runs, plain], (), [*NAMES, "plain"])
    (one,) = explain(bench, [1])
    assert [account.solution for account in one.accounts] == NAMES
    ((name, why),) = one.missing
    assert name == "plain" and "no stage times" in why


def test_a_clock_of_stages_sees_no_idle_time():
    runs = [named(make_cpu_run(), "a"), named(make_cpu_run(), "b")]
    (found,) = explain(assemble(runs, (), ["a", "b"]))
    for one in found.accounts:
        assert (one.source, one.gaps_us, one.host_us) == ("stage clock", None, None)
        assert one.span_us == pytest.approx(280.0)
        assert one.gemm_us == pytest.approx(40 + 60)
    assert found.fastest == "a" and found.accounts[1].gap_us == 0.0


def test_different_clocks_have_no_causes(runs):
    mixed = [r for r in runs if r.workload.seq_len == TOKENS]
    events = replace(mixed[0], timelines=(), passes=tuple(
        replace(p, name="events", samples=tuple(
            replace(s, stamps_us=(), stage_us=(10.0,) * 7) for s in p.samples))
        if p.name == "blocked" else p for p in mixed[0].passes))  # fmt: skip
    (found,) = explain(assemble([events, *mixed[1:]], (), NAMES))
    one = next(one for one in found.accounts if one.solution == "triton_v2")
    assert one.source == "events" and one.gap_us is None and one.causes == ()
