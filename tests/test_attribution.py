"""Run -> Profile: the source chosen, closed means, trust, and every doubt named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from moeprof.analysis.attribution import middle, profile
from moeprof.analysis.checks import findings
from moeprof.analysis.profiles import UNATTRIBUTED, Reading
from moeprof.analysis.trust import judge
from moeprof.errors import RecordError
from moeprof.records import ClockSample, PassResult, Run, Sample
from moeprof.timelines import Iteration, TimelinePass
from tests.builders import eager_script, make_cpu_run, make_run, play, stage_info


def test_the_undisturbed_forward_is_what_is_shown() -> None:
    found = profile(make_run())
    assert found.source == "reconstructed" and not found.host_upper_bounds
    assert found.iterations == 24  # 30 stamped, a tenth off each end
    assert found.busy_ns == 150_000  # 15 kernels of 2 us, 6 of 20 us
    assert found.findings == ()
    hidden = [play(eager_script(), seed=i) for i in range(60) if i % 2]
    spans = sorted(one.spans[-1][1] - one.spans[0][0] for one in hidden)
    assert found.span_ns == pytest.approx(sum(spans[3:-3]) / 24, rel=0.005)


@pytest.mark.parametrize("duration_ns", [500, 2_000, 40_000, 200_000])
def test_the_means_close(duration_ns: int) -> None:
    found = profile(make_run(eager_script(3, duration_ns)))
    assert abs(found.residual_ns) < 1e-6
    assert found.wall_ns == pytest.approx(found.prologue_ns + found.span_ns + found.epilogue_ns)
    assert found.perturbation is not None and found.perturbation >= 0.99


def test_a_host_bound_run_is_perturbed_and_a_gpu_bound_one_is_not() -> None:
    host, gpu = profile(make_run()), profile(make_run(eager_script(3, 200_000)))
    assert host.perturbation == pytest.approx(1.26, abs=0.03)
    assert gpu.perturbation == pytest.approx(1.0, abs=0.002)


def test_a_missed_reconstruction_falls_back_to_the_api_pass_and_says_so() -> None:
    slower = make_run(eager_script(3, 260_000)).timelines
    found = profile(make_run(eager_script(3, 200_000), timelines=slower))
    assert found.source == "api" and found.host_upper_bounds
    assert "misses the bare one" in found.findings[0] and "upper bounds" in found.findings[0]
    assert found.busy_ns == 15 * 260_000 + 6 * 2_600_000


def test_event_pairs_are_the_last_resort_on_a_gpu() -> None:
    samples = tuple(Sample(200.0, 230.0, stage_us=(20.0,) * 7) for _ in range(20))
    run = make_run(passes=("bare",))
    found = profile(replace(run, passes=(*run.passes, PassResult("events", samples))))
    assert found.source == "events"
    assert (found.span_ns, found.wall_ns, found.epilogue_ns) == (140_000, 230_000, 90_000)
    assert "floor of an empty pair" in found.findings[0]


def test_the_cpu_has_a_stage_clock() -> None:
    found = profile(make_cpu_run())
    assert found.source == "stage clock" and found.findings == ()
    assert [stage.busy_ns for stage in found.stages] == [10_000.0 * i for i in range(1, 8)]
    assert (found.span_ns, found.epilogue_ns) == (280_000, 10_000)


def test_a_record_without_stage_times_is_refused() -> None:
    with pytest.raises(RecordError, match="holds no stage times"):
        profile(make_run(passes=("first", "bare")))


def test_the_middle_drops_a_tenth_at_each_end() -> None:
    assert middle([9, 1, 5, 3, 7, 2, 8, 4, 6, 0], key=float) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert middle([3, 1, 2], key=float) == [1, 2, 3]


def test_rules_split_an_opaque_stage_into_steps() -> None:
    script = (("fused", [launch for _, members in eager_script(1) for launch in members]),)
    opaque = stage_info(
        "fused", kernel_rules=(("gemm", ("gemm1", "gemm2")),), covers=("gemm1", "gemm2")
    )
    found = profile(make_run(script, stages=[opaque]))
    assert [stage.name for stage in found.stages] == ["gemm1", "gemm2", "fused"]
    assert [stage.operations for stage in found.stages] == [1, 1, 5]
    assert [stage.busy_ns for stage in found.stages] == [20_000, 20_000, 10_000]


# -- trust ------------------------------------------------------------------------------------


def test_three_readings_agree_on_an_undisturbed_run() -> None:
    trust = profile(make_run()).trust
    assert trust.verdict == "agree"
    assert [reading.name for reading in trust.readings] == [
        "timeline",
        "bare - blocked",
        "bare - graph",
    ]
    values = [reading.value_us for reading in trust.readings]
    assert values == pytest.approx([54.2, 54.1, 52.6], abs=0.2)


def test_readings_that_differ_are_called_so() -> None:
    run = make_run()
    blocked = tuple(replace(s, span_us=s.span_us - 40) for s in run.samples("blocked"))
    passes = tuple(PassResult("blocked", blocked) if p.name == "blocked" else p for p in run.passes)
    trust = profile(replace(run, passes=passes)).trust
    assert trust.verdict == "differ" and trust.spread_us > 40


@pytest.mark.parametrize(
    ("values", "noise", "verdict"),
    [
        ((10.0, 12.9), 0.0, "agree"),  # 3 us
        ((10.0, 13.1), 0.0, "differ"),
        ((100.0, 104.9), 0.0, "agree"),  # 5 %
        ((100.0, 107.0), 0.0, "differ"),
        ((100.0, 107.0), 3.0, "within noise"),
        ((100.0, None), 0.0, "not measured"),
    ],
)
def test_verdicts(values: tuple[float | None, ...], noise: float, verdict: str) -> None:
    assert judge([Reading("r", value, noise) for value in values]).verdict == verdict


# -- what must fail loudly ----------------------------------------------------------------------


def change_api(run: Run, change: Callable[[Iteration], Iteration], count: int = 1) -> Run:
    """``run`` with the first ``count`` iterations of its api pass changed."""
    kernels, api = run.timelines
    changed = [change(i) if n < count else i for n, i in enumerate(api.iterations)]
    return replace(run, timelines=(kernels, replace(api, iterations=tuple(changed))))


def lost_time(iteration: Iteration) -> Iteration:
    return replace(
        iteration, start_ns=(0, *iteration.start_ns[1:]), end_ns=(0, *iteration.end_ns[1:])
    )


def before_launch(iteration: Iteration) -> Iteration:
    begins = (iteration.start_ns[0] + 5, *iteration.launch_begin_ns[1:])
    ends = (iteration.start_ns[0] + 9, *iteration.launch_end_ns[1:])
    return replace(iteration, launch_begin_ns=begins, launch_end_ns=ends)


def backwards(iteration: Iteration) -> Iteration:
    return replace(iteration, end_ns=(iteration.start_ns[0] - 1, *iteration.end_ns[1:]))


def dropped(iteration: Iteration) -> Iteration:
    return replace(iteration, dropped=3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lost_time, "api: 1 operation(s) without a time (start = end = 0) in 1 of 20 iterations"),
        (before_launch, "api: 1 operation(s) that start before their launch call in 1 of 20"),
        (backwards, "api: 1 operation(s) that end before they start in 1 of 20 iterations"),
        (dropped, "api: CUPTI dropped 3 record(s), so times are missing"),
    ],
)
def test_damage_is_named(change: Callable[[Iteration], Iteration], sentence: str) -> None:
    run = change_api(make_run(), change)
    assert any(found.startswith(sentence) for found in findings(run)), findings(run)
    assert abs(profile(run).residual_ns) < 1e-6


def test_a_differing_set_of_operations_is_named() -> None:
    run = make_run()
    kernels, api = run.timelines
    extra = replace(api.operation_sets[0][-1], name="void at::cub::scan<int>(int*)")
    one = api.iterations[0]
    longer = replace(
        one,
        operation_set=1,
        start_ns=(*one.start_ns, one.end_ns[-1] + 9),
        end_ns=(*one.end_ns, one.end_ns[-1] + 10),
        launch_begin_ns=(*one.launch_begin_ns, one.launch_begin_ns[-1]),
        launch_end_ns=(*one.launch_end_ns, one.launch_end_ns[-1]),
    )
    odd = TimelinePass(
        "api",
        (api.operation_sets[0], (*api.operation_sets[0], extra)),
        (longer, *api.iterations[1:]),
    )
    found = findings(replace(run, timelines=(kernels, odd)))
    assert found == (
        "api: 2 different sets of operations in 20 iterations (the usual one in 19); "
        "another has 1 more of at::cub::scan",
    )


def test_an_operation_outside_any_stage_has_a_row_and_a_sentence() -> None:
    run = make_run()
    kernels, api = run.timelines
    operations = api.operation_sets[0]
    stray = (*operations[:-1], replace(operations[-1], stage=""))
    run = replace(run, timelines=(kernels, replace(api, operation_sets=(stray,))))
    found = profile(run)
    row = found.stage(UNATTRIBUTED)
    assert row is not None and row.operations == 1 and row.busy_ns == 2_000
    assert found.findings == (
        "api: 20 operation(s) outside any stage in 20 of 20 iterations (gather_2): "
        "see the row 'unattributed'",
    )


def test_throttled_clocks_are_named() -> None:
    clocks = (
        ClockSample("bare", 1980, 3201, 300.0, 40, ("gpu_idle",)),
        ClockSample("api", 1500, 3201, 700.0, 80, ("sw_power_cap",)),
    )
    sentence = "clocks were throttled (sw_power_cap) during api"
    assert findings(make_run(clocks=clocks)) == (sentence,)
