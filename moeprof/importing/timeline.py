"""The forwards of a place as the pass ``api`` of a record: iterations and sets of operations.

As ``assemble`` does for CUPTI's own records, but from columns: a server's capture has thousands of
forwards. A launch call is placed relative to the host entry, which may lie behind it where the host
runs ahead of the GPU or one graph launch makes many forwards.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moeprof.importing.iterations import Forwards
from moeprof.importing.nesting import Indices, Nest, nesting_order
from moeprof.importing.placed import Placed
from moeprof.importing.stages import Mapping, Told, stage_bounds
from moeprof.importing.trace import Times, Trace
from moeprof.timelines import (
    NOTABLE_NAMES,
    NOTABLE_NS,
    ApiCall,
    Iteration,
    Operation,
    TimelinePass,
)

UNKNOWN = -1  # a launch call that is not in the capture


def timeline_of(
    trace: Trace, placed: Placed, forwards: Forwards, told: Told, mapping: Mapping = ()
) -> TimelinePass:
    """The pass ``api`` of these forwards; operations in order of start, times from host entry."""
    members = np.flatnonzero(forwards.of >= 0)
    order = np.lexsort((placed.end_ns[members], placed.start_ns[members], forwards.of[members]))
    members = members[order]
    of = forwards.of[members]
    entry_ns = forwards.entry_ns[of]
    distinct, number = _described(trace, placed, told, members)
    if _many_of_one_graph(placed.call[members], of):
        distinct, number = _without_nodes(distinct, number)
    begin_ns, return_ns = _launches(placed, members, entry_ns)
    known = placed.call[members] >= 0
    columns = (placed.start_ns[members] - entry_ns, placed.end_ns[members] - entry_ns)
    bounds = np.searchsorted(of, np.arange(len(forwards) + 1)).tolist()
    calls = _notable_calls(trace, placed, forwards, members, of)
    stages = _stages(stage_bounds(told, trace, forwards, mapping), forwards)
    sets: dict[bytes, int] = {}
    operation_sets: list[tuple[Operation, ...]] = []
    iterations = []
    for f, (first, last) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        numbers = number[first:last]
        key = numbers.tobytes()
        if key not in sets:
            sets[key] = len(sets)
            operation_sets.append(tuple(distinct[n] for n in numbers.tolist()))
        launched = bool(known[first:last].any())
        exit_ns = int(forwards.exit_ns[f])
        iterations.append(
            Iteration(
                operation_set=sets[key],
                start_ns=tuple(columns[0][first:last].tolist()),
                end_ns=tuple(columns[1][first:last].tolist()),
                launch_begin_ns=tuple(begin_ns[first:last].tolist()) if launched else (),
                launch_end_ns=tuple(return_ns[first:last].tolist()) if launched else (),
                stage_begin_ns=stages[f][0],
                stage_end_ns=stages[f][1],
                exit_ns=exit_ns - int(forwards.entry_ns[f]) if exit_ns >= 0 else -1,
                calls=calls[f],
            )
        )
    return TimelinePass("api", tuple(operation_sets), tuple(iterations))


def _described(
    trace: Trace, placed: Placed, told: Told, members: Indices
) -> tuple[list[Operation], Indices]:
    """The distinct operations with stage and launch call, and which one each member is."""
    call = placed.call[members]
    name = np.full(len(members), -1, dtype=np.int64)
    if len(trace.calls):
        name = np.where(call >= 0, trace.calls.name[np.maximum(call, 0)], -1).astype(np.int64)
    labels, names = len(told.labels) + 1, len(trace.calls.names) + 1
    key = placed.description[members].astype(np.int64)
    key = (key * labels + told.label[members] + 1) * names + name + 1
    values, number = np.unique(key, return_inverse=True)
    distinct = []
    for value in values.tolist():
        rest, launch = divmod(value, names)
        description, label = divmod(rest, labels)
        distinct.append(
            replace(
                trace.operations.descriptions[description],
                stage=told.labels[label - 1] if label else "",
                launch=trace.calls.names[launch - 1] if launch else "",
            )
        )
    return distinct, number.reshape(-1).astype(np.int64)


def _many_of_one_graph(call: Indices, of: Indices) -> bool:
    """Whether one call launched several forwards: nodes then number the whole graph's layers."""
    known = call >= 0
    pairs: int = np.unique(np.stack((call[known], of[known])), axis=1).shape[1]
    return pairs > len(np.unique(call[known]))


