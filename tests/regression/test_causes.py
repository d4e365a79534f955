"""What a check says of why: each difference of the sides by name, and none that is not there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moeprof.records import ClockSample, Run
from moeprof.regression.judge import judge
from moeprof.regression.values import Cause, Check
from moeprof.timelines import ApiCall
from tests.builders import Launch, eager_script, make_run, stage_info
from tests.regression.processes import QUICK, processes

AT_ONCE = replace(QUICK, confirm=False)
SLOWER = {"gemm1": 1.1}
STAGES = [name for name, _ in eager_script()]


def with_operations(run: Run, change) -> Run:
    """``run`` with ``change`` applied to every operation of every timeline."""
    timelines = tuple(
        replace(
            timeline,
            operation_sets=tuple(tuple(map(change, ops)) for ops in timeline.operation_sets),
        )
        for timeline in run.timelines
    )
    return replace(run, timelines=timelines)


def with_stage(run: Run, name: str, **changes) -> Run:
    stages = tuple(replace(s, **changes) if s.name == name else s for s in run.solution.stages)
    return replace(run, solution=replace(run.solution, stages=stages))


def checked(change=lambda run: run, before=lambda run: run, **noise) -> Check:
    """Processes with a slower gemm1 whose records ``change`` edits."""
    noise.setdefault("busy", SLOWER)
    baseline = [before(run) for run in processes(6, seed=1)]
    return judge(baseline, [change(run) for run in processes(6, seed=2, **noise)], AT_ONCE)


def causes(check: Check, stage: str = "gemm1") -> dict[str, str]:
    """Sentences by kind, in their order."""
    found: dict[str, str] = {}
    for cause in check.causes_of(stage):
        found.setdefault(cause.kind, cause.sentence)
    return found


def test_a_slower_kernel_alone_has_one_cause():
    check = checked()
    (cause,) = check.causes_of("gemm1")
    assert isinstance(cause, Cause) and cause.kind == "busy"
    assert cause.sentence.startswith("on the GPU its operations take ")
    assert cause.shift_us == pytest.approx(6.0, abs=0.5)


def test_an_added_kernel_is_told_first_and_by_name():
    def script(copies: int):
        return tuple(
            (stage, (*launches, *(Launch("void copy_kernel<float>(int)", 4_000),) * copies))
            if stage == "swiglu_quant"
            else (stage, launches)
            for stage, launches in eager_script()
        )

    baseline = [make_run(script(0)) for _ in range(6)]
    candidate = [make_run(script(2)) for _ in range(6)]
    check = judge(baseline, candidate, AT_ONCE)
    assert check.regressed_stages == ("swiglu_quant",)
    found = causes(check, "swiglu_quant")
    assert list(found)[0] == "kernel set"
    assert found["kernel set"] == "it launches 2 x copy_kernel more" and "busy" in found
    back = judge(candidate, baseline, AT_ONCE)
    assert causes(back, "swiglu_quant")["kernel set"] == "it no longer launches 2 x copy_kernel"


def test_another_tile_shows_as_grid_registers_and_shared_memory():
    def shaped(grid, registers, shared):
        def change(operation):
            if not operation.name.startswith("gemm1_1"):
                return operation
            return replace(operation, grid=grid, block=(128, 1, 1), registers=registers,
                           shared_bytes=shared)  # fmt: skip

        return lambda run: with_operations(run, change)

    check = checked(shaped((264, 1, 1), 168, 98_304), shaped((132, 1, 1), 128, 98_304))
    found = causes(check)
    assert found["launch shape"] == (
        "gemm1_1 has grid 264x1x1 instead of 132x1x1, registers a thread 168 instead of 128"
    )
    assert "kernel set" not in found


def test_more_executed_work_and_another_backend():
    check = checked(
        lambda run: with_stage(
            run, "gemm1", rows_executed=112, bytes_read=500_000_000, backend="deep_gemm",
            options={"tile": 64},
        )
    )  # fmt: skip
    said = [cause.sentence for cause in check.causes_of("gemm1")]
    assert said[:4] == [
        "its backend is deep_gemm instead of sgl",
        "its option tile is 64 instead of unset",
        "it runs 112 rows instead of 56",
        "it reads 500,000,000 bytes instead of 400,000,000",
    ]
    assert {c.kind for c in check.causes_of("gemm1")[:4]} == {"work executed"}


def test_calls_of_the_allocator_are_counted_in_their_stage():
    def allocating(run: Run) -> Run:
        api = run.timeline("api")
        place = STAGES.index("routing")
        iterations = tuple(
            replace(
                one,
                calls=(
                    *one.calls,
                    *(ApiCall("cudaMalloc", one.stage_begin_ns[place] + k, one.exit_ns)
                      for k in (10, 20)),
                ),
            )
            for one in api.iterations
        )  # fmt: skip
        timelines = tuple(replace(api, iterations=iterations) if t is api else t
                          for t in run.timelines)  # fmt: skip
        return replace(run, timelines=timelines)

    check = checked(allocating, busy={}, host_ns={"routing": 20_000})
    assert causes(check, "routing")["allocator"] == (
        "cudaMalloc is called 2 times a forward in it instead of 0"
    )
    assert not check.causes_of("gemm1")


def test_buffers_no_longer_kept_are_told_where_the_host_is_slower():
    def fresh(run: Run) -> Run:
        return replace(run, solution=replace(run.solution, keeps_buffers=False))

    check = checked(fresh, busy={}, host_ns={"prepare_moe_input": 15_000})
    assert check.regressed_stages == ("prepare_moe_input",)
    found = causes(check, "prepare_moe_input")
    assert found["allocator"] == "the solution no longer keeps its buffers from call to call"
    assert found["host"].startswith("the host spends 1") and "longer in it" in found["host"]
    assert causes(check, "")["allocator"] == found["allocator"]
    assert "allocator" not in causes(checked(fresh))  # a kernel does not allocate


def test_a_clock_held_down_on_the_candidates_side_only():
    def held(run: Run) -> Run:
        slow = ClockSample("bare", 1890, 3201, 300.0, 40, ("sw_thermal_slowdown",))
        return replace(run, clocks=(slow,))

    check = checked(held, busy={"gemm1": 1.3})
    said = [cause.sentence for cause in check.causes_of("gemm1") if cause.kind == "clocks"]
    assert said == [
        "the SM clock was 1,890 MHz instead of 1,980",
        "clocks were throttled (sw_thermal_slowdown) during bare",
    ]
    both = checked(held, held, busy={"gemm1": 1.3})
    assert "clocks" not in causes(both)


def test_a_host_change_that_the_gpu_hides_is_called_hidden():
    """gather's host time ends long before the GPU reaches it."""

    def varied(stage: str, one: Launch, extra_ns: int) -> Launch:
        if stage == "routing":
            return replace(one, duration_ns=100 * one.duration_ns)
        return replace(one, before_ns=one.before_ns + extra_ns) if stage == "gemm2" else one

    def script(extra_ns: int):
        return tuple(
            (stage, tuple(varied(stage, one, extra_ns) for one in launches))
            for stage, launches in eager_script()
        )

    baseline, candidate = ([make_run(script(ns)) for _ in range(6)] for ns in (0, 5_000))
    check = judge(baseline, candidate, AT_ONCE)
    assert check.regressed_stages == ("gemm2",)
    assert check.finding("", "span").verdict == "SAME"
    assert "other work hides it" in causes(check, "gemm2")["hidden"]


