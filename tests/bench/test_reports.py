"""A bench in a terminal, as Markdown, as JSON and as a page: the same figures, nothing lost."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from moeprof.bench.cells import Failure, assemble
from moeprof.bench.figures import latency_us
from moeprof.reports import bench_phrases as phrases
from moeprof.reports.bench_grids import Mark, MarkedGrid, four_digits
from moeprof.reports.bench_html import bench_page
from moeprof.reports.bench_json import DOCUMENT, bench_document
from moeprof.reports.bench_markdown import bench_markdown, grid_lines
from moeprof.reports.bench_table import cut, heading
from moeprof.reports.bench_text import render_bench
from moeprof.storage.store import load
from tests.bench.hand import bench, explained, timed, uuid
from tests.builders import make_cpu_run
from tests.comparisons import named

RECORDED = Path(__file__).resolve().parents[2] / "traces" / "recorded" / "h200-bench"
TABLE = {
    "alpha": {1: 10.0, 7: 20.0, 901: 50.0},
    "beta": {1: 20.0, 7: 20.1, 901: 100.0},
    "reference": {1: 100.0, 7: 400.0, 901: 1000.0},
}


def text_of(found, width=100):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(render_bench(found))
    return console.file.getvalue()


def table(text, title):
    """The cells of the table under a title, by its first column."""
    lines = text[text.index(title) :].splitlines()[1:]
    begin = next(i for i, line in enumerate(lines) if "───" in line)
    rows = []
    for line in lines[begin + 1 :]:
        if not line.strip():
            break
        rows.append(re.split(r"\s{2,}| (?=[\d.,]+x?[*~]?(?:\s|$))", line.strip()))
    return {row[0]: row[1:] for row in rows}


@pytest.fixture(scope="module")
def recorded():
    runs = [load(path) for path in sorted(RECORDED.rglob("*.json.gz"))]
    return assemble(runs, (), sorted({run.solution.name for run in runs}))


@pytest.fixture(scope="module")
def failed():
    """Every kind of failure, and a cell that nobody measured."""
    kinds = ["wrong result", "timeout", "crashed", "not available", "error", "interrupted"]
    failures = [
        Failure(f"s{i}", uuid(1), 1, kind, f"it ended:\n  {kind}") for i, kind in enumerate(kinds)
    ]
    runs = [timed("good", t, 10.0 * t, 5.0 * t) for t in (1, 7)] + [timed("reference", 1, 99.0)]
    runs += [timed(f"s{i}", 7, 80.0 + i) for i in range(5)]
    names = ["good", *(f"s{i}" for i in range(6))]
    return assemble(runs, failures, names)


def test_latencies_speedups_and_winners_in_a_terminal():
    text = text_of(bench(TABLE))
    rows = table(text, "Eager latency, us")
    assert rows["1"][-4:] == ["100.0", "10.0*", "20.0", "alpha"]
    assert rows["7"][-4:] == ["400.0", "20.0~", "20.1~", "tie: alpha, beta"]
    speedups = table(text, "Eager speedup over the eager latency of reference")
    assert speedups["1"][-3:-1] == ["10.00x*", "5.00x"]
    assert speedups["901"][-3:-1] == ["20.00x*", "10.00x"]
    assert "* fastest beyond the noise; ~ tied for the fastest" in text
    assert "Fastest launched eagerly: alpha on 2 of 3 workloads, 1 tied" in text
    tied = bench({"alpha": {1: 5.0, 7: 6.0}, "beta": {1: 5.0, 7: 6.0}})
    assert "Fastest launched eagerly: tied on 2 of 2 workloads\n" in text_of(tied)


def test_regimes_and_summaries_in_a_terminal():
    text = text_of(bench(TABLE))
    arithmetic = table(text, "Speedup over reference by regime, arithmetic mean")
    assert arithmetic["tiny (T=1-7)"][-2:] == ["15.00x", "12.45x"]
    geometric = table(text, "Speedup over reference by regime, geometric mean")
    assert geometric["tiny (T=1-7)"][-2:] == ["14.14x", "9.98x"]
    ratio = table(text, "Times faster than alpha by regime")
    assert ratio["large (T=901)"][-2:] == ["1.00x", "0.50x"]
    summary = table(text, "Eager, all workloads")
    mean = (10 + 20 + 20) / 3
    assert summary["alpha"][:2] == ["3", f"{mean:.2f}x"] and summary["alpha"][-3:-1] == ["2", "1"]


TITLES = (
    "Eager latency, us", "Graph latency, us",
    "Eager speedup over the eager latency of reference",
    "Graph speedup over the eager latency of reference",
    "Speedup over reference by regime, arithmetic mean",
    "Speedup over reference by regime, geometric mean",
    "Times faster than triton_v2 by regime", "Eager, all workloads", "Graph, all workloads",
    "Where the eager span goes at T = 56", "Where the eager span goes at T = 14,107",
    "GPU busy, eager, by stage at T = 14,107", "Every cell, us",
)  # fmt: skip


def test_every_table_is_in_the_terminal_and_in_markdown():
    found = assemble(explained(), (), ["triton_v2", "flashinfer_moe"])
    text, markdown = text_of(found), bench_markdown(found).replace("\\_", "_")
    for title in TITLES:
        assert re.search(f"^{re.escape(title)}", text, re.M), title
        assert re.search(f"^(## |### |){re.escape(title)}", markdown, re.M), title


def test_every_failure_is_in_the_table_and_in_one_line(failed):
    text = text_of(failed, width=140)
    rows = table(text, "Eager latency, us")
    assert rows["1"][-8:-1] == ["10.0", "WRONG", "timeout", "crashed", "n/a", "error", "cut off"]
    assert rows["7"][-2] == "-"
    for kind in ("wrong result", "timeout", "crashed", "not available", "error", "interrupted"):
        assert f"(00000001): {kind}: it ended: {kind}" in text
    assert "Failed: 6 of 16 cells" in text
    assert "s5 was not measured at T = 7 (00000007)" in text
    assert "WRONG wrong result; cut off interrupted; n/a not available" not in text
    markdown = bench_markdown(failed)
    assert (
        "| **WRONG** | **timeout** | **crashed** | **n/a** | **error** | **cut off** |" in markdown
    )
    assert markdown.count("it ended:") == 6


def test_a_mean_over_fewer_workloads_says_so_and_leads_nothing():
    short = {**TABLE, "beta": {1: 1.0}}
    text = text_of(bench(short))
    rows = table(text, "Speedup over reference by regime, arithmetic mean")
    assert rows["tiny (T=1-7)"][-2:] == ["15.00x", "100.00x+"]
    assert rows["large (T=901)"][-1] == "-"
    assert "+ over the workloads that it has, not all of them" in text
    lines = bench_markdown(bench(short)).splitlines()
    assert any("15.00x | 100.00x+ |" in line and "**" not in line for line in lines)


def test_one_failure_of_a_solution_everywhere_is_one_line():
    failures = [Failure("b", uuid(t), t, "not available", "needs SM100") for t in range(1, 20)]
    found = assemble([timed("a", t, 5.0) for t in range(1, 20)], failures, ["a", "b"])
    assert phrases.failures(found) == (
        "b at T = 1, 2, 3, 4, 5, 6 and 13 more (19 workloads): not available: needs SM100",
    )


def test_without_a_reference_there_are_no_speedups_but_all_the_rest():
    found = bench({name: TABLE[name] for name in ("alpha", "beta")})
    for text in (text_of(found), bench_markdown(found), bench_page(found)):
        assert "no speedups: reference has no latency here to compare with" in text
    text = text_of(found)
    assert "Speedup over" not in text and "Times faster than alpha by regime" in text
    document = bench_document(found)
    assert document["reference"] is None
    assert {cell["eager"]["speedup"] for cell in document["cells"]} == {None}


def test_one_solution_alone_wins_nothing_and_is_shown_all_the_same():
    found = bench({"alpha": TABLE["alpha"], "reference": TABLE["reference"]})
    text = text_of(found)
    assert "Fastest" not in text and "Times faster" not in text and "winner " not in text.split(
        "Eager latency")[1]  # fmt: skip
    assert table(text, "Eager latency, us")["7"][-2:] == ["400.0", "20.0"]
    lead = "Speedup over reference launched eagerly, geometric mean: alpha 15.9x."
    assert f'<p class="lead">{lead}</p>' in bench_page(found)


def test_a_bench_of_failures_only_is_shown():
    found = assemble((), [Failure("a", uuid(1), 1, "crashed", "it died")], ["a"])
    for text in (text_of(found), bench_markdown(found), bench_page(found)):
        assert "it died" in text
    assert bench_document(found)["cells"][0]["kind"] == "crashed"


def test_accounts_and_stages_in_words():
    runs = explained()
    text = text_of(assemble(runs, (), ["triton_v2", "flashinfer_moe"]), width=140)
    rows = table(text, "Where the eager span goes at T = 14,107")
    assert rows["flashinfer_moe"][rows["flashinfer_moe"].index("1.00x") + 1] == "fastest"
    assert "8.07x" in rows["triton_v2"] and "10,115" in rows["triton_v2"]
    stages = table(text, "GPU busy, eager, by stage at T = 14,107")
    assert stages["dequantise"] == ["-", "773.4"] and stages["gemm1"] == ["6,416", "850.9"]
    assert stages["sum"] == ["11,440", "3,108"]


def test_a_cpu_is_not_called_a_gpu():
    runs = [named(make_cpu_run(), name) for name in ("a", "b", "reference")]
    found = assemble(runs, (), ["a", "b"])
    text = text_of(found)
    assert "! CPU timings: not GPU performance" in text
    assert "Eager latency, us: median of the pass bare, wall clock\n" in text
    assert "Wall clock, by stage at T = 7" in text and "GPU busy" not in text
    assert "by regime" not in text, "one workload makes no regimes"
    assert text.count("torch twins stand in for") == 1


def test_names_are_shown_as_they_are():
    wicked = "<b>|x_y</script>"
    found = bench({wicked: {1: 5.0}, "b": {1: 6.0}, "reference": {1: 50.0}})
    assert wicked in text_of(found, width=200)
    assert r"\<b\>\|x\_y\</script\>" in bench_markdown(found)
    page = bench_page(found)
    assert "<b>" not in page.split('<script type="text/plain"')[0]


def test_the_document_holds_every_figure(failed):
    found = bench(TABLE)
    document = json.loads(json.dumps(bench_document(found), allow_nan=False))
    assert (document["schema"], DOCUMENT) == ("moeprof.bench/1", "moeprof.bench/1")
    cells = {(c["solution"], c["num_tokens"]): c for c in document["cells"]}
    assert len(cells) == 9
    alpha = cells["alpha", 7]
    assert (alpha["eager"]["median_us"], alpha["eager"]["speedup"]) == (20.0, 20.0)
    assert alpha["eager"]["samples_us"] == [20.0] and alpha["graph"] is None
    assert cells["beta", 901]["eager"]["times_faster_than_baseline"] == 0.5
    assert alpha["first_call_ms"] == 7.0
    assert alpha["correctness"]["relative_l2"] == 0.0262
    fastest = [workload["fastest"]["eager"] for workload in document["workloads"]]
    assert fastest == [
        {"winner": "alpha", "tied": []},
        {"winner": None, "tied": ["alpha", "beta"]},
        {"winner": "alpha", "tied": []},
    ]
    kinds = {cell["kind"] for cell in bench_document(failed)["cells"]}
    assert {"timeout", "missing", "measured", "wrong result"} <= kinds


def test_equal_benches_give_equal_reports(failed):
    again = assemble(
        [c.run for c in reversed(failed.every_cell) if c.run],
        list(reversed(failed.failures)),
        list(failed.solutions),
    )
    assert bench_page(again) == bench_page(failed)
    assert bench_markdown(again) == bench_markdown(failed)
    assert bench_document(again) == bench_document(failed)


def test_all_recorded_cells_fit_a_terminal_and_agree_with_every_format(recorded):
    names, cells = len(recorded.solutions), len(recorded.every_cell)
    assert cells == (names + 1) * len(recorded.workloads)
    text = text_of(recorded)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    rows = table(text, "Graph latency, us")
    assert len(rows) == len(recorded.workloads)
    for row, workload in zip(recorded.cells, recorded.workloads, strict=True):
        figures = [c for c in rows[f"{workload.seq_len:,}"] if re.fullmatch(r"[\d.,]+[*~]?", c)]
        shown = [figure.rstrip("*~") for figure in figures]
        expected = [four_digits(latency_us(cell, "graph")) for cell in row]
        assert shown[-names:] == expected
    document = json.loads(json.dumps(bench_document(recorded), allow_nan=False))
    assert {cell["kind"] for cell in document["cells"]} == {"measured"}
    for cell in document["cells"]:
        assert cell["launches"] > 0 and cell["correctness"]["passed"]
        found = next(
            c for c in recorded.every_cell
            if (c.solution, c.workload.seq_len) == (cell["solution"], cell["num_tokens"])
        )  # fmt: skip
        assert cell["eager"]["median_us"] == latency_us(found, "eager")
    for explanation in document["explanations"]:
        for one in explanation["accounts"]:
            parts = ("gemm_us", "other_us", "stepless_us", "gaps_us", "host_us")
            assert sum(one[part] for part in parts) == pytest.approx(one["span_us"], abs=0.01)
            assert sum(one["causes"].values()) == pytest.approx(one["gap_us"], abs=1e-6)
    markdown = bench_markdown(recorded)
    assert markdown.count("<details>") == markdown.count("</details>") > 10
    for line in markdown.splitlines():
        if line.startswith("| "):
            assert line.endswith(" |")


def test_the_page_holds_what_the_other_formats_hold(recorded):
    page = bench_page(recorded)
    packed = re.search(r'<script type="text/plain" id="data">([^<]+)<', page)[1]
    data = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert [one["name"] for one in data["metrics"]] == ["eager", "graph"]
    latencies = data["metrics"][0]["grids"][0]
    assert len(latencies["rows"]) == len(recorded.workloads)
    traces = data["metrics"][0]["latency"]["data"]
    assert [trace["name"] for trace in traces] == [*recorded.solutions, "reference"]
    assert all(len(trace["x"]) == len(recorded.workloads) for trace in traces)
    assert len(data["cells"]["rows"]) == len(recorded.every_cell)
    assert not re.search(r"(?:src|href)=", page.split("<script>")[0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(9.99949, "10.00"), (9.9, "9.90"), (9.9995, "10.0"), (999.949, "999.9"), (999.95, "1,000"),
     (14231.6, "14,232"), (0.5, "0.50")],
)  # fmt: skip
def test_four_digits(value, expected):
    assert four_digits(value) == expected


def grid(columns, rows=3, keys=1, dropped=()):
    names = tuple(f"column_{i}" for i in range(columns))
    cells = tuple(tuple(Mark("1,234.5") for _ in names) for _ in range(rows))
    return MarkedGrid("title", names, cells, keys=keys, dropped=dropped)


def test_a_table_first_loses_what_may_go_then_is_cut_with_its_keys():
    wide = grid(12, dropped=("column_3", "column_5"))
    (whole,), _ = cut(wide, 200)
    assert len(whole.headings) == 12
    parts, _ = cut(wide, 60)
    assert len(parts) > 1 and all(part.headings[0] == "column_0" for part in parts)
    shown = [name for part in parts for name in part.headings[1:]]
    expected = [f"column_{i}" for i in range(1, 12) if i not in (3, 5)]
    assert shown == expected


def test_columns_that_say_nothing_are_left_out():
    silent = MarkedGrid("t", ("a", "b"), ((Mark("1"), Mark("-")), (Mark("2"), Mark(""))))
    (part,), _ = cut(silent, 80)
    assert part.headings == ("a",)
    assert grid_lines(silent)[2] == "| a |"


def test_headings_break_at_words_and_underscores():
    assert heading("flashinfer_moe [b]", 9) == "flashinfer\n_moe [b]"
    assert heading("sglang_v1", 9) == "sglang_v1" and heading("sglang_v1", 7) == "sglang\n_v1"
    assert heading("GEMM rows", 9) == "GEMM rows"
