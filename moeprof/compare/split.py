"""Splitting a change of a product among its factors, exactly and in no particular order.

The time of a part is work x time per unit of work. Changing one factor first and the other second
gives two different answers, as much as the product of both changes apart. The logarithmic mean
divisia index has one answer: with L the logarithmic mean of the two times,

    time_B - time_A = L ln(work_B / work_A) + L ln(time per unit_B / time per unit_A)

It leaves nothing over, and exchanging A and B changes the signs alone. L lies between the two
times, so that a factor which did not change is charged nothing. (B. W. Ang, Energy Policy 32, 2004)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from moeprof.errors import RecordError

Cell = TypeVar("Cell")


def log_mean(first: float, second: float) -> float:
    """The logarithmic mean of two positive numbers: (a - b) / ln(a / b), and a where a = b."""
    if first <= 0 or second <= 0:
        raise ValueError(f"the logarithmic mean of {first} and {second}")
    ratio = second / first - 1.0
    if abs(ratio) < 1e-4:  # the series: the quotient of two small differences loses digits
        return first * (1.0 + ratio / 2.0 - ratio * ratio / 12.0)
    return (second - first) / math.log(second / first)


def work_share(before: float, after: float, work_before: float, work_after: float) -> float:
    """How much of ``after - before`` is due to the change of work; the rest is time per unit."""
    if work_after < work_before:  # one order of the arguments, so that rounding has no direction
        return -work_share(after, before, work_after, work_before)
    return log_mean(before, after) * math.log1p((work_after - work_before) / work_before)


def whole_numbers(cells: Mapping[Cell, float], total: float) -> dict[Cell, int]:
    """``cells``, which add up to ``total``, as integers that add up to ``round(total)``.

    Each is rounded down or up (largest remainders up), so none moves by 1 or more. Raises
    RecordError if the cells do not add up to the total.
    """
    found = {cell: math.floor(value) for cell, value in cells.items()}
    missing = round(total) - sum(found.values())
    order = _by_remainder(cells)
    if not 0 <= missing <= len(order):
        left = total - sum(cells.values())
        raise RecordError(
            f"the time identity leaves {left:,.0f} ns of {total:,.0f} ns over",
            "rows that add up to the span",
            "the record is damaged or was edited: run again",
        )
    for cell in order[:missing]:
        found[cell] += 1
    return found


def _by_remainder(cells: Mapping[Cell, float]) -> Sequence[Cell]:
    return sorted(cells, key=lambda cell: math.floor(cells[cell]) - cells[cell])
