"""A solution of a FlashInfer-Bench TraceSet as one that moeprof can run: foreign code.

Python, Triton and TileLang sources are written to a private temporary package and imported from
there, as FlashInfer-Bench does: relative imports between files work, absolute ones of a sibling do
not. CUDA and C++ are built by flashinfer_bench's own builder where it is installed. Either way the
result is one opaque stage ``forward`` over all steps; its kernels are told by their names later.

Whether the code may run at all is decided before (``fib.find.require_trust``).
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import inspect
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from moeprof.contract import STEPS, Solution, Stage
from moeprof.errors import ContractError, EnvironmentMissing, MoeprofError
from moeprof.fib.find import SolutionFile, shown
from moeprof.fib.schema import PYTHON_LANGUAGES
from moeprof.fib.unpack import folder_prefix, source_hash, unpack
from moeprof.problem.operation import INPUTS, OUTPUTS
from moeprof.solutions.catalog import LoadedSolution
from moeprof.solutions.raised import said

READS = tuple(spec.name for spec in INPUTS)
STAGE = "forward"


def load(file: SolutionFile, root: Path) -> LoadedSolution:
    """Build the solution in ``file`` of the TraceSet at ``root`` and wrap it as one stage.

    ContractError, in one line with file and line, for what its code or its compiler raises;
    EnvironmentMissing where this machine cannot build its language.
    """
    solution = file.solution
    in_place = solution.spec.destination_passing_style
    if solution.spec.language in PYTHON_LANGUAGES:
        function = _imported(file)
    else:
        function = _compiled(file, root)
    _check_arity(function, file)
    stage = Stage(
        name=STAGE,
        covers=STEPS,
        reads=(*READS, "output") if in_place else READS,
        writes=("output",),
        function=_filling(function) if in_place else _returning(function),
        backend=solution.spec.language,
    )
    return LoadedSolution(
        solution=Solution(file.label, (stage,), description=_description(file)),
        source_hash=source_hash(solution),
        origin="fib",
        author=shown(solution.author),
        fib_hash=solution.hash,
        foreign=True,
        opaque=True,
    )


def _description(file: SolutionFile) -> str:
    style = "fills output" if file.solution.spec.destination_passing_style else "returns output"
    return f"FlashInfer-Bench solution of {shown(file.solution.author)}, one opaque call, {style}"


# ---------------------------------------------------------------- building


def _imported(file: SolutionFile) -> Callable[..., Any]:
    spec = file.solution.spec
    if not spec.entry_path.endswith(".py"):
        raise ContractError(
            f"{file.label}: entry point {shown(spec.entry_point)!r}", "a symbol of a .py file"
        )
    if spec.language != "python" and importlib.util.find_spec(spec.language) is None:
        raise EnvironmentMissing(
            f"{file.label} needs {spec.language}, which is not installed",
            do=f"pip install {spec.language}",
        )
    parent = Path(tempfile.mkdtemp(prefix=folder_prefix(os.getpid())))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    package = f"moeprof_fib_{file.solution.hash[:12]}"
    folder = parent / package
    folder.mkdir()
    unpack(file.solution, folder)
    _forget(package)
    sys.path.insert(0, str(parent))  # stays: a solution may import more of itself when called
    importlib.invalidate_caches()
    parts = Path(spec.entry_path).with_suffix("").parts
    with _explained(file, folder):
        module = importlib.import_module(".".join((package, *parts)))
        function = getattr(module, spec.entry_symbol, None)
    if not callable(function):
        found = "no" if function is None else f"a {type(function).__name__} called"
        raise ContractError(
            f"{file.label}: {shown(spec.entry_path)} holds {found} {shown(spec.entry_symbol)!r}",
            expected="the function that its entry_point names",
        )
    return function  # type: ignore[no-any-return]


def _forget(package: str) -> None:
    """The same solution loaded before in this process came from another folder."""
    for name in [n for n in sys.modules if n == package or n.startswith(package + ".")]:
        del sys.modules[name]


def _compiled(file: SolutionFile, root: Path) -> Callable[..., Any]:
    if importlib.util.find_spec("flashinfer_bench") is None:
        raise EnvironmentMissing(
            f"{file.label} is {file.solution.spec.language}, which flashinfer_bench builds, and "
            "that is not installed",
            do="pip install flashinfer-bench",
        )
    with _explained(file, None):
        from flashinfer_bench.compile import BuilderRegistry
        from flashinfer_bench.data import Definition
        from flashinfer_bench.data import Solution as TheirSolution

        definition = next(_definitions(root, file.solution.definition), None)
        if definition is None:
            raise ContractError(
                f"the TraceSet holds no definition {shown(file.solution.definition)!r}"
            )
        text = (root / file.path).read_text(encoding="utf-8")
        return BuilderRegistry.get_instance().build(  # type: ignore[no-any-return]
            Definition.model_validate(definition), TheirSolution.model_validate_json(text)
        )


def _definitions(root: Path, name: str) -> Iterator[Any]:
    for path in sorted((root / "definitions").rglob("*.json")):
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(document, dict) and document.get("name") == name:
            yield document


@contextmanager
def _explained(file: SolutionFile, folder: Path | None) -> Iterator[None]:
    """Turn whatever foreign code raises while it is loaded into one line with file and line."""
    try:
        yield
    except (MoeprofError, KeyboardInterrupt):
        raise
    except SyntaxError as error:
        where = f"{shown(Path(error.filename or file.path).name)}:{error.lineno or 0}"
        raise ContractError(f"{file.label}: {where}: {shown(error.msg)}", do="mend it") from None
    except BaseException as error:  # SystemExit as well
        where = _line_in(folder, error.__traceback__)
        raise ContractError(
            f"{file.label}{where} raised {said(error)} while it was loaded", do="mend it"
        ) from None


def _line_in(folder: Path | None, trace: TracebackType | None) -> str:
    """': file:line', the last line of the solution's own that was running."""
    found = ""
    while trace is not None and folder is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(folder):
            found = f": {shown(path.relative_to(folder).as_posix())}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


