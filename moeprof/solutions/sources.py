"""What the files of ``stages/`` say about themselves, read without running them.

Names come from file names, one-line texts and covered steps from the syntax tree, the source hash
from the bytes. So listing needs neither torch nor a kernel library. Running them is ``catalog``'s.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from moeprof.contract import STEPS
from moeprof.errors import EnvironmentMissing

PACKAGE = "stages"
SOLUTIONS = "solutions"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One plug-in: its name is its file's, ``summary`` the first line of its docstring."""

    name: str
    folder: str
    path: Path
    summary: str
    covers: tuple[tuple[str, ...], ...] = ()  # one entry a stage declared in it

    @property
    def module(self) -> str:
        return f"{PACKAGE}.{self.folder}.{self.name}"


def package_folder() -> Path:
    """Where the package ``stages`` lies; nothing of it is imported."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / SOLUTIONS).is_dir():
            return Path(folder)
    raise EnvironmentMissing(
        f"no Python package {PACKAGE!r} with solutions is installed",
        do="run `make run` in the checkout, or pip install -e . there",
    )


def solution_files() -> tuple[SourceFile, ...]:
    """The solutions, by name."""
    return tuple(_files(package_folder() / SOLUTIONS))


def stage_backends() -> Mapping[str, tuple[SourceFile, ...]]:
    """For each of the seven steps the files that declare a stage covering it, by name."""
    files = [
        file
        for folder in sorted(package_folder().iterdir())
        if folder.is_dir() and folder.name != SOLUTIONS
        for file in _files(folder)
    ]
    return {
        str(step): tuple(file for file in files if any(step in covered for covered in file.covers))
        for step in STEPS
    }


def _files(folder: Path) -> Iterator[SourceFile]:
    for path in sorted(folder.glob("*.py")):
        if path.stem.startswith("_"):
            continue
        tree = ast.parse(path.read_bytes(), str(path))
        summary = (ast.get_docstring(tree) or "").partition("\n")[0]
        yield SourceFile(path.stem, folder.name, path, summary, _declared_stages(tree))


def _declared_stages(tree: ast.Module) -> tuple[tuple[str, ...], ...]:
    """The steps of every ``stage(Step.A, Step.B, ...)`` call, as decorator or otherwise."""
    calls = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) == "stage"
    )
    return tuple(tuple(_covered(call)) for call in calls)


def _covered(call: ast.Call) -> Iterator[str]:
    for argument in call.args:
        if isinstance(argument, ast.Starred):  # stage(*STEPS): all seven
            yield from STEPS
        elif isinstance(argument, ast.Attribute):
            yield argument.attr.lower()


def source_hash(files: Iterable[Path]) -> str:
    """sha256 over ``files`` and everything they import from ``stages`` or from beside them.

    Content only: moving the checkout or renaming a file does not change it.
    """
    reached: set[Path] = set()
    waiting = [path.resolve() for path in files]
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting.extend(_imported_files(path))
    digests = sorted(hashlib.sha256(path.read_bytes()).digest() for path in reached)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _imported_files(path: Path) -> tuple[Path, ...]:
    """The files of ``stages`` or of the same folder that ``path`` names in its imports."""
    stages = package_folder()
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError:  # then nothing it names was imported either
        return ()
    found: dict[Path, None] = {}
    for module in (
        name for node in ast.walk(tree) for name in _imported_modules(node, path, stages)
    ):
        parts = module.split(".")
        base = (stages.parent if parts[0] == PACKAGE else path.parent).joinpath(*parts)
        for file in (base.with_name(base.name + ".py"), base / "__init__.py"):
            if file.is_file():
                found[file.resolve()] = None
    return tuple(found)


def _imported_modules(node: ast.AST, path: Path, stages: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if node.level and path.is_relative_to(stages):
            package = path.parent.relative_to(stages.parent).parts
            package = package[: len(package) - node.level + 1]
            module = ".".join((*package, *filter(None, [module])))
        yield module
        yield from (f"{module}.{alias.name}".lstrip(".") for alias in node.names)
