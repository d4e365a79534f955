"""Kernel counters in a record and in every report of it; a record that is there stays as it was."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from moeprof.capturing import attach
from moeprof.capturing.ncu_csv import read_metrics
from moeprof.errors import UsageError
from moeprof.records import KernelMetrics, Run
from moeprof.reports.json import run_document
from moeprof.reports.kernel_metrics import TITLE, kernel_grid, stalls
from moeprof.reports.markdown import report_markdown
from moeprof.reports.survey.build import build
from moeprof.reports.text import render_run
from moeprof.storage import store
from tests.builders import make_run

MARKDOWN_ROW = "| gemm1 | device\\_kernel | 242.0 | 3,592 |"
DATA = Path(__file__).resolve().parents[1] / "data" / "ncu"
MEASURED = KernelMetrics(
    stage="gemm1",
    launch=0,
    name="void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<int>>(Params)",
    duration_ns=241_984.0,
    dram_bytes_per_second=3.592e12,
    dram_fraction=0.746,
    tensor_pipe_fraction=0.22,
    occupancy_fraction=0.186,
    sm_clock_hz=1.755e9,
    registers=168,
    stalls={"wait": 1.25, "long_scoreboard": 7.72, "gmma": 0.5, "misc": 0.01},
)


def shown(run: Run, width: int = 160) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, no_color=True).print(render_run(run))
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def measured(**changes: object) -> Run:
    return replace(make_run(), kernel_metrics=(replace(MEASURED, **changes),))  # type: ignore[arg-type]


def test_a_row_in_the_terminal_below_the_stages() -> None:
    lines = shown(measured())
    row = (
        "gemm1 device_kernel 242.0 3,592 74.6 % 22.0 % 18.6 % 1,755 168 "
        "long scoreboard 7.7, wait 1.2, gmma 0.5"
    )
    (position,) = (number for number, line in enumerate(lines) if line == row)
    stage = next(number for number, line in enumerate(lines) if line.startswith("gather "))
    ledger = next(number for number, line in enumerate(lines) if line.startswith("Work ledger"))
    assert stage < lines.index(TITLE) < position < ledger


def test_without_counters_nothing_is_said_of_them() -> None:
    run = make_run()
    assert kernel_grid(run) is None
    assert not any("Nsight Compute" in line for line in shown(run))


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width, no_color=True).print(render_run(measured()))
    assert max(len(line.rstrip()) for line in out.getvalue().splitlines()) <= width
    assert "device_kernel" in out.getvalue()


def test_what_was_not_collected_is_a_dash() -> None:
    run = measured(
        dram_bytes_per_second=None, dram_fraction=None, tensor_pipe_fraction=None,
        occupancy_fraction=None, sm_clock_hz=None, registers=None, stalls={},
    )  # fmt: skip
    grid = kernel_grid(run)
    assert grid is not None
    assert grid.rows == (("gemm1", "device_kernel", "242.0", *("-" * 7)),)


def test_a_record_without_times_still_shows_its_counters() -> None:
    run = replace(measured(), passes=(), timelines=())
    lines = shown(run)
    assert any("gemm1 device_kernel 242.0" in line for line in lines)
    assert any("holds no stage times" in line for line in lines)


def test_stalls_are_the_largest_first() -> None:
    assert stalls({"a": 1.0, "b_c": 2.0, "d": 0.5, "e": 0.1}) == "b c 2.0, a 1.0, d 0.5"
    assert stalls({}) == "-"


def test_json_and_markdown_have_them_too() -> None:
    run = measured()
    (kernel,) = run_document(run)["kernel_metrics"]
    assert kernel["dram_fraction"] == 0.746 and kernel["stalls"]["long_scoreboard"] == 7.72
    json.dumps(kernel, allow_nan=False)
    text = report_markdown(build([run]))
    assert TITLE in text.replace("\\", "") and MARKDOWN_ROW in text
    assert TITLE not in report_markdown(build([make_run()]))


# ---------------------------------------------------------------- joining a record


@pytest.fixture
def skeleton() -> Run:
    """What ncu's own run leaves: the same work, no times."""
    run = make_run()
    return replace(run, passes=(), timelines=(), calibration=None, ceilings=None)


def test_counters_join_a_copy_of_the_newest_record_of_the_same_work(
    tmp_path: Path, skeleton: Run
) -> None:
    older = replace(make_run(), created="2026-01-30T00:00:00+00:00")
    newer = replace(make_run(), created="2026-01-31T00:00:00+00:00", position=3)
    other = replace(
        make_run(), created="2026-02-01T00:00:00+00:00",
        solution=replace(newer.solution, source_hash="00" * 32),
    )  # fmt: skip
    paths = [store.save(run, tmp_path) for run in (older, newer, other, skeleton)]
    before = [path.read_bytes() for path in paths]
    found = attach.newest_of_same_work(tmp_path, skeleton, None)
    assert found == newer
    joined = attach.with_metrics(found, (MEASURED,))
    assert joined.kernel_metrics == (MEASURED,)
    assert joined.created > "2026-02" and joined.timelines == newer.timelines
    assert "the times are those of the record of 2026-01-31T00:00:00+00:00" in joined.warnings[-1]
    assert store.load(store.save(joined, tmp_path)) == joined
    assert [path.read_bytes() for path in paths] == before


def test_another_stage_is_added_and_the_same_one_replaced() -> None:
    run = attach.with_metrics(make_run(), (MEASURED, replace(MEASURED, launch=1)))
    other = replace(MEASURED, stage="gemm2")
    run = attach.with_metrics(run, (other,))
    again = replace(MEASURED, duration_ns=1.0)
    run = attach.with_metrics(run, (again,))
    assert run.kernel_metrics == (other, again)
    assert sum("copy with kernel metrics" in warning for warning in run.warnings) == 1


def test_without_a_record_the_counters_stand_alone(tmp_path: Path, skeleton: Run) -> None:
    assert attach.newest_of_same_work(tmp_path, skeleton, None) is None
    alone = attach.with_metrics(skeleton, (MEASURED,))
    assert alone.warnings == skeleton.warnings and alone.kernel_metrics == (MEASURED,)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("solution", "other source code"),
        ("workload", "another workload"),
        ("routing", "another routing"),
        ("environment", "another device"),
    ],
)
def test_a_record_of_other_work_is_refused(field: str, words: str, skeleton: Run) -> None:
    changed = {
        "solution": replace(skeleton.solution, source_hash="00" * 32),
        "workload": replace(skeleton.workload, seq_len=8),
        "routing": replace(skeleton.routing, histogram_hash="cd" * 32),
        "environment": replace(skeleton.environment, device="NVIDIA B200"),
    }[field]
    run = replace(make_run(), **{field: changed})
    with pytest.raises(UsageError, match=f"mine.json is of {words}"):
        attach.require_same_work(run, skeleton, "mine.json")
    attach.require_same_work(make_run(), skeleton, "mine.json")


def test_real_counters_fit_a_record(tmp_path: Path) -> None:
    kernels = read_metrics((DATA / "h200_gemm1_two_kernels.csv").read_text(), "gemm1")
    run = attach.with_metrics(make_run(), kernels)
    assert store.load(store.save(run, tmp_path)).kernel_metrics == kernels
    grid = kernel_grid(run)
    assert grid is not None
    assert [row[1:4] for row in grid.rows] == [
        ("get_group_gemm_starts", "3.2", "2"),
        ("device_kernel", "242.0", "3,593"),
    ]