def _without_nodes(distinct: list[Operation], number: Indices) -> tuple[list[Operation], Indices]:
    """The operations without graph nodes, so that forwards of a graph's layers are alike."""
    bare: dict[Operation, int] = {}
    renumbered = [bare.setdefault(replace(o, graph_node=None), len(bare)) for o in distinct]
    return list(bare), np.array(renumbered, dtype=np.int64)[number]


def _launches(placed: Placed, members: Indices, entry_ns: Times) -> tuple[Times, Times]:
    """Launch calls from host entry; UNKNOWN where there is none, and never by chance."""
    known = placed.call[members] >= 0
    found = []
    launched = placed.part(members)
    for moment_ns in (launched.moment_ns, launched.returned_ns):
        relative = moment_ns - entry_ns
        relative[relative == UNKNOWN] -= 1
        relative[~known] = UNKNOWN
        found.append(relative)
    return found[0], np.maximum(found[0], found[1])


def _stages(
    bounds: tuple[Times, Times] | None, forwards: Forwards
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Host clock at stage boundaries of each forward; none where a stage is not entered once."""
    if bounds is None:
        return [((), ())] * len(forwards)
    begin_ns, end_ns = (column - forwards.entry_ns[:, None] for column in bounds)
    whole = np.all(bounds[0] >= 0, axis=1)
    return [
        (tuple(begin_ns[f].tolist()), tuple(end_ns[f].tolist())) if whole[f] else ((), ())
        for f in range(len(forwards))
    ]


def _notable_calls(
    trace: Trace, placed: Placed, forwards: Forwards, members: Indices, of: Indices
) -> list[tuple[ApiCall, ...]]:
    """Of each forward the calls that launched nothing and can block, or took long.

    Only on threads that launch operations of these forwards; a forward whose end on the host is
    unknown reaches to its last launch.
    """
    found: list[list[ApiCall]] = [[] for _ in range(len(forwards))]
    calls = trace.calls
    if not len(calls) or not len(members):
        return [() for _ in found]
    until_ns = np.full(len(forwards), np.iinfo(np.int64).min)
    np.maximum.at(until_ns, of, placed.part(members).returned_ns)
    until_ns = np.where(forwards.exit_ns >= 0, forwards.exit_ns, until_ns)
    chosen = _notable(trace, placed, members)
    order = nesting_order(forwards.entry_ns, until_ns)
    nest = Nest(forwards.entry_ns[order], until_ns[order])
    inside = nest.innermost(calls.start_ns[chosen], calls.end_ns[chosen])
    for call, window in zip(
        chosen[inside >= 0].tolist(), inside[inside >= 0].tolist(), strict=True
    ):
        f = int(order[window])
        entry_ns = int(forwards.entry_ns[f])
        name = calls.names[calls.name[call]]
        begin_ns, end_ns = int(calls.start_ns[call]), int(calls.end_ns[call])
        found[f].append(ApiCall(name, begin_ns - entry_ns, end_ns - entry_ns))
    return [tuple(sorted(own, key=lambda call: call.begin_ns)) for own in found]


def _notable(trace: Trace, placed: Placed, members: Indices) -> Indices:
    calls = trace.calls
    named = np.array([any(n in name for n in NOTABLE_NAMES) for name in calls.names], np.bool_)
    wanted: NDArray[np.bool_] = named[calls.name] | (calls.end_ns - calls.start_ns >= NOTABLE_NS)
    launching = trace.operations.correlation
    wanted &= ~np.isin(calls.correlation, launching[launching >= 0])
    wanted &= np.isin(calls.thread, np.unique(placed.part(members).thread))
    return np.flatnonzero(wanted)
