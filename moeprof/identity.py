"""The time identity of one iteration: every nanosecond of the span owned once, by one row.

Operations are swept in order of start (ties: order of record). An instant covered by several
belongs to the one that started first; the rest is overlap. A gap, idle time of the whole GPU before
an operation, is charged to that operation's row and split by its launch call [begin, end]:

    host_late       from the end of everything earlier until the host begins the launch call
    api             from there until the launch call returns
    launch_latency  from there until the operation starts
    dependency      that same last part, if the launch had returned before the GPU fell idle and
                    the operations that ended last are all on other streams: what held the
                    operation was then another stream, not the launch

Each part is clipped to the gap, so the identity closes for any input whatever: zero lengths, equal
starts, one call that launches many operations (a graph), calls recorded after the start. Whether
such input is believable is ``checks``' question. Without API records the whole gap is counted as
host_late, an upper bound of the host's share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from moeprof.profiles import IterationProfile, StageTime
from moeprof.records import Iteration, Operation

BUSY, OVERLAP, SUM, COUNT = "busy_ns", "overlap_ns", "kernel_sum_ns", "operations"
HOST_LATE, API = "host_late_ns", "api_ns"
LATENCY, DEPENDENCY = "launch_latency_ns", "dependency_ns"


def collected(iteration: Iteration, position: int) -> bool:
    """Whether CUPTI timed this operation at all: one that ended before host entry is not real."""
    return iteration.end_ns[position] > 0


def attribute(
    operations: Sequence[Operation],
    iteration: Iteration,
    row_of: Sequence[str],
    rows: Sequence[str] = (),
) -> IterationProfile:
    """Charge every nanosecond of one iteration's span to a row.

    row_of: the row of each operation (``rows.rows_of``). rows: rows to show in this order even
    where they have no operation; further ones follow in order of first start.
    """
    tallies: dict[str, Counter[str]] = {name: Counter() for name in rows}
    first_ns = covered_ns = 0
    for number, (position, idle_ns, parts) in enumerate(sweep(operations, iteration)):
        tally = tallies.setdefault(row_of[position], Counter())
        tally.update(parts)
        start_ns = iteration.start_ns[position]
        end_ns = max(iteration.end_ns[position], start_ns)
        first_ns = start_ns if number == 0 else first_ns
        owned_ns = max(0, end_ns - max(start_ns, idle_ns))
        tally[BUSY] += owned_ns
        tally[OVERLAP] += end_ns - start_ns - owned_ns
        tally[SUM] += end_ns - start_ns
        tally[COUNT] += 1
        covered_ns = max(idle_ns, end_ns)
    return _close(iteration, first_ns, covered_ns, tallies)


def sweep(
    operations: Sequence[Operation], iteration: Iteration
) -> Iterator[tuple[int, int, dict[str, int]]]:
    """Each operation in order of start: its position, the end of everything before it, its gap.

    The gap begins at that end; its parts follow each other in the order of the dict, which is
    empty where there is none.
    """
    order = _sweep_order(iteration)
    covered_ns = iteration.start_ns[order[0]] if order else 0
    last_streams: frozenset[int] = frozenset()
    for position in order:
        start_ns = iteration.start_ns[position]
        stream = operations[position].stream
        held = bool(last_streams) and stream not in last_streams
        gap = start_ns > covered_ns
        yield position, covered_ns, _split(iteration, position, covered_ns, held) if gap else {}
        end_ns = max(iteration.end_ns[position], start_ns)
        if end_ns >= covered_ns:
            same = last_streams if end_ns == covered_ns else frozenset()
            last_streams, covered_ns = same | {stream}, end_ns


def _sweep_order(iteration: Iteration) -> list[int]:
    positions = (p for p in range(len(iteration.start_ns)) if collected(iteration, p))
    return sorted(positions, key=lambda p: (iteration.start_ns[p], p))


def _split(iteration: Iteration, position: int, idle_ns: int, held: bool) -> dict[str, int]:
    """The gap [idle_ns, start) by cause. held: only other streams' operations ended at idle_ns."""
    start_ns = iteration.start_ns[position]
    if not iteration.launch_begin_ns or iteration.launch_begin_ns[position] == -1:
        return {HOST_LATE: start_ns - idle_ns}
    begin_ns = min(max(iteration.launch_begin_ns[position], idle_ns), start_ns)
    end_ns = min(max(iteration.launch_end_ns[position], begin_ns), start_ns)
    waited_for_stream = held and iteration.launch_end_ns[position] <= idle_ns
    return {
        HOST_LATE: begin_ns - idle_ns,
        API: end_ns - begin_ns,
        DEPENDENCY if waited_for_stream else LATENCY: start_ns - end_ns,
    }


def _close(
    iteration: Iteration, first_ns: int, last_ns: int, tallies: dict[str, Counter[str]]
) -> IterationProfile:
    wall_ns = iteration.exit_ns if iteration.exit_ns >= 0 else None
    return IterationProfile(
        wall_ns=wall_ns,
        prologue_ns=first_ns,
        span_ns=last_ns - first_ns,
        epilogue_ns=None if wall_ns is None else wall_ns - last_ns,
        stages=tuple(StageTime(name, **tally) for name, tally in tallies.items()),
    )
