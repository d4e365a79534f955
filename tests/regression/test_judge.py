"""Whole checks of hand-made processes: the verdict, the stage, the reason, the exit code."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from moeprof.errors import UsageError
from moeprof.records import ClockSample, Correctness, Run
from moeprof.regression.judge import Confirmation, judge
from moeprof.regression.values import Check, Noise, Quantity
from moeprof.storage.codec import decode, encode
from tests.builders import eager_script, make_cpu_run, make_run
from tests.regression.processes import QUICK, processes

STAGES = [name for name, _ in eager_script()]
AT_ONCE = replace(QUICK, confirm=False)
BASELINE = processes(12, seed=1)


def checked(first: list[Run], again: list[Run] | None = None, **options) -> Check:
    confirmation = Confirmation(again) if again else None
    return judge(BASELINE, first, options.pop("policy", QUICK), confirmation, **options)


def told(check: Check) -> dict[str, str]:
    """Verdicts of the stages that are not the same."""
    return {
        str(finding.quantity): finding.verdict
        for finding in check.findings
        if finding.quantity.stage and finding.verdict != "SAME"
    }


def test_nothing_changed():
    check = checked(processes(6, seed=2))
    assert (check.verdict, check.exit_code) == ("SAME", 0) and not check.awaiting
    assert told(check) == {} and not check.causes and check.comparable
    gemm = check.finding("gemm1", "busy")
    assert gemm.source == "kernels" and gemm.processes == (12, 6)
    assert gemm.reason == "the same within 2.0 %" and gemm.ratio_low < 1.0 < gemm.ratio_high
    assert gemm.p_same < 0.05 and gemm.cleared and gemm.slowest < 1.05
    assert check.stages == tuple(STAGES)
    assert [str(f.quantity) for f in check.findings[:3]] == ["span", "wall", "orchestration"]


def test_a_slower_kernel_is_suspected_then_confirmed():
    first, again = (processes(6, seed=s, busy={"gemm1": 1.06}) for s in (2, 3))
    one = checked(first)
    assert (one.verdict, one.exit_code) == ("INCONCLUSIVE", 3)
    assert Quantity("gemm1", "busy") in one.awaiting
    suspected = one.finding("gemm1", "busy")
    assert suspected.verdict == "INCONCLUSIVE" and suspected.confirmation == "awaited"
    assert suspected.reason.startswith("suspected: slower by 6.")
    check = checked(first, again)
    assert (check.verdict, check.exit_code) == ("REGRESSED", 1)
    assert told(check) == {"gemm1 busy": "REGRESSED"} and check.regressed_stages == ("gemm1",)
    finding = check.decisive("gemm1")
    assert finding.confirmation == "confirmed" and finding.severe and finding.processes == (12, 12)
    assert finding.ratio == pytest.approx(1.06, abs=0.01)
    assert finding.ratio_low < 1.06 < finding.ratio_high
    assert finding.shift_us == pytest.approx(3.6, abs=0.5)
    assert finding.p_holm < 0.005 and finding.p_rank < 0.001 and finding.p_holm >= finding.p_value
    assert "a second round of fresh processes shows it by itself" in finding.reason
    assert [cause.kind for cause in check.causes_of("gemm1")][0] == "busy"


def test_python_in_routing_is_seen_there_and_in_the_span():
    first, again = (processes(6, seed=s, host_ns={"routing": 20_000}) for s in (2, 3))
    check = checked(first, again)
    assert check.regressed_stages == ("routing",) and check.exit_code == 1
    host = check.finding("routing", "host")
    assert host.shift_us == pytest.approx(20.0, abs=1.5) and host.clock in ("none", "host pace")
    assert check.finding("routing", "busy").verdict == "SAME"
    assert check.finding("", "span").verdict == "REGRESSED"
    said = [cause.sentence for cause in check.causes]
    assert any(re.fullmatch(r"the host spends (19|20)\.\d us longer in it", s) for s in said)
    assert any("until the first operation starts" in s for s in said)


def test_a_faster_kernel_improves_and_exits_0():
    first, again = (processes(6, seed=s, busy={"gemm1": 0.9}) for s in (2, 3))
    check = checked(first, again)
    assert told(check) == {"gemm1 busy": "IMPROVED"}
    assert (check.verdict, check.exit_code) == ("IMPROVED", 0) and not check.alerts


def test_a_second_round_without_the_change_refutes():
    check = checked(processes(6, seed=2, busy={"gemm2": 1.05}), processes(6, seed=3))
    finding = check.finding("gemm2", "busy")
    assert finding.verdict == "INCONCLUSIVE" and finding.confirmation == "refuted"
    assert "the first round suspected a change" in finding.reason and not check.alerts


def test_a_policy_without_confirmation_alerts_at_once():
    check = checked(processes(6, seed=2, busy={"gemm1": 1.06}), policy=AT_ONCE)
    assert check.regressed_stages == ("gemm1",) and not check.awaiting
    assert check.finding("gemm1", "busy").confirmation == "not needed"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_processes_are_inconclusive_however_large_the_change(count):
    check = checked(processes(count, seed=2, busy={"gemm1": 2.0}))
    assert (check.verdict, check.exit_code) == ("INCONCLUSIVE", 3) and not check.awaiting
    finding = check.finding("gemm1", "busy")
    assert finding.reason == (
        f"12 and {count} processes are too few to tell a change from luck; 6 a side and round are "
        "needed"
    )
    assert finding.ratio == pytest.approx(2.0, abs=0.05) and not finding.cleared


def test_a_lower_clock_of_the_candidate_is_named_and_is_no_regression():
    slow = {stage: 1.05 for stage in STAGES}
    candidate = processes(6, seed=2, busy=slow, mhz=1886)
    check = judge(processes(12, seed=1, mhz=1980), candidate, AT_ONCE)
    finding = check.finding("gemm1", "busy")
    assert finding.verdict == "INCONCLUSIVE" and check.comparable and not check.regressed_stages
    assert "per SM clock" in finding.reason and "which explains it" in finding.reason
    assert finding.ratio == pytest.approx(1.05, abs=0.01)
    assert finding.ratio_per_clock == pytest.approx(1.0, abs=0.01)


def test_a_slow_host_is_the_hosts_and_not_every_stages():
    """Every stage's host time stretches by half: no stage is to blame."""
    candidate = [
        make_run(script_of_a_slow_host(1.5), created=f"2026-02-01T02:0{i}:00+00:00")
        for i in range(6)
    ]
    in_turn = judge(BASELINE[:6], candidate, AT_ONCE, interleaved=True)
    assert in_turn.regressed_stages == () and in_turn.exit_code == 1
    assert in_turn.finding("", "span").verdict == "REGRESSED"
    reason = in_turn.finding("gemm1", "host").reason
    assert "the host as a whole was 4" in reason or "the host as a whole was 5" in reason
    stored = checked(candidate, policy=AT_ONCE)
    assert stored.exit_code == 3 and not stored.alerts
    span = stored.finding("", "span")
    assert span.verdict == "INCONCLUSIVE" and "measure both sides in turn" in span.reason


