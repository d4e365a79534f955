"""Tables over all workloads: the arithmetic of every figure, and what is left out."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from moeprof.compare.tables import Latency, latency, make_table, regime
from moeprof.records import Correctness, PassResult, Run, Sample
from moeprof.reports.overview import grids
from tests.comparisons import at, fused, named, pipeline

WRONG = Correctness(False, 0.4, 1.0, 0.1, 9.0, problem="36 % matched")


def timed(name: str, tokens: int, bare_us: float, graph_us: float | None = None) -> Run:
    """A record whose bare and graph passes read exactly this."""
    passes = [PassResult("bare", (Sample(bare_us, bare_us),))]
    if graph_us is not None:
        passes.append(PassResult("graph", (Sample(graph_us, graph_us),)))
    run = named(replace(BASE, passes=tuple(passes), timelines=()), name)
    return at(run, tokens, f"{tokens:08d}-x")


BASE = pipeline()


def workload(tokens: int, first: float, second: float, reference: float | None) -> dict[str, Run]:
    runs = {"one": timed("one", tokens, first, first / 2), "two": timed("two", tokens, second)}
    if reference is not None:
        runs["reference"] = timed("reference", tokens, reference)
    return runs


@pytest.fixture
def table():
    rows = [
        workload(14107, 400.0, 100.0, 8_000.0),
        workload(1, 10.0, 20.0, 100.0),
        workload(7, 30.0, 30.0, 300.0),
    ]
    return make_table(rows, ("one", "two"), "reference")


def test_rows_are_by_tokens_with_speedups_over_the_reference(table):
    assert [row.seq_len for row in table.rows] == [1, 7, 14107]
    assert table.rows[0].latencies == (Latency(10.0, 5.0, 10.0), Latency(20.0, None, 5.0))
    assert table.rows[2].values("speedup") == (20.0, 80.0)


def test_winners_and_ties(table):
    assert [row.winner("latency") for row in table.rows] == [0, None, 1]
    assert [row.winner("speedup") for row in table.rows] == [0, None, 1]
    assert [row.winner("graph latency") for row in table.rows] == [None, None, None]


def test_summaries(table):
    one, two = table.summaries("latency")
    values = [10.0, 30.0, 400.0]
    assert (one.mean, one.median, one.minimum, one.maximum) == (
        pytest.approx(440 / 3), 30.0, 10.0, 400.0,
    )  # fmt: skip
    assert one.variation == pytest.approx(statistics.stdev(values) / statistics.fmean(values))
    assert (one.wins, two.wins, one.workloads) == (1, 1, 3)
    (graph,) = table.summaries("graph latency")
    assert (graph.solution, graph.workloads) == ("one", 3)


def test_regimes_hold_the_mean_of_their_workloads(table):
    assert table.regimes("latency") == (
        ("tiny", 2, (20.0, 25.0)),
        ("very large", 1, (400.0, 100.0)),
    )
    assert table.regimes("graph latency")[0] == ("tiny", 2, (10.0, None))


@pytest.mark.parametrize(
    ("tokens", "name"),
    [(1, "tiny"), (7, "tiny"), (14, "small"), (32, "small"), (52, "medium"), (80, "medium"),
     (901, "large"), (11948, "very large"), (14107, "very large")],
)  # fmt: skip
def test_the_published_regimes(tokens, name):
    assert regime(tokens) == name


def test_one_workload_has_no_variation():
    found = make_table([workload(7, 1.0, 2.0, None)], ("one", "two"), None)
    assert found.summaries("latency")[0].variation is None
    assert not found.has("speedup")


def test_a_wrong_result_leaves_its_workload_out_for_all():
    rows = [workload(1, 10.0, 20.0, None), workload(7, 10.0, 20.0, None)]
    rows[1]["two"] = replace(rows[1]["two"], correctness=WRONG, passes=())
    found = make_table(rows, ("one", "two"), None)
    assert [row.seq_len for row in found.rows] == [1]
    assert found.left_out == ("T=7 (00000007) left out: two is wrong there",)


def test_stamped_samples_count_only_where_there_are_no_others():
    run = fused()
    bare = run.samples("bare")
    plain = statistics.median(s.span_us for s in bare if not s.stamps_us)
    assert latency(run).bare_us == plain
    stamped = tuple(s for s in bare if s.stamps_us)
    only = replace(run, passes=(PassResult("bare", stamped),))
    assert latency(only).bare_us == statistics.median(s.span_us for s in stamped)
    assert latency(replace(run, passes=())) is None


def test_the_grids_of_a_pair_show_a_ratio(table):
    by_title = {grid.title: grid for grid in grids(table)}
    found = by_title["Latency, us: median of the bare pass between the outer events"]
    assert found.headings == (
        "workload", "T", "offset", "P", "reference", "one", "two", "one / two", "winner",
    )  # fmt: skip
    assert found.rows[2][4:] == ("8,000.0", "400.0", "100.0", "4.00", "two")
    assert by_title["Speedup over reference"].rows[2][4:] == ("20.00x", "80.00x", "0.25", "two")
    assert by_title["Latency by regime, mean"].rows[0] == (
        "tiny (T=1-7)", "2", "20.0", "25.0", "0.80",
    )  # fmt: skip
    assert by_title["Latency, all workloads"].rows[0] == (
        "one", "3", "146.7", "30.0", "10.0", "400.0", "150 %", "1",
    )  # fmt: skip


def test_more_solutions_have_no_ratio(table):
    rows = [{**workload(7, 1.0, 2.0, None), "three": timed("three", 7, 0.5)}]
    found = grids(make_table(rows, ("one", "two", "three"), None))[0]
    assert found.headings[-4:] == ("one", "two", "three", "winner")
    assert found.rows[0][-1] == "three"
