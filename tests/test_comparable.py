"""What stands against comparing two records: every reason by name, in three grades."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moeprof.compare.comparable import (
    Grade,
    Reason,
    reasons,
    record_problems,
    require_comparable,
    source_reasons,
    told,
)
from moeprof.errors import RecordError
from moeprof.records import ClockSample, Correctness, Run
from tests.builders import make_cpu_run
from tests.comparisons import fused, pipeline

LABELS = ("a", "b")


def changed(part: str, **changes: object) -> Run:
    """The fused record with some fields of one of its parts changed."""
    run = fused()
    return replace(run, **{part: replace(getattr(run, part), **changes)})


def between(second: Run, first: Run | None = None) -> list[tuple[Grade, str]]:
    return [(found.grade, found.name) for found in reasons(first or pipeline(), second, LABELS)]


def test_two_records_of_one_session_have_nothing_against_them():
    assert reasons(pipeline(), fused(), LABELS) == ()


@pytest.mark.parametrize(
    ("part", "changes", "grade", "name"),
    [
        ("workload", {"definition": "other"}, Grade.NEVER, "definition"),
        ("workload", {"seq_len": 7}, Grade.NEVER, "number of tokens"),
        ("workload", {"local_expert_offset": 64}, Grade.NEVER, "local expert offset"),
        ("workload", {"routed_scaling_factor": 1.0}, Grade.NEVER, "routed scaling factor"),
        ("workload", {"constants": {"hidden_size": 1}}, Grade.NEVER, "geometry"),
        ("routing", {"histogram_hash": "cd" * 32}, Grade.NEVER, "routing histogram"),
        ("routing", {"weights_recipe": "harness"}, Grade.NEVER, "weights recipe"),
        ("environment", {"device": "NVIDIA B200"}, Grade.NEVER, "device"),
        ("environment", {"device_kind": "cpu"}, Grade.NEVER, "timer"),
        ("environment", {"interpreter": True}, Grade.NEVER, "interpreter"),
        ("environment", {"multiprocessors": 66}, Grade.NEVER, "multiprocessors"),
        ("environment", {"driver": "590.2"}, Grade.UNLESS_FORCED, "driver"),
        ("settings", {"l2": "warm"}, Grade.UNLESS_FORCED, "L2 setting"),
        ("environment", {"cuda": "13.1"}, Grade.CAUTION, "CUDA version"),
        ("environment", {"versions": {"torch": "2.12"}}, Grade.CAUTION, "torch version"),
    ],
)
def test_each_difference_has_its_name_and_grade(part, changes, grade, name):
    assert (grade, name) in between(changed(part, **changes))


def test_the_schema_version_must_agree():
    assert (Grade.NEVER, "record schema") in between(replace(fused(), schema_version=2))


def test_the_sentence_shows_both_values_and_cuts_hashes():
    (found,) = reasons(pipeline(), changed("routing", histogram_hash="cd" * 32), LABELS)
    assert found.sentence == "the routing histogram differs: abababababab for a, cdcdcdcdcdcd for b"


def test_a_cpu_record_is_never_compared_with_a_gpu_record():
    names = [name for grade, name in between(make_cpu_run()) if grade == Grade.NEVER]
    assert {"timer", "device", "interpreter", "number of tokens"} <= set(names)


# -- one record's own problems -----------------------------------------------------------------


def test_a_wrong_result_is_named():
    wrong = Correctness(False, 0.4, 1.0, 0.1, 9.0, problem="36 % matched, 85 % needed")
    run = fused(correctness=wrong, passes=(), timelines=())
    (found,) = record_problems(run, "b")
    assert (found.grade, found.sentence) == (
        Grade.NEVER,
        "the result of b is wrong: 36 % matched, 85 % needed",
    )


def test_a_record_without_samples_is_named():
    (found,) = record_problems(fused(passes=(), timelines=()), "b")
    assert found.sentence == "the record of b has no samples"


def with_iteration(run: Run, name: str, **changes: object) -> Run:
    """``run`` with fields of the first iteration of one CUPTI pass changed."""
    timelines = tuple(
        replace(t, iterations=(replace(t.iterations[0], **changes), *t.iterations[1:]))
        if t.name == name
        else t
        for t in run.timelines
    )
    return replace(run, timelines=timelines)


def test_dropped_records_are_flagged_by_name():
    (found,) = record_problems(with_iteration(fused(), "api", dropped=3), "b")
    assert found.grade == Grade.UNLESS_FORCED
    assert found.sentence == "CUPTI dropped 3 record(s) in the api pass of b"


def test_negative_durations_are_refused():
    run = fused()
    starts = run.timeline("kernels").iterations[0].start_ns
    edited = with_iteration(run, "kernels", end_ns=tuple(start - 5 for start in starts))
    (found,) = record_problems(edited, "b")
    assert (found.grade, found.name) == (Grade.NEVER, "negative durations")
    assert found.sentence == "10 operation(s) of b end before they start (kernels)"


def test_operations_that_were_not_timed_are_no_negative_durations():
    run = fused()
    zeros = (0,) * len(run.timeline("kernels").iterations[0].start_ns)
    assert record_problems(with_iteration(run, "kernels", start_ns=zeros, end_ns=zeros), "b") == ()


# -- clocks ------------------------------------------------------------------------------------


def clocked(mhz: int, *throttle: str) -> Run:
    first = ClockSample("api", 1980, 3201, 300.0, 44)
    slow = [ClockSample(name, mhz, 3201, 650.0, 60, throttle) for name in ("bare", "kernels")]
    return fused(clocks=(first, *slow))


@pytest.mark.parametrize(
    ("run", "grade"),
    [
        (clocked(1950), None),  # within 3 %
        (clocked(1410), Grade.UNLESS_FORCED),  # slow for no reason that is known
        (clocked(1410, "hw_thermal_slowdown"), Grade.UNLESS_FORCED),
        (clocked(1410, "sw_power_cap"), Grade.CAUTION),
        (clocked(1410, "sw_power_cap", "sw_thermal_slowdown"), Grade.UNLESS_FORCED),
        (clocked(0), None),  # could not be read
    ],
)
def test_a_lower_clock_is_excused_by_the_power_cap_alone(run, grade):
    found = [reason for reason in reasons(pipeline(), run, LABELS) if reason.name == "SM clock"]
    assert [reason.grade for reason in found] == ([] if grade is None else [grade])


def test_a_reading_before_the_clock_fell_needs_no_excuse():
    run = clocked(1410, "sw_power_cap")
    fresh = ClockSample("bare", 1980, 3201, 200.0, 40)
    found = reasons(pipeline(), replace(run, clocks=(fresh, *run.clocks, run.clocks[-1])), LABELS)
    assert [reason.grade for reason in found] == [Grade.CAUTION]


def test_the_clocks_of_both_sides_are_shown():
    (found,) = reasons(pipeline(), clocked(1410, "sw_power_cap"), LABELS)
    assert found.sentence == (
        "the SM clock differs: 1,980 MHz for a, 1,410 MHz for b; b ran into the GPU's power cap, "
        "which counts as its efficiency here"
    )


# -- refusing ----------------------------------------------------------------------------------

FLAG = Reason(Grade.UNLESS_FORCED, "driver", "the driver differs")
BROKEN = Reason(Grade.NEVER, "definition", "the definition differs")
CAUTION = Reason(Grade.CAUTION, "torch", "torch differs")


def test_cautions_do_not_refuse():
    require_comparable([CAUTION], "a and b", force=False)


def test_force_overrules_flags_and_never_different_work():
    with pytest.raises(
        RecordError, match="^a and b cannot be compared: the driver differs; --force"
    ):
        require_comparable([FLAG], "a and b", force=False)
    require_comparable([FLAG, CAUTION], "a and b", force=True)
    for force in (False, True):
        with pytest.raises(RecordError, match="the definition differs; the driver differs"):
            require_comparable([FLAG, BROKEN], "a and b", force=force)


def test_many_alike_are_told_once():
    clocks = [Reason(Grade.CAUTION, "SM clock", f"clock {i}") for i in range(5)]
    assert told([*clocks, BROKEN]) == ("the definition differs", "clock 0 (and 4 more like it)")
    assert told(clocks[:3]) == ("clock 0", "clock 1", "clock 2")


# -- timers ------------------------------------------------------------------------------------


def test_rows_of_different_origin():
    from moeprof.analysis.attribution import profile

    first = profile(pipeline())
    upper = replace(first, source="api", host_upper_bounds=True)
    pairs = replace(first, source="events")
    assert source_reasons(first, first, LABELS) == ()
    (found,) = source_reasons(first, upper, LABELS)
    assert found.grade == Grade.CAUTION
    assert found.sentence.startswith("host times of b are upper bounds")
    (found,) = source_reasons(first, pairs, LABELS)
    assert (found.grade, found.name) == (Grade.UNLESS_FORCED, "timer")