def script_of_a_slow_host(factor: float):
    def slow(launch):
        before_ns, call_ns = (round(ns * factor) for ns in (launch.before_ns, launch.call_ns))
        return replace(launch, before_ns=before_ns, call_ns=call_ns)

    return tuple((stage, tuple(map(slow, launches))) for stage, launches in eager_script())


def test_a_wrong_result_is_a_regression_whatever_the_times():
    wrong = make_run(passes=())
    problem = "0.3 of the elements match"
    wrong = replace(
        wrong,
        correctness=Correctness(False, 0.3, 0.9, 0.1, 9.0, problem=problem),
        timelines=(),
    )
    check = checked([wrong])
    assert (check.verdict, check.exit_code) == ("REGRESSED", 1)
    assert check.wrong_result == problem and not check.findings
    against = judge([wrong, *BASELINE], processes(6, seed=2), QUICK)
    assert against.exit_code == 2 and "the result of the baseline is wrong" in against.against[0]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda r: replace(r, routing=replace(r.routing, histogram_hash="cd" * 32)), "routing"),
        (lambda r: replace(r, workload=replace(r.workload, seq_len=8)), "number of tokens"),
        (lambda r: replace(r, environment=replace(r.environment, device="NVIDIA B200")), "device"),
        (lambda r: replace(r, environment=replace(r.environment, driver="590.1")), "driver"),
        (lambda r: replace(r, settings=replace(r.settings, l2="warm")), "L2 setting"),
        (
            lambda r: replace(r, environment=replace(r.environment, device_kind="cpu")),
            "timer",
        ),
    ],
)
def test_what_cannot_be_compared_is_said_and_exits_2(change, name):
    *alike, last = processes(6, seed=2)
    check = checked([*alike, change(last)])
    assert not check.comparable and check.exit_code == 2 and check.verdict == "INCONCLUSIVE"
    assert name in check.against[0] and not check.findings


def test_runs_of_two_sources_are_no_side():
    mixed = processes(6, seed=2)
    mixed[3] = replace(mixed[3], solution=replace(mixed[3].solution, source_hash="aa" * 32))
    check = checked(mixed)
    assert check.exit_code == 2
    assert "the runs of the candidate are of 2 different sources" in check.against


def test_an_updated_library_is_shown_above_the_verdict():
    newer = [
        replace(run, environment=replace(run.environment, versions={"torch": "2.12.0"}))
        for run in processes(6, seed=2)
    ]
    check = checked(newer)
    assert check.comparable and check.exit_code == 0
    assert any("torch version" in sentence for sentence in check.against)


def test_a_side_without_runs_is_a_usage_error():
    with pytest.raises(UsageError, match="the candidate has no runs"):
        judge(BASELINE, [], QUICK)
    with pytest.raises(UsageError, match="the baseline has no runs"):
        judge([], BASELINE, QUICK)


