"""Which rules fit a capture best: those that explain the most GPU time in whole forwards.

A forward is whole if it has every step that the rules need (both GEMMs). The set that names more of
the same time wins; of sets that name equal time the one with more steps. Where a second set fits
nearly as well and says something else, that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprof.importing.nesting import Indices
from moeprof.importing.placed import Placed
from moeprof.importing.rules import RuleSet
from moeprof.importing.trace import Trace
from moeprof.importing.walk import Walk, lanes, match, matching_names, walk

NEARLY, OTHERWISE = 0.95, 0.05
MOST_TRIED = 400_000  # operations that every set is tried on; a capture has more of the same


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """The rules that fit, applied. whole: which of ``walk.forwards`` have every needed step.

    lane: as in ``walk.lanes``.
    """

    walk: Walk
    whole: NDArray[np.bool_]
    lane: Indices | None
    notes: tuple[str, ...] = ()


def apply(rules: RuleSet, trace: Trace, placed: Placed, group: Indices | None = None) -> Fitted:
    """One set of rules along the place; streams that each hold whole forwards are lanes."""
    matches = match(rules, trace, placed)
    walked = walk(rules, matches, group=group)
    lane = lanes(walked, trace, placed)
    if lane is not None:
        walked = walk(rules, matches, lane, group)
    return Fitted(walked, _whole(walked), lane)


def best_fit(
    rule_sets: Sequence[RuleSet], trace: Trace, placed: Placed, group: Indices | None = None
) -> Fitted | None:
    """The set that fits best; None where none makes one whole forward."""
    names = [description.name for description in trace.operations.descriptions]
    possible = [rules for rules in rule_sets if _possible(rules, names)]
    some = _some(placed, group)
    tried = placed if some is None else placed.part(some)
    part = group if some is None or group is None else group[some]
    fitted = [(rules, apply(rules, trace, tried, part)) for rules in possible]
    scored = [(_score(found, tried), rules, found) for rules, found in fitted]
    ranked = sorted((s for s in scored if s[0][0]), key=lambda s: (-s[0][0], -s[0][1], s[1].name))
    if not ranked:
        return None
    (best_ns, _), rules, best = ranked[0]
    notes: list[str] = []
    for (other_ns, _), other, found in ranked[1:]:
        if other_ns < NEARLY * best_ns:
            break
        if _disagree(best, found, tried) > OTHERWISE:
            share = 100 * other_ns / best_ns
            notes.append(
                f"the rules {other.name!r} fit nearly as well ({share:.0f} % of the time that "
                f"{rules.name!r} names) and tell stages otherwise; --rules decides"
            )
    final = best if some is None else apply(rules, trace, placed, group)
    return Fitted(final.walk, final.whole, final.lane, tuple(notes))


def _possible(rules: RuleSet, names: Sequence[str]) -> bool:
    return bool(matching_names(rules, names).any()) or any(
        rule.call or rule.range for rule in rules.rules
    )


def _some(placed: Placed, group: Indices | None) -> slice | None:
    """A stretch in the middle of a long capture, None where all can be tried."""
    if len(placed) <= MOST_TRIED:
        return None
    first = (len(placed) - MOST_TRIED) // 2
    some = slice(first, first + MOST_TRIED)
    return None if group is not None and not (group[some] >= 0).any() else some


def _whole(walked: Walk) -> NDArray[np.bool_]:
    """Which forwards have every step that the rules need."""
    named = walked.named
    seen = np.zeros((walked.forwards, len(walked.labels)), dtype=np.bool_)
    seen[walked.forward[named], walked.label[named]] = True
    whole = np.ones(walked.forwards, dtype=np.bool_)
    for step in walked.rules.needs:
        having = [n for n, label in enumerate(walked.labels) if step in label.split("+")]
        whole &= seen[:, having].any(axis=1)
    return whole


def _score(found: Fitted, placed: Placed) -> tuple[int, int]:
    """Time of the operations named in whole forwards, and how many labels they have."""
    inside = found.walk.named.copy()
    inside[inside] = found.whole[found.walk.forward[inside]]
    labels = len(np.unique(found.walk.label[inside]))
    return int(placed.duration_ns[inside].sum()), labels


def _disagree(one: Fitted, other: Fitted, placed: Placed) -> float:
    """The share of the time named by both that they give to different stages."""
    both = one.walk.named & other.walk.named
    first = np.array([*one.walk.labels, ""])[one.walk.label[both]]
    second = np.array([*other.walk.labels, ""])[other.walk.label[both]]
    durations = placed.duration_ns[both]
    total = int(durations.sum())
    return float(durations[first != second].sum()) / total if total else 0.0
