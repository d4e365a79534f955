"""Definitions and workloads as values, in FlashInfer-Bench's vocabulary.

Reading them from disk is ``store``'s work; making tensors from them is ``inputs``'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCALAR_INPUTS = ("local_expert_offset", "routed_scaling_factor")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. ``shape`` names axes; None means a Python scalar."""

    name: str
    shape: tuple[str, ...] | None
    dtype: str


@dataclass(frozen=True, slots=True)
class Definition:
    """What an operation computes: axes, inputs in positional order, outputs, reference text."""

    name: str
    op_type: str
    constants: Mapping[str, int]
    variables: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: str
    tags: tuple[str, ...] = ()
    description: str = ""

    @property
    def alias(self) -> str | None:
        """A short name for the command line, from a tag ``alias:NAME``."""
        return next((t.removeprefix("alias:") for t in self.tags if t.startswith("alias:")), None)

    def shape_of(self, spec: TensorSpec, seq_len: int) -> tuple[int, ...]:
        """The concrete shape of ``spec`` for a workload of ``seq_len`` tokens."""
        axes = {**self.constants, **dict.fromkeys(self.variables, seq_len)}
        return tuple(axes[axis] for axis in spec.shape or ())


@dataclass(frozen=True, slots=True)
class Workload:
    """One problem of a definition. ``inputs`` holds FlashInfer-Bench's input specs as read."""

    definition: str
    uuid: str
    seq_len: int
    local_expert_offset: int
    routed_scaling_factor: float
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
