"""The comparison of two records: it closes, finds the cause, and splits work as documented."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moeprof.analysis.profiles import UNATTRIBUTED, Profile, StageProfile, Trust
from moeprof.analysis.rows import Row, stage_rows
from moeprof.compare.compare import best_time, compare, explain_pair
from moeprof.compare.comparison import Bar, Cause, Comparison, Explained, Part
from moeprof.compare.partition import merge_overlapping, shared_parts
from moeprof.compare.split import log_mean, whole_numbers, work_share
from moeprof.contract import STEPS
from moeprof.errors import RecordError
from moeprof.ledger.ceilings import ASSUMED_CEILINGS, ceilings_of
from moeprof.ledger.ledger import Ceilings
from moeprof.ledger.necessary import Work
from moeprof.records import MachineCeilings, Run, StageInfo
from tests.builders import make_cpu_run, make_run, stage_info
from tests.comparisons import PAIRS, ROWS, fused, pipeline

STEP_NAMES = [str(step) for step in STEPS]


@pytest.fixture(scope="module")
def large() -> Comparison:
    """T = 14107: every pair executed against local pairs in an opaque stage."""
    return compare(*explain_pair(pipeline(), fused()))


def part(comparison: Comparison, name: str) -> Part:
    return next(found for found in comparison.parts if found.name == name)


def bars(found: Part) -> dict[Cause, int]:
    return {bar.cause: bar.delta_ns for bar in found.bars}


# -- splitting ---------------------------------------------------------------------------------

positive = st.floats(1e-3, 1e9)


@given(positive, positive, positive, positive)
@example(5.0, 5.0, 1.0, 2.0)
@example(100.0, 100.0 * (1 + 5e-5), 3.0, 3.0)
def test_the_split_is_exact_and_has_no_order(before, after, work_before, work_after):
    share = work_share(before, after, work_before, work_after)
    unit = [before / work_before, after / work_after]
    rest = log_mean(before, after) * math.log(unit[1] / unit[0])
    scale = max(before, after) * (1 + abs(math.log(work_after / work_before)))
    assert share + rest == pytest.approx(after - before, abs=1e-7 * scale)
    assert work_share(after, before, work_after, work_before) == -share


@given(positive, positive)
def test_a_factor_that_does_not_change_is_charged_nothing(before, after):
    assert work_share(before, after, 7.0, 7.0) == 0.0
    ratio = after / before
    assert work_share(before, after, 2.0, 2.0 * ratio) == pytest.approx(
        after - before, rel=1e-6, abs=1e-6 * before
    )


def test_eight_times_the_rows_at_the_same_rate_is_all_amplification():
    assert work_share(100.0, 800.0, 1.0, 8.0) == pytest.approx(700.0)
    assert log_mean(3.0, 3.0) == 3.0
    assert log_mean(1.0, math.e) == pytest.approx(math.e - 1)


@given(st.lists(st.floats(0, 1e8), min_size=1, max_size=40))
def test_whole_numbers_keep_the_sum(values):
    cells = dict(enumerate(values))
    found = whole_numbers(cells, math.fsum(values))
    assert sum(found.values()) == round(math.fsum(values))
    assert all(abs(found[i] - value) < 1 for i, value in cells.items())


def test_a_profile_that_does_not_add_up_is_refused():
    with pytest.raises(RecordError, match="leaves 50 ns of 100 ns over"):
        whole_numbers({"a": 25.0, "b": 25.0}, 100.0)


# -- partition ---------------------------------------------------------------------------------


def row(name: str, *covers: str) -> Row:
    return Row(name, None, covers, True)


def test_parts_are_the_finest_that_cut_no_row():
    first = [row("routing", "routing"), row("a", "gemm1", "swiglu_quant"), row("g", "gemm2")]
    second = [row("routing", "routing"), row("b", "gemm1"), row("c", "swiglu_quant", "gemm2")]
    parts = shared_parts(first, second)
    assert [p.name for p in parts] == ["routing", "gemm1+swiglu_quant+gemm2"]
    assert [r.name for r in parts[1].before] == ["a", "g"]
    assert [r.name for r in parts[1].after] == ["b", "c"]


def test_rows_without_a_step_are_matched_by_name_and_come_last():
    first = [row(UNATTRIBUTED), row("cast"), row("routing", "routing")]
    second = [row("routing", "routing"), row("cast"), row("requantise")]
    names = [(p.name, len(p.before), len(p.after)) for p in shared_parts(first, second)]
    assert names == [
        ("routing", 1, 1), ("cast", 1, 1), ("requantise", 0, 1), (UNATTRIBUTED, 1, 0),
    ]  # fmt: skip


@given(st.lists(st.frozensets(st.sampled_from(STEP_NAMES), min_size=1), max_size=8))
def test_merging_gives_a_partition(sets):
    merged = merge_overlapping(sets)
    assert sum(map(len, merged)) == len(frozenset().union(*sets)) if sets else not merged
    assert all(any(members <= group for group in merged) for members in sets)


# -- closing -----------------------------------------------------------------------------------

TIMES = ("busy_ns", "host_late_ns", "api_ns", "launch_latency_ns", "dependency_ns", "overlap_ns")
times = st.one_of(st.just(0.0), st.floats(0, 1e7))
works = st.one_of(st.none(), st.integers(0, 10**9))


@st.composite
def sides(draw) -> Explained:
    """A solution of any cut of the steps into stages, some opaque, some that cover nothing."""
    cuts = sorted(draw(st.sets(st.integers(1, 6), max_size=6)))
    groups = [STEP_NAMES[a:b] for a, b in zip([0, *cuts], [*cuts, 7], strict=True)]
    stages = [draw(stages_of(group)) for group in groups]
    extra = draw(st.sets(st.sampled_from(["cast", "requantise"])))
    stages += [draw(stages_of([], name)) for name in sorted(extra)]
    names = [row.name for row in stage_rows(stages)]
    names += draw(st.sampled_from([[], [UNATTRIBUTED]]))
    rows = tuple(StageProfile(name, **{field: draw(times) for field in TIMES}) for name in names)
    span_ns = math.fsum(found.time_ns for found in rows)
    base = make_run(passes=("first",))
    run = replace(base, solution=replace(base.solution, stages=tuple(stages)))
    trust = Trust((), 0.0, 3.0, "not measured")
    return Explained(run, Profile("api", 20, 0.0, 0.0, span_ns, 0.0, rows, trust), "side")


@st.composite
def stages_of(draw, group, name: str = "") -> StageInfo:
    opaque = len(group) > 1 and draw(st.booleans())
    split = draw(st.lists(st.sampled_from(group), unique=True)) if opaque else []
    rows = draw(works)
    return stage_info(
        name or f"stage_{group[0]}",
        covers=tuple(group),
        kernel_rules=tuple((step, (step,)) for step in split),
        rows_executed=rows,
        bytes_read=draw(works),
        bytes_written=draw(works),
        flops=draw(works),
    )


@settings(max_examples=150, deadline=None)
@given(sides(), sides())
def test_the_waterfall_closes_to_the_nanosecond(before, after):
    found = compare(before, after)
    assert sum(bar.delta_ns for bar in found.bars) == found.span_after_ns - found.span_before_ns
    assert found.span_before_ns == round(before.profile.span_ns)
    assert found.residual_ns == 0
    assert sum(p.delta_ns for p in found.parts) == found.delta_ns
    for one in found.parts:
        assert sum(bar.delta_ns for bar in one.bars) == one.delta_ns
    assert sum(ns for _, ns in found.causes) == found.delta_ns


@settings(max_examples=100, deadline=None)
@given(sides(), sides())
def test_exchanging_the_sides_changes_signs_alone(before, after):
    def by_name(found: Comparison, sign: int) -> dict[tuple[str, Cause], int]:
        return {(bar.part, bar.cause): sign * bar.delta_ns for bar in found.bars}

    assert by_name(compare(before, after), 1) == by_name(compare(after, before), -1)


@settings(max_examples=50, deadline=None)
@given(sides())
def test_a_record_compared_with_itself_has_no_bars(side):
    assert compare(side, side).bars == ()


# -- what a comparison must find ---------------------------------------------------------------


def test_amplification_is_the_largest_cause_at_large_t(large):
    cause, largest_ns = large.causes[0]
    assert cause == Cause.AMPLIFICATION
    assert largest_ns < -10_000_000
    assert [(bar.part, bar.cause) for bar in large.bars[:2]] == [
        ("gemm1", Cause.AMPLIFICATION),
        ("gemm2", Cause.AMPLIFICATION),
    ]


def test_gemm_rows_are_compared_part_by_part(large):
    gemm1 = part(large, "gemm1")
    assert (gemm1.before.rows, gemm1.after.rows) == (ROWS, PAIRS)
    assert gemm1.before.bound == gemm1.after.bound == "FLOPs"
    assert gemm1.after.declared and not gemm1.before.declared
    expected = log_mean(6_415_600, 850_900) * math.log(PAIRS / ROWS)
    assert bars(gemm1)[Cause.AMPLIFICATION] == round(expected)
    assert bars(gemm1)[Cause.EFFICIENCY] == -5_564_700 - round(expected)


def test_bytes_are_the_unit_where_they_bound_the_step(large):
    shuffle = part(large, "shuffle_rows")
    assert shuffle.before.bound == shuffle.after.bound == "bytes"
    # P rows of e4m3 with scales read and written, and the permutation: what the definition needs
    assert shuffle.after.bytes == 2 * PAIRS * (7168 + 4 * 56) + 4 * PAIRS
    assert shuffle.after.best_ns == pytest.approx(shuffle.after.bytes / 4.34e3)


def test_a_cast_is_a_bar_of_its_own_side(large):
    cast = part(large, "dequantise")
    assert (cast.steps, cast.before.time_ns) == ((), 0)
    assert bars(cast)[Cause.ONE_SIDED] == 773_400
    assert cast.after.why == "the op takes bfloat16 activations only"


def test_weights_bound_a_gemm_at_small_t():
    """Eight times the rows cost next to nothing where a GEMM mostly loads weights."""
    moved = 823_500_000
    gemm1 = {"bytes_read": moved, "bytes_written": 0}
    few = stage_info("gemm1", rows_executed=76, flops=76 * 58_720_256, **gemm1)
    many = stage_info("gemm1", rows_executed=448, flops=448 * 58_720_256, **gemm1)
    first, second = (
        replace(p, solution=replace(p.solution, stages=(*p.solution.stages[:3], info,
                *p.solution.stages[4:])))
        for p, info in ((pipeline(56, 76), many), (pipeline(56, 76, scale=0.5), few))
    )  # fmt: skip
    gemm = part(compare(*explain_pair(first, second)), "gemm1")
    assert gemm.before.bound == gemm.after.bound == "bytes"
    assert Cause.AMPLIFICATION not in bars(gemm)
    assert bars(gemm)[Cause.EFFICIENCY] == -round(6_415_600 / 2)


def test_a_side_without_rows_makes_the_difference_amplification():
    found = part(compare(*explain_pair(pipeline(7, 9), fused(7, 0, rows=0))), "gemm1")
    assert (found.before.rows, found.after.rows) == (56, 0)
    assert bars(found)[Cause.AMPLIFICATION] == 850_900 - 6_415_600
    assert Cause.EFFICIENCY not in bars(found)


def test_unknown_work_is_not_split():
    run = pipeline()
    stages = tuple(replace(stage, bytes_read=None) for stage in run.solution.stages)
    blind = replace(run, solution=replace(run.solution, stages=stages))
    found = part(compare(*explain_pair(blind, fused())), "gemm1")
    assert bars(found)[Cause.NOT_SPLIT] == 850_900 - 6_415_600
    assert found.before.best_ns is None


def test_overlap_is_credited_to_the_side_that_hides_work():
    hidden = StageProfile("gemm1", busy_ns=600.0, overlap_ns=400.0)
    plain = StageProfile("gemm1", busy_ns=1_000.0)
    run = make_run(passes=("first",), stages=[stage_info("gemm1", rows_executed=9, flops=9)])
    trust = Trust((), 0.0, 3.0, "not measured")
    before, after = (
        Explained(run, Profile("api", 20, 0, 0, one.busy_ns, 0, (one,), trust), "x")
        for one in (plain, hidden)
    )
    assert compare(before, after).bars == (Bar("gemm1", Cause.OVERLAP, -400),)


def test_an_opaque_stage_seen_from_outside_is_one_part():
    """Event pairs do not see inside it: all its steps are one part, matched with six stages."""
    plain = [s.name for s in pipeline().solution.stages]
    sides = []
    for run in (pipeline(), fused()):
        clocks = tuple(
            replace(s, stage_us=tuple(10.0 for _ in run.solution.stages))
            for s in run.samples("bare")
        )
        passes = tuple(replace(p, name="events", samples=clocks) for p in run.passes[1:2])
        sides.append(replace(run, passes=passes, timelines=()))
    found = compare(*explain_pair(*sides))
    assert [p.name for p in found.parts] == ["routing", "+".join(plain[1:]), "dequantise"]
    assert found.residual_ns == 0
    assert part(found, "+".join(plain[1:])).after.work_ns == 10_000


def test_cpu_records_compare_by_stage_clock():
    fast = make_cpu_run()
    found = compare(*explain_pair(fast, fast))
    assert found.bars == () and found.before.label == "hand_made (A)"


# -- ceilings ----------------------------------------------------------------------------------


def test_ceilings_come_from_the_records_if_they_have_them():
    measured = MachineCeilings(4e12, 4.2e12, 1.4e15, 1.3e15)
    with_ceilings = replace(pipeline(), ceilings=measured)
    found, label = ceilings_of((with_ceilings, fused()))
    assert found == Ceilings(4.2e12, 1.3e15)
    assert label == "measured beside the runs: 4.20 TB/s read, 1,300 TFLOP/s FP8"
    assert ceilings_of((pipeline(), fused()))[0] == ASSUMED_CEILINGS
    assert ceilings_of((pipeline(),))[1].startswith("assumed, as measured on one H200: 4.34 TB/s")


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (Work(1, 10_000, 0), (1_000.0, "launch")),
        (Work(1, 4_340_000_000, 0), (1_000_000.0, "bytes")),
        (Work(1, 4_340_000, 2_666_000_000_000), (2_000_000.0, "FLOPs")),
        (Work(1, None, 5), None),
    ],
)
def test_the_best_time_of_executed_work(work, expected):
    found = best_time(work, ASSUMED_CEILINGS)
    assert (
        found == expected
        if expected is None
        else found == (pytest.approx(expected[0]), expected[1])
    )


def test_a_record_without_stage_times_is_refused():
    bare: Run = pipeline(passes=("first", "bare"))
    with pytest.raises(RecordError, match="holds no stage times"):
        explain_pair(bare, fused())
