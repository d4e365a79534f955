"""A loaded solution as what its exported text is made of: stages, tensors, files.

Read off the loaded object, since only that knows how a solution composed itself on this machine.
Writing the text and choosing the files are ``fib``'s.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from moeprof import __version__
from moeprof.contract import Solution, check_wiring
from moeprof.definition import Definition
from moeprof.fib.bundle import CARRIED, STAGES, Bundle, Places, bundle, carried_file
from moeprof.fib.entry import BUFFERS, OUTPUT, SOLUTION, Call, Composition, entry_text
from moeprof.fib.schema import BuildSpec, FibSolution, SourceFile
from moeprof.problem.operation import VARIABLE_AXIS
from moeprof.solutions.catalog import LoadedSolution, check_exists, load_solution
from moeprof.solutions.sources import SOLUTIONS, package_folder

MAIN = "main.py"
EXPORTED = "moeprof.fib.exported"
HASH_DIGITS = 12
# what a module is called where its package has another name
PACKAGES = {"cutlass": "nvidia-cutlass-dsl"}
_SOURCE = re.compile(r"moeprof \S+, source ([0-9a-f]+)\.")


def exported(
    name_or_path: str, definition: Definition, author: str, device: str, in_place: bool
) -> FibSolution:
    """The solution of that name or in that file, as FlashInfer-Bench's.

    in_place: destination passing, 11 parameters; else the result is returned. UsageError or
    ContractError for what cannot be exported.
    """
    own = check_exists(name_or_path)
    loaded = load_solution(name_or_path, device)
    solution = loaded.solution
    given = [*(spec.name for spec in definition.inputs), *definition.constants]
    check_wiring(solution, (*given, VARIABLE_AXIS, OUTPUT, BUFFERS))
    places = Places(package_folder(), None if own else Path(name_or_path).resolve().parent)
    module = (STAGES, SOLUTIONS, name_or_path) if own else places.user(Path(name_or_path).stem)
    composition = _composition(loaded, module)
    text = entry_text(composition, definition, in_place)
    bundled = bundle(_files(loaded, module, name_or_path, places), places)
    language = "triton" if any("@triton.jit" in s.content for s in bundled.sources) else "python"
    return FibSolution(
        name=solution.name,
        definition=definition.name,
        author=author,
        spec=BuildSpec(
            language=language,
            entry_point=f"{MAIN}::run",
            dependencies=_dependencies(bundled, solution),
            destination_passing_style=in_place,
        ),
        sources=(SourceFile(MAIN, text), *bundled.sources),
        description=" ".join(composition.notes),
    )


def source_of(description: str) -> str | None:
    """The first digits of moeprof's source hash in an exported solution's description."""
    found = _SOURCE.search(description)
    return found.group(1) if found else None


def _composition(loaded: LoadedSolution, module: tuple[str, ...]) -> Composition:
    solution = loaded.solution
    shown = ", ".join(f"{stage.name} ({stage.backend})" for stage in solution.stages)
    return Composition(
        name=solution.name,
        module=module,
        symbol="run" if loaded.opaque else SOLUTION,
        calls=tuple(
            Call(stage.name, stage.reads, stage.writes, returns_values(stage.function))
            for stage in solution.stages
        ),
        keeps_buffers=solution.keeps_buffers,
        notes=(
            f"{(solution.description or solution.name).rstrip('.')}.",
            f"Stages: {shown}.",
            f"Exported by moeprof {__version__}, source {loaded.source_hash[:HASH_DIGITS]}.",
        ),
    )


def _files(
    loaded: LoadedSolution, module: tuple[str, ...], name_or_path: str, places: Places
) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """What everything else is reached from."""
    own = module[0] == STAGES
    yield (
        places.stages.joinpath(*module[1:]).with_suffix(".py")
        if own
        else Path(name_or_path).resolve(),
        module,
    )
    stages = loaded.solution.stages
    if not loaded.opaque or any(BUFFERS in stage.reads for stage in stages):
        yield carried_file(EXPORTED), (CARRIED[EXPORTED],)


def _dependencies(bundled: Bundle, solution: Solution) -> tuple[str, ...]:
    """Packages to install: what is imported by statement, and kernel libraries by their names."""
    imported = {PACKAGES.get(name, name) for name in bundled.third_party}
    return tuple(sorted(imported | {library.name for library in solution.libraries}))


def returns_values(function: Callable[..., Any]) -> bool | None:
    """Whether every call of ``function`` returns something; None where its text does not say."""
    while isinstance(function, functools.partial):
        function = function.func
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError, SyntaxError):
        return None
    defined = tree.body[0] if tree.body else None
    if not isinstance(defined, ast.FunctionDef):
        return None
    values = [not _is_none(node.value) for node in _returns(defined.body)]
    if not any(values):
        return False
    ends = isinstance(defined.body[-1], ast.Return | ast.Raise)
    return True if all(values) and ends else None


def _returns(body: Sequence[ast.AST]) -> Iterator[ast.Return]:
    """The return statements of a function, not of functions inside it."""
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return):
            yield node
        elif not isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
        ):
            waiting.extend(ast.iter_child_nodes(node))


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)
