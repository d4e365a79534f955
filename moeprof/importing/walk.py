"""Rules applied along the operations of a place: which stage each belongs to, and which forward.

Operations are walked in order of launch, one lane at a time (``lanes``). The walk knows the step
last seen; a rule may depend on it. A forward begins where a first step follows a later one. Which
step is first is read off the capture: the earliest one that the rules name often enough, since a
server's router may be a kernel that no rule knows. Going back from the last step to one in the
middle (a forward in chunks) begins no forward, but matches are counted from there again.

An operation that no rule names belongs to no stage; whether it lies inside a forward is
``iterations``' question.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprof.contract import STEPS
from moeprof.importing.enclosing import enclosed, launches_of
from moeprof.importing.nesting import Indices
from moeprof.importing.placed import Placed
from moeprof.importing.rules import STEP_NUMBER, Rule, RuleSet, searched, step_span
from moeprof.importing.trace import Times, Trace

RARELY = 0.25  # a step named this much less often than the others is named by mistake
STRETCH = 100_000
NOTHING, NO_STEP = (
    -2,
    -1,
)  # as the step last seen: nothing yet in this forward, work that is no step


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """What the rules say of the operations of a place [N], in their order.

    label[n] indexes ``labels``, -1 where no rule names it. forward[n]: number of the forward of an
    operation that is named, -1 of others. forwards: how many.
    """

    rules: RuleSet
    labels: tuple[str, ...]
    label: Indices
    forward: Indices
    forwards: int

    @property
    def named(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.label >= 0
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Which rules may apply to each operation: code[n] indexes ``choices``, tuples of rule numbers.

    first, last: numbers of the first and last step that rules name in this capture without
    depending on others.
    """

    code: Indices
    choices: tuple[tuple[int, ...], ...]
    first: int
    last: int


def matching_names(rules: RuleSet, names: Sequence[str]) -> NDArray[np.bool_]:
    """For each name whether a landmark of ``rules`` matches it by its name alone."""
    plain = [r for r in rules.rules if r.is_landmark and r.kernel and not r.call and not r.range]
    by_name = {
        name: any(rule.kernel is not None and searched(rule.kernel, name) for rule in plain)
        for name in set(names)
    }
    return np.fromiter((by_name[name] for name in names), dtype=np.bool_, count=len(names))


def match(rules: RuleSet, trace: Trace, placed: Placed) -> Matches:
    """The rules that each operation of ``placed`` matches, their context left aside."""
    names = [description.name for description in trace.operations.descriptions]
    distinct = {name: 0 for name in names}
    by_call: list[tuple[int, Rule]] = []
    for number, rule in enumerate(rules.rules):
        if rule.call is not None or rule.range is not None:
            by_call.append((number, rule))
        if rule.kernel is not None:
            for name in distinct:
                distinct[name] |= searched(rule.kernel, name) << number
        else:
            for name in distinct:
                distinct[name] |= 1 << number
    of_description = np.array([distinct[name] for name in names], dtype=np.int64)
    values, numbers = _numbered(of_description)
    code = numbers[placed.description]
    if by_call:
        bits = values[code]
        for number, rule in by_call:
            bits &= ~np.where(_launched_by(rule, trace, placed), 0, 1 << number)
        values, code = _numbered(bits)
    choices = tuple(
        tuple(n for n in range(len(rules.rules)) if value >> n & 1) for value in values.tolist()
    )
    return Matches(code, choices, *outer_steps(rules, code, choices))


def _numbered(bits: Times) -> tuple[Times, Indices]:
    """The distinct values, 0 always the first, and the number of each value."""
    values, number = np.unique(np.append(bits, 0), return_inverse=True)
    return values, number.reshape(-1)[:-1].astype(np.int32)


