"""Reports over many records: what is grouped, compared and said, and the figures made of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.errors import UsageError
from moeprof.records import CALLABLE, Correctness, MachineCeilings, PassResult, Run
from moeprof.reports.html import figures, plot, roofline
from moeprof.reports.html.page import report_page
from moeprof.reports.markdown import report_markdown
from moeprof.reports.survey import tables
from moeprof.reports.survey.build import build
from moeprof.reports.survey.data import ReportData
from moeprof.reports.survey.document import report_document
from moeprof.reports.survey.summary import subject
from tests.builders import make_cpu_run, make_run
from tests.comparisons import at, fused, named, pipeline

SMALL = "00000007-0000-0000-0000-000000000000"


def reference(run: Run) -> Run:
    return named(run, "reference")


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Three solutions at T = 14107, two of them at T = 7 too."""
    large = [reference(pipeline(scale=3.0)), pipeline(), fused()]
    small = [at(pipeline(tokens=7, pairs=9, scale=0.01), 7, SMALL),
             at(fused(tokens=7, pairs=9, scale=0.01), 7, SMALL)]  # fmt: skip
    return [*large, *small]


@pytest.fixture(scope="module")
def data(runs: list[Run]) -> ReportData:
    return build(runs)


# ---------------------------------------------------------------- what is in it


def test_solutions_go_from_slow_to_fast_and_workloads_from_small_to_large(data) -> None:
    assert data.solutions == ("reference", "triton_v2", "flashinfer_moe")
    assert [workload.name for workload in data.workloads] == [
        "T = 7 · 00000007",
        "T = 14,107 · b8f4f012",
    ]
    assert [len(workload.pairs) for workload in data.workloads] == [1, 3]
    assert all(pair.comparison.residual_ns == 0 for w in data.workloads for pair in w.pairs)


def test_the_default_pair_leaves_the_reference_aside(data) -> None:
    assert data.default_pair == ("triton_v2", "flashinfer_moe")
    alone = build([reference(pipeline(scale=3.0)), fused()])
    assert alone.default_pair == ("reference", "flashinfer_moe")
    assert build([fused()]).default_pair is None


def test_the_order_of_the_files_changes_nothing(runs, data) -> None:
    again = build(reversed(runs))
    assert report_page(again) == report_page(data)
    assert report_markdown(again) == report_markdown(data)


def test_of_two_records_of_a_solution_the_newest_is_shown(runs) -> None:
    later = replace(runs[1], created="2026-02-01T00:00:00+00:00", warnings=("seen",))
    found = build([later, *runs])
    assert found.workloads[-1].entry("triton_v2").run is later
    assert found.left_out == (
        "an older record of triton_v2 at T = 14,107 (b8f4f012, 2026-01-31T12:59:59+00:00) is left "
        "out",
    )
    assert tables.warnings(found)[0] == found.left_out[0]


@pytest.mark.parametrize("what", ["device", "routing"])
def test_records_of_another_device_or_routing_stand_apart(runs, what: str) -> None:
    other = runs[2]
    if what == "device":
        other = replace(other, environment=replace(other.environment, device="NVIDIA B200"))
    else:
        other = replace(other, routing=replace(other.routing, histogram_hash="cd" * 32))
    found = build([runs[1], other])
    assert [len(workload.entries) for workload in found.workloads] == [1, 1]
    names = [workload.name for workload in found.workloads]
    assert len(set(names)) == 2 and ("B200" in names[0] or "routing" in names[0])
    assert set(found.default_pair) == {"triton_v2", "flashinfer_moe"}
    assert not any(workload.pairs for workload in found.workloads)
    report_page(found)


def test_two_that_cannot_be_compared_say_why(runs) -> None:
    other = replace(runs[2], environment=replace(runs[2].environment, driver="999.9"))
    found = build([runs[1], other]).workloads[0].pairs[0]
    assert found.comparison is None
    assert found.refused == ("the driver differs: 580.1 for triton_v2, 999.9 for flashinfer_moe",)
    assert "cannot be compared" in report_markdown(build([runs[1], other]))


def test_a_wrong_result_stays_and_is_named_first(runs) -> None:
    wrong = replace(
        runs[1],
        correctness=Correctness(False, 0.2, 0.9, 0.1, 5.0, problem="20 % of elements match"),
        passes=(),
        timelines=(),
    )
    found = build([wrong, runs[2]])
    entry = found.workloads[0].entry("triton_v2")
    assert entry.profile is None and entry.problem == "wrong result: 20 % of elements match"
    assert tables.latencies(found).rows[0][3:] == ("3,128.9", "WRONG")
    assert any("WITHOUT stage times: triton_v2 at T = 14,107" in s for s in found.summary)
    assert "the result of triton_v2 is wrong" in found.workloads[0].pairs[0].refused[0]
    report_page(found)


