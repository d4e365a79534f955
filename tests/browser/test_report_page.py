"""The HTML report in a real browser: every figure drawn, nothing fetched, nothing overflowing.

    .venv/bin/python -m pytest tests/browser

The records are the committed ones of an H200, all of them; and one whose names are HTML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.records import KernelMetrics
from moeprof.reports.html.page import report_page
from moeprof.reports.survey.build import build
from moeprof.reports.survey.data import ReportData
from moeprof.storage.store import load
from tests.browser.chromium import Chromium, Tab, chromium, executable
from tests.builders import make_cpu_run, make_run

pytestmark = pytest.mark.skipif(
    executable() is None, reason="no Chromium here, and none could be installed"
)

RECORDED = Path(__file__).resolve().parents[2] / "traces" / "recorded" / "h200"
WIDTHS = (1280, 390)
# the marks of each figure: one node for each datum
MARKS = {
    "latency": ".scatterlayer path.point",
    "stages": ".barlayer .point path",
    "waterfall": ".waterfalllayer .point path",
    "timeline0": ".barlayer .point path",
    "timeline1": ".barlayer .point path",
    "distribution": ".boxlayer path.box",
    "roofline": ".scatterlayer path.point",
    "bandwidth": ".scatterlayer path.point",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def data() -> ReportData:
    return build(load(path) for path in sorted(RECORDED.rglob("*.json.gz")))


@pytest.fixture(scope="module")
def address(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(data, tmp_path_factory.mktemp("report") / "report.html")


def written(data: ReportData, path: Path) -> str:
    path.write_text(report_page(data), encoding="utf-8")
    return path.as_uri()


def ready(tab: Tab) -> None:
    tab.wait_for("document.documentElement?.dataset.ready === 'yes'")


def marks(tab: Tab) -> dict[str, int]:
    """How many marks of each figure have an extent inside its axes; -1 for a hidden figure."""
    return {id: tab.evaluate(f"({COUNT})({id!r}, {selector!r})") for id, selector in MARKS.items()}


COUNT = """(id, marks) => {
  const figure = document.getElementById(id);
  if (figure.closest("figure").hidden) return -1;
  const axes = figure.querySelector(".nsewdrag").getBoundingClientRect();
  return [...figure.querySelectorAll(marks)].filter((node) => {
    const box = node.getBoundingClientRect();
    return box.width + box.height > 0 && box.left < axes.right && box.right > axes.left
      && box.top < axes.bottom && box.bottom > axes.top;
  }).length;
}"""


def overflow(tab: Tab) -> int:
    """By how many pixels the page is wider than the window it was opened in."""
    return tab.evaluate("document.documentElement.scrollWidth") - tab.width


def bars(tab: Tab, id: str) -> list[tuple[float, float]]:
    """Left and right edge of each bar of a figure, pixels of the page."""
    edges = "(node) => { const box = node.getBoundingClientRect(); return [box.left, box.right]; }"
    return tab.evaluate(f"[...document.querySelectorAll('#{id} {MARKS[id]}')].map({edges})")


def choose(tab: Tab, **values: int) -> None:
    for id, value in values.items():
        tab.evaluate(
            f"(() => {{ const one = document.getElementById('{id}'); one.value = {value};"
            " one.dispatchEvent(new Event('change')); })()"
        )


def as_told(tab: Tab, address: str) -> None:
    """What must hold of any page."""
    assert tab.problems == []
    assert tab.requests == [address], "the page asked for something beside itself"
    assert overflow(tab) <= 0


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_figure_is_drawn(browser, data, address, width: int, dark: bool) -> None:
    workload = data.workloads[-1]
    slow, fast = (workload.entry(label) for label in data.default_pair)
    causes = len(workload.pair(data.default_pair).comparison.bars)
    with browser.open(address, width, dark) as tab:
        ready(tab)
        found = marks(tab)
        steps = bars(tab, "waterfall")
        as_told(tab, address)
    assert steps[0][0] == pytest.approx(steps[-1][0], abs=1), "both spans stand on zero"
    ratio = (steps[-1][1] - steps[-1][0]) / (steps[0][1] - steps[0][0])
    assert ratio == pytest.approx(fast.profile.span_ns / slow.profile.span_ns, abs=0.01)
    assert found["latency"] == len(data.entries) == 114
    assert found["distribution"] == 6
    assert found["waterfall"] == min(causes, 13) + 2  # both spans, at most 12 bars and the rest
    for id, entry in (("timeline0", slow), ("timeline1", fast)):
        intervals = sum(len(lane.intervals) for lane in entry.lanes.lanes)
        assert 0.9 * intervals <= found[id] <= intervals  # those of no length have no extent
    gemms = sum(row.intensity is not None for e in workload.entries for row in e.ledger)
    assert gemms <= found["roofline"] <= gemms + 6  # and a symbol a solution in the legend
    assert found["stages"] >= 6 * 7 and found["bandwidth"] >= 6 * 5


@pytest.mark.parametrize("width", WIDTHS)
def test_every_workload_can_be_chosen(browser, data, address, width: int) -> None:
    with browser.open(address, width) as tab:
        ready(tab)
        for position in range(len(data.workloads)):
            choose(tab, workload=position)
            assert all(count > 0 for count in marks(tab).values()), data.workloads[position].name
            assert overflow(tab) <= 0, data.workloads[position].name
        as_told(tab, address)


def test_any_two_solutions_can_be_chosen(browser, data, address) -> None:
    names = data.solutions
    with browser.open(address, WIDTHS[0]) as tab:
        ready(tab)
        for first in range(len(names)):
            second = (first + 2) % len(names)
            choose(tab, first=first, second=second)
            expected = {names[first], names[second]}
            heading = tab.evaluate("document.getElementById('between').textContent")
            assert set(heading.removeprefix("From ").split(" to ")) == expected
            assert marks(tab)["waterfall"] > 2
        choose(tab, first=0, second=0)
        assert tab.evaluate("document.getElementById('verdict').textContent") == (
            "Choose two solutions."
        )
        assert marks(tab)["timeline1"] == -1
        as_told(tab, address)


def test_shares_and_one_scale(browser, data, address) -> None:
    span = "document.getElementById('{}').layout.xaxis.range"
    with browser.open(address, WIDTHS[0]) as tab:
        ready(tab)
        tab.evaluate("document.getElementById('share').click()")
        assert tab.evaluate(span.format("stages")) == [0, 100]
        before = [tab.evaluate(span.format(f"timeline{side}"))[1] for side in (0, 1)]
        assert before[0] > 2 * before[1]
        tab.evaluate("document.getElementById('scale').click()")
        after = [tab.evaluate(span.format(f"timeline{side}"))[1] for side in (0, 1)]
        assert after[0] == after[1]
        as_told(tab, address)


def test_colours_follow_the_scheme(browser, address) -> None:
    fill = "getComputedStyle(document.querySelector('#waterfall .waterfalllayer .point path')).fill"
    with browser.open(address, WIDTHS[0]) as light, browser.open(address, WIDTHS[0], True) as dark:
        ready(light)
        ready(dark)
        assert light.evaluate(fill) == "rgb(118, 130, 143)"  # --total
        assert dark.evaluate(fill) == "rgb(139, 150, 163)"


def test_tables_scroll_on_a_phone_and_the_page_does_not(browser, address) -> None:
    with browser.open(address, WIDTHS[1]) as tab:
        ready(tab)
        wide = tab.evaluate(
            "[...document.querySelectorAll('.scroll')].filter("
            "(box) => box.scrollWidth > box.clientWidth).length"
        )
        assert wide > 3
        assert overflow(tab) <= 0


def test_names_are_text_and_never_html(browser, tmp_path: Path) -> None:
    evil = "<img src=x onerror=window.hit=1>&lt;b&gt;</script><script>window.hit=1</script>"
    run = make_run()
    named = replace(run, solution=replace(run.solution, name=evil), warnings=(evil,))
    operations = tuple(replace(o, name=evil) for o in run.timeline("api").operation_sets[0])
    timelines = tuple(replace(t, operation_sets=(operations,)) for t in run.timelines)
    data = build([run, replace(named, timelines=timelines)])
    address = written(data, tmp_path / "evil.html")
    with browser.open(address, WIDTHS[0]) as tab:
        ready(tab)
        as_told(tab, address)
        assert tab.evaluate("window.hit") is None
        assert tab.evaluate("document.querySelectorAll('main img').length") == 0
        labels = "[...document.querySelectorAll('#stages .ytick')].map((node) => node.textContent)"
        assert set(tab.evaluate(labels)) == {"hand_made", evil}
        assert evil in tab.evaluate("document.querySelector('.doubts').textContent")
        options = "[...document.querySelectorAll('#first option')].map((one) => one.textContent)"
        assert set(tab.evaluate(options)) == {"hand_made", evil}


def test_a_record_of_a_cpu_has_what_there_is(browser, tmp_path: Path) -> None:
    address = written(build([make_cpu_run()]), tmp_path / "cpu.html")
    with browser.open(address, WIDTHS[1]) as tab:
        ready(tab)
        found = marks(tab)
        as_told(tab, address)
        assert tab.evaluate("document.getElementById('verdict').textContent") == (
            "There is one solution only."
        )
    assert found["stages"] == found["timeline0"] == 7
    assert found["waterfall"] == found["timeline1"] == -1


def test_counters_of_kernels_are_a_table_below_the_ledger(browser, tmp_path: Path) -> None:
    kernel = KernelMetrics("gemm1", 0, "void device_kernel<int>(Params)", 241_984.0)
    run = replace(make_run(), kernel_metrics=(replace(kernel, dram_fraction=0.746),))
    shown = "document.getElementById('details').textContent"
    with browser.open(written(build([run]), tmp_path / "with.html"), WIDTHS[0]) as tab:
        ready(tab)
        assert "Kernels under Nsight Compute" in tab.evaluate(shown)
        assert "74.6 %" in tab.evaluate(shown) and "device_kernel" in tab.evaluate(shown)
        assert tab.evaluate("document.querySelectorAll('#details b').length") == 0
    with browser.open(written(build([make_run()]), tmp_path / "without.html"), WIDTHS[0]) as tab:
        ready(tab)
        assert "Nsight Compute" not in tab.evaluate(shown)
