"""The steps of an opaque stage, told by the names of its kernels and their order.

The rules are those by which captures of other profilers are told (``importing.rules``): the set of
the library that explains most GPU time, then those of the others, then what people call kernels.
Rules look at what came before; a record keeps their outcome as plain kernel rules: for each name
the steps of its first, second, ... launch of a forward. What no rule names stays the stage's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import numpy as np

from moeprof.contract import STEPS
from moeprof.importing.rules import RuleSet, parse_rules, searched, shipped_rules, step_span
from moeprof.importing.walk import Matches, outer_steps, walk
from moeprof.records import StageInfo
from moeprof.timelines import Operation, TimelinePass

GENERAL = "moeprof reference"  # plain torch: its rules name everybody's kernels by order alone
KernelRules = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Told:
    """What was told. share: of the stage's GPU time that a step has; rules: whose, '' if none."""

    kernel_rules: KernelRules
    share: float
    rules: str


def tell_steps(
    stages: Sequence[StageInfo], timelines: Sequence[TimelinePass]
) -> tuple[tuple[StageInfo, ...], tuple[str, ...]]:
    """``stages`` with kernel rules on those that cover every step and have none; and notes."""
    found, notes = [], []
    for stage in stages:
        opaque = len(stage.covers) == len(STEPS) and not stage.kernel_rules
        told = steps_of(stage.name, timelines) if opaque else None
        if told is None:
            found.append(stage)
            continue
        found.append(replace(stage, kernel_rules=told.kernel_rules))
        whose = f"the rules {told.rules!r} and names of kernels" if told.rules else "kernel names"
        notes.append(
            f"steps inside {stage.name} are told by {whose}, which name "
            f"{100 * told.share:.1f} % of its GPU time; nothing of the solution confirms them"
        )
    return tuple(found), tuple(notes)


def steps_of(stage: str, timelines: Sequence[TimelinePass]) -> Told | None:
    """The steps of the operations that ``stage`` launched; None without any operation."""
    named: dict[str, list[str]] = {}
    first: Told | None = None
    for timeline in timelines:
        usual = _usual(stage, timeline)
        if usual is None:
            continue
        names, durations = usual
        labels, rules = _labels(names, durations)
        for name in dict.fromkeys(names):
            if name not in named:
                named[name] = [
                    label for other, label in zip(names, labels, strict=True) if other == name
                ]
        if first is None:
            total = sum(durations)
            told = sum(d for d, label in zip(durations, labels, strict=True) if label)
            first = Told((), told / total if total else 0.0, rules)
    if first is None:
        return None
    rules_of = tuple(
        (_exactly(name), _shortened(labels)) for name, labels in named.items() if any(labels)
    )
    return replace(first, kernel_rules=rules_of)


def _usual(stage: str, timeline: TimelinePass) -> tuple[list[str], list[float]] | None:
    """Names and mean durations of the stage's operations in the commonest set, in its order."""
    counts = Counter(iteration.operation_set for iteration in timeline.iterations)
    if not counts:
        return None
    chosen = counts.most_common(1)[0][0]
    operations: Sequence[Operation] = timeline.operation_sets[chosen]
    mine = [n for n, operation in enumerate(operations) if operation.stage == stage]
    if not mine:
        return None
    of = [i for i in timeline.iterations if i.operation_set == chosen]
    durations = [sum(max(0, i.end_ns[n] - i.start_ns[n]) for i in of) / len(of) for n in mine]
    return [operations[n].name for n in mine], durations


def _labels(names: Sequence[str], durations: Sequence[float]) -> tuple[list[str], str]:
    """The step of each operation, '' where none is told, and whose rules told most of them."""
    scored = []
    for rules in _libraries():
        labels = _walked(rules, names)
        whole = set(rules.needs) <= _steps_in(labels)
        told = sum(d for d, label in zip(durations, labels, strict=True) if label)
        scored.append((told if whole else 0.0, rules))
    best_ns, best = max(scored, key=lambda pair: pair[0])
    if best_ns and best.name == GENERAL:
        return _walked(best, names), best.name
    known = [best] if best_ns else []
    known += [rules for rules in _libraries() if rules.name != GENERAL and rules not in known]
    labels = _walked(_merged(*known, _people()), names)
    if "gemm2" not in _steps_in(labels):
        # nothing between the GEMMs told them apart: two are the two, more could be anything
        if labels.count("gemm1") == 2:
            labels = _walked(_merged(*known, _without_activation()), names)
        else:
            labels = ["" if label == "gemm1" else label for label in labels]
    return labels, best.name if best_ns else ""


def _steps_in(labels: Iterable[str]) -> set[str]:
    return {step for label in labels for step in label.split("+")}


def _merged(*sets: RuleSet) -> RuleSet:
    return RuleSet("merged", tuple(rule for rules in sets for rule in rules.rules))


@cache
def _libraries() -> tuple[RuleSet, ...]:
    """The shipped sets; of equal ones the first counts, so the most general is last."""
    return tuple(sorted(shipped_rules(), key=lambda rules: rules.name == GENERAL))


@cache
def _people() -> RuleSet:
    file = files("moeprof.fib") / "kernel_names.toml"
    return parse_rules(file.read_text(), file.name)


@cache
def _without_activation() -> RuleSet:
    """For two GEMMs with no activation between them: it is in the first one's epilogue."""
    *rules, last = _people().rules
    fused = replace(last, labels=("gemm1+swiglu_quant", "gemm2"), before="")
    return replace(_people(), rules=(fused, *rules))


def _walked(rules: RuleSet, names: Sequence[str]) -> list[str]:
    """The label that ``rules`` give to each operation of one forward; only steps count."""
    numbers: dict[tuple[int, ...], int] = {(): 0}
    by_name = {
        name: tuple(
            number
            for number, rule in enumerate(rules.rules)
            if rule.kernel is not None
            and rule.call is None
            and rule.range is None
            and searched(rule.kernel, name)
        )
        for name in dict.fromkeys(names)
    }
    for choice in by_name.values():
        numbers.setdefault(choice, len(numbers))
    code = np.array([numbers[by_name[name]] for name in names], dtype=np.int32)
    choices = tuple(numbers)
    matches = Matches(code, choices, *outer_steps(rules, code, choices))
    walked = walk(rules, matches)
    found = ["" if label < 0 else walked.labels[label] for label in walked.label.tolist()]
    return [label if label and step_span(label) is not None else "" for label in found]


def _exactly(name: str) -> str:
    """A pattern that only this very name matches."""
    return f"^{re.escape(name)}$"


def _shortened(labels: Iterable[str]) -> tuple[str, ...]:
    """Later launches have the last entry anyway."""
    kept = list(labels)
    while len(kept) > 1 and kept[-1] == kept[-2]:
        kept.pop()
    return tuple(kept)
