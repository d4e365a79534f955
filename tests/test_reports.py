"""Reports of fixed hand-made runs: key lines word for word, narrow terminals, JSON."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from moeprof.records import Correctness, PassResult, Run, StageCorrectness
from moeprof.reports.json import run_document
from moeprof.reports.table import Column, fit
from moeprof.reports.text import render_run, render_runs, row_label
from moeprof.reports.units import duration
from tests.builders import eager_script, make_cpu_run, make_run, stage_info


def shown(renderable: RenderableType, width: int = 160) -> list[str]:
    """What a terminal without colour prints, line by line."""
    out = io.StringIO()
    Console(file=out, width=width, no_color=True, highlight=False).print(renderable)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def words(lines: list[str], start: str) -> str:
    """The first line that starts with ``start``, with single spaces."""
    return next(" ".join(line.split()) for line in lines if line.strip().startswith(start))


@pytest.fixture(scope="module")
def large() -> Run:
    """T = 14107 with every pair executed, GPU bound."""
    return make_run(eager_script(3, 200_000), tokens=14107, pairs=14248)


def test_the_table_of_one_run(large: Run) -> None:
    lines = shown(render_run(large))
    assert words(lines, "gemm1") == (
        "gemm1 6,000.0 0.0 0.0 3.3 40.0 % 3 112,856 / 14,248 = 7.9x 401.0 67 1,104"
    )
    assert words(lines, "routing ") == (
        "routing synthetic uniform: P = 14,248 local pairs, A = 32 of 32 local experts active; "
        "weights quantised, seed 0"
    )
    assert words(lines, "sum") == "sum 15,000.0 0.0 0.0 22.0 100.0 % 21 2,807.0"
    assert words(lines, "solution") == (
        "solution hand_made on NVIDIA H200 (driver 580.1, CUDA 13.0, torch 2.11.0, triton 3.6.0)"
    )


def test_what_stands_below_the_table(large: Run) -> None:
    lines = shown(render_run(large))
    assert words(lines, "time ") == (
        "time wall 15,049.6 us = prologue 18.7 + span 15,022.0 + epilogue 9.0; of the span, "
        "GPU busy 99.9 %, orchestration 0.0 %"
    )
    assert words(lines, "trust") == (
        "trust orchestration between the outer events, us: timeline 7.3; bare - blocked 7.2; "
        "bare - graph 5.7: they agree (spread 1.6, tolerance 3.0)"
    )
    assert words(lines, "reconstruction") == (
        "reconstruction predicted 15,032.8 us between the outer events, bare 15,032.6 us: "
        "+0.0 % (within 751.6 us)"
    )
    assert words(lines, "spans") == (
        "spans between the outer events, us: bare 15,032.7, blocked 15,024.2, graph 15,001.5, "
        "an empty pair 5.8"
    )
    assert words(lines, "first call").endswith("812.35 ms, loading of libraries included")
    assert words(lines, "clocks").endswith(
        "SM 1,935 to 1,980 MHz, 305 to 310 W, 44 to 45 C; clock reasons: gpu_idle"
    )


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_no_line_is_wider_than_the_terminal(large: Run, width: int) -> None:
    for renderable in (render_run(large), render_runs([large]), render_run(make_cpu_run())):
        assert max(map(len, shown(renderable, width))) <= width


def test_narrow_terminals_lose_columns_not_digits(large: Run) -> None:
    at_100, at_80 = shown(render_run(large), 100), shown(render_run(large), 80)
    assert words(at_100, "gemm1") == "gemm1 6,000.0 0.0 0.0 3.3 40.0 % 3 7.9x 67 1,104"
    assert words(at_80, "gemm1") == "gemm1 6,000.0 0.0 0.0 3.3 40.0 % 7.9x 67"


def test_readings_that_differ_stand_above_the_table() -> None:
    run = make_run()
    blocked = tuple(replace(s, span_us=s.span_us - 40) for s in run.samples("blocked"))
    passes = tuple(PassResult("blocked", blocked) if p.name == "blocked" else p for p in run.passes)
    lines = shown(render_run(replace(run, passes=passes)))
    warned = next(i for i, line in enumerate(lines) if line.startswith("! trust:"))
    assert "they DIFFER" in lines[warned]
    assert warned < next(i for i, line in enumerate(lines) if "gemm1" in line)


def test_upper_bounds_are_called_so() -> None:
    slower = make_run(eager_script(3, 260_000)).timelines
    lines = shown(render_run(make_run(eager_script(3, 200_000), timelines=slower)))
    assert any(line.startswith("The forward under CUPTI: host figures are upper") for line in lines)
    assert any(line.startswith("! the reconstructed span") for line in lines)


def test_a_cpu_run_never_looks_like_a_gpu() -> None:
    lines = shown(render_run(make_cpu_run()))
    title = "CPU timings (Triton interpreter; torch twins): not GPU performance"
    assert any(line.startswith(title) for line in lines)
    assert words(lines, "gemm2") == "gemm2 60.0 21.4 % 56 / 9 = 6.2x"
    assert words(lines, "stand-ins") == (
        "stand-ins torch twins stand in for sgl_kernel: sgl_kernel does not load: no GPU"
    )
    assert not any("GPU busy" in line or "GB/s" in line and "GB/s -" in line for line in lines)


def test_a_wrong_result_shows_no_times() -> None:
    wrong = Correctness(
        False, 0.36, 1.0, 0.1, 9.0, problem="36 % matched, 85 % needed",
        stages=(
            StageCorrectness("gemm1", "gemm1_output", 0.001, True),
            StageCorrectness("swiglu_quant", "activated", 0.9, False),
        ),
    )  # fmt: skip
    lines = shown(render_run(make_run(correctness=wrong, passes=(), timelines=())))
    assert words(lines, "result") == "result WRONG: 36 % matched, 85 % needed"
    assert words(lines, "stage tensors") == (
        "stage tensors WRONG from swiglu_quant (activated, 0.9000) on: 1 of 2 differ"
    )
    assert not any("sum" in line for line in lines)


def test_passes_that_did_not_run_are_named() -> None:
    run = make_run()
    passes = tuple(
        PassResult("graph", unavailable="not capturable: stage gemm1 waits for the GPU")
        if p.name == "graph"
        else p
        for p in run.passes
    )
    lines = shown(render_run(replace(run, passes=passes)))
    assert words(lines, "not measured").endswith(
        "graph: not capturable: stage gemm1 waits for the GPU"
    )
    assert "bare - graph - (not capturable" in words(lines, "trust")


def test_a_record_without_stage_times_says_which_pass_it_lacks() -> None:
    lines = shown(render_run(make_run(passes=("first", "bare"))))
    assert any("holds no stage times; expected one of the passes" in line for line in lines)
    assert words(lines, "spans").startswith("spans between the outer events, us: bare 241.3")


def test_markup_in_names_is_text() -> None:
    run = make_run(warnings=("kernel [bold]x[/bold] ran",))
    assert "! kernel [bold]x[/bold] ran" in shown(render_run(run))


def test_several_runs_take_a_line_each(large: Run) -> None:
    wrong = make_run(
        tokens=16, correctness=Correctness(False, 0.1, 2.0, 0, 1), passes=(), timelines=()
    )
    lines = shown(render_runs([make_run(warnings=("w",)), large, wrong]))
    assert [" ".join(line.split()) for line in lines if "b8f4f012" in line] == [
        "b8f4f012 7 9 9 258.1 230.4 150.0 20.3 % 0.0262 ok, 1 warning",
        "b8f4f012 14,107 14,248 32 15,049.6 15,022.0 15,000.0 0.0 % 0.0262 ok",
        "b8f4f012 16 9 9 - - - - 2.0000 WRONG",
    ]


def test_long_row_names_keep_both_ends() -> None:
    assert row_label("gemm1+swiglu_quant") == "gemm1+swiglu_quant"
    assert row_label("+".join(n for n, _ in eager_script())) == "routing+..+gather"


def test_columns_leave_in_order_of_importance() -> None:
    wide = Column("w", ("1" * 20,), instead=Column("n", ("1",), dropped=2))
    kept = [wide, Column("a", ("aaaa",)), Column("b", ("bbbb",), dropped=5)]
    assert [c.header for c in fit(kept, 40)] == ["w", "a", "b"]
    assert [c.header for c in fit(kept, 16)] == ["n", "a", "b"]
    assert [c.header for c in fit(kept, 10)] == ["n", "a"]
    assert [c.header for c in fit(kept, 1)] == ["a"]


def test_units() -> None:
    assert [duration(v) for v in (12.34, 1234.5, 2.5e6)] == ["12.3 us", "1.23 ms", "2.50 s"]


# -- JSON -------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [make_run(), make_cpu_run(), make_run(passes=("bare",))])
def test_the_document_is_json(run: Run) -> None:
    document = run_document(run)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["schema"] == "moeprof.run/1"


def test_the_document_closes_like_the_profile() -> None:
    document = run_document(make_run())
    found = document["profile"]
    assert found["source"] == "reconstructed"
    assert sum(stage["time_us"] for stage in document["stages"]) == pytest.approx(found["span_us"])
    gemm1 = document["stages"][3]
    assert gemm1["name"] == "gemm1" and gemm1["busy_us"] == 60.0
    assert gemm1["executed"]["rows"] == 56 and gemm1["necessary"]["rows"] == 9
    assert document["passes"]["bare"]["samples"] == 60


def test_what_is_not_finite_is_null() -> None:
    run = make_run(
        correctness=Correctness(False, 0.0, math.nan, math.nan, math.inf), passes=(), timelines=()
    )
    document = run_document(run)
    assert document["correctness"]["relative_l2"] is None
    assert document["profile"] is None and document["stages"] == []
    json.dumps(document, allow_nan=False)


def test_an_unneeded_stage_is_named_with_its_reason() -> None:
    script = (*eager_script(1), ("dequantise", eager_script(1)[0][1]))
    infos = [stage_info(name) for name, _ in eager_script(1)]
    extra = stage_info("dequantise", why="the op takes bf16 activations only")
    lines = shown(render_run(make_run(script, stages=[*infos, extra])))
    assert words(lines, "not needed").endswith("dequantise: the op takes bf16 activations only")