def test_no_samples_at_all_is_said_and_no_crash(runs) -> None:
    empty = replace(runs[1], passes=(PassResult("bare", unavailable="stopped"),), timelines=())
    found = build([empty, runs[2]])
    entry = found.workloads[0].entry("triton_v2")
    assert entry.latency_us is None and "holds no stage times" in entry.problem
    assert found.solutions == ("flashinfer_moe", "triton_v2")
    for render in (report_page, report_markdown, report_document):
        render(found)


def test_nothing_to_report_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no record to report"):
        build([])


# ---------------------------------------------------------------- what is said


def test_the_summary_says_what_matters(data) -> None:
    assert subject(data) == (
        "3 solutions on 2 workloads (T = 7 to 14,107) of moe_fp8; routing synthetic uniform; "
        "NVIDIA H200"
    )
    first, largest, cause, *_ = data.summary
    assert first.startswith("At T = 14,107 triton_v2 takes 11.4")
    assert largest.startswith("Work amplification is the largest cause")
    assert cause.startswith("8.07x the rows in gemm1 cost triton_v2")
    assert "The lowest median latency: flashinfer_moe on 2 of 2 workloads" in data.summary


def test_the_ledger_has_floor_amplification_and_efficiency(data) -> None:
    grid = tables.ledger(data.workloads[-1].entry("triton_v2"))
    row = dict(zip(range(len(grid.headings)), next(r for r in grid.rows if r[0] == "gemm1"),
                   strict=True))  # fmt: skip
    assert [row[i] for i in (1, 2, 3)] == ["13,982", "112,856", "8.1x"]
    assert [row[i] for i in (11, 12, 13, 14)] == ["615.9", "8.07x", "77.5 %", "6,415.6"]
    assert row[17] == "FLOPs"
    opaque = tables.ledger(data.workloads[-1].entry("flashinfer_moe"))
    assert "gemm1*" in [cells[0] for cells in opaque.rows]
    assert opaque.title.endswith("(* on the solution's word)")


def test_samples_are_summed_up(data) -> None:
    grid = tables.samples(data.workloads[-1])
    for cells in grid.rows:
        figures_us = [float(cell.replace(",", "")) for cell in cells[2:-1]]
        assert figures_us == sorted(figures_us) and cells[1] == "30"
    assert tables.quantile([1.0, 2.0, 4.0], 0.75) == 3.0


def test_one_doubt_about_many_records_is_said_once(runs) -> None:
    doubtful = [replace(run, warnings=("the host was busy",)) for run in runs]
    (found,) = [w for w in tables.warnings(build(doubtful)) if w.startswith("the host was busy")]
    assert found == (
        "the host was busy: triton_v2 at T = 7, flashinfer_moe at T = 7, reference at T = 14,107 "
        "and 2 more"
    )


def test_the_ceilings_are_the_records_own_if_any_has_them(runs, data) -> None:
    assert data.ceilings_label.startswith("assumed")
    known = replace(runs[1], ceilings=MachineCeilings(4e12, 5e12, 1.5e15, 1.25e15))
    found = build([known, runs[2]])
    assert found.ceilings_label == "measured beside the runs: 5.00 TB/s read, 1,250 TFLOP/s FP8"
    roof = roofline.roofline(found.workloads[0], found, figures.row_colours(found))["data"][0]
    assert (roof["x"][1], roof["y"][1], roof["y"][2]) == (250.0, 1250.0, 1250.0)


# ---------------------------------------------------------------- figures


def test_stages_and_gaps_stack_to_the_span(data) -> None:
    workload = data.workloads[-1]
    figure = figures.stages(workload, figures.row_colours(data))
    assert figure["data"][0]["y"] == ["reference", "triton_v2", "flashinfer_moe"]
    for position, entry in enumerate(workload.entries):
        total = sum(trace["x"][position] for trace in figure["data"])
        assert total == pytest.approx(entry.profile.span_ns / 1e3, abs=0.2)


def test_the_waterfall_goes_from_one_span_to_the_other(data) -> None:
    comparison = data.workloads[-1].pair(data.default_pair).comparison
    bars, values = figures.waterfall(comparison)["data"]
    assert bars["measure"][0] == "absolute" and bars["measure"][-1] == "total"
    assert sum(bars["x"][:-1]) == pytest.approx(bars["x"][-1], abs=0.2)
    assert bars["x"][-1] == pytest.approx(comparison.span_after_ns / 1e3, abs=0.01)
    assert values["text"][1].strip().startswith("-")


