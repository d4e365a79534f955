"""What is right on the inputs of one workload: the reference's tensors, as they are and changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from moeprof.contract import Solution
from moeprof.measure.changed import Change, plan_change
from moeprof.measure.forward import Forward

if TYPE_CHECKING:
    from moeprof.measure.workbench import Case


class Reference:
    """What the reference makes of the inputs of one workload, computed once for all solutions.

    Only the last workload's tensors are held: try the solutions out workload by workload.
    """

    def __init__(self, solution: Solution) -> None:
        self._solution = solution
        self._inputs: Mapping[str, torch.Tensor] | None = None  # of whose inputs they are
        self._tensors: Mapping[str, Any] = {}
        self._change: Change | None = None
        self._on_change: torch.Tensor | None = None

    def tensors(self, case: Case) -> Mapping[str, Any]:
        """Every tensor of the reference on the inputs of ``case``, by name; not to be changed."""
        if self._inputs is not case.untouched:
            self.forget()
            self._tensors = self._compute(case)
            self._inputs = case.untouched
        return self._tensors

    def change(self, case: Case) -> Change:
        """How the inputs of ``case`` are changed: the same for every solution."""
        if self._change is None or self._inputs is not case.untouched:
            self._change = plan_change(self.tensors(case))
        return self._change

    def on_change(self, case: Case) -> torch.Tensor:
        """The output [T, H] on the changed inputs, which ``case`` must hold now."""
        if self._on_change is None:
            self._on_change = self._compute(case)["output"]
        return self._on_change

    def _compute(self, case: Case) -> Mapping[str, Any]:
        given = {**case.given, "output": torch.empty_like(case.given["output"])}
        forward = Forward(self._solution, given)
        return forward.named(forward())

    def forget(self) -> None:
        """Free the tensors: 2 GB at T=14107."""
        self._inputs, self._tensors = None, {}
        self._change = self._on_change = None
