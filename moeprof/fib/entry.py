"""The text of an exported solution's ``main.py``: its stages called in order, tensor by tensor.

Written out rather than looped over, so that a reader sees the forward and nothing is decided
between two stages. ``run`` takes the definition's inputs by name and either fills ``output``, its
last parameter, or returns a new one.
"""

from __future__ import annotations

import json
import keyword
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.definition import Definition
from moeprof.errors import UsageError
from moeprof.fib.bundle import identifier
from moeprof.problem.operation import VARIABLE_AXIS

OUTPUT, BUFFERS = "output", "buffers"
SOLUTION = "SOLUTION"
_LINE_LENGTH = 100
_MADE = "output_made"


@dataclass(frozen=True, slots=True)
class Call:
    """One stage. returns: whether its function returns what it writes; None where either may be."""

    stage: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    returns: bool | None


@dataclass(frozen=True, slots=True)
class Composition:
    """A solution as its text sees it.

    module: where ``main.py`` imports it from; symbol: SOLUTION, or the name of the one function
    that ``calls`` has. notes: facts for the docstring, a line each.
    """

    name: str
    module: tuple[str, ...]
    symbol: str
    calls: tuple[Call, ...]
    keeps_buffers: bool
    notes: tuple[str, ...]


def entry_text(composition: Composition, definition: Definition, in_place: bool) -> str:
    """``main.py``; UsageError where a tensor's name cannot be a variable of it."""
    functions = _function_names(composition.calls)
    read = tuple(name for call in composition.calls for name in call.reads)
    constants = {name: value for name, value in definition.constants.items() if name in read}
    _check_names(composition, functions)
    head = [_docstring(composition, definition), _imports(composition, in_place)]
    bound = [f"{name.upper()} = {value}" for name, value in constants.items()]
    bound += _bindings(composition, functions)
    body = [
        *_before(composition, definition, in_place),
        *_calls(composition, functions, tuple(constants)),
        *_after(composition, in_place),
    ]
    parameters = [spec.name for spec in definition.inputs] + [OUTPUT] * in_place
    run = [*_laid_out("def run(", parameters, "):"), *(f"    {line}" for line in body)]
    above = "\n\n".join(["\n\n".join(head), *(["\n".join(bound)] if bound else [])])
    return above + "\n\n\n" + "\n".join(run) + "\n"


