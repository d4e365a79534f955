"""Values of trace events, as they come from a file that nobody vouches for.

Each function gives what is asked for or None: a time that is text, an id of 5,000 digits or a name
with control characters is the file's fault and must not become a wrong number or a wild terminal.
"""

from __future__ import annotations

import decimal
from decimal import Decimal
from typing import Any

LATEST_NS = 2**61  # 73 years; times on the Unix clock are below it, and sums of two fit 64 bits
LATEST_US = Decimal(LATEST_NS) / 1000
MOST = 2**31 - 1  # of a stream, a device, a dimension of a grid

_EXACT = decimal.Context(prec=60)


def span_ns(ts: Any, dur: Any) -> tuple[int, int] | None:
    """Start and end in integer nanoseconds of an event's ``ts`` and ``dur``, which are in us.

    Numbers with a fraction are the ``bytes`` of their digits. Both zero is no time either: so CUPTI
    says that an operation could not be timed. Fractions of a nanosecond are rounded.
    """
    start_ns, duration_ns = _thousandths(ts), _thousandths(dur)
    if start_ns is None or duration_ns is None:
        return _rounded_span_ns(ts, dur)
    end_ns = start_ns + duration_ns
    return (start_ns, end_ns) if 0 <= start_ns <= end_ns and 0 < end_ns < LATEST_NS else None


def moment_ns(ts: Any) -> int | None:
    """One instant in integer nanoseconds of a ``ts`` in us."""
    span = span_ns(ts, 1)
    return None if span is None else span[0]


def _thousandths(value: Any) -> int | None:
    """1000 times a number with no or three decimals, which is how Kineto writes; else None."""
    if type(value) is bytes:
        whole, _, fraction = value.partition(b".")
        if len(fraction) == 3 and fraction.isdigit() and len(whole) < 20:
            return int(whole + fraction)
    elif type(value) is int:
        return value * 1000
    return None


def _rounded_span_ns(ts: Any, dur: Any) -> tuple[int, int] | None:
    start_us, duration_us = _decimal(ts), _decimal(dur)
    if start_us is None or duration_us is None:
        return None
    start = _EXACT.multiply(start_us, 1000)
    end_ns = int(_EXACT.add(start, _EXACT.multiply(duration_us, 1000)).to_integral_value())
    return (int(start.to_integral_value()), end_ns) if 0 < end_ns < LATEST_NS else None


def _decimal(value: Any) -> Decimal | None:
    """A number from 0 to what can be a time in us."""
    if type(value) is int:
        number = Decimal(value)
    elif type(value) is bytes:
        try:
            number = Decimal(value.decode())
        except decimal.DecimalException:
            return None
    else:
        return None
    return number if 0 <= number < LATEST_US else None


def natural(value: Any, most: int = MOST) -> int | None:
    """An integer from 0 to ``most``."""
    return value if type(value) is int and 0 <= value <= most else None


def shape(value: Any) -> tuple[int, int, int] | None:
    """Three dimensions of a grid or block, each at least 1."""
    if type(value) is not list or len(value) != 3:
        return None
    x, y, z = (natural(dimension) for dimension in value)
    return (x, y, z) if x and y and z else None