def walk(
    rules: RuleSet, matches: Matches, lane: Indices | None = None, group: Indices | None = None
) -> Walk:
    """Name operations and tell forwards.

    lane [N]: each lane is walked by itself (-1: not walked); by default all are one. group [N]:
    what is known to belong together (a range around a forward): a forward does not reach across,
    and operations with -1 are passed over.
    """
    size = len(matches.code)
    label, forward = (np.full(size, -1, dtype=np.int32) for _ in range(2))
    walker = _Walker(rules, matches)
    lane = np.zeros(size, dtype=np.int64) if lane is None else lane
    for number in np.unique(lane[lane >= 0]).tolist():
        mine = np.flatnonzero(
            (lane == number) if group is None else (lane == number) & (group >= 0)
        )
        own = None if group is None else group[mine]
        at, label_of, forward_of = walker.lane(matches.code[mine], own)
        label[mine[at]], forward[mine[at]] = label_of, forward_of
    return Walk(rules, walker.labels, label, forward, walker.forward + 1)


class _Walker:
    """The state of a walk; ``lane`` walks one lane, forwards are numbered across lanes."""

    def __init__(self, rules: RuleSet, matches: Matches) -> None:
        self.labels = rules.labels
        self.forward = -1
        self._choices = matches.choices
        self._first, self._last = matches.first, matches.last
        number = {label: position for position, label in enumerate(self.labels)}
        self._spans = [step_span(label) or (NO_STEP, NO_STEP) for label in self.labels]
        self._rules = [
            (
                tuple(number[label] for label in rule.labels),
                rule.joins,
                STEP_NUMBER.get(rule.after, NOTHING),
                STEP_NUMBER.get(rule.before, len(STEPS)),
                rule.at_most or 1 << 60,
            )
            for rule in rules.rules
        ]
        self._current = NOTHING
        self._counts: dict[int, int] = {}

    def lane(self, code: Indices, group: Indices | None) -> tuple[Times, Times, Times]:
        """Positions in the lane of what is named, with label and forward."""
        positions = np.flatnonzero(code)
        at, labels, forwards = array("q"), array("q"), array("q")
        pending: list[int] = []
        last_at, last_group = -2, -2
        self._begin()
        for position, chosen, mine in _stretches(positions, code, group):
            if mine != last_group:
                self._begin()
                pending, last_group, last_at = [], mine, -2
            found = self._apply(self._choices[chosen])
            if found is None:
                continue
            if found == "next":
                adjacent = bool(pending) and pending[-1] == position - 1
                pending = [*pending, position] if adjacent else [position]
                continue
            members = [position]
            if found == "previous":
                if last_at != position - 1:
                    continue
                label = labels[-1]
            else:
                label = int(found)
                if pending and pending[-1] == position - 1:
                    members = [*pending, position]
            pending = []
            at.extend(members)
            labels.extend([label] * len(members))
            forwards.extend([self.forward] * len(members))
            last_at = position
        return _column(at), _column(labels), _column(forwards)

    def _begin(self) -> None:
        """The next operation that is named begins a forward."""
        self._current = NOTHING
        self._counts = {}

    def _apply(self, choice: tuple[int, ...]) -> int | str | None:
        """The label of the first rule that applies, what it joins, or None."""
        current = self._current
        for number in choice:
            labels, joins, after, before, at_most = self._rules[number]
            if after <= current < before and self._counts.get(number, 0) < at_most:
                return joins or self._step(number, labels)
        return None

    def _step(self, number: int, labels: tuple[int, ...]) -> int:
        seen = self._counts.get(number, 0)
        first = self._spans[labels[min(seen, len(labels) - 1)]][0]
        if seen >= len(labels) > 1 and self._current == self._last:
            first = self._spans[labels[0]][0]  # its steps are through: it may begin a forward
        if self._current == NOTHING:
            self.forward += 1
            seen = 0
        elif 0 <= first < self._current:
            if first <= self._first:
                self.forward += 1
                self._counts, seen = {}, 0
            elif self._current == self._last:
                self._counts, seen = {}, 0
        self._counts[number] = seen + 1
        label = labels[min(seen, len(labels) - 1)]
        last = self._spans[label][1]
        if last >= 0:
            self._current = last
        elif self._current == NOTHING:
            self._current = -1
        return label


