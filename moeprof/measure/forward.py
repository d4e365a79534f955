"""A solution bound to the tensors of one workload: the one place where stages are called.

The path holds no instrumentation. A clock may hook the stage boundaries (``enter``, ``leave``);
without hooks the loop costs about half a microsecond a stage, measured beside the calls themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from moeprof.contract import Solution, check_wiring
from moeprof.errors import WrongResult, is_out_of_memory
from moeprof.solutions.raised import said

Hook = Callable[[int], None]


class StagedCall(Protocol):
    """What a clock measures: a call that goes through the same stages in the same order each time.

    A stage ends where the next begins, and both hooks get its position. row_names: the row of each
    stage, which several may share.
    """

    @property
    def name(self) -> str: ...

    @property
    def stage_names(self) -> tuple[str, ...]: ...

    @property
    def row_names(self) -> tuple[str, ...]: ...

    def __call__(self, enter: Hook | None = None, leave: Hook | None = None) -> Any:
        """One call; what it returns keeps alive what it made."""

    def replayable(self, eager: Any, captured: Any) -> Sequence[tuple[Any, Any]]:
        """Tensors of an eager call's result, each with the one that a captured graph writes."""


class Forward:
    """Calls a solution's stages in order on named tensors.

    given: everything available before the first stage, including ``output`` and ``buffers``.
    """

    def __init__(self, solution: Solution, given: Mapping[str, Any]) -> None:
        check_wiring(solution, tuple(given))
        self.solution = solution
        self.name = solution.name
        self.stage_names = tuple(stage.name for stage in solution.stages)
        names = list(given)
        for stage in solution.stages:
            names.extend(name for name in stage.writes if name not in names)
        slot = {name: position for position, name in enumerate(names)}
        self._names = names
        self._initial = [given.get(name) for name in names]
        self._output = slot["output"]
        self._calls = tuple(
            (
                stage.function,
                tuple(slot[name] for name in stage.reads),
                tuple(slot[name] for name in stage.writes),
            )
            for stage in solution.stages
        )

    def __call__(self, enter: Hook | None = None, leave: Hook | None = None) -> list[Any]:
        """Run every stage; returns the slots, alive until the caller drops them."""
        slots = self._initial.copy()
        for position, (function, reads, writes) in enumerate(self._calls):
            if enter is not None:
                enter(position)
            written = function(*[slots[read] for read in reads])
            if written is not None:
                if len(writes) == 1:
                    slots[writes[0]] = written
                else:
                    for write, value in zip(writes, written, strict=True):
                        slots[write] = value
            if leave is not None:
                leave(position)
        return slots

    def named(self, slots: list[Any]) -> dict[str, Any]:
        """The tensors of a finished call by name."""
        return dict(zip(self._names, slots, strict=True))

    def output(self, slots: list[Any]) -> Any:
        """The output tensor of a finished call."""
        return slots[self._output]

    @property
    def row_names(self) -> tuple[str, ...]:
        """A stage is a row."""
        return self.stage_names

    def replayable(self, eager: list[Any], captured: list[Any]) -> tuple[tuple[Any, Any], ...]:
        """The output, eager and captured; both are one tensor where the solution fills its own."""
        return ((self.output(eager), self.output(captured)),)

    def guarded(self) -> list[Any]:
        """One call in which an exception names its stage as the user's, not as moeprof's bug."""
        entered = [0]
        try:
            return self(enter=lambda position: entered.__setitem__(0, position))
        except (KeyboardInterrupt, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            raise WrongResult(
                f"stage {self.stage_names[entered[0]]} of {self.solution.name} raised {said(error)}"
            ) from error