def test_a_wait_for_another_stream_is_told_as_such():
    def two_streams(wait_ns: int):
        return tuple(
            (
                stage,
                (Launch("side", 30_000 + wait_ns, stream=9), Launch("main", 2_000, sync=False))
                if stage == "gemm2"
                else launches,
            )
            for stage, launches in eager_script()
        )

    baseline, candidate = ([make_run(two_streams(ns)) for _ in range(6)] for ns in (0, 9_000))
    check = judge(baseline, candidate, AT_ONCE)
    assert check.regressed_stages == ("gemm2",)
    assert causes(check, "gemm2")["busy"] == "on the GPU its operations take 9.00 us longer"


def test_nothing_is_explained_where_nothing_changed():
    assert checked(busy={}).causes == ()


def test_the_forward_names_the_stage_its_change_is_from():
    check = checked(busy={"gemm1": 1.5})
    span = check.finding("", "span")
    assert span.verdict == "REGRESSED"
    first = check.causes_of("")[0]
    assert first.sentence.startswith("gemm1: on the GPU its operations take ") and (
        first.shift_us == pytest.approx(30.0, abs=2.0)
    )


def test_one_odd_process_does_not_change_what_a_side_runs():
    slow = processes(1, seed=9, busy=SLOWER)[0]
    odd = with_operations(slow, lambda o: replace(o, registers=250))
    baseline = processes(6, seed=1)
    candidate = [*processes(5, seed=2, busy=SLOWER), odd]
    check = judge(baseline, candidate, AT_ONCE)
    assert check.regressed_stages == ("gemm1",) and "launch shape" not in causes(check)


def test_a_split_stage_has_no_declared_work_of_its_own():
    info = stage_info("gemm1", kernel_rules=(("gemm1_0", ("gemm1",)),))
    run = with_stage(processes(1)[0], "gemm1", kernel_rules=info.kernel_rules, covers=("gemm1",))
    assert judge([run] * 6, [run] * 6, AT_ONCE).exit_code == 0


def test_what_luck_explains_is_not_told():
    """Idle times spread with the host by far more than the kernel became slower."""
    check = checked(host_sd=0.3)
    busy = check.finding("gemm1", "busy").shift_us
    assert check.regressed_stages == ("gemm1",)
    assert [cause.kind for cause in check.causes_of("gemm1")] == ["busy"]
    moved = [s for s in check.shifts if s.stage == "gemm1" and abs(s.shift_us) > 0.2 * busy]
    assert {s.component for s in moved} > {"busy", "time"}  # there were shifts to be told
