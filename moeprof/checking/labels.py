"""Whose code the sides of a check run, as the history keeps it."""

from __future__ import annotations

from collections.abc import Mapping

from moeprof.checking.trees import Tree
from moeprof.history.values import CodeLabel, Side


def code_labels(trees: Mapping[Side, Tree]) -> dict[Side, CodeLabel]:
    """The label, commit and state of each side's code."""
    return {side: CodeLabel(tree.label, tree.commit, tree.dirty) for side, tree in trees.items()}
