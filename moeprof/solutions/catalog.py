"""Solutions by name or by path, loaded and identified.

A solution is a file: one of ``stages/solutions/``, or a user's own given by path, which holds
either ``SOLUTION`` (a ``contract.Solution``) or a function ``run`` with the definition's
parameters, shown as one opaque stage. What goes wrong in a user's file is said in one line with
file and line; what goes wrong in moeprof's own files keeps its traceback.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from moeprof.contract import STEPS, Solution, Stage
from moeprof.errors import ContractError, EnvironmentMissing, MoeprofError, UsageError, nearest
from moeprof.fib.find import find_solution, is_fib, require_trust
from moeprof.problem.operation import INPUTS
from moeprof.solutions.beside import import_file
from moeprof.solutions.sources import package_folder, solution_files, source_hash

# in the order FlashInfer-Bench passes them; destination-passing adds output
FORWARD_INPUTS = tuple(spec.name for spec in INPUTS)
_TWO_WAYS = "SOLUTION (a moeprof.contract.Solution) or a function run with 10 or 11 parameters"


@dataclass(frozen=True)
class LoadedSolution:
    """A solution, the hash of all source it is made of, and where it came from.

    origin: 'stages', the user's file name or 'fib'; never a path, since it may enter a record.
    author, fib_hash: of a TraceSet's solution, the hash as FlashInfer-Bench computes it.
    foreign: somebody else's code. opaque: one call, whose kernels are told by their names.
    """

    solution: Solution
    source_hash: str
    origin: str
    author: str = ""
    fib_hash: str = ""
    foreign: bool = False
    opaque: bool = False


def solution_names() -> tuple[str, ...]:
    """The solutions that come with moeprof; no file is run."""
    return tuple(file.name for file in solution_files())


def check_exists(name_or_path: str, *, dataset: Path | None = None, trusted: bool = False) -> bool:
    """Whether it is a name of moeprof's own rather than a file's path; UsageError if neither is.

    dataset: the TraceSet in which ``fib:NAME`` is looked up; it is refused unless ``trusted``.
    """
    if name_or_path in solution_names():
        return True
    if is_fib(name_or_path):
        require_trust(find_solution(name_or_path, dataset), trusted)
        return False
    if name_or_path.endswith(".py") or os.sep in name_or_path:
        if Path(name_or_path).is_file():
            return False
        raise UsageError(
            f"there is no solution file {name_or_path}", do="give the path of a .py file"
        )
    raise UsageError(
        f"there is no solution {name_or_path!r}",
        do=f"{nearest(name_or_path, solution_names())} Your own file is given by path (./x.py)",
    )


def load_solution(
    name_or_path: str, device: str, *, dataset: Path | None = None, trusted: bool = False
) -> LoadedSolution:
    """The solution of that name or in that file, ready to run on 'cuda' or 'cpu'.

    dataset, trusted: as for ``check_exists``. UsageError if there is none, ContractError if the
    file does not hold one or raises, EnvironmentMissing if it needs a library that this machine
    lacks.
    """
    own = check_exists(name_or_path, dataset=dataset, trusted=trusted)
    if device == "cpu":
        from moeprof.machine import interpreter

        interpreter.enable(force=True)  # before anything imports triton
    if is_fib(name_or_path):
        from moeprof.solutions import fib

        assert dataset is not None  # or it was not found
        return fib.load(find_solution(name_or_path, dataset), dataset)
    return _load_own(name_or_path) if own else _load_users(Path(name_or_path))


def _load_own(name: str) -> LoadedSolution:
    try:
        module = importlib.import_module(f"stages.solutions.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("stages", "moeprof", ""):
            raise
        raise EnvironmentMissing(
            f"solution {name} needs the Python module {error.name}, which is not installed",
            do="moeprof doctor shows the install line",
        ) from None
    return _identified(module, module.SOLUTION, "stages")


def _load_users(path: Path) -> LoadedSolution:
    with _explained(path):
        module = import_file(path)
        if module is None:
            raise ContractError(f"{path} is no Python file", expected="a name ending in .py")
    solution = getattr(module, "SOLUTION", None)
    run = getattr(module, "run", None)
    opaque = False
    if solution is None and callable(run):
        opaque = True
        solution = Solution(path.stem, (_opaque_stage(run, path),), description="one opaque call")
    if not isinstance(solution, Solution):
        found = "neither SOLUTION nor run" if solution is None else f"a {type(solution).__name__}"
        raise ContractError(f"{path} holds {found}", expected=_TWO_WAYS)
    return replace(_identified(module, solution, path.name), opaque=opaque)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever a user's file raises into one line with file and line."""
    try:
        yield
    except MoeprofError as error:
        raise ContractError(f"{path.name}{_line_in(path, error)}: {error}") from error
    except SyntaxError as error:
        where = f"{Path(error.filename or path).name}:{error.lineno or 0}"
        raise ContractError(f"{where}: {error.msg}", do="mend the file") from None
    except (Exception, SystemExit) as error:
        message = " ".join(str(error).split())[:200]
        raise ContractError(
            f"{path.name}{_line_in(path, error)} raised {type(error).__name__}: {message}",
            do="mend the file",
        ) from error


def _line_in(path: Path, error: BaseException) -> str:
    """':12', the last line of ``path`` that was running; '' if none was."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.resolve())]
    return f":{lines[-1]}" if lines else ""


def _opaque_stage(run: Callable[..., Any], path: Path) -> Stage:
    """A whole forward as one stage: value-returning (10 parameters) or destination-passing (11)."""
    try:
        parameters = inspect.signature(run).parameters.values()
    except (TypeError, ValueError) as error:
        raise ContractError(f"{path.name}: run has no signature", expected=_TWO_WAYS) from error
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    others = [p for p in parameters if p not in positional]
    unusable = [p.name for p in others if p.kind is not p.KEYWORD_ONLY or p.default is p.empty]
    if len(positional) not in (10, 11) or unusable:
        raise ContractError(
            f"{path.name}: run takes {len(positional)} positional parameters"
            + (f" and needs {unusable[0]!r}" if unusable else ""),
            expected="the definition's 10 inputs in order, and output as the 11th if it fills it",
        )
    destination = len(positional) == 11
    return Stage(
        name="forward",
        covers=STEPS,
        reads=(*FORWARD_INPUTS, "output") if destination else FORWARD_INPUTS,
        writes=("output",),
        function=run,
        backend=path.stem,
    )


def _identified(module: ModuleType, solution: Solution, origin: str) -> LoadedSolution:
    stages = package_folder()
    files = {Path(str(module.__file__))}
    for stage in solution.stages:
        file = _source_of(stage.function)
        if file is not None and (origin != "stages" or file.is_relative_to(stages)):
            files.add(file)
    return LoadedSolution(solution, source_hash(files), origin)


def _source_of(function: Callable[..., Any]) -> Path | None:
    while isinstance(function, functools.partial):
        function = function.func
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:  # written in C
        return None
    return Path(file) if file else None