def _docstring(composition: Composition, definition: Definition) -> str:
    notes = [line for note in composition.notes for line in textwrap.wrap(note, _LINE_LENGTH)]
    lines = [f"{composition.name} for {definition.name}.", "", *notes]
    text = "\n".join(lines).replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{text}\n"""'


def _imports(composition: Composition, in_place: bool) -> str:
    """torch is needed only where an output is made."""
    lines = [] if in_place or not _reads_output(composition) else ["import torch", ""]
    carried = ["Scratch"] * _reads(composition, BUFFERS)
    symbol = composition.symbol
    if symbol == SOLUTION:
        carried.append("functions_of")
    else:
        symbol = f"{symbol} as run_forward"
    if carried:
        lines.append(f"from .exported import {', '.join(carried)}")
    lines.append(f"from .{'.'.join(composition.module)} import {symbol}")
    return "\n".join(lines)


def _bindings(composition: Composition, functions: Sequence[str]) -> list[str]:
    lines = []
    if composition.symbol == SOLUTION:
        names = [json.dumps(call.stage) for call in composition.calls]
        lines = _laid_out("STAGES = (", names, ")", tuple_of_one=True)
        targets = _laid_out("(", functions, ")", tuple_of_one=True)
        lines += [*targets[:-1], f"{targets[-1]} = functions_of(SOLUTION, STAGES)"]
    if _reads(composition, BUFFERS):
        lines.append(f"SCRATCH = Scratch(keep={composition.keeps_buffers})")
    return lines


def _before(composition: Composition, definition: Definition, in_place: bool) -> list[str]:
    """What is at hand before the first stage: the number of tokens, memory, the output."""
    lines = []
    makes_output = not in_place and _reads_output(composition)
    if _reads(composition, VARIABLE_AXIS) or _reads(composition, BUFFERS) or makes_output:
        lines.append(f"{VARIABLE_AXIS} = hidden_states.shape[0]")
    if _reads(composition, BUFFERS):
        lines.append(f"{BUFFERS} = SCRATCH.of({VARIABLE_AXIS}, hidden_states.device)")
    if makes_output:
        shape = f"({VARIABLE_AXIS}, {definition.constants['hidden_size']})"
        lines += _laid_out(
            f"{OUTPUT} = torch.empty(",
            [shape, "dtype=torch.bfloat16", "device=hidden_states.device"],
            ")",
        )
    return lines


def _calls(
    composition: Composition, functions: Sequence[str], constants: Sequence[str]
) -> list[str]:
    """A stage's call each; what it returns gets the names that it writes."""
    lines: list[str] = []
    for call, function in zip(composition.calls, functions, strict=True):
        arguments = [name.upper() if name in constants else name for name in call.reads]
        names = [_MADE if name == OUTPUT else name for name in call.writes]
        if call.returns is None:
            lines += _laid_out(f"written = {function}(", arguments, ")")
            lines += ["if written is not None:", f"    {', '.join(names)} = written"]
            if OUTPUT in call.writes:
                lines.append(f"    {OUTPUT}.copy_({_MADE})")
        elif call.returns:
            targets = [", ".join(names)]
            if len(targets[0]) + len(function) + 8 > _LINE_LENGTH:
                targets = _laid_out("(", names, ")", folded=True)
            called = _laid_out(f"{targets[-1]} = {function}(", arguments, ")")
            lines += [*targets[:-1], *called]
        else:
            lines += _laid_out(f"{function}(", arguments, ")")
    return lines


def _after(composition: Composition, in_place: bool) -> list[str]:
    """The result goes to where the caller wants it; a tensor is not copied onto itself."""
    writer = [call for call in composition.calls if OUTPUT in call.writes][-1]
    made = _MADE if writer.returns else OUTPUT
    if not in_place:
        return [f"return {made}"]
    return [f"{OUTPUT}.copy_({made})"] if writer.returns else []


def _reads(composition: Composition, name: str) -> bool:
    return any(name in call.reads for call in composition.calls)


def _reads_output(composition: Composition) -> bool:
    """Whether an output must be there before the last stage: read, or filled in case of None."""
    return any(
        OUTPUT in call.reads or (OUTPUT in call.writes and call.returns is None)
        for call in composition.calls
    )


def _function_names(calls: Sequence[Call]) -> list[str]:
    names: list[str] = []
    for call in calls:
        name = f"run_{identifier(call.stage)}"
        names.append(name if name not in names else f"{name}_{len(names)}")
    return names


def _check_names(composition: Composition, functions: Sequence[str]) -> None:
    taken = {*functions, "torch", "SCRATCH", "Scratch", "functions_of", "written", _MADE}
    for call in composition.calls:
        for name in call.writes:
            if not name.isidentifier() or keyword.iskeyword(name) or name in taken:
                raise UsageError(
                    f"stage {call.stage} of {composition.name} writes {name!r}",
                    "a name that a variable can have",
                    do="rename the tensor",
                )


def _laid_out(
    opening: str,
    items: Sequence[str],
    closing: str,
    *,
    tuple_of_one: bool = False,
    folded: bool = False,
) -> list[str]:
    """One line where it fits, unless it is to be ``folded``, else an item a line."""
    comma = "," if tuple_of_one and len(items) == 1 else ""
    line = f"{opening}{', '.join(items)}{comma}{closing}"
    if len(line) + 4 <= _LINE_LENGTH and not folded:
        return [line]
    return [opening, *(f"    {item}," for item in items), closing]
