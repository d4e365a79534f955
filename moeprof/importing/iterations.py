"""The forwards of a place: which operations make one, and when the host entered it.

Told by ranges around them (``iteration`` in the domain ``moeprof``, or any that a pattern names):
an operation belongs to the range in which its launch call began on the range's thread; what other
threads launch meanwhile belongs to it too. Without such ranges the walk along rules, or along
stage ranges, tells where one forward ends: it reaches from its first to its last named operation,
and what lies between without a name is in it, but in no stage.

The host entry of a forward that no range marks is the moment from which it could have run: its
first launch, or the end of what the GPU did before if that came later. When the host left it is
not known then, nor where ranges end before their last operation does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moeprof.errors import UsageError
from moeprof.importing.fit import Fitted
from moeprof.importing.names import printable
from moeprof.importing.nesting import Indices, Nest, groups, nesting_order
from moeprof.importing.placed import Placed, threads_of
from moeprof.importing.rules import searched, step_span
from moeprof.importing.trace import RangeTable, Times, Trace

DOMAIN, ITERATION = "moeprof", "iteration"
NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True, eq=False)
class Forwards:
    """Forwards [F] in order of entry. of [N]: the forward of each operation of the place, or -1.

    exit_ns: when the host left it, -1 if unknown. thread: of the range around it, -1 without one.
    """

    entry_ns: Times
    exit_ns: Times
    thread: Times
    of: Indices
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.entry_ns)

    def only(self, kept: Indices, note: str = "") -> Forwards:
        """These forwards alone; the operations of the others belong to none."""
        number = np.full(len(self) + 1, -1, dtype=np.int32)
        number[kept] = np.arange(len(kept))
        return Forwards(
            self.entry_ns[kept],
            self.exit_ns[kept],
            self.thread[kept],
            number[self.of],
            (*self.notes, note) if note else self.notes,
        )


def iteration_names(ranges: RangeTable, pattern: re.Pattern[str] | None) -> NDArray[np.bool_]:
    """For each name of a range whether it marks forwards."""
    return np.array(
        [
            searched(pattern, text)
            if pattern is not None
            else (domain, text) == (DOMAIN, ITERATION) or text == f"{DOMAIN}.{ITERATION}"
            for domain, text in ranges.names
        ],
        dtype=np.bool_,
    )


def range_forwards(
    trace: Trace, placed: Placed, pattern: re.Pattern[str] | None = None
) -> Forwards | None:
    """Forwards by the ranges around them; None where the process has none of that name.

    Raises UsageError where ``pattern`` matches no range of the process, or where no range of the
    name launched anything.
    """
    wanted = iteration_names(trace.ranges, pattern)
    chosen, inner = _windows(trace.ranges, wanted, threads_of(trace, placed.process))
    if not len(chosen):
        if pattern is not None:
            raise UsageError(
                f"no closed range matches {pattern.pattern!r:.60}", do=_range_names(trace.ranges)
            )
        return None
    ranges = trace.ranges
    entry_ns, exit_ns = ranges.start_ns[chosen], ranges.end_ns[chosen]
    thread = ranges.thread[chosen]
    of = _launched_in(placed, entry_ns, exit_ns, thread)
    busy = np.unique(of[of >= 0])
    if not len(busy):
        why = f" ({'; '.join(trace.notes)})" if trace.notes else ""
        raise UsageError(
            f"{len(chosen):,} ranges mark forwards, but none launched an operation that the "
            f"capture holds{why}"
        )
    notes = [f"{inner:,} ranges inside others of that name are ignored"] if inner else []
    if len(busy) < len(chosen):
        notes.append(f"{len(chosen) - len(busy):,} ranges launched nothing here and are left out")
    return _closed(Forwards(entry_ns, exit_ns, thread, of, tuple(notes)).only(busy), placed)


def walked_forwards(placed: Placed, fitted: Fitted) -> Forwards | None:
    """Forwards by the rules' walk, the whole ones; None where there is none."""
    walked = fitted.walk
    of = _between(walked.forward, fitted.lane)
    kept = fitted.whole & ~_cut(fitted)
    if not kept.any():
        kept = fitted.whole
    lost = walked.forwards - int(kept.sum())
    notes = (f"{lost:,} forwards are not whole in the capture and are left out",) if lost else ()
    return _entered(placed, of, np.flatnonzero(kept), notes)


