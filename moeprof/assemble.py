"""CUPTI's records to iterations: whose operation, in which iteration, launched by which call.

Pure. Iterations are told apart by host timestamps on CUPTI's clock, since buffers arrive late and
in any order; an operation belongs to the iteration in which its launch call began.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace

from moeprof.timelines import (
    NOTABLE_NAMES,
    NOTABLE_NS,
    ApiCall,
    Iteration,
    Operation,
    TimelinePass,
)


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    begin: int
    end: int


@dataclass(slots=True)
class Records:
    """What the buffers held, as plain values: the activity objects die with their buffer."""

    operations: list[tuple[int, int, int, Operation]] = field(default_factory=list)
    calls: dict[int, Call] = field(default_factory=dict)
    stages: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Window:
    """Host times of one iteration, on CUPTI's clock."""

    entry: int
    exit: int
    stage_begin: tuple[int, ...]
    stage_end: tuple[int, ...]


def assemble(
    name: str, stages: tuple[str, ...], windows: list[Window], records: Records, dropped: int
) -> TimelinePass:
    """Sort records into iterations and operations into stages; times relative to host entry."""
    entries = [window.entry for window in windows]
    ordered: list[list[tuple[int, int, int, Operation]]] = [[] for _ in windows]
    for record in sorted(records.operations, key=lambda record: record[:3]):
        call = records.calls.get(record[2])
        moment = call.begin if call is not None else record[0]
        position = bisect_right(entries, moment) - 1
        if position >= 0 and moment <= windows[position].exit:
            ordered[position].append(record)
    calls = _notable_calls(windows, records)
    sets: dict[tuple[Operation, ...], int] = {}
    iterations = []
    for window, found, other in zip(windows, ordered, calls, strict=True):
        operations = tuple(_owned(record, stages, records) for record in found)
        launches = [records.calls.get(record[2]) for record in found]
        known = bool(launches) and all(launch is not None for launch in launches)
        iterations.append(
            Iteration(
                operation_set=sets.setdefault(operations, len(sets)),
                start_ns=tuple(record[0] - window.entry for record in found),
                end_ns=tuple(record[1] - window.entry for record in found),
                launch_begin_ns=tuple(c.begin - window.entry for c in launches if c)
                if known
                else (),
                launch_end_ns=tuple(c.end - window.entry for c in launches if c) if known else (),
                stage_begin_ns=tuple(t - window.entry for t in window.stage_begin),
                stage_end_ns=tuple(t - window.entry for t in window.stage_end),
                exit_ns=window.exit - window.entry,
                calls=other,
                dropped=dropped,
            )
        )
    return TimelinePass(name, tuple(sets), tuple(iterations))


def _owned(
    record: tuple[int, int, int, Operation], stages: tuple[str, ...], records: Records
) -> Operation:
    tag = records.stages.get(record[2], 0)
    call = records.calls.get(record[2])
    stage = stages[tag - 1] if 0 < tag <= len(stages) else ""
    return replace(record[3], stage=stage, launch=call.name if call else "")


def _notable_calls(windows: list[Window], records: Records) -> list[tuple[ApiCall, ...]]:
    launching = {record[2] for record in records.operations}
    entries = [window.entry for window in windows]
    found: list[list[ApiCall]] = [[] for _ in windows]
    for correlation, call in records.calls.items():
        long = call.end - call.begin >= NOTABLE_NS
        if correlation in launching or not (long or any(n in call.name for n in NOTABLE_NAMES)):
            continue
        position = bisect_right(entries, call.begin) - 1
        if position >= 0 and call.end <= windows[position].exit:
            entry = windows[position].entry
            found[position].append(ApiCall(call.name, call.begin - entry, call.end - entry))
    return [tuple(sorted(calls, key=lambda call: call.begin_ns)) for calls in found]


def with_node_stages(
    timeline: TimelinePass, stages: tuple[str, ...], nodes_after: tuple[int, ...]
) -> TimelinePass:
    """Give each operation of a replayed graph the stage whose capture made its node.

    nodes_after: how many nodes the graph had after each stage. CUPTI's node id holds the graph in
    its upper 32 bits and the node's number, in order of creation, in the lower ones.
    """

    def named(operation: Operation) -> Operation:
        number = (operation.graph_node or 0) & 0xFFFFFFFF
        position = bisect_right(nodes_after, number)
        known = operation.graph_node is not None and position < len(stages)
        return replace(operation, stage=stages[position] if known else "", graph_node=number)

    sets = tuple(tuple(map(named, operations)) for operations in timeline.operation_sets)
    return replace(timeline, operation_sets=sets)
