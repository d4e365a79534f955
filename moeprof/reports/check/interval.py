"""The intervals of a check drawn in characters: no change in the middle, the floor as a band.

One axis for all rows. What lies beyond its ends is an arrow: one stage that doubled must not press
the others into one cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.regression.values import Finding

WIDTH = 33  # odd, so that no change has a cell of its own
LEAST_REACH, LARGEST_REACH = 0.02, 0.5


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters of a plot."""

    empty: str = " "
    band: str = "░"
    zero: str = "│"
    line: str = "━"
    point: str = "●"


ASCII = Marks(" ", ".", "|", "=", "o")


def reach(findings: Sequence[Finding]) -> float:
    """Half the width of the axis, as a fraction: what shows every floor and most intervals."""
    ends = [finding.relative_floor * 1.5 for finding in findings]
    for finding in findings:
        for ratio in (finding.ratio_low, finding.ratio, finding.ratio_high):
            if ratio is not None:
                ends.append(abs(ratio - 1))
    return min(LARGEST_REACH, max(LEAST_REACH, *ends)) if ends else LEAST_REACH


def draw(finding: Finding, half: float, marks: Marks | None = None, width: int = WIDTH) -> str:
    """One row of the plot: ``width`` characters from -half to +half."""
    marks = marks or Marks()
    if finding.ratio is None:
        return ""
    middle = width // 2

    def cell(change: float) -> int:
        return max(0, min(width - 1, middle + round(change / half * middle)))

    cells = [marks.empty] * width
    floor = min(finding.relative_floor, half)
    for position in range(cell(-floor), cell(floor) + 1):
        cells[position] = marks.band
    cells[middle] = marks.zero
    low = finding.ratio if finding.ratio_low is None else finding.ratio_low
    high = finding.ratio if finding.ratio_high is None else finding.ratio_high
    for position in range(cell(low - 1), cell(high - 1) + 1):
        cells[position] = marks.line
    cells[cell(finding.ratio - 1)] = marks.point
    beyond = half * (1 + 1e-9)  # the end that set the axis is on it
    if low - 1 < -beyond:
        cells[0] = "<"
    if high - 1 > beyond:
        cells[-1] = ">"
    return "".join(cells).rstrip() or marks.empty
