"""The page of a history in a real browser: its points and steps are drawn, nothing is fetched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moeprof.history.series import series_of, with_changes
from moeprof.reports.history.page import history_page
from tests.browser.chromium import chromium, executable
from tests.test_history_cli import GEMM1, at

pytestmark = pytest.mark.skipif(executable() is None, reason="needs Chromium")


def make_series():
    rows = [(100.0, 101.0, 99.5)] * 7 + [(112.0, 111.0, 113.0)] * 6
    entries = [at(number, row) for number, row in enumerate(rows)]
    return with_changes(series_of(entries, entries[0].subject, GEMM1))


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_every_series_is_drawn(browser, tmp_path, width, dark):
    series = make_series()
    path = tmp_path / "history.html"
    path.write_text(history_page([series, series]), encoding="utf-8")
    with browser.open(path.as_uri(), width, dark) as tab:
        tab.wait_for("document.documentElement?.dataset.ready === 'yes'")
        points = (
            "document.querySelectorAll('#series0 .scatterlayer .trace:nth-child(2) path.point')"
        )
        assert tab.evaluate(f"{points}.length") == 13
        middles = tab.evaluate(
            f"[...{points}].map(p => {{ const b = p.getBoundingClientRect();"
            " return (b.top + b.bottom) / 2; })"
        )
        assert max(middles[7:]) < min(middles[:7]), "slower is higher"
        assert tab.evaluate("document.querySelectorAll('#series1 .shapelayer path').length") == 1
        told = tab.evaluate("document.querySelector('#series0 .annotation-text').textContent")
        assert told == "+11.8 %"
        assert tab.problems == [] and tab.requests == [path.as_uri()]
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_names_are_text_and_never_html(browser, tmp_path):
    wicked = "<img src=x onerror=alert(1)></script>"
    series = make_series()
    series = replace(series, subject=replace(series.subject, solution=wicked))
    path = tmp_path / "history.html"
    path.write_text(history_page([series]), encoding="utf-8")
    with browser.open(path.as_uri(), 1000) as tab:
        tab.wait_for("document.documentElement?.dataset.ready === 'yes'")
        assert tab.evaluate("document.querySelectorAll('img').length") == 0
        assert wicked in tab.evaluate("document.querySelector('h3').textContent")
        assert tab.problems == []
