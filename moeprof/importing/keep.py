"""Which of a capture's forwards a record keeps: undisturbed ones, and no more than can be read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moeprof.errors import UsageError
from moeprof.importing.iterations import Forwards, last_end
from moeprof.importing.placed import Placed
from moeprof.importing.trace import Times

MOST_OPERATIONS = 200_000  # in one record: some 30 MB of JSON, read in a second


def undisturbed(forwards: Forwards, placed: Placed, overhead_ns: Times) -> Forwards:
    """Without the forwards during which the profiler held the program up, if most remain."""
    if not len(overhead_ns) or not len(forwards):
        return forwards
    last_ns = np.maximum(last_end(forwards.of, len(forwards), placed.end_ns), forwards.exit_ns)
    order = np.argsort(overhead_ns[:, 0], kind="stable")
    begin_ns = overhead_ns[order, 0]
    until_ns = np.maximum.accumulate(overhead_ns[order, 1])
    before = np.searchsorted(begin_ns, last_ns, side="left") - 1
    held = (before >= 0) & (until_ns[np.maximum(before, 0)] > forwards.entry_ns)
    count = int(held.sum())
    if not count:
        return forwards
    if 2 * count > len(forwards):
        note = f"the profiler itself held up {count:,} of {len(forwards):,} forwards; they are kept"
        return replace(forwards, notes=(*forwards.notes, note))
    note = f"{count:,} forwards in which the profiler itself held the program up are left out"
    return forwards.only(np.flatnonzero(~held), note)


def spread(forwards: Forwards, most: int, most_operations: int = MOST_OPERATIONS) -> Forwards:
    """At most ``most`` forwards, evenly spread over the capture, and fewer of long ones.

    Raises UsageError if a single forward has more operations than a record holds.
    """
    if not len(forwards):
        return forwards
    longest = int(np.bincount(forwards.of[forwards.of >= 0]).max())
    if longest > most_operations:
        raise UsageError(
            f"a forward of {longest:,} operations",
            f"at most {most_operations:,}",
            "give --iteration PATTERN: ranges around a smaller part of the program",
        )
    most = min(most, most_operations // longest)
    if len(forwards) <= most:
        return forwards
    kept = np.unique(np.rint(np.linspace(0, len(forwards) - 1, most)).astype(np.int64))
    note = f"{len(kept):,} of {len(forwards):,} forwards are kept, evenly spread"
    return forwards.only(kept, note)