def staged_forwards(placed: Placed, label: Indices, labels: Sequence[str]) -> Forwards | None:
    """Forwards by stages that are known already: one begins where its first stage comes again."""
    named = np.flatnonzero(label >= 0)
    if not len(named):
        return None
    spans = {number: step_span(text) for number, text in enumerate(labels)}
    steps = {n: span[0] for n, span in spans.items() if span and n in set(label[named].tolist())}
    first = min(steps, key=lambda n: steps[n]) if steps else int(label[named[0]])
    is_first = label[named] == first
    begins = is_first & ~np.concatenate(([False], is_first[:-1]))
    number = np.cumsum(begins) - 1
    forward = np.full(len(label), -1, dtype=np.int32)
    forward[named] = number
    kept = np.unique(number[number >= 0])
    if not len(kept):
        return None
    lost = int((number < 0).any())
    notes = ("the first forward is not whole in the capture and is left out",) if lost else ()
    return _entered(placed, _between(forward, None), kept, notes)


def _windows(
    ranges: RangeTable, wanted: NDArray[np.bool_], threads: Indices
) -> tuple[Indices, int]:
    """The outermost closed ranges of the wanted names in order of begin, and how many lie inside
    others."""
    found: list[Indices] = []
    inner = 0
    if not len(ranges) or not wanted.any():
        return np.empty(0, dtype=np.int64), 0
    closed = wanted[ranges.name] & (ranges.end_ns >= 0) & (ranges.end_ns >= ranges.start_ns)
    closed &= np.isin(ranges.thread, threads)
    for _, mine in groups(ranges.thread, np.flatnonzero(closed)):
        mine = mine[nesting_order(ranges.start_ns[mine], ranges.end_ns[mine])]
        outer = Nest(ranges.start_ns[mine], ranges.end_ns[mine]).outermost
        found.append(mine[outer])
        inner += int((~outer).sum())
    every = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    return every[nesting_order(ranges.start_ns[every], ranges.end_ns[every])], inner


def _launched_in(placed: Placed, entry_ns: Times, exit_ns: Times, thread: Times) -> Indices:
    """The window of each operation: on its own thread; of other threads the last that was entered.

    Of an operation without a launch call the start counts.
    """
    of = np.full(len(placed), -1, dtype=np.int64)
    other = np.ones(len(placed), dtype=np.bool_)
    launched_by = placed.thread
    by_thread = dict(groups(launched_by, np.flatnonzero(launched_by >= 0)))
    for number, windows in groups(thread, np.arange(len(thread))):
        mine = by_thread.get(number)
        if mine is None:
            continue
        other[mine] = False
        nest = Nest(entry_ns[windows], exit_ns[windows])
        inside = nest.innermost(placed.moment_ns[mine], placed.moment_ns[mine])
        of[mine] = np.where(inside >= 0, windows[np.maximum(inside, 0)], -1)
    rest = np.flatnonzero(other)
    of[rest] = Nest(entry_ns, exit_ns).innermost(placed.moment_ns[rest], placed.moment_ns[rest])
    return of


def _closed(forwards: Forwards, placed: Placed) -> Forwards:
    """Without host exits where a range ends before its last operation."""
    last_ns = last_end(forwards.of, len(forwards), placed.end_ns)
    early = int((forwards.exit_ns < last_ns).sum())
    if not early:
        return forwards
    note = (
        f"{early:,} ranges end before their last operation does: when the host was done is unknown"
    )
    return replace(
        forwards,
        exit_ns=np.full(len(forwards), -1, dtype=np.int64),
        notes=(*forwards.notes, note),
    )


def _between(forward: Indices, lane: Indices | None) -> Indices:
    """``forward`` with what lies between two operations of one forward in it, lane by lane."""
    if lane is None:
        return _filled(forward)
    found = np.full(len(forward), -1, dtype=np.int32)
    for number in np.unique(lane).tolist():
        mine = np.flatnonzero(lane == number)
        found[mine] = _filled(forward[mine])
    return found