def test_a_stage_of_one_side_only_is_named_and_covered_by_the_span():
    fused = tuple(
        ("gemm1+swiglu_quant" if stage == "gemm1" else stage, launches)
        for stage, launches in eager_script()
        if stage != "swiglu_quant"
    )
    candidate = [make_run(fused) for _ in range(6)]
    check = checked(candidate)
    lost = check.finding("swiglu_quant", "busy")
    assert (
        lost.verdict == "INCONCLUSIVE" and lost.reason == "not compared: only the baseline has it"
    )
    new = check.finding("gemm1+swiglu_quant", "busy")
    assert new.reason == "not compared: only the candidate has it"
    assert lost.cleared == check.finding("", "span").cleared


def test_noise_that_is_known_raises_the_floor():
    first, again = (processes(6, seed=s, busy={"gemm1": 1.04}) for s in (2, 3))
    assert checked(first, again).regressed_stages == ("gemm1",)
    known = (Noise(Quantity("gemm1", "busy"), 0.04, None, 12, 0.1),)
    check = checked(first, again, noise=known)
    assert not check.regressed_stages
    assert check.finding("gemm1", "busy").relative_floor == pytest.approx(3 * 0.04 * (1 / 6) ** 0.5)


def test_both_sides_in_turn_are_measured_again_together():
    base, cand = ([processes(6, seed=s, busy=b) for s in pair] for pair, b in (
        ((5, 7), None), ((6, 8), {"gemm2": 1.05}),
    ))  # fmt: skip
    check = judge(base[0], cand[0], QUICK, Confirmation(cand[1], base[1]), interleaved=True)
    assert check.regressed_stages == ("gemm2",) and check.interleaved
    assert check.finding("gemm2", "busy").processes == (12, 12)
    assert check.baseline.processes == check.candidate.processes == 12


def test_a_cpu_is_judged_by_its_stage_clock():
    base = [make_cpu_run(created=f"2026-02-01T00:00:{i:02d}+00:00") for i in range(12)]

    def slower(run: Run) -> Run:
        stages = tuple(
            replace(
                result,
                samples=tuple(
                    replace(s, stage_us=(*s.stage_us[:3], s.stage_us[3] * 1.2, *s.stage_us[4:]))
                    for s in result.samples
                ),
            )
            if result.name == "stages"
            else result
            for result in run.passes
        )
        return replace(run, passes=stages)

    check = judge(base, [slower(run) for run in base[:6]], AT_ONCE)
    assert check.regressed_stages == ("gemm1",)
    assert check.finding("gemm1", "busy").source == "stages"
    assert {str(f.quantity) for f in check.findings} == {"span", *(f"{s} busy" for s in STAGES)}
    assert judge(base, base[:6], QUICK).exit_code == 0


def test_a_check_passes_through_json_unchanged():
    check = checked(*(processes(6, seed=s, busy={"gemm1": 1.06}) for s in (2, 3)))
    assert decode(Check, json.loads(json.dumps(encode(check)))) == check
    few = checked(processes(1, seed=2))
    assert decode(Check, json.loads(json.dumps(encode(few)))) == few


def test_the_same_runs_give_the_same_check():
    assert checked(processes(6, seed=2)) == checked(processes(6, seed=2))


def test_a_held_clock_of_one_process_does_not_forbid_the_check():
    candidate = processes(6, seed=2)
    held = (ClockSample("bare", 1500, 3201, 300.0, 40, ("hw_thermal_slowdown",)),)
    check = checked([replace(candidate[0], clocks=held), *candidate[1:]])
    assert check.comparable


def test_a_baseline_of_another_day_is_a_caution_unless_its_sessions_are_known():
    later = [
        replace(run, created=run.created.replace("02-01", "02-04")) for run in processes(6, seed=2)
    ]
    check = checked(later)
    assert check.comparable and check.exit_code == 0
    assert check.against[0].startswith("the baseline was measured 3 days before")
    known = (Noise(Quantity("gemm1", "busy"), 0.005, 0.004, 12, 0.02),)
    assert not checked(later, noise=known).against
    assert not checked(later, interleaved=True).against
    assert not checked(processes(6, seed=2)).against


def test_what_is_open_says_how_much_is_left_and_what_would_settle_it():
    noisy = judge(processes(12, seed=4, host_sd=0.15), processes(6, seed=5, host_sd=0.15), AT_ONCE)
    span = noisy.finding("", "span")
    assert span.verdict == "INCONCLUSIVE" and span.cleared and noisy.exit_code == 0
    assert re.fullmatch(
        r"no change shown, but neither the same within 2\.0 %; "
        r"up to \d+\.\d % slower is not excluded, "
        r"\d\.\d % if the host is not slower everywhere \((too noisy|about \d+ processes .*)\)",
        span.reason,
    )
    near = judge(
        processes(12, seed=4, kernel_sd=0.002),
        processes(6, seed=5, kernel_sd=0.002, busy={"gemm1": 0.982}),
        AT_ONCE,
    ).finding("gemm1", "busy")
    assert near.verdict == "INCONCLUSIVE" and "a slowdown is excluded" in near.reason
    assert re.search(r"a change of -1\.\d % is too near the floor", near.reason)
