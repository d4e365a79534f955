"""What a record's raw times are read as, and which of them two sides are compared by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moeprof.records import PassResult, Sample
from moeprof.regression.series import read_series
from moeprof.regression.tables import make_table, shifts_of
from moeprof.regression.values import Quantity
from tests.builders import Launch, eager_script, make_cpu_run, make_run, play
from tests.regression.processes import processes

STAGES = [name for name, _ in eager_script()]


def test_busy_is_the_durations_of_the_kernels_pass_by_the_stages_of_the_api_pass():
    series = read_series(make_run())
    busy = {stage: series.times_us[Quantity(stage, "busy"), "kernels"] for stage in STAGES}
    assert np.all(busy["routing"] == 3 * 2.0) and np.all(busy["gemm1"] == 3 * 20.0)
    assert series.rows == tuple(STAGES) and series.sm_mhz == 1980.0
    assert len(busy["gemm2"]) == 20


def test_a_kernel_that_two_stages_run_is_counted_in_each_by_its_order():
    script = (
        ("routing", (Launch("fill", 1_000), Launch("a", 5_000))),
        ("gemm1", (Launch("fill", 9_000), Launch("b", 7_000))),
    )
    series = read_series(make_run(script))
    assert np.all(series.times_us[Quantity("routing", "busy"), "kernels"] == 6.0)
    assert np.all(series.times_us[Quantity("gemm1", "busy"), "kernels"] == 16.0)


def test_kernels_that_do_not_match_the_api_pass_are_left_to_it():
    run = make_run()
    strange = make_run(eager_script(4)).timelines[0]
    series = read_series(replace(run, timelines=(strange, run.timelines[1])))
    assert (Quantity("gemm1", "busy"), "kernels") not in series.times_us
    assert np.all(series.times_us[Quantity("gemm1", "busy"), "api"] == 60.0)


def test_host_times_are_those_between_the_stamps():
    run = make_run()
    played = play(eager_script(), seed=1)  # the first stamped sample of the builder
    series = read_series(run)
    found = [series.times_us[Quantity(stage, "host"), "bare without waits"][0] for stage in STAGES]
    expected = np.diff(played.stamps)[: len(STAGES)] / 1e3
    assert np.allclose(found, expected, atol=0.002)


def test_a_wait_for_the_gpu_is_not_the_hosts_time():
    """A stage that waits for a slow kernel of the stage before."""

    def script(duration_ns: int):
        slow = Launch("slow", duration_ns)
        return (
            ("routing", (slow,)),
            ("prepare_moe_input", (Launch("read", 1_000, sync=True),)),
            *((name, (Launch(name, 1_000),)) for name in STAGES[2:]),
        )

    stage = Quantity("prepare_moe_input", "host")
    own, whole = (
        [
            np.median(read_series(make_run(script(slow))).times_us[stage, source])
            for slow in (100_000, 200_000)
        ]
        for source in ("bare without waits", "bare")
    )
    assert whole[1] - whole[0] == pytest.approx(100.0, abs=2.0)
    assert own[1] - own[0] == pytest.approx(0.0, abs=2.0) and own[0] < 0.3 * whole[0]


def test_span_and_wall_are_the_bare_passs_and_orchestration_the_reconstructions():
    run = make_run()
    series = read_series(run)
    bare = run.samples("bare")
    spans = series.times_us[Quantity("", "span"), "bare"]
    assert np.array_equal(spans, [sample.span_us for sample in bare])
    walls = series.times_us[Quantity("", "wall"), "bare"]
    assert np.array_equal(walls, [sample.wall_us for sample in bare])
    told = series.times_us[Quantity("", "orchestration"), "reconstructed"]
    idle = sum(series.parts_us[stage, "host_late", "reconstructed"] for stage in STAGES)
    calls = sum(series.parts_us[stage, "api", "reconstructed"] for stage in STAGES)
    assert np.allclose(told, idle + calls) and told.min() > 10.0


def test_an_imported_capture_has_only_its_timeline():
    run = make_run()
    imported = replace(run, passes=(), timelines=run.timelines[1:], clocks=())
    series = read_series(imported)
    assert {source for _, source in series.times_us} == {"api"}
    assert np.isnan(series.sm_mhz)
    api = run.timeline("api")
    assert np.array_equal(
        series.times_us[Quantity("", "span"), "api"], [i.span_ns / 1e3 for i in api.iterations]
    )


def test_a_cpu_has_a_stage_clock_and_one_span():
    series = read_series(make_cpu_run())
    assert {str(quantity) for quantity, _ in series.times_us} == {
        "span",
        *(f"{stage} busy" for stage in STAGES),
    }
    assert np.all(series.times_us[Quantity("gemm1", "busy"), "stages"] == 40.0)


def test_event_pairs_stand_in_where_there_is_no_cupti():
    samples = tuple(Sample(200.0, 210.0, stage_us=tuple(range(1, 8))) for _ in range(5))
    run = make_run(passes=("bare",))
    series = read_series(replace(run, passes=(*run.passes, PassResult("events", samples))))
    assert np.all(series.times_us[Quantity("gemm1", "busy"), "events"] == 4.0)


def test_a_record_without_passes_has_no_times():
    assert not read_series(make_run(passes=())).times_us


# ---------------------------------------------------------------- two sides


def series_of(runs):
    return [read_series(run) for run in runs]


def test_both_sides_are_compared_by_a_source_that_all_their_processes_have():
    whole = series_of(processes(2))
    without = make_run(passes=("bare", "api"))
    table = make_table([(whole, [*whole, read_series(without)])])
    used = dict(zip(map(str, table.quantities), table.sources, strict=True))
    assert used["gemm1 busy"] == "api" and used["span"] == "bare"
    assert used["gemm1 host"] == "bare without waits"
    assert [side.us.shape[-1] for side in table.rounds[0]] == [2, 3]
    usual = make_table([(whole, whole)])
    assert dict(zip(map(str, usual.quantities), usual.sources, strict=True))["gemm1 busy"] == (
        "kernels"
    )


def test_what_only_some_have_is_named():
    whole = series_of(processes(3))
    lost = read_series(make_run(passes=("bare",)))
    one_side = dict(make_table([(whole, [lost, lost])]).missing)
    assert one_side[Quantity("gemm1", "busy")] == "only the baseline has it"
    some = dict(make_table([(whole, [whole[0], lost])]).missing)
    assert some[Quantity("gemm1", "busy")] == "only 4 of 5 processes tell it"


def test_short_stages_are_trimmed_means_of_every_process():
    run = make_run(eager_script(1, 2_000))
    table = make_table([(series_of([run]), series_of([run]))])
    place = table.quantities.index(Quantity("routing", "busy"))
    assert table.rounds[0][1].us[place, 0] == pytest.approx(2.0)


def test_shifts_add_up_to_each_stages_part_of_the_span():
    slower = processes(3, seed=2, busy={"gemm1": 1.2})
    source, shifts = shifts_of([(series_of(processes(3)), series_of(slower))])
    assert source == "reconstructed"
    by = {(shift.stage, shift.component): shift for shift in shifts}
    assert by["gemm1", "busy"].shift_us == pytest.approx(12.0, abs=1.0)
    parts = ("busy", "host_late", "api", "launch_latency", "dependency")
    for stage in STAGES:
        total = sum(by[stage, part].baseline_us for part in parts)
        assert by[stage, "time"].baseline_us == pytest.approx(total, rel=0.02)
    assert by["", "prologue"].baseline_us > 5.0 and by["gemm1", "busy"].noise_us > 0.0
