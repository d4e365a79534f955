"""What can be told of a solution's entry point without running it: syntax, presence, parameters."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass

from moeprof.errors import UsageError
from moeprof.fib.schema import PYTHON_LANGUAGES, FibSolution
from moeprof.fib.unpack import check_paths
from moeprof.problem.operation import INPUTS, OUTPUTS


@dataclass(frozen=True, slots=True)
class Signature:
    """parameters: positional ones, None where they cannot be told. problem: '' if none is seen."""

    parameters: int | None
    problem: str = ""


def wanted_parameters(solution: FibSolution) -> int:
    """11 with a destination, 10 without."""
    return len(INPUTS) + (len(OUTPUTS) if solution.spec.destination_passing_style else 0)


def signature_of(solution: FibSolution) -> Signature:
    """The entry point as its source declares it; compiled languages tell nothing here."""
    try:
        check_paths(solution)
    except UsageError as error:
        return Signature(None, str(error))
    if solution.spec.language not in PYTHON_LANGUAGES:
        return Signature(None)
    for source in solution.sources:
        if source.path.endswith(".py"):
            problem = _syntax_problem(source.content)
            if problem:
                return Signature(None, f"{source.path}{problem}")
    if not solution.spec.entry_path.endswith(".py"):
        return Signature(None, "its entry point lies in no .py file")
    return _entry(_parsed(solution.source(solution.spec.entry_path)), solution)


def _entry(tree: ast.Module, solution: FibSolution) -> Signature:
    symbol = solution.spec.entry_symbol
    found = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == symbol
    ]
    if not found:
        # assigned, imported or decorated into being: only running it would tell
        named = any(
            getattr(node, "id", getattr(node, "name", None)) == symbol
            or getattr(node, "asname", None) == symbol
            for node in ast.walk(tree)
        )
        star = any(isinstance(node, ast.alias) and node.name == "*" for node in ast.walk(tree))
        return Signature(None, "" if named or star else f"it holds no {symbol!r}")
    function = found[-1]
    arguments = function.args
    positional = len(arguments.posonlyargs) + len(arguments.args)
    if function.decorator_list or arguments.vararg is not None:
        return Signature(None if function.decorator_list else positional)
    wanted = wanted_parameters(solution)
    needed = positional - len(arguments.defaults)
    if not needed <= wanted <= positional:
        return Signature(positional, f"takes {positional} parameters, {wanted} are passed")
    return Signature(positional)


def _syntax_problem(text: str) -> str:
    try:
        _parsed(text)
    except SyntaxError as error:
        return f":{error.lineno or 0}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f": {type(error).__name__}"
    return ""


def _parsed(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd escapes in foreign text
        return ast.parse(text)
