"""Which row of the table an operation belongs to.

A row is a stage. A stage that declares kernel rules (one opaque call, many kernels) is split into
the steps its rules name; what no rule matches stays on the stage's own row. The stretches of a
stage that a user's callable enters several times share one row; what it does in no stage comes
last. Operations that no stage launched go to a row of their own, which must stay empty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from moeprof.analysis.profiles import UNATTRIBUTED
from moeprof.records import StageInfo
from moeprof.scopes import OUTSIDE
from moeprof.timelines import Operation


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its stage (None for operations outside any) and the steps it performs.

    whole: the row is the whole stage, so that the stage's bytes and FLOPs are the row's.
    entries: how often one call enters it.
    """

    name: str
    stage: StageInfo | None
    covers: tuple[str, ...]
    whole: bool
    entries: int = 1


def stage_rows(stages: Sequence[StageInfo]) -> tuple[Row, ...]:
    """The rows of a solution in order; a split stage's remainder follows its steps."""
    rows: list[Row] = list(_shared_rows(stages))
    for stage in stages:
        if stage.row:
            continue
        split = _rule_steps(stage)
        rows.extend(Row(label, stage, tuple(label.split("+")), False) for label in split)
        told = {step for label in split for step in label.split("+")}
        rest = tuple(step for step in stage.covers if step not in told)
        rows.append(Row(_own_row(stage), stage, rest, not split))
    return tuple(rows)


def clock_rows(stages: Sequence[StageInfo]) -> dict[str, list[int]]:
    """Positions of the stages of each row, for clocks that do not see inside a stage."""
    found: dict[str, list[int]] = {row.name: [] for row in _shared_rows(stages)}
    for position, stage in enumerate(stages):
        found.setdefault(stage.row or stage.name, []).append(position)
    return found


def _shared_rows(stages: Sequence[StageInfo]) -> Sequence[Row]:
    """The rows that stages share, in order of first entry, what lies outside any stage last."""
    found: dict[str, Row] = {}
    for stage in stages:
        row = found.get(stage.row)
        if row is not None:
            found[stage.row] = replace(row, entries=row.entries + (not stage.resumes))
        elif stage.row:
            found[stage.row] = Row(stage.row, stage, stage.covers, True)
    return sorted(found.values(), key=lambda row: row.name == OUTSIDE)


def rows_of(operations: Sequence[Operation], stages: Sequence[StageInfo]) -> tuple[str, ...]:
    """The row name of each operation; the i-th match of a kernel rule goes to its i-th step."""
    ruled = {stage.name: stage for stage in stages if stage.kernel_rules}
    own = {stage.name: _own_row(stage) for stage in stages}
    matched: dict[tuple[str, int], int] = {}
    return tuple(
        _ruled_row(operation, ruled[operation.stage], matched)
        if operation.stage in ruled
        else own.get(operation.stage, UNATTRIBUTED)
        for operation in operations
    )


def _ruled_row(operation: Operation, stage: StageInfo, matched: dict[tuple[str, int], int]) -> str:
    for index, (pattern, steps) in enumerate(stage.kernel_rules):
        if steps and re.search(pattern, operation.name):
            count = matched.get((stage.name, index), 0)
            matched[stage.name, index] = count + 1
            return steps[min(count, len(steps) - 1)] or _own_row(stage)
    return _own_row(stage)


def _rule_steps(stage: StageInfo) -> tuple[str, ...]:
    """The labels that the rules give, in the order the stage covers their steps, then any others.

    A label is a step or several joined by '+'; an empty one is the stage's own row.
    """
    labels = dict.fromkeys(label for _, steps in stage.kernel_rules for label in steps)
    position = {step: i for i, step in enumerate(stage.covers)}
    named = [label for label in labels if label]
    named.sort(key=lambda label: position.get(label.split("+")[0], len(position)))
    return tuple(named)


def _own_row(stage: StageInfo) -> str:
    """The stage's row or name, or '<stage> (rest)' where a rule's step is called the same."""
    if stage.row:
        return stage.row
    return f"{stage.name} (rest)" if stage.name in _rule_steps(stage) else stage.name