def _filled(forward: Indices) -> Indices:
    named = np.flatnonzero(forward >= 0)
    if not len(named):
        return forward.astype(np.int32)
    number = forward[named].astype(np.int32)
    inside = np.append(np.where(number[1:] == number[:-1], number[:-1], -1), -1)
    # each named operation, then what follows it up to the next one; nothing before the first
    gaps = np.diff(np.append(named, len(forward))) - 1
    counts = np.empty(2 * len(named) + 1, dtype=np.int64)
    counts[0], counts[1::2], counts[2::2] = named[0], 1, gaps
    values = np.empty(len(counts), dtype=np.int32)
    values[0], values[1::2], values[2::2] = -1, number, inside
    return np.repeat(values, counts)


def _cut(fitted: Fitted) -> NDArray[np.bool_]:
    """Forwards at the ends of a lane that lack steps which most others have: the capture cut them.

    All False with fewer than three forwards, where nothing is usual.
    """
    walked = fitted.walk
    named = walked.named
    cut = np.zeros(walked.forwards, dtype=np.bool_)
    if walked.forwards < 3:
        return cut
    seen = np.zeros((walked.forwards, len(walked.labels)), dtype=np.bool_)
    seen[walked.forward[named], walked.label[named]] = True
    usual = seen.sum(axis=0) * 2 > walked.forwards
    numbers = [0] if fitted.lane is None else np.unique(fitted.lane[named]).tolist()
    for number in numbers:
        own = named if fitted.lane is None else named & (fitted.lane == number)
        mine = np.unique(walked.forward[own])
        for end in (mine[0], mine[-1]):
            cut[end] = bool((usual & ~seen[end]).any())
    return cut


def _entered(placed: Placed, of: Indices, kept: Indices, notes: tuple[str, ...]) -> Forwards | None:
    """The forwards ``kept`` of those that ``of`` numbers, with the moments they could run from."""
    size = int(of.max(initial=-1)) + 1
    if not len(kept) or not size:
        return None
    inside = np.flatnonzero(of >= 0)
    first_ns = _lowest(of[inside], placed.start_ns[inside], size)
    launched_ns = _lowest(of[inside], placed.moment_ns[inside], size)
    free_ns = _free_before(placed, first_ns[kept])
    entry_ns = np.minimum(np.maximum(launched_ns[kept], free_ns), first_ns[kept] - 1)
    unknown = np.full(size, -1, dtype=np.int64)
    entries = np.zeros(size, dtype=np.int64)
    entries[kept] = entry_ns
    found = Forwards(entries, unknown, unknown.copy(), of, notes)
    return found.only(kept[np.argsort(entry_ns, kind="stable")])


def _free_before(placed: Placed, moments_ns: Times) -> Times:
    """For each moment the latest end of what started before it; NEVER where nothing did."""
    start_ns, end_ns = placed.start_ns, placed.end_ns
    if not bool((start_ns[1:] >= start_ns[:-1]).all()):
        order = np.argsort(start_ns, kind="stable")
        start_ns, end_ns = start_ns[order], end_ns[order]
    ended_ns = np.maximum.accumulate(end_ns)
    before = np.searchsorted(start_ns, moments_ns, side="left") - 1
    return np.where(before >= 0, ended_ns[np.maximum(before, 0)], NEVER)


def _lowest(of: Indices, values: Times, size: int) -> Times:
    """The lowest value of each number below ``size``; the largest integer where it has none."""
    found = np.full(size, np.iinfo(np.int64).max)
    if len(of):
        change = np.flatnonzero(np.append(True, of[1:] != of[:-1]))  # few: forwards are stretches
        lowest = np.minimum.reduceat(values, change)
        np.minimum.at(found, of[change], lowest)
    return found


def last_end(of: Indices, size: int, end_ns: Times) -> Times:
    """When the last operation of each forward ended."""
    inside = np.flatnonzero(of >= 0)
    found: Times = -_lowest(of[inside], -end_ns[inside], size)
    return found


def _range_names(ranges: RangeTable) -> str:
    """The names that ranges have, the most frequent first, for an error."""
    if not len(ranges):
        return "the capture holds no ranges"
    often = np.bincount(ranges.name, minlength=len(ranges.names))
    top = np.argsort(-often, kind="stable")[:8]
    shown = ", ".join(
        f"{printable(ranges.names[n][1], 40)!r} ({often[n]:,} times)" for n in top.tolist()
    )
    return f"the capture's ranges: {shown}"
