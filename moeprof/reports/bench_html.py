"""A bench as one HTML page."""

from __future__ import annotations

import html

from moeprof.bench.cells import Bench
from moeprof.reports.bench_markdown import bench_markdown


def bench_page(bench: Bench) -> str:
    """The whole page."""
    return f"<!doctype html><meta charset=utf-8><pre>{html.escape(bench_markdown(bench))}</pre>\n"