# ---------------------------------------------------------------- calling


def _check_arity(function: Callable[..., Any], file: SolutionFile) -> None:
    """As FlashInfer-Bench: 11 parameters with a destination, 10 without; further ones defaulted."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # compiled: its own checks hold
        return
    in_place = file.solution.spec.destination_passing_style
    wanted = len(INPUTS) + (len(OUTPUTS) if in_place else 0)
    kinds = inspect.Parameter
    positional = [
        p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    needed = [p for p in positional if p.default is p.empty]
    open_ended = any(p.kind is kinds.VAR_POSITIONAL for p in parameters)
    needs_more = [p for p in parameters if p.kind is kinds.KEYWORD_ONLY and p.default is p.empty]
    if (
        len(needed) > wanted
        or (len(positional) < wanted and not open_ended)
        or any(p.default is not p.empty for p in positional[:wanted])
        or needs_more
    ):
        style = "destination-passing" if in_place else "value-returning"
        raise ContractError(
            f"{file.label}: {shown(file.solution.spec.entry_symbol)} takes {len(positional)} "
            "parameters" + (f" and needs {needs_more[0].name!r}" if needs_more else ""),
            expected=f"{wanted}, as it is {style}",
        )


class nothing:  # noqa: N801  (its name is read in 'output is nothing, expected a tensor')
    """What a solution gave back that should return its output and returned None."""


_NOTHING = nothing()


def _filling(function: Callable[..., Any]) -> Callable[..., None]:
    """A destination-passing call; what it returns besides is dropped, as FlashInfer-Bench does."""

    def forward(*arguments: Any) -> None:
        function(*arguments)

    return forward


def _returning(function: Callable[..., Any]) -> Callable[..., Any]:
    """A value-returning call; the one output may come in a tuple."""

    def forward(*arguments: Any) -> Any:
        returned = function(*arguments)
        if isinstance(returned, (tuple, list)) and len(returned) == 1:
            return returned[0]
        return _NOTHING if returned is None else returned

    return forward
