"""The stage of every operation: by the ranges of host code around its launch call, else by rules.

A range names a stage if it lies in the domain ``moeprof`` (or its text begins with ``moeprof.``),
if its text is one of the seven steps or steps joined by '+', or if the user's own pattern says so.
The innermost such range around the launch call on its thread is the operation's stage, so that a
stage inside another is not counted twice. What other threads launch during a forward belongs to the
stage that the forward's thread was in at that moment, as in ``other_threads``.

Nodes of a replayed graph are launched by one call in no stage. Where a record of the same solution
knows the stage of each node, its numbers are used if the names agree as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moeprof.importing.enclosing import Launches, enclosed, launches_of
from moeprof.importing.fit import Fitted
from moeprof.importing.iterations import DOMAIN, ITERATION, Forwards
from moeprof.importing.names import printable
from moeprof.importing.nesting import Indices, Nest, groups, nesting_order
from moeprof.importing.placed import Placed
from moeprof.importing.rules import searched, step_span
from moeprof.importing.trace import RangeTable, Times, Trace
from moeprof.records import Run
from moeprof.scopes import RESERVED

LONGEST_STAGE = 80
NODE_NUMBER = 0xFFFFFFFF  # the lower half of a node id; the upper one is the graph
ENOUGH_NODES = 0.9
MOST_BOUNDS = 5_000_000  # stages times forwards whose host times are kept

Mapping = Sequence[tuple[re.Pattern[str], str]]


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """label [N] of each operation of the place, in ``labels``; -1: in no stage.

    by: 'ranges', 'rules' or 'graph nodes', as in ``Capture.stages_by``.
    """

    label: Indices
    labels: tuple[str, ...]
    by: str
    notes: tuple[str, ...] = ()

    def share_of(self, of: NDArray[np.bool_], placed: Placed) -> float:
        """The share of the time of the operations ``of`` that has a stage; 0 without any."""
        durations = placed.duration_ns
        whole = int(durations[of].sum())
        return int(durations[of & (self.label >= 0)].sum()) / whole if whole else 0.0


def stage_names(ranges: RangeTable, mapping: Mapping = ()) -> list[str]:
    """The stage that each name of a range stands for, '' for none."""
    return [_stage_of(domain, text, mapping) for domain, text in ranges.names]


def range_stages(trace: Trace, placed: Placed, mapping: Mapping = ()) -> Told | None:
    """Stages by ranges alone; None where no operation was launched inside one."""
    stages = stage_names(trace.ranges, mapping)
    labels = tuple(dict.fromkeys(stage for stage in stages if stage))
    if not labels:
        return None
    number = _numbers(stages, labels)
    around = enclosed(trace, placed.process, launches_of(placed), number >= 0)
    label = np.where(around >= 0, number[trace.ranges.name[np.maximum(around, 0)]], -1)
    if not (label >= 0).any():
        return None
    return Told(label, labels, "ranges")


def charge_other_threads(
    told: Told, trace: Trace, placed: Placed, forwards: Forwards, mapping: Mapping = ()
) -> Told:
    """What other threads launched in a forward gets the stage its thread was in at that moment."""
    of = forwards.of
    thread = np.where(of >= 0, forwards.thread[np.maximum(of, 0)], -1)
    foreign = (told.label < 0) & (thread >= 0) & (placed.thread != thread)
    if not foreign.any():
        return told
    stages = stage_names(trace.ranges, mapping)
    number = _numbers(stages, told.labels)
    meanwhile = Launches(thread, placed.moment_ns, placed.moment_ns)
    around = enclosed(trace, placed.process, meanwhile, number >= 0)
    charged = foreign & (around >= 0)
    label = told.label.copy()
    label[charged] = number[trace.ranges.name[around[charged]]]
    count = int(charged.sum())
    note = (
        f"{count:,} operations were launched by other threads; each counts for the stage that the "
        "forward's thread was in at that moment"
    )
    return replace(told, label=label, notes=(*told.notes, note)) if count else told


def rule_stages(fitted: Fitted, forwards: Forwards, placed: Placed) -> Told:
    """Stages by the rules that were applied, with how much of the forwards they explain."""
    told = Told(fitted.walk.label, fitted.walk.labels, "rules", fitted.notes)
    share = told.share_of(forwards.of >= 0, placed)
    note = f"rules {fitted.walk.rules.name!r} name {100 * share:.1f} % of the forwards' GPU time"
    if share < 0.5:
        note += ": less than half, so the rows say little; write your own rules (--rules)"
    return replace(told, notes=(*told.notes, note))


def node_stages(trace: Trace, placed: Placed, of: NDArray[np.bool_], like: Run) -> Told | None:
    """Stages of graph nodes by the record ``like``; None unless nearly all nodes agree by name."""
    graph = like.timeline("graph")
    if graph is None:
        return None
    known = {
        (node.graph_node & NODE_NUMBER, node.name): node.stage
        for operations in graph.operation_sets
        for node in operations
        if node.graph_node is not None and node.stage
    }
    labels = tuple(stage for stage in like.solution.stage_names if stage in known.values())
    found = [
        known.get(((node.graph_node or 0) & NODE_NUMBER, node.name), "")
        for node in trace.operations.descriptions
    ]
    of_description = _numbers(found, labels)
    label = of_description[placed.description]
    if not of.any() or (label[of] >= 0).mean() < ENOUGH_NODES:
        return None
    return Told(label, labels, "graph nodes")


def stage_bounds(
    told: Told, trace: Trace, forwards: Forwards, mapping: Mapping = ()
) -> tuple[Times, Times] | None:
    """Host clock at begin and end of each stage, [F, labels] each; -1 where not entered once."""
    if told.by != "ranges" or not len(trace.ranges) or (forwards.thread < 0).any():
        return None
    ranges = trace.ranges
    stages = stage_names(ranges, mapping)
    number = _numbers(stages, told.labels)
    if len(forwards) * len(told.labels) > MOST_BOUNDS:
        return None
    begin_ns = np.full((len(forwards), len(told.labels)), -1, dtype=np.int64)
    end_ns, times = begin_ns.copy(), np.zeros_like(begin_ns)
    counted = (number[ranges.name] >= 0) & (ranges.end_ns >= ranges.start_ns)
    by_thread = dict(groups(ranges.thread, np.flatnonzero(counted)))
    nobody = np.empty(0, dtype=np.int64)
    for thread, windows in groups(forwards.thread, np.arange(len(forwards))):
        windows = windows[nesting_order(forwards.entry_ns[windows], _until(forwards, windows))]
        mine = by_thread.get(thread, nobody)
        nest = Nest(forwards.entry_ns[windows], _until(forwards, windows))
        inside = nest.innermost(ranges.start_ns[mine], ranges.end_ns[mine])
        mine, inside = mine[inside >= 0], inside[inside >= 0]
        cell = windows[inside], number[ranges.name[mine]]
        begin_ns[cell], end_ns[cell] = ranges.start_ns[mine], ranges.end_ns[mine]
        np.add.at(times, cell, 1)
    begin_ns[times != 1] = end_ns[times != 1] = -1
    return begin_ns, end_ns


def open_ranges(trace: Trace, mapping: Mapping, iteration: NDArray[np.bool_]) -> tuple[str, ...]:
    """A note on the ranges that would have told something and were never closed."""
    stages = stage_names(trace.ranges, mapping)
    wanted = np.array([bool(s) for s in stages], dtype=np.bool_) | iteration
    if not len(trace.ranges):
        return ()
    left = np.flatnonzero(wanted[trace.ranges.name] & (trace.ranges.end_ns < 0))
    if not len(left):
        return ()
    names = dict.fromkeys(trace.ranges.names[n][1] for n in trace.ranges.name[left].tolist())
    shown = ", ".join(printable(name, 40) for name in list(names)[:3])
    return (f"{len(left):,} ranges were left open and are ignored ({shown})",)


def _numbers(names: Sequence[str], labels: Sequence[str]) -> Indices:
    """The position of each name among ``labels``, -1 where it is none of them."""
    number = {label: position for position, label in enumerate(labels)}
    return np.array([number.get(name, -1) for name in names], dtype=np.int64)


def _stage_of(domain: str, text: str, mapping: Mapping) -> str:
    for pattern, stage in mapping:
        if searched(pattern, text):
            return stage
    prefix = f"{DOMAIN}."
    if domain == DOMAIN or text.startswith(prefix):
        text = text.removeprefix(prefix)
        if text == ITERATION or not text.strip():
            return ""
        text = printable(text, LONGEST_STAGE).strip()
        return f"{text} (stage)" if text in RESERVED else text
    return text if step_span(text) is not None else ""


def _until(forwards: Forwards, windows: Indices) -> Times:
    """When each window ends on the host; where that is unknown, when the next one begins."""
    entry_ns, exit_ns = forwards.entry_ns[windows], forwards.exit_ns[windows]
    last = np.iinfo(np.int64).max
    following = np.append(entry_ns[1:], last)
    return np.where(exit_ns >= 0, exit_ns, following)
