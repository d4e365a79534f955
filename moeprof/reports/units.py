"""Numbers as people read them; a missing one is a dash."""

from __future__ import annotations

MISSING = "-"


def us(nanoseconds: float | None) -> str:
    """Nanoseconds shown as microseconds."""
    return MISSING if nanoseconds is None else f"{nanoseconds / 1e3:,.1f}"


def duration(microseconds: float) -> str:
    """Microseconds in the unit a person would choose."""
    for unit, scale in (("s", 1e6), ("ms", 1e3)):
        if abs(microseconds) >= scale:
            return f"{microseconds / scale:,.2f} {unit}"
    return f"{microseconds:,.1f} us"


def percent(part: float | None, whole: float | None, digits: int = 1) -> str:
    """``part`` of ``whole`` in per cent."""
    if part is None or not whole:
        return MISSING
    return f"{100 * part / whole:.{digits}f} %"


def times(factor: float | None) -> str:
    """A factor such as 7.9x."""
    return MISSING if factor is None else f"{factor:,.1f}x"


def count(value: float | None) -> str:
    """A count; a mean that is no whole number keeps one digit."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def number(value: float | None, digits: int = 0) -> str:
    """A plain figure with thousands separated."""
    return MISSING if value is None else f"{value:,.{digits}f}"