def test_the_roofline_has_a_point_for_each_gemm(data) -> None:
    figure = roofline.roofline(data.workloads[-1], data, figures.row_colours(data))
    points = {
        trace["name"]: dict(zip(trace["text"], zip(trace["x"], trace["y"], strict=True),
                                strict=True))
        for trace in figure["data"]
        if "text" in trace
    }  # fmt: skip
    assert set(points) == set(data.solutions)
    # 112,856 rows of 4 * 2048 * 7168 FLOPs in 6,415.6 us over 2,698.5 MB
    assert points["triton_v2"]["gemm1"] == pytest.approx((2456.0, 1033.0), rel=1e-3)


def test_timeline_bars_are_the_lanes(data) -> None:
    lanes = data.workloads[0].entry("triton_v2").lanes
    figure = figures.timeline(lanes, figures.row_colours(data))
    for trace, lane in zip(figure["data"], lanes.lanes, strict=True):
        assert trace["base"] == [round(i.begin_ns / 1e3, 2) for i in lane.intervals]
        assert len(trace["text"]["index"]) == len(trace["marker"]["color"]["index"]) == len(
            lane.intervals
        )  # fmt: skip
    idle = figure["data"][-1]
    assert "launch latency before gemm1" in idle["text"]["dict"]


def test_every_colour_of_a_figure_is_in_the_style(data, root: Path) -> None:
    style = (root / "moeprof" / "reports" / "html" / "page.css").read_text()
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    names = set(figures.row_colours(data).values()) | set(figures.CAUSE_COLOURS.values())
    for module in (figures, roofline):
        names |= set(re.findall(r'"(--[\w-]+)"', Path(module.__file__).read_text()))
    names |= {f"--series-{i}" for i in range(plot.SERIES_COLOURS)}
    names |= {f"--other-{i}" for i in range(figures.OTHER_COLOURS)}
    assert len(names) > 20
    for name in names:
        assert f"{name}:" in light and f"{name}:" in dark, name


def test_logarithmic_axes_have_readable_ticks() -> None:
    axis = plot.log_axis("us", [338.0, 1143.0])
    assert axis["ticktext"] == ["500", "1,000"]
    assert plot.log_axis("us", [0.5, 40_000.0])["ticktext"] == ["1", "10", "100", "1,000",
                                                                   "10,000"]  # fmt: skip
    assert plot.log_axis("us", [])["ticktext"] == ["1"]


# ---------------------------------------------------------------- formats


def test_the_page_fetches_nothing_and_escapes_what_records_say(runs) -> None:
    evil = '"><script>alert(1)</script>'
    page = report_page(build([replace(runs[1], warnings=(evil,)), named(runs[2], evil)]))
    assert "default-src 'none'" in page
    assert evil not in page and "&quot;&gt;&lt;script&gt;alert(1)" in page
    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=", page.split("<script")[0])
    assert page.count("</script>") == 3


def test_markdown_holds_every_table(data) -> None:
    text = report_markdown(data)
    lines = text.splitlines()
    assert lines[0] == "# Where the time goes" and text.endswith("\n")
    assert "| T = 7 · 00000007 | 9 | 9 | - | 151.6 | 102.7 |" in lines
    assert lines.count("### triton\\_v2") == lines.count("### flashinfer\\_moe") == 2
    assert sum(line.startswith("### From triton\\_v2 to flashinfer\\_moe") for line in lines) == 2
    for line in lines:
        if line.startswith("|"):
            assert line.endswith("|")


def test_the_document_closes(data) -> None:
    document = json.loads(json.dumps(report_document(data), allow_nan=False))
    assert document["schema"] == "moeprof.report/1"
    assert document["default_pair"] == ["triton_v2", "flashinfer_moe"]
    large = document["workloads"][-1]
    assert [entry["label"] for entry in large["entries"]] == list(data.solutions)
    for pair in large["comparisons"]:
        assert sum(bar["delta_ns"] for bar in pair["bars"]) == pair["delta_ns"]
    entry = large["entries"][1]
    assert entry["run"]["profile"]["source"] == "reconstructed"
    assert len(entry["bare_us"]) == 30
    idle = next(lane for lane in entry["timeline"]["lanes"] if lane["kind"] == "idle")
    begin_ns, end_ns, row, cause = idle["intervals"][0]
    assert end_ns > begin_ns and row == "prepare_moe_input" and cause == "launch latency"


def test_a_cpu_record_says_what_it_is() -> None:
    found = build([make_cpu_run()])
    text = report_markdown(found)
    assert "wall clock" in text and "not GPU performance" in text
    assert "torch twins stand in for sgl\\_kernel" in text
    assert report_page(found)


def test_a_callable_of_the_users_can_be_reported() -> None:
    run = make_run()
    workload = replace(run.workload, uuid="0" * 8, constants={}, definition=f"{CALLABLE}my layer")
    found = build([replace(run, workload=workload)])
    assert found.workloads[0].entries[0].problem == ""
    assert tables.latencies(found).rows[0][1:3] == ("-", "-")
    assert report_page(found) and report_markdown(found)
