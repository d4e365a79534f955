"""What every figure of the page is written with: plotly figures as plain dicts.

plotly's Python objects would validate these at the price of a slow import (they also cost more time
than all the rest of the page); the page is tested in a real browser instead. A figure holds what is
particular to it: the page adds fonts, grid and margins. Two notations are the page's to resolve, so
that it can follow the reader's light or dark scheme and stays small:

    "--gemm1"                          a colour: the CSS variable of that name
    {"dict": [a, b], "index": [0, 1]}  a long array of few distinct values

Every string from a record passes ``shown``: plotly reads a little HTML in text.
"""

from __future__ import annotations

import html
import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, TypeVar

Figure = dict[str, Any]
Kind = TypeVar("Kind", bound=Hashable)

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
SERIES_COLOURS = 8
BAR_PIXELS, FRAME_PIXELS = 30, 80


def shown(text: str) -> str:
    """``text`` as plotly text that shows it as it is."""
    return html.escape(text, quote=False)


def row_axis(labels: Sequence[str]) -> Figure:
    """A vertical axis of one row a label, the first on top."""
    return {
        "tickvals": list(range(len(labels))),
        "ticktext": [shown(label) for label in labels],
        "range": [len(labels) - 0.5, -0.5],
    }


def log_axis(title: str, values: Iterable[float]) -> Figure:
    """A logarithmic axis around ``values`` with ticks at 1, 2, 5, 10, ... or at decades only."""
    known = [value for value in values if value > 0] or [1.0]
    low, high = math.log10(min(known)), math.log10(max(known))
    margin = max(0.05, 0.06 * (high - low))
    digits = (1,) if high - low > 2.5 else (1, 2, 5)
    decades = range(math.floor(low - margin), math.ceil(high + margin))
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    ticks = [tick for tick in ticks if low - margin <= math.log10(tick) <= high + margin]
    return {
        "title": {"text": title},
        "type": "log",
        "range": [round(low - margin, 3), round(high + margin, 3)],
        "tickvals": ticks,
        "ticktext": [f"{tick:,.10g}" for tick in ticks],
    }


def rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 2) for value in values]


def significant(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def distinct(values: Sequence[Kind]) -> tuple[list[Kind], list[int]]:
    """The distinct values, and the position of each value among them."""
    known: dict[Kind, int] = {}
    index = [known.setdefault(value, len(known)) for value in values]
    return list(known), index


def series_colour(position: int) -> str:
    return f"--series-{position % SERIES_COLOURS}"


def symbol(position: int) -> str:
    return SYMBOLS[position % len(SYMBOLS)]
