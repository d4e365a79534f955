"""The grid of a bench: which record or failure stands in which cell, and what shares no row."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.bench.cells import Failure, assemble
from moeprof.errors import UsageError
from moeprof.records import Capture, Correctness
from tests.bench.hand import bench, timed, uuid

WRONG = Correctness(False, 0.36, 1.0, 0.1, 9.0, problem="36 % matched")


def fail(solution, tokens, kind="timeout", message="no answer after 300 s"):
    return Failure(solution, uuid(tokens), tokens, kind, message)


def test_cells_stand_by_tokens_and_in_the_order_of_the_solutions():
    runs = [timed(n, t, 10.0 * t) for t in (901, 1, 7) for n in ("b", "a", "reference")]
    found = assemble(runs, (), ["b", "reference", "a"])
    assert found.solutions == ("b", "a") and found.baseline == "b"
    assert [w.seq_len for w in found.workloads] == [1, 7, 901]
    assert [[c.solution for c in row] for row in found.cells] == [["b", "a"]] * 3
    assert [c.run.samples("bare")[0].span_us for c in found.column("a")] == [10.0, 70.0, 9010.0]
    assert [c.solution for c in found.references] == ["reference"] * 3
    assert len(found.every_cell) == 9 and found.has_reference


def test_what_nobody_measured_is_missing_and_what_failed_says_how():
    found = assemble([timed("a", 1, 5.0), timed("b", 7, 6.0)], [fail("a", 7)], ["a", "b"])
    kinds = {(c.solution, c.workload.seq_len): c.kind for row in found.cells for c in row}
    assert kinds == {
        ("a", 1): "measured", ("b", 1): "missing", ("a", 7): "timeout", ("b", 7): "measured",
    }  # fmt: skip
    assert found.failures == (fail("a", 7),)
    assert not found.has_reference


def test_a_wrong_record_is_a_failure_that_shows_no_time_and_keeps_its_record():
    wrong = replace(timed("a", 1), passes=(), correctness=WRONG)
    cell = assemble([wrong], (), ["a"]).cells[0][0]
    assert (cell.kind, cell.failure.message) == ("wrong result", "36 % matched")
    assert cell.measured is None and cell.run is wrong


def test_a_record_without_any_time_is_an_error():
    cell = assemble([timed("a", 1)], (), ["a"]).cells[0][0]
    assert cell.kind == "error" and "no samples" in cell.failure.message


def test_a_failure_counts_more_than_a_record_of_the_same_cell():
    cached = fail("a", 1, "wrong result", "the output does not follow the inputs")
    cell = assemble([timed("a", 1, 5.0), timed("a", 7, 5.0)], [cached], ["a"]).cells[0][0]
    assert cell.kind == "wrong result" and cell.measured is None


def test_of_two_records_the_newest_is_shown_and_the_other_named():
    old = timed("a", 1, 5.0, created="2026-01-01T00:00:00+00:00")
    new = timed("a", 1, 6.0, created="2026-01-02T00:00:00+00:00")
    for runs in ([old, new], [new, old]):
        found = assemble(runs, (), ["a"])
        assert found.cells[0][0].run is new
        assert found.left_out == (
            "an older record of a at T = 1 (00000001, 2026-01-01T00:00:00+00:00) is left out",
        )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: replace(r, routing=replace(r.routing, histogram_hash="cd" * 32)), "routing"),
        (
            lambda r: replace(r, environment=replace(r.environment, device="NVIDIA H100")),
            "NVIDIA H100",
        ),
        (lambda r: replace(r, workload=replace(r.workload, definition="other")), "other"),
        (
            lambda r: replace(r, environment=replace(r.environment, device_kind="cpu")),
            "host clock",
        ),
        (
            lambda r: replace(r, capture=Capture("Nsight Systems", "", "", "a.sqlite", "rules", 3)),
            "Nsight Systems",
        ),
    ],
)
def test_work_that_differs_never_shares_a_row(change, told):
    found = assemble([timed("a", 1, 5.0), change(timed("b", 1, 6.0))], (), ["a", "b"])
    assert len(found.workloads) == 2
    assert sorted(c.kind for row in found.cells for c in row) == ["measured"] * 2 + ["missing"] * 2
    names = [workload.name for workload in found.workloads]
    assert len(set(names)) == 2 and any(told in name for name in names)


def test_a_failure_falls_on_the_row_whose_record_it_condemns_else_on_all():
    other = timed("b", 1, 6.0)
    other = replace(other, routing=replace(other.routing, histogram_hash="cd" * 32))
    failures = [fail("b", 1), fail("c", 1)]
    found = assemble([timed("a", 1, 5.0), other], failures, ["a", "b", "c"])
    kinds = {(c.workload.routing_hash[:2], c.solution): c.kind for r in found.cells for c in r}
    assert kinds["cd", "b"] == "timeout" and kinds["ab", "b"] == "missing"
    assert kinds["cd", "c"] == kinds["ab", "c"] == "timeout"


def test_a_workload_on_which_all_failed_keeps_its_row():
    found = assemble([timed("a", 7, 5.0)], [fail("a", 1), fail("b", 1), fail("b", 7)], ["a", "b"])
    assert [(w.seq_len, w.definition) for w in found.workloads] == [(1, ""), (7, "moe_fp8")]
    assert [c.kind for c in found.cells[0]] == ["timeout"] * 2


def test_records_of_solutions_that_were_not_asked_for_come_last_by_name():
    runs = [timed(n, 1, 5.0) for n in ("z", "y", "b")]
    assert assemble(runs, (), ["b"]).solutions == ("b", "y", "z")


def test_the_reference_alone_is_shown_as_a_solution():
    found = bench({"reference": {1: 5.0}})
    assert found.solutions == ("reference",) and len(found.every_cell) == 2
    assert found.column("reference")[0].kind == "measured"


def test_the_baseline_is_one_of_the_solutions():
    table = {"a": {1: 5.0}, "b": {1: 6.0}}
    assert bench(table, baseline="b").baseline == "b"
    with pytest.raises(UsageError, match="no solution 'c' in this bench"):
        bench(table, baseline="c")
    with pytest.raises(UsageError, match="without a record"):
        assemble((), (), ["a"])


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_records_and_failures_has_no_say(random):
    runs = [timed(n, t, 5.0) for n in "abc" for t in (1, 7, 14)]
    failures = [fail("d", t) for t in (1, 7)] + [fail("c", 1), fail("d", 1, "crashed")]
    once = assemble(runs, failures, ["a", "b", "c", "d"])
    random.shuffle(runs)
    random.shuffle(failures)
    assert assemble(runs, failures, ["a", "b", "c", "d"]) == once
