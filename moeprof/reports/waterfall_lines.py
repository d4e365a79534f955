"""The bars of a comparison in order, each from one running total to the next.

From the span of the first side to that of the second, the largest contribution first. Bars too many
to show are folded into one line, so that what is shown still adds up. Drawing is ``waterfall``'s
and the page's.
"""

from __future__ import annotations

from dataclasses import dataclass

from moeprof.compare.comparison import Comparison
from moeprof.reports.compare_phrases import part_label

MOST_BARS = 12


@dataclass(frozen=True, slots=True)
class Line:
    """One line: from one running total to the next. kind: 'total' stands on zero."""

    label: str
    begin_ns: int
    end_ns: int
    total: bool = False

    @property
    def delta_ns(self) -> int:
        return self.end_ns - self.begin_ns


def lines(comparison: Comparison, most: int = MOST_BARS) -> tuple[Line, ...]:
    """The first span, bars, the rest as one, the second span."""
    by_size = sorted(comparison.bars, key=lambda bar: -abs(bar.delta_ns))
    shown = set(by_size[:most] if len(by_size) > most + 1 else by_size)
    rest = [bar for bar in comparison.bars if bar not in shown]
    found = [Line(comparison.before.label, 0, comparison.span_before_ns, total=True)]
    level_ns = comparison.span_before_ns
    for bar in comparison.bars:
        if bar in shown:
            label = f"{part_label(bar.part)}: {bar.cause}"
            found.append(Line(label, level_ns, level_ns + bar.delta_ns))
            level_ns += bar.delta_ns
    if rest:
        folded_ns = sum(bar.delta_ns for bar in rest)
        found.append(Line(f"{len(rest)} smaller bars", level_ns, level_ns + folded_ns))
    found.append(Line(comparison.after.label, 0, comparison.span_after_ns, total=True))
    return tuple(found)
