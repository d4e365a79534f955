"""flashinfer-bench's latencies taken apart: by hand, and for any timeline."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from moeprof.analysis.parity import event_book, event_books, parity_latencies, parity_latency
from moeprof.analysis.profiles import IterationProfile, StageProfile
from moeprof.errors import RecordError, UsageError
from moeprof.presets import choose_passes, with_parity
from moeprof.records import (
    PARITY_PASSES,
    PASS_ORDER,
    PASSES,
    ParitySettings,
    PassResult,
    Run,
    Sample,
)
from moeprof.reports.html import page
from moeprof.reports.json import run_document
from moeprof.reports.markdown import report_markdown
from moeprof.reports.parity import parity_doubts, parity_grids
from moeprof.reports.survey.build import build
from moeprof.reports.text import render_run, render_runs
from moeprof.storage import store
from moeprof.timelines import Iteration, Operation, TimelinePass
from tests import builders
from tests.builders import Launch

SCRIPT = (("gemm1", (Launch("a", 5_500),)), ("gemm2", (Launch("b", 9_000),)))
OPERATIONS = tuple(Operation(name, "kernel", "", 7, "cudaLaunchKernel") for name in "ab")
# the first event recorded at 5.0 us, the call returned at 17.0, the second recorded at 19.0
BY_HAND = Iteration(
    operation_set=0,
    start_ns=(14_500, 21_000),
    end_ns=(20_000, 30_000),
    launch_begin_ns=(8_000, 13_000),
    launch_end_ns=(12_000, 16_000),
    stage_begin_ns=(5_000,),
    stage_end_ns=(17_000,),
    exit_ns=19_000,
)


def events(spans_us: Sequence[float], trials: int = 1) -> tuple[Sample, ...]:
    size = len(spans_us) // trials
    return tuple(Sample(us, us, number // size) for number, us in enumerate(spans_us))


def parity_run(
    alone_us: Sequence[float] = (22.0, 23.0),
    observed_us: Sequence[float] = (24.0, 24.0),
    observed: Sequence[Iteration] = (BY_HAND, BY_HAND),
    spans: Sequence[Iteration] = (),
    operations: tuple[Operation, ...] = OPERATIONS,
    trials: int = 1,
) -> Run:
    run = builders.make_run(SCRIPT)
    timers = ("0.1.2", "main") if spans else ("0.1.2",)
    size = len(alone_us) // trials
    return replace(
        run,
        settings=replace(run.settings, parity=ParitySettings(timers, 10, size, trials)),
        passes=(
            *run.passes,
            PassResult("fib_events", events(alone_us, trials)),
            PassResult("fib_observed", events(observed_us, trials)),
        ),
        timelines=(
            *run.timelines,
            TimelinePass("fib_observed", (operations,), tuple(observed)),
            TimelinePass("fib_span", (operations,), tuple(spans)),
        ),
    )


def row(rows: Sequence[StageProfile], name: str) -> StageProfile:
    return next(one for one in rows if one.name == name)


def causes(one: StageProfile) -> tuple[float, ...]:
    """busy, host late, API, latency, dependency."""
    gaps = (one.host_late_ns, one.api_ns, one.launch_latency_ns, one.dependency_ns)
    return (one.busy_ns, *gaps)


def test_an_event_pair_is_lead_in_stages_and_tail() -> None:
    """The event executes 2.4 us (the calibration) after its call: at 7.4; the pair took 24.0."""
    latency = parity_latency(parity_run(), "0.1.2")
    assert latency is not None and latency.residual_ns == 0
    assert [one.name for one in latency.rows] == ["lead-in", "gemm1", "gemm2", "tail"]
    assert causes(latency.rows[0]) == (0, 600, 4_000, 2_500, 0)
    assert causes(latency.rows[1]) == (5_500, 0, 0, 0, 0)
    assert causes(latency.rows[2]) == (9_000, 0, 0, 1_000, 0)
    assert causes(latency.rows[3]) == (0, 0, 0, 1_400, 0)
    assert latency.latency_ns == 22_500 and latency.observed_ns == 24_000
    assert latency.observing_ns == 1_500
    assert sum(one.time_ns for one in latency.rows) - latency.observing_ns == latency.latency_ns


def test_a_second_event_recorded_late_leaves_the_host_in_the_tail() -> None:
    late = replace(BY_HAND, stage_end_ns=(34_000,), exit_ns=38_000)
    latency = parity_latency(parity_run(observed=(late, late), observed_us=(34.0, 34.0)), "0.1.2")
    assert latency is not None
    # the last operation ends at 30.0, the event's call is at 34.0 to 38.0, it executes at 41.4
    assert causes(row(latency.rows, "tail")) == (0, 4_000, 4_000, 3_400, 0)
    assert latency.residual_ns == 0


def test_a_pair_that_reads_less_than_its_span_leaves_nothing_over() -> None:
    latency = parity_latency(parity_run(observed_us=(15.0, 15.0)), "0.1.2")
    assert latency is not None and latency.residual_ns == 0
    assert row(latency.rows, "lead-in").time_ns == 0
    assert row(latency.rows, "tail").time_ns == -500


def test_the_latency_is_the_mean_of_the_trials_means() -> None:
    run = parity_run((10.0, 20.0, 40.0, 90.0), (24.0,) * 4, (BY_HAND,) * 4, trials=2)
    latency = parity_latency(run, "0.1.2")
    assert latency is not None
    assert latency.trials_ns == (15_000, 65_000) and latency.latency_ns == 40_000


def shifted(by_ns: int) -> Iteration:
    """The second operation, and the span, longer by so much."""
    return replace(BY_HAND, end_ns=(20_000, 30_000 + by_ns), stage_begin_ns=(), stage_end_ns=())


@pytest.mark.parametrize(
    ("longer", "latency_ns", "decomposed"),
    [((0, 500, 100, 900), 15_800.0, 2), ((0, 500, 900), 16_000.0, 1)],
)
def test_the_median_span_is_taken_apart_in_the_middle(
    longer: tuple[int, ...], latency_ns: float, decomposed: int
) -> None:
    size = len(longer)
    run = parity_run((22.0,) * size, (24.0,) * size, (BY_HAND,) * size, tuple(map(shifted, longer)))
    latency = parity_latency(run, "main")
    assert latency is not None and latency.residual_ns == 0
    assert latency.latency_ns == latency_ns and latency.decomposed == decomposed
    assert [one.name for one in latency.rows] == ["gemm1", "gemm2"]
    assert causes(latency.rows[1]) == (9_000 + latency_ns - 15_500, 0, 0, 1_000, 0)
    assert sum(one.time_ns for one in latency.rows) == latency_ns


def test_operations_are_those_of_the_api_pass_in_order_of_launch() -> None:
    """Two of one name: the first launched is gemm1's even where it starts last."""
    script = (("gemm1", (Launch("k", 5_000),)), ("gemm2", (Launch("k", 9_000),)))
    same = tuple(replace(one, name="k") for one in OPERATIONS)
    crossed = replace(BY_HAND, launch_begin_ns=(13_000, 8_000), launch_end_ns=(14_000, 12_000))
    run = parity_run(operations=same, observed=(crossed, crossed))
    run = replace(run, timelines=(*builders.make_run(script).timelines, *run.timelines[2:]))
    latency = parity_latency(run, "0.1.2")
    assert latency is not None
    assert row(latency.rows, "gemm2").busy_ns == 5_500  # it started first
    assert row(latency.rows, "gemm1").busy_ns == 9_000


