"""What a change of durations or of host time does to a forward whose true timeline is known."""

from __future__ import annotations

import pytest

from moeprof.analysis.attribution import profile
from moeprof.analysis.reconstruct import reconstruct
from moeprof.compare.comparison import Explained
from moeprof.interventions.what_if import Change, how, span_change_us
from moeprof.records import Run
from tests.builders import eager_script, make_cpu_run, make_run


def asked(run: Run, change: Change) -> float:
    reconstruction = reconstruct(run)
    return span_change_us(Explained(run, profile(run), "x"), reconstruction, change)


def busy_us(run: Run, stage: str) -> float:
    found = profile(run).stage(stage)
    assert found is not None
    return found.busy_ns / 1e3


GPU_BOUND = eager_script(3, 200_000)  # GEMM kernels of 2 ms, others of 0.2 ms
HOST_BOUND = eager_script(3, 100)


def test_shorter_kernels_count_in_full_where_the_gpu_is_busy():
    run = make_run(GPU_BOUND)
    saved = asked(run, Change(durations={"gemm1": 0.25, "gather": 0.5}))
    expected = -0.75 * busy_us(run, "gemm1") - 0.5 * busy_us(run, "gather")
    assert expected == pytest.approx(-4_800, rel=0.02)
    assert saved == pytest.approx(expected, rel=0.01)


def test_shorter_kernels_behind_a_late_host_count_for_nothing():
    run = make_run(HOST_BOUND)
    assert busy_us(run, "gemm1") == pytest.approx(3.0, abs=0.1)
    assert asked(run, Change(durations={"gemm1": 0.1})) == pytest.approx(0.0, abs=0.5)


@pytest.mark.parametrize(("script", "share"), [(GPU_BOUND, 0.0), (HOST_BOUND, 1.0)])
def test_a_faster_host_counts_only_where_the_gpu_waits_for_it(script, share):
    saved = asked(make_run(script), Change(host_us={"gemm1": -6.0, "gather": -3.0}))
    assert saved == pytest.approx(-9.0 * share, abs=0.5)


def test_no_stage_takes_less_than_no_time():
    run = make_run(HOST_BOUND)
    stamps = run.samples("bare")[1].stamps_us
    gemm1_us = stamps[4] - stamps[3]
    assert asked(run, Change(host_us={"gemm1": -1e6})) == pytest.approx(-gemm1_us, rel=0.1)


def test_nothing_changed_changes_nothing():
    assert asked(make_run(GPU_BOUND), Change()) == 0.0


def test_without_a_reconstruction_the_changes_are_added_up():
    run = make_cpu_run()
    change = Change(durations={"gemm1": 0.5, "unknown": 0.1}, host_us={"gather": -2.0})
    assert asked(run, change) == pytest.approx(-0.5 * 40.0 - 2.0)
    assert how(reconstruct(run)) == "added up"
    assert how(reconstruct(make_run(GPU_BOUND))) == "replayed in the reconstructed timeline"