def lanes(walked: Walk, trace: Trace, placed: Placed) -> Indices | None:
    """The lane of each operation: streams that each hold whole forwards are lanes of their own.

    Of a server that overlaps two batches. What runs on other streams goes with the stream of the
    operation launched before it. None where at most one stream holds whole forwards.
    """
    of_description = np.array([d.stream for d in trace.operations.descriptions], dtype=np.int64)
    numbers, of_description = np.unique(of_description, return_inverse=True)
    stream = of_description.reshape(-1).astype(np.int32)[placed.description]
    named, labels = walked.named, max(1, len(walked.labels))
    steps: dict[int, set[str]] = {}
    pairs = np.unique(stream[named].astype(np.int64) * labels + walked.label[named])
    for pair in pairs.tolist():
        label = walked.labels[pair % labels]
        steps.setdefault(pair // labels, set()).update(label.split("+"))
    needs = set(walked.rules.needs)
    whole = [number for number, seen in steps.items() if needs and needs <= seen]
    if len(whole) < 2:
        return None
    last = np.where(np.isin(stream, whole), np.arange(len(placed)), -1)
    last = np.maximum.accumulate(last)
    of_stream = np.zeros(len(numbers), dtype=np.int32)
    of_stream[whole] = np.arange(len(whole))
    lane: Indices = np.where(last >= 0, of_stream[stream[np.maximum(last, 0)]], 0)
    return lane


def _stretches(
    positions: Indices, code: Indices, group: Indices | None
) -> Iterator[tuple[int, int, int]]:
    """Position, code and group of what may be named; a stretch at a time, to save memory."""
    for first in range(0, len(positions), STRETCH):
        some = positions[first : first + STRETCH]
        groups = [0] * len(some) if group is None else group[some].tolist()
        yield from zip(some.tolist(), code[some].tolist(), groups, strict=True)


def _column(values: array[int]) -> Times:
    return np.frombuffer(values, dtype=np.int64) if len(values) else np.empty(0, dtype=np.int64)


def outer_steps(
    rules: RuleSet, code: Indices, choices: Sequence[tuple[int, ...]]
) -> tuple[int, int]:
    """The first and last step that landmarks name about as often as the others."""
    often = np.bincount(code, minlength=len(choices)).tolist()
    counts: dict[int, int] = {}
    for choice, times in zip(choices, often, strict=True):
        landmark = next((n for n in choice if rules.rules[n].is_landmark), None)
        if landmark is None or not times:
            continue
        labels = rules.rules[landmark].labels
        for span in {step_span(label) for label in labels} - {None}:
            assert span is not None
            for step in span:
                counts[step] = counts.get(step, 0) + max(1, times // len(labels))
    if not counts:
        return 0, len(STEPS) - 1
    usual = sorted(counts.values())[len(counts) // 2]
    kept = [step for step, times in counts.items() if times >= RARELY * usual]
    return min(kept), max(kept)


def _launched_by(rule: Rule, trace: Trace, placed: Placed) -> NDArray[np.bool_]:
    """Whether the launching call has the rule's name and lies in a range of the rule's text."""
    found = np.ones(len(placed), dtype=np.bool_)
    if rule.call is not None:
        named = np.array([searched(rule.call, name) for name in trace.calls.names], dtype=np.bool_)
        known = placed.call >= 0
        found &= known
        found[known] = named[trace.calls.name[placed.call[known]]] if len(named) else False
    if rule.range is not None:
        pattern = rule.range
        named = np.array([searched(pattern, text) for _, text in trace.ranges.names], np.bool_)
        found &= enclosed(trace, placed.process, launches_of(placed), named) >= 0
    return found
