"""A solution as one plain function of the definition's arguments: what flashinfer-bench calls.

``Forward`` looks its tensors up in slots and may hook stage boundaries; that costs the host about
half a microsecond a stage. flashinfer-bench calls one function with 10 or 11 arguments. Here the
same stage functions are called by straight-line code made from the wiring, through as many Python
calls as flashinfer-bench's own wrappers make, with the scratch memory of the solution that
``moeprof export fib`` writes: nothing is kept of a clone of the weights, 1.4 GB each.

Left out: stages that return a tensor in one call and nothing in the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moeprof.contract import Solution
from moeprof.fib.exported import Scratch
from moeprof.solutions.catalog import FORWARD_INPUTS

FILLING = (*FORWARD_INPUTS, "output")


class Runnable:
    """Called as flashinfer-bench 0.1.2's wrapper is: one call in between, the result looked at."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        result = self._function(*arguments)
        return result[0] if isinstance(result, tuple) and len(result) == 1 else result


class StraightCall:
    """``solution`` bound to nothing: called with one list of arguments in the definition's order.

    given: everything a solution's first stage may ask for, with inputs to try it on once.
    arguments: those inputs, and the destination where the solution fills one.
    """

    def __init__(self, solution: Solution, given: Mapping[str, Any]) -> None:
        function, destination = straight_line(solution, given)
        names = FILLING if destination else FORWARD_INPUTS
        self.runnable = Runnable(function)
        self.arguments: tuple[Any, ...] = tuple(given[name] for name in names)

    def __call__(self, arguments: list[Any]) -> Any:
        return self.runnable(*arguments)


def straight_line(solution: Solution, given: Mapping[str, Any]) -> tuple[Callable[..., Any], bool]:
    """The function of 10 or 11 arguments, and whether the last of them is its destination.

    A solution of one function with such parameters is that function. Of several stages it fills a
    destination, copying what its last stage returns, as an exported one does. Runs every stage once
    to see which of them return what they write.
    """
    if len(solution.stages) == 1 and solution.stages[0].reads in (FORWARD_INPUTS, FILLING):
        only = solution.stages[0]
        return only.function, only.reads == FILLING
    scratch = Scratch(solution.keeps_buffers)
    source = _source(solution, _returning(solution, given, scratch))
    own = (*FILLING, "seq_len", "buffers")
    namespace = {name: value for name, value in given.items() if name not in own}
    namespace["moeprof_scratch"] = scratch
    namespace |= {f"moeprof_stage_{i}": stage.function for i, stage in enumerate(solution.stages)}
    exec(compile(source, f"<{solution.name} in a straight line>", "exec"), namespace)
    function: Callable[..., Any] = namespace["run"]
    return function, True


def _returning(solution: Solution, given: Mapping[str, Any], scratch: Scratch) -> list[bool]:
    """Of each stage whether it returns what it writes (else it filled tensors it was given)."""
    tensors = dict(given)
    tensors["buffers"] = scratch.of(given["seq_len"], given["hidden_states"].device)
    found: list[bool] = []
    for stage in solution.stages:
        written = stage.function(*(tensors[name] for name in stage.reads))
        found.append(written is not None)
        if written is not None:
            values = (written,) if len(stage.writes) == 1 else written
            tensors.update(zip(stage.writes, values, strict=True))
    return found


def _source(solution: Solution, returning: list[bool]) -> str:
    read = {name for stage in solution.stages for name in stage.reads}
    lines = [f"def run({', '.join(FILLING)}):"]
    if read & {"seq_len", "buffers"}:
        lines.append("    seq_len = hidden_states.shape[0]")
    if "buffers" in read:
        lines.append("    buffers = moeprof_scratch.of(seq_len, hidden_states.device)")
    for position, stage in enumerate(solution.stages):
        call = f"moeprof_stage_{position}({', '.join(stage.reads)})"
        made = ["moeprof_made" if name == "output" else name for name in stage.writes]
        lines.append(f"    {', '.join(made)} = {call}" if returning[position] else f"    {call}")
        if returning[position] and "output" in stage.writes:
            lines.append("    output.copy_(moeprof_made)")
    return "\n".join(lines) + "\n"
