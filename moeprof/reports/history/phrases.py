"""What a history says in words, the same in a terminal and on a page."""

from __future__ import annotations

from moeprof.history.values import Change, Point, Series
from moeprof.regression.values import Quantity
from moeprof.reports.units import MISSING, duration

TITLES = {"wall": "wall clock"}


def quantity_label(quantity: Quantity) -> str:
    """'gemm1', 'routing host', 'span'."""
    if not quantity.stage:
        return TITLES.get(quantity.measure, quantity.measure)
    return quantity.stage if quantity.measure == "busy" else str(quantity)


def headline(series: Series) -> str:
    """One line without a full stop: what it is, how long it takes now, whether it changed."""
    label, newest = quantity_label(series.quantity), series.points[-1]
    said = f"{label} of {series.subject}: {duration(newest.us)} in the last of {checks(series)}"
    if series.changes is None:
        return said
    if not series.changes:
        return f"{said}; no change"
    last = series.changes[-1]
    number = len(series.changes)
    return f"{said}; {number} change{'s' * (number != 1)}, the last {change_text(series, last)}"


def checks(series: Series) -> str:
    number = len(series.points)
    return f"{number} check{'s' * (number != 1)}"


def change_text(series: Series, change: Change) -> str:
    """'+4.9 % (246.8 us to 258.9 us) with check 12, 2026-11-20 12:03, a1b2c3d4'."""
    point = series.points[change.at]
    levels = f"{duration(change.before_us)} to {duration(change.after_us)}"
    named = f"check {change.at + 1}, {moment(point)}, {code(point)}"
    return f"{100 * (change.ratio - 1):+.1f} % ({levels}) with {named}"


def between(series: Series, change: Change) -> str:
    """The revisions that a bisection would search: 'a1b2c3d4..b2c3d4e5', '' where not known."""
    before, after = series.points[change.at - 1].code, series.points[change.at].code
    if not before.commit or not after.commit or before.commit == after.commit:
        return ""
    return f"{before.commit[:8]}..{after.commit[:8]}"


def noise_text(series: Series) -> str:
    process, check = 100 * series.process_noise, 100 * series.check_noise
    return f"{process:.2f} % between processes of a check, {check:.2f} % beyond that between checks"


def moment(point: Point) -> str:
    return point.created[:16].replace("T", " ")


def code(point: Point) -> str:
    """The commit, else the source."""
    return str(point.code) or f"source {point.source_hash[:8]}" if point.source_hash else MISSING
