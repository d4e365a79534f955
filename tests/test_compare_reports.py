"""A comparison as a report: widths, the drawn waterfall, sentences of the rarer cases."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from moeprof.compare.compare import compare, explain_pair
from moeprof.compare.comparison import Comparison
from moeprof.compare.tables import make_table
from moeprof.records import PassResult, Sample
from moeprof.reports import compare_phrases as phrases
from moeprof.reports.compare_markdown import escape
from moeprof.reports.compare_text import render_comparison
from moeprof.reports.overview_text import render_overview
from moeprof.reports.waterfall import Waterfall, lines
from tests.builders import make_cpu_run
from tests.comparisons import fused, named, pipeline


def shown(renderable: RenderableType, width: int = 160) -> list[str]:
    """What a terminal without colour prints, line by line."""
    out = io.StringIO()
    Console(file=out, width=width, no_color=True, highlight=False).print(renderable)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.fixture(scope="module")
def large() -> Comparison:
    return compare(*explain_pair(pipeline(), fused()))


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_no_line_is_wider_than_the_terminal(large, width):
    runs = {"triton_v2": pipeline(), "flashinfer_moe": fused(), "reference": pipeline(scale=9.0)}
    overview = render_overview(make_table([runs], list(runs)[:2], "reference"), cpu=False)
    for renderable in (render_comparison(large, ["the driver differs"]), overview):
        text = shown(renderable, width)
        assert max(map(len, text)) <= width
        assert not any("…" in line for line in text)  # columns are lost, not digits


def test_bars_begin_where_the_last_one_ended(large):
    drawn = shown(Waterfall(lines(large)), 140)
    begins = [len(line) - len(line[60:].lstrip()) for line in drawn]
    ends = [len(line) for line in drawn]
    assert begins[1] < ends[0] and ends[1] == ends[0]  # falls from the end of the total
    assert abs(ends[2] - begins[1]) <= 1
    gains = next(i for i, line in enumerate(drawn) if "one side only" in line)
    assert abs(begins[gains + 1] - ends[gains]) <= 1  # a rise goes on to the right


def test_small_bars_are_folded_and_the_lines_add_up(large):
    found = lines(large, most=3)
    assert [line.label for line in found] == [
        "triton_v2",
        "gemm1: amplification",
        "gemm2: amplification",
        "shuffle_rows: efficiency",
        f"{len(large.bars) - 3} smaller bars",
        "flashinfer_moe",
    ]
    assert sum(line.delta_ns for line in found[1:-1]) == large.delta_ns
    assert found[-2].end_ns == found[-1].end_ns == large.span_after_ns


def test_the_slower_side_pays_whichever_comes_first(large):
    turned = compare(*explain_pair(fused(), pipeline()))
    assert phrases.sentences(turned) == phrases.sentences(large)
    assert phrases.largest_cause(turned) == phrases.largest_cause(large)


def test_rows_where_the_other_side_runs_none():
    found = compare(*explain_pair(pipeline(7, 9), fused(7, 0, rows=0)))
    assert phrases.sentences(found)[0] == (
        "56 rows in gemm1, where flashinfer_moe runs none, cost triton_v2 5.56 ms of the 8.33 ms"
    )


def test_host_time_before_the_first_operation_is_not_lost(large):
    late = replace(large.after.profile, prologue_ns=large.after.profile.prologue_ns + 400_000)
    found = replace(large, after=replace(large.after, profile=late))
    assert phrases.sentences(found)[-1] == (
        "Outside the span: flashinfer_moe's host takes 400.0 us longer than triton_v2's before "
        "its first operation"
    )
    assert not any("Outside" in sentence for sentence in phrases.sentences(large))


def with_bare(comparison: Comparison, before_us: float, after_us: float, wide_us: float):
    """The comparison as if the bare passes had read these medians, spread this widely."""
    sides = []
    for side, middle in ((comparison.before, before_us), (comparison.after, after_us)):
        spans = [middle - wide_us, middle, middle + wide_us]
        passes = (PassResult("bare", tuple(Sample(span, span) for span in spans)),)
        sides.append(replace(side, run=replace(side.run, passes=passes)))
    first, second = sides
    noise_us = 1.4 * wide_us
    return replace(comparison, before=first, after=second, noise_us=noise_us)


def test_bare_passes_that_contradict_the_spans_stand_in_the_first_lines(large):
    assert phrases.doubt(large) == ""
    assert phrases.doubt(with_bare(large, 11_400.0, 3_100.0, 100.0)) == ""
    vague = with_bare(large, 11_400.0, 11_300.0, 100.0)
    assert phrases.doubt(vague) == (
        "the bare passes do not bear this difference out: -100.0 us between their medians, noise "
        "+-140.0 us"
    )
    assert shown(render_comparison(vague))[1].startswith("! the bare passes do not bear")
    assert phrases.doubt(with_bare(large, 3_000.0, 11_000.0, 1.0)).startswith("the bare passes")


def test_efficiency_names_its_unit():
    slow = named(pipeline(scale=3.0), "slow")
    found = compare(*explain_pair(slow, pipeline()))
    assert phrases.largest_cause(found).startswith(
        "Efficiency (time per unit of executed work) is the largest cause: 22.88 ms of the 22.88 ms"
    )
    assert phrases.sentences(found)[0] == (
        "gemm1 takes 3.00x triton_v2's time per row executed, which costs slow 12.83 ms of the "
        "22.88 ms"
    )


def test_an_efficiency_is_told_once():
    """Where it outweighs the amplification its sentence comes first, and alone."""
    found = compare(*explain_pair(named(pipeline(scale=60.0), "slow"), fused()))
    told = [text for text in phrases.sentences(found) if "gemm1" in text]
    assert "per row executed" in told[0] and told[0].startswith("gemm1 takes 56.")
    assert told[1].startswith("8.07x the rows in gemm1 cost") and "per row" not in told[1]


def test_long_parts_are_shortened():
    assert phrases.part_label("gemm1+swiglu_quant") == "gemm1+swiglu_quant"
    assert phrases.part_label("shuffle_rows+gemm1+swiglu_quant") == "shuffle_rows+..+swiglu_quant"


def test_cpu_timings_never_look_like_a_gpu():
    run = make_cpu_run()
    other = replace(run, solution=replace(run.solution, name="other"))
    text = "\n".join(shown(render_comparison(compare(*explain_pair(run, other)))))
    assert "takes 280.0 us in its stages" in text
    assert "CPU timings, not GPU performance" in text and "outer events" not in text
    table = make_table([{"a": run, "b": run}], ("a", "b"), None)
    assert "not GPU performance" in "\n".join(shown(render_overview(table, cpu=True)))


def test_doubts_about_a_side_are_shown(large):
    doubtful = replace(large.before, run=replace(large.before.run, warnings=("kernel [b]x[/b]",)))
    text = shown(render_comparison(replace(large, before=doubtful)))
    assert "! triton_v2: kernel [b]x[/b]" in text


def test_markdown_is_shown_as_it_is():
    assert escape("a_b*c|d<e>") == r"a\_b\*c\|d\<e\>"