def test_an_operation_that_the_api_pass_has_not_is_in_no_stage_and_said() -> None:
    strange = (OPERATIONS[0], replace(OPERATIONS[1], name="elementwise"))
    latency = parity_latency(parity_run(operations=strange), "0.1.2")
    assert latency is not None and latency.residual_ns == 0
    assert row(latency.rows, "unattributed").busy_ns == 9_000
    assert "1 operation(s) of an iteration are not those of the api pass" in latency.notes[0]


def test_where_launches_of_a_name_differ_in_number_none_is_guessed() -> None:
    """Three of one name against two in the api pass: which of them are those two?"""
    script = (("gemm1", (Launch("k", 5_000),)), ("gemm2", (Launch("k", 9_000),)))
    three = tuple(replace(OPERATIONS[0], name="k") for _ in range(3))
    times = {"start_ns": (14_500, 21_000, 31_000), "end_ns": (20_000, 30_000, 32_000)}
    more = replace(BY_HAND, **times, launch_begin_ns=(), launch_end_ns=())
    run = parity_run(operations=three, observed=(more, more))
    run = replace(run, timelines=(*builders.make_run(script).timelines, *run.timelines[2:]))
    latency = parity_latency(run, "0.1.2")
    assert latency is not None and latency.residual_ns == 0
    assert row(latency.rows, "unattributed").operations == 3
    assert row(latency.rows, "gemm1").operations == row(latency.rows, "gemm2").operations == 0


