"""The page of a bench in a real browser: every figure drawn, every choice shown, nothing fetched.

    .venv/bin/python -m pytest tests/browser/test_bench_page.py

The records are the committed ones of an H200, all of them; and some made by hand with names that
are HTML.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from moeprof.bench.cells import Bench, Failure, assemble
from moeprof.bench.figures import latency_us
from moeprof.reports.bench_grids import four_digits
from moeprof.reports.bench_html import bench_page
from moeprof.storage.store import load
from tests.bench.hand import bench, timed, uuid
from tests.browser.chromium import Chromium, Tab, chromium, executable

pytestmark = pytest.mark.skipif(executable() is None, reason="needs Chromium")

RECORDED = Path(__file__).resolve().parents[2] / "traces" / "recorded" / "h200-bench"
DRAWN = """(selector) => [...document.querySelectorAll(selector)].filter((node) => {
  const box = node.getBoundingClientRect();
  const axes = node.closest(".plot").querySelector(".nsewdrag").getBoundingClientRect();
  return box.width + box.height > 0 && box.left < axes.right && box.right > axes.left
    && box.top < axes.bottom && box.bottom > axes.top;
}).length"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def recorded() -> Bench:
    runs = [load(path) for path in sorted(RECORDED.rglob("*.json.gz"))]
    return assemble(runs, (), sorted({run.solution.name for run in runs}))


@pytest.fixture(scope="module")
def address(recorded: Bench, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(recorded, tmp_path_factory.mktemp("bench") / "bench.html")


def written(found: Bench, path: Path) -> str:
    path.write_text(bench_page(found), encoding="utf-8")
    return path.as_uri()


def ready(tab: Tab) -> None:
    tab.wait_for("document.documentElement?.dataset.ready === 'yes'")


def drawn(tab: Tab, selector: str) -> int:
    """Marks that have an extent inside the axes of their figure."""
    return tab.evaluate(f"({DRAWN})({selector!r})")


def choose(tab: Tab, **values: str | int) -> None:
    for name, value in values.items():
        tab.evaluate(
            f"(() => {{ const one = document.getElementById({name!r}); one.value = {value!r};"
            " one.dispatchEvent(new Event('change')); })()"
        )


def cells(tab: Tab, table: str) -> list[list[str]]:
    """The texts of the body of a table."""
    rows = f"[...document.querySelectorAll({table + ' tbody tr'!r})]"
    return tab.evaluate(f"{rows}.map(row => [...row.cells].map(cell => cell.textContent))")


def texts(tab: Tab, selector: str) -> list[str]:
    every = f"[...document.querySelectorAll({selector!r})]"
    return tab.evaluate(f"{every}.map(node => node.textContent)")


def as_told(tab: Tab, address: str) -> None:
    """What must hold of any page."""
    assert tab.problems == []
    assert tab.requests == [address], "the page asked for something beside itself"
    assert tab.evaluate("document.documentElement.scrollWidth") <= tab.width


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_every_figure_is_drawn(browser, recorded, address, width, dark) -> None:
    solutions, workloads = len(recorded.solutions), len(recorded.workloads)
    with browser.open(address, width, dark) as tab:
        ready(tab)
        points = drawn(tab, "#latency .scatterlayer path.point")
        bars = drawn(tab, "#regime .barlayer .point path")
        stages = drawn(tab, "#stages .barlayer .point path")
        ink = tab.evaluate("getComputedStyle(document.body).color")
        as_told(tab, address)
    assert points == (solutions + 1) * workloads
    assert bars == solutions * 5
    assert stages >= solutions * 6
    assert (sum(map(int, ink[4:-1].split(","))) > 400) == dark


def test_every_choice_is_shown(browser, recorded, address) -> None:
    with browser.open(address, 1280) as tab:
        ready(tab)
        choose(tab, metric=1, workload=0, mean="arithmetic")
        title = "document.querySelector('%s').textContent"
        mean = tab.evaluate(title % "#regime .ytitle")
        latency = tab.evaluate(title % "#latency .ytitle")
        points = drawn(tab, "#latency .scatterlayer path.point")
        rows = cells(tab, "#tables div:nth-child(2) > .scroll table")
        told = tab.evaluate(title % "#details .note")
        legend = tab.evaluate("document.getElementById('legend').textContent")
        as_told(tab, address)
    assert mean.startswith("arithmetic mean") and latency == "graph latency, us"
    assert points == len(recorded.solutions) * len(recorded.workloads)
    assert f"T = {recorded.workloads[0].seq_len:,} " in told
    assert "gaps between nodes" in legend and "gemm1" in legend
    for row, shown in zip(recorded.cells, rows, strict=True):
        expected = [four_digits(latency_us(cell, "graph")) for cell in row]
        assert [text.rstrip(" *~") for text in shown[5:-1]] == expected


def test_failures_stand_in_the_table_and_in_words(browser, tmp_path) -> None:
    failed = Failure("b", uuid(7), 7, "timeout", "no answer after 300 s")
    runs = [timed("a", t, 10.0 * t) for t in (1, 7)] + [timed("b", 1, 30.0)]
    page = written(assemble(runs, [failed], ["a", "b"]), tmp_path / "bench.html")
    with browser.open(page, 390) as tab:
        ready(tab)
        red = tab.evaluate(
            "[...document.querySelectorAll('#tables td.failed')].map(c => c.textContent)"
        )
        best = tab.evaluate(
            "[...document.querySelectorAll('#tables td.best')].map(c => c.textContent)"
        )
        words = tab.evaluate("document.querySelector('main').textContent")
        hidden = tab.evaluate("document.getElementById('one').hidden")
        as_told(tab, page)
    assert red == ["timeout"] * 2 and best[0] == "10.0 *"
    assert "b at T = 7 (00000007): timeout: no answer after 300 s" in words
    assert hidden, "nothing explains records without stage times"


def test_names_are_text_and_never_html(browser, tmp_path) -> None:
    wicked = "<img src=x onerror=alert(1)></script>"
    found = bench({wicked: {1: 5.0, 7: 6.0}, "b": {1: 6.0, 7: 7.0}, "reference": {1: 50.0}})
    page = written(found, tmp_path / "bench.html")
    with browser.open(page, 1000) as tab:
        ready(tab)
        assert tab.evaluate("document.querySelectorAll('img').length") == 0
        assert wicked in tab.evaluate("document.querySelector('.subject').textContent")
        assert wicked in tab.evaluate("document.querySelector('#latency .legendtext').textContent")
        assert cells(tab, "#tables div:first-child table")[0][0] == wicked
        as_told(tab, page)


def test_a_bench_of_failures_only_is_a_page(browser, tmp_path) -> None:
    found = assemble((), [Failure("a", uuid(1), 1, "crashed", "it died")], ["a"])
    page = written(found, tmp_path / "bench.html")
    with browser.open(page, 390) as tab:
        ready(tab)
        assert "a at T = 1 (00000001): crashed: it died" in tab.evaluate(
            "document.body.textContent"
        )
        as_told(tab, page)
