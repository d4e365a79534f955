"""The finest partition of the steps that two solutions share, and its rows on both sides.

A solution that performs two steps in one call cannot be compared step by step there; the steps that
any row of either side holds together are one part. Rows that perform no step (work that the
definition does not ask for, operations outside any stage) are parts of their own, matched by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from moeprof.analysis.profiles import UNATTRIBUTED, Profile
from moeprof.analysis.rows import Row, stage_rows
from moeprof.contract import STEPS
from moeprof.records import Run


@dataclass(frozen=True, slots=True)
class PartRows:
    """One part: its steps in order (none: work without a step) and the rows of each side."""

    name: str
    steps: tuple[str, ...]
    before: tuple[Row, ...]
    after: tuple[Row, ...]


def profile_rows(run: Run, profile: Profile) -> tuple[Row, ...]:
    """The rows of ``profile``. Event pairs and stage clocks do not see inside an opaque stage."""
    stages = run.solution.stages
    if profile.source in ("events", "stage clock"):
        stages = tuple(replace(stage, kernel_rules=()) for stage in stages)
    rows = stage_rows(stages)
    known = {row.name for row in rows}
    strays = [stage.name for stage in profile.stages if stage.name not in known]
    return (*rows, *(Row(name, None, (), False) for name in strays))


def shared_parts(before: Sequence[Row], after: Sequence[Row]) -> tuple[PartRows, ...]:
    """Parts that cover every row of both sides once: steps in order, then rows without a step."""
    both = (*before, *after)
    groups = merge_overlapping([row.covers for row in both if row.covers])
    parts = [
        PartRows("+".join(steps), steps, _covering(before, steps), _covering(after, steps))
        for steps in sorted((tuple(sorted(group, key=_place)) for group in groups), key=_first)
    ]
    names = dict.fromkeys(row.name for row in both if not row.covers)
    ordered = sorted(names, key=lambda name: name == UNATTRIBUTED)
    parts += [PartRows(name, (), _called(before, name), _called(after, name)) for name in ordered]
    return tuple(parts)


def merge_overlapping(sets: Iterable[Iterable[str]]) -> list[frozenset[str]]:
    """The finest partition in which no set is cut: sets that share a member become one."""
    merged: list[frozenset[str]] = []
    for members in sets:
        whole = frozenset(members)
        apart = [group for group in merged if not group & whole]
        for group in merged:
            if group & whole:
                whole |= group
        merged = [*apart, whole]
    return merged


def _covering(rows: Sequence[Row], steps: Sequence[str]) -> tuple[Row, ...]:
    return tuple(row for row in rows if set(row.covers) & set(steps))


def _called(rows: Sequence[Row], name: str) -> tuple[Row, ...]:
    return tuple(row for row in rows if not row.covers and row.name == name)


def _place(step: str) -> tuple[int, str]:
    known = [str(s) for s in STEPS]
    return (known.index(step) if step in known else len(known), step)


def _first(steps: Sequence[str]) -> tuple[int, str]:
    return _place(steps[0])