def test_what_main_would_refuse_is_said() -> None:
    other = (OPERATIONS[0], replace(OPERATIONS[1], name="c"))
    run = parity_run(spans=(shifted(0), shifted(0)))
    *timelines, span = run.timelines
    second = replace(shifted(0), operation_set=1)
    sets = replace(span, operation_sets=(OPERATIONS, other), iterations=(shifted(0), second))
    run = replace(run, timelines=(*timelines, sets))
    assert any("different kernels" in doubt for doubt in parity_doubts(run))
    empty = (shifted(0), Iteration(1, (), ()))
    sets = replace(span, operation_sets=(OPERATIONS, ()), iterations=empty)
    run = replace(run, timelines=(*timelines, sets))
    assert any("launched nothing" in doubt for doubt in parity_doubts(run))


def test_without_the_pairs_under_cupti_there_is_a_figure_and_no_split() -> None:
    run = parity_run()
    run = replace(run, timelines=run.timelines[:2])
    (latency,) = parity_latencies(run)
    assert latency.latency_ns == 22_500 and not latency.rows and latency.observing_ns == 0
    assert "not split into stages" in parity_doubts(run)[0]
    assert parity_grids(run)[0].rows == ()


times = st.integers(0, 50_000)


@st.composite
def iterations(draw: st.DrawFn) -> Iteration:
    """Anything at all: overlaps, untimed operations, calls after starts, ends before starts."""
    pairs = draw(st.lists(st.tuples(times, times, times, times), min_size=2, max_size=2))
    starts, ends, begins, returns = zip(*pairs, strict=True)
    known = draw(st.booleans())
    return Iteration(
        0,
        starts,
        ends,
        begins if known else (),
        returns if known else (),
        (draw(times),),
        (draw(times),),
        draw(times),
    )


@given(st.lists(st.tuples(iterations(), times), min_size=1, max_size=4), st.integers(0, 9_000))
@settings(max_examples=150, deadline=None)
def test_the_identity_closes_for_any_timeline(
    made: list[tuple[Iteration, int]], latency_ns: int
) -> None:
    observed = [iteration for iteration, _ in made]
    elapsed_ns = [elapsed for _, elapsed in made]
    run = parity_run((20.0,) * len(made), [ns / 1e3 for ns in elapsed_ns], observed)
    timeline = run.timelines[2]
    for book in event_books(run, timeline, elapsed_ns, latency_ns):
        assert book.residual_ns == 0
        assert book.lead_in.busy_ns == book.tail.busy_ns == 0
        assert min(dataclasses.astuple(book.lead_in)[1:]) >= 0
        if book.elapsed_ns >= book.span.span_ns:
            assert min(dataclasses.astuple(book.tail)[1:]) >= 0
    latency = parity_latency(run, "0.1.2")
    assert latency is not None and latency.residual_ns == 0
    parts_ns = sum(one.time_ns for one in latency.rows) - latency.observing_ns
    assert parts_ns == pytest.approx(latency.latency_ns, abs=1e-6)


@given(st.lists(iterations(), min_size=1, max_size=9))
@settings(max_examples=80, deadline=None)
def test_the_median_span_closes_for_any_timeline(spans: list[Iteration]) -> None:
    size = len(spans)
    run = parity_run((20.0,) * size, (20.0,) * size, (BY_HAND,) * size, spans)
    latency = parity_latency(run, "main")
    assert latency is not None and latency.residual_ns == 0
    known = [i for i in spans if all(s <= e for s, e in zip(i.start_ns, i.end_ns, strict=True))]
    if len(known) == size:  # else the span is no span
        assert latency.latency_ns == statistics.median(one.span_ns for one in spans)
        assert sum(one.time_ns for one in latency.rows) == pytest.approx(latency.latency_ns)


def test_an_iteration_without_operations_is_the_hosts() -> None:
    span = IterationProfile(None, 0, 0, None, ())
    book = event_book(Iteration(0, (), (), exit_ns=9_000), span, 12_000, 2_400)
    assert book.lead_in.host_late_ns == 12_000 and book.residual_ns == 0


# ---------------------------------------------------------------- record, passes, reports


