"""What a check says in every format: hand-made checks, whole sentences, documents parsed back."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from xml.etree import ElementTree as xml

import pytest
from rich.console import Console

from moeprof.regression.policy import Policy
from moeprof.regression.values import Cause, Check
from moeprof.reports.check import interval, phrases
from moeprof.reports.check.annotations import check_annotations
from moeprof.reports.check.json import check_document
from moeprof.reports.check.junit import check_junit
from moeprof.reports.check.markdown import check_markdown
from moeprof.reports.check.places import Places
from moeprof.reports.check.sarif import check_sarif
from moeprof.reports.check.text import render_check
from moeprof.storage.codec import decode
from tests.checks import GRID, STAGES, finding, improved, inconclusive, make_check, regressed

BUSY = Cause("gemm1", "busy", "on the GPU its operations take 11.9 us longer", 11.9)
WRONG = make_check(wrong_result="the output holds NaN", findings=())
STRANGE = make_check(
    comparable=False, against=("the device differs: H100 for a", "the driver differs"), findings=()
)
CHECKS = {
    "regressed": make_check(
        regressed(), regressed("", "span", ratio=1.02), inconclusive(), causes=(GRID, BUSY)
    ),
    "severe": make_check(regressed(ratio=1.12, severe=True)),
    "host": make_check(regressed("routing", "host", shift_us=20.4)),
    "improved": make_check(improved()),
    "same": make_check(),
    "inconclusive": make_check(inconclusive()),
    "awaited": make_check(inconclusive(confirmation="awaited")),
    "wrong": WRONG,
    "strange": STRANGE,
    "empty": make_check(findings=()),
}


def text_of(check, width=160, encoding="utf-8"):
    buffer = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=buffer, width=width, highlight=False).print(render_check(check))
    buffer.seek(0)
    return buffer.read()


# ---------------------------------------------------------------- the headline


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "regressed",
            "REGRESSED gemm1: +4.9 % (+12.1 us, 95 % CI 4.2 to 5.6 %): the grid of gemm_kernel "
            "changed from 132 to 66; also span +2.0 %",
        ),
        ("severe", "REGRESSED gemm1: +12.0 % (+12.1 us, 95 % CI 4.2 to 5.6 %), severe"),
        ("host", "REGRESSED routing host: +4.9 % (+20.4 us, 95 % CI 4.2 to 5.6 %)"),
        ("improved", "IMPROVED gemm2: -3.0 % (-3.90 us, 95 % CI -3.8 to -2.2 %)"),
        (
            "same",
            "SAME: 7 stages and the forward are within their floors; span +0.1 % (+0.10 us, "
            "95 % CI -0.4 to +0.6 %)",
        ),
        (
            "inconclusive",
            "INCONCLUSIVE routing host: its spread of 6.0 % hides a change of up to 12 %",
        ),
        (
            "awaited",
            "INCONCLUSIVE: a second round of fresh processes has to decide routing host +3.1 %",
        ),
        ("wrong", "WRONG RESULT triton_v2: the output holds NaN"),
        ("strange", "NOT COMPARABLE: the device differs: H100 for a"),
        ("empty", "INCONCLUSIVE: there was nothing to judge"),
    ],
)
def test_one_line_says_the_verdict_where_how_much_how_surely_and_why(name, said):
    assert phrases.headline(CHECKS[name]) == said
    assert text_of(CHECKS[name]).startswith(said + "\n")


def test_many_regressions_are_counted_not_listed():
    check = make_check(*(regressed(stage) for stage in STAGES))
    assert phrases.headline(check).endswith(
        "; also prepare_moe_input +4.9 %, shuffle_rows +4.9 %, gemm1 +4.9 %, swiglu_quant +4.9 % "
        "and 2 more"
    )


def test_the_largest_comes_first_and_a_stage_before_the_forward():
    large = regressed("gemm2", shift_us=40.0)
    check = make_check(regressed(shift_us=2.0), large, regressed("", "wall", shift_us=90.0))
    assert phrases.headline(check).startswith("REGRESSED gemm2: +4.9 % (+40.0 us")
    assert phrases.headline(check).endswith("; also gemm1 +4.9 %, wall clock +4.9 %")
    severe = make_check(regressed(severe=True, shift_us=2.0), large)
    assert phrases.headline(severe).startswith("REGRESSED gemm1: ")


def test_figures_keep_the_digits_that_matter():
    assert phrases.small_us(0.314) == "0.31" and phrases.small_us(1234.56) == "1,234.6"
    assert phrases.signed_us(-0.004) == "-0.00" and phrases.signed_us(0.0) == "+0.00"
    assert phrases.signed_duration(15_240.0) == "+15.24 ms"
    assert phrases.percent(0.99999) == "+0.0 %" and phrases.percent(None) == "-"
    assert [phrases.p_text(p) for p in (None, 0.00001, 0.0042, 0.31)] == [
        *("-", "<0.0001", "0.0042", "0.31")
    ]


# ---------------------------------------------------------------- text


def test_the_text_has_a_row_a_stage_and_what_makes_its_verdict():
    shown = text_of(CHECKS["regressed"])
    rows = {
        line.split()[1]: line for line in shown.splitlines()[1:] if line.split()[:1] in (
            ["SAME"], ["REGRESSED"], ["INCONCLUSIVE"]
        )
    }  # fmt: skip
    assert list(rows) == [*STAGES, "span", "wall", "orchestration"]
    figures = ("246.8", "258.9", "+4.9 %", "4.2 to 5.6 %", "+12.1", "<0.0001", "2.0 % and 0.30 us")
    assert all(figure in rows["gemm1"] for figure in figures)
    assert rows["routing"].startswith(" INCONCLUSIVE  routing host")
    assert "gemm1        the grid of gemm_kernel changed from 132 to 66 (+11.8 us of it)" in shown
    assert "             on the GPU its operations take 11.9 us longer" in shown
    assert "policy   as by default" in shown
    assert "10 processes, 2026-11-20 12:00 UTC" in shown
    assert "5 processes, 2026-11-21 09:00 to 09:02 UTC" in shown


def test_a_stage_of_which_both_times_moved_has_both_rows():
    check = make_check(regressed("gemm1"), inconclusive("gemm1", "host"))
    labels = [row.label for row in phrases.rows(check)]
    assert labels[3:6] == ["gemm1", "gemm1 host", "swiglu_quant"]


def test_what_stands_against_the_comparison_and_the_policy_are_shown():
    check = make_check(against=("the torch version differs: 2.11 for a, 2.12 for b",))
    check = replace(check, policy=Policy(relative_floor=0.04), interleaved=True)
    shown = text_of(check)
    assert "! the torch version differs" in shown
    assert "policy   relative_floor 0.04" in shown
    assert "measured interleaved on one device" in shown
    assert "! the driver differs" in text_of(STRANGE)


def test_a_narrow_terminal_loses_columns_and_no_verdict():
    plots = 0
    for width in range(60, 200, 3):
        shown = text_of(CHECKS["regressed"], width)
        assert all(len(line) <= width for line in shown.splitlines()), width
        assert "REGRESSED" in shown and "+4.9 %" in shown
        assert "…" not in shown, f"characters were cut at {width}"
        assert ("no change" in shown) == ("░" in shown)
        plots += "no change" in shown
    assert 10 < plots < 30


def test_an_ascii_terminal_is_drawn_in_ascii():
    shown = text_of(CHECKS["regressed"], encoding="ascii")
    assert "." * 3 + "|" in shown and "o" in shown
    shown.encode("ascii")


# ---------------------------------------------------------------- the plot


def test_an_interval_is_drawn_on_the_axis_of_all():
    one = finding("gemm1", "busy", ratio=1.05, ratio_low=1.0, ratio_high=1.1, relative_floor=0.02)
    assert interval.reach([one]) == pytest.approx(0.1)
    drawn = interval.draw(one, 0.1, width=21)
    assert drawn == "        ░░━━━━━●━━━━━"
    assert drawn.index("●") == 15
    still = finding("gemm1", "busy", ratio=1.0, ratio_low=1.0, ratio_high=1.0)
    assert interval.draw(still, 0.1, width=21) == "        ░░●░░"


def test_what_is_beyond_the_axis_is_an_arrow():
    far = regressed(ratio=3.0, ratio_low=0.2, ratio_high=3.1)
    assert interval.reach([far]) == 0.5
    drawn = interval.draw(far, 0.5, interval.ASCII, width=21)
    assert drawn[0] == "<" and drawn[-1] == ">" and len(drawn) == 21
    assert interval.draw(finding("gemm1", "busy", ratio=None), 0.1) == ""
    assert interval.reach([]) == interval.LEAST_REACH


# ---------------------------------------------------------------- Markdown


def test_markdown_shows_what_changed_and_folds_the_rest():
    shown = check_markdown(CHECKS["regressed"])
    lines = shown.splitlines()
    assert lines[0] == "<!-- moeprof check: triton_v2 T56 NVIDIA H200 -->"
    assert lines[1].startswith("### REGRESSED gemm1: +4.9 %")
    open_, folded = shown.split("<details>")
    assert open_.count("\n| ") == 2 + 3 and folded.count("\n| ") == 2 + 10
    assert "- **gemm1**: the grid of gemm\\_kernel changed from 132 to 66" in open_
    assert "\\<0.0001" in shown, "a raw < would open a tag"
    assert folded.rstrip().endswith("</details>")
    assert "| SAME |" not in check_markdown(make_check()).split("<details>")[0]


def test_what_comes_from_outside_cannot_break_the_markdown():
    cause = Cause("gemm1", "kernel set", "kernel a|b<script> became `c`", None)
    check = make_check(regressed(), causes=(cause,))
    side = replace(check.candidate, solution="x --> y")
    shown = check_markdown(replace(check, candidate=side))
    assert shown.splitlines()[0].count("-->") == 1
    assert "<script>" not in shown and "a\\|b" in shown


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize("name", CHECKS)
def test_the_document_holds_the_whole_check(name):
    check = CHECKS[name]
    document = json.loads(json.dumps(check_document(check), allow_nan=False))
    assert document.pop("verdict") == check.verdict
    assert document.pop("exit_code") == check.exit_code
    assert document.pop("headline") == phrases.headline(check)
    alerts = document.pop("alerts")
    assert [(a["stage"], a["measure"]) for a in alerts] == [
        (f.quantity.stage, f.quantity.measure) for f in phrases.regressed(check)
    ]
    assert decode(Check, document) == check


# ---------------------------------------------------------------- JUnit


@pytest.mark.parametrize("name", CHECKS)
def test_junit_is_what_readers_expect(name):
    check = CHECKS[name]
    root = xml.fromstring(check_junit(check, text_of(check)).encode())
    assert root.tag == "testsuites"
    (suite,) = root
    cases = suite.findall("testcase")
    assert len(cases) == 1 + len(check.findings)
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases)
    for tag, count in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        found = suite.findall(f"testcase/{tag}")
        assert suite.get(count) == root.get(count) == str(len(found))
        assert all(child.get("message") for child in found)
    assert suite.get("tests") == str(len(cases))
    assert all(float(case.get("time")) >= 0 for case in cases)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
    order = [child.tag for child in suite]
    assert order[0] == "properties" and order[-1] == "system-out"
    # a reader fails the job exactly where the exit code does
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    assert bool(failed) == (check.exit_code in (1, 2))


def test_a_regression_is_a_failure_with_its_causes_and_doubt_is_skipped():
    root = xml.fromstring(check_junit(CHECKS["regressed"]))
    by_name = {case.get("name"): case for case in root.iter("testcase")}
    failure = by_name["gemm1"].find("failure")
    assert failure.get("type") == "regression"
    assert failure.get("message") == "gemm1: +4.9 % (+12.1 us, 95 % CI 4.2 to 5.6 %)"
    assert "the grid of gemm_kernel changed from 132 to 66" in failure.text
    assert by_name["gemm1"].get("classname") == "moeprof.triton_v2.T56"
    assert by_name["routing host"].find("skipped").get("message").startswith("inconclusive: its")
    severe = xml.fromstring(check_junit(CHECKS["severe"]))
    assert next(severe.iter("failure")).get("type") == "severe regression"


def test_characters_that_xml_cannot_hold_are_left_out():
    check = make_check(regressed(), causes=(Cause("gemm1", "kernel set", "a\x00\x1b<&>\ud800b"),))
    root = xml.fromstring(check_junit(check, "\x1b[31mred").encode())
    assert "a<&>b" in next(root.iter("failure")).text


# ---------------------------------------------------------------- SARIF and annotations

PLACES = Places("stages/solutions/triton_v2.py", {"gemm1": "stages/gemm/sgl.py"})


@pytest.mark.parametrize("name", CHECKS)
def test_sarif_has_what_2_1_0_requires(name):
    check = CHECKS[name]
    log = json.loads(json.dumps(check_sarif(check, PLACES), allow_nan=False))
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "moeprof"
    assert run["invocations"][0]["executionSuccessful"] == check.comparable
    assert run["invocations"][0]["exitCode"] == check.exit_code
    fingerprints = set()
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")
        assert result["message"]["text"]
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"].startswith("stages/")
        assert place["region"]["startLine"] == 1
        fingerprints.add(result["partialFingerprints"]["moeprof/v1"])
    assert len(fingerprints) == len(run["results"])
    grave = [result for result in run["results"] if result["level"] != "note"]
    assert bool(grave) == (check.exit_code == 1)


def test_one_regression_seen_twice_is_one_alert():
    def prints(check):
        results = check_sarif(check)["runs"][0]["results"]
        return [result["partialFingerprints"] for result in results]

    first, again = make_check(regressed()), make_check(regressed(ratio=1.06, shift_us=15.0))
    assert prints(first) == prints(again)
    assert prints(first) != prints(make_check(regressed("gemm2")))


def test_sarif_points_at_the_stage_and_grades_it():
    results = check_sarif(CHECKS["regressed"], PLACES)["runs"][0]["results"]
    uris = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results]
    assert uris == ["stages/gemm/sgl.py", "stages/solutions/triton_v2.py"]
    assert [result["level"] for result in results] == ["warning", "warning"]
    assert check_sarif(CHECKS["severe"])["runs"][0]["results"][0]["level"] == "error"
    assert "physicalLocation" not in json.dumps(check_sarif(CHECKS["severe"]))


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("regressed", ["error", "error"]),
        ("improved", ["notice"]),
        ("same", ["notice"]),
        ("inconclusive", ["warning"]),
        ("wrong", ["error"]),
        ("strange", ["error"]),
        ("empty", ["warning"]),
    ],
)
def test_annotations_are_workflow_commands(name, levels):
    lines = check_annotations(CHECKS[name], PLACES).splitlines()
    matches = [re.fullmatch(r"::(\w+)( [^:]*)?::(.+)", line) for line in lines]
    assert [match[1] for match in matches] == levels
    for match in matches:
        properties = (match[2] or "").strip()
        assert all(
            re.fullmatch(r"(file|title)=[^,:]+", one) for one in properties.split(",") if one
        )
        assert "%" not in re.sub(r"%(25|0A|0D)", "", match[3]), "a raw % would be taken for a code"


def test_an_annotation_names_the_file_the_stage_and_the_cause():
    line = check_annotations(CHECKS["regressed"], PLACES).splitlines()[0]
    assert line.startswith(
        "::error file=stages/gemm/sgl.py,title=REGRESSED gemm1 of triton_v2%2C T = 56%2C"
    )
    assert "::gemm1 +4.9 %25 (+12.1 us, 95 %25 CI 4.2 to 5.6 %25): the grid of gemm_kernel" in line
    sneaky = Cause("gemm1", "kernel set", "a\n::error::b\rc", None)
    lines = check_annotations(make_check(regressed(), causes=(sneaky,))).splitlines()
    assert len(lines) == 1 and "a%0A::error::b%0Dc" in lines[0]