def test_a_record_keeps_the_samples_and_an_older_one_still_reads(tmp_path: object) -> None:
    run = parity_run(spans=(shifted(0), shifted(100)))
    document = store.to_json(run)
    assert store.from_json(document) == run
    old = store.to_json(builders.make_run(SCRIPT))
    del old["settings"]["parity"], old["correctness"]["max_relative"]
    assert parity_latencies(store.from_json(old)) == ()
    document["settings"]["parity"]["trials"] = 0
    with pytest.raises(RecordError, match="iterations of parity"):
        store.from_json(document)


def test_parity_passes_have_their_places() -> None:
    """The events before anything is attached, the span before the passes that leave calls out."""
    chosen = with_parity(choose_passes(None, "cuda"), ("0.1.2", "main"), "cuda")
    assert chosen == PASS_ORDER and set(chosen) == {*PASSES, *PARITY_PASSES}
    order = {name: position for position, name in enumerate(chosen)}
    assert order["graph"] < order["fib_events"] < order["fib_span"] < order["kernels"]
    assert order["api"] < order["fib_observed"]
    assert with_parity(("first",), ("main",), "cuda") == ("first", "fib_span", "api")
    assert with_parity(("first", "bare"), (), "cpu") == ("first", "bare")
    with pytest.raises(UsageError, match="GPU timers, which a CPU has not"):
        with_parity(("first",), ("main",), "cpu")


@pytest.mark.parametrize(
    ("options", "weights", "timers"),
    [
        (["--parity", "both"], "harness", ("0.1.2", "main")),
        (["--parity", "main"], "harness", ("main",)),
        (["--parity", "0.1.2", "--weights", "quantised"], "quantised", ("0.1.2",)),
        ([], "quantised", None),
    ],
)
def test_parity_takes_flashinfer_benchs_tensors_unless_others_are_chosen(
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    weights: str,
    timers: tuple[str, ...] | None,
) -> None:
    from moeprof.cli import planning
    from moeprof.cli.main import run_command

    asked: list[planning.RunOptions] = []

    def stop(given: planning.RunOptions, *_: object) -> None:
        asked.append(given)
        raise UsageError("far enough")

    monkeypatch.setattr(planning, "make_plan", stop)
    assert run_command(["run", "--solution", "triton_v3", *options]) == 2
    assert asked[0].weights == weights
    made = planning.make_settings(asked[0], "cuda").parity
    assert (made and made.timers) == timers
    assert made is None or (made.warmup, made.iterations, made.trials) == (10, 50, 3)


def test_every_report_shows_the_parts() -> None:
    run = parity_run(spans=(shifted(0), shifted(100)))
    first, second = parity_grids(run)
    assert "0.1.2's latency, reproduced: 22.5 us" in first.title
    assert first.headings[0] == "part" and first.headings[-3:] == (
        "sum", "of latency", "operations",
    )  # fmt: skip
    assert [cells[0] for cells in first.rows] == [
        "lead-in", "gemm1", "gemm2", "tail", "less what CUPTI added", "latency",
    ]  # fmt: skip
    assert first.rows[4][-3] == "-1.5" and first.rows[5][-3] == "22.5"
    assert "main's latency, reproduced: 15.6 us" in second.title
    events_document, span_document = run_document(run)["parity"]
    assert events_document["latency_us"] == 22.5 and span_document["timer"] == "main"
    assert events_document["added_by_observing_us"] == 1.5
    parts = sum(part["time_us"] for part in events_document["parts"])
    assert parts - events_document["added_by_observing_us"] == pytest.approx(22.5)
    data = build([run])
    assert second.title in report_markdown(data).replace("\\", "")
    (entry,) = data.workloads[0].entries
    shown = page._entry(entry, {name: "blue" for name in ("gemm1", "gemm2", "other")})["parity"]
    assert [grid["title"] for grid in shown] == [first.title, second.title]
    console = Console(width=160)
    with console.capture() as captured:
        console.print(render_run(run))
    text = " ".join(captured.get().split())
    assert "less what CUPTI added -1.5" in text and "flashinfer-bench main's latency" in text
    with console.capture() as captured:
        console.print(render_runs([run, builders.make_run(SCRIPT)]))
    lines = [line.split() for line in captured.get().splitlines()]
    assert any("22.5" in line and "15.6" in line for line in lines)
    passes = run_document(run)["passes"]["fib_observed"]
    assert passes["span_us"] == 24.0 and passes["operation_sets"] == 1
