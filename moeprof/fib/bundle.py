"""The files that a module needs, as sources of one package in which every import is relative.

FlashInfer-Bench writes a solution's files to a folder of its own and imports that as a package,
so nothing may be looked for by an absolute name but what is installed there. Where files go:

    stages/...            stages/..., as they lie          moeprof.contract, .errors   main folder
    a user's file, and    solution/...                     moeprof.fib.exported        main folder
    modules beside it

Imports are found in the syntax tree and rewritten in the text, so that lines and comments stay.
Left out: modules imported by a name that is computed, and files that are opened as data.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import re
import site
import sys
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moeprof.errors import UsageError
from moeprof.fib.schema import SourceFile

STAGES, OWN, USERS = "stages", "moeprof", "solution"
# what of moeprof a solution may use, and where it goes
CARRIED = {
    "moeprof.contract": "contract",
    "moeprof.errors": "errors",
    "moeprof.fib.exported": "exported",
}
_FROM_IMPORT = re.compile(rb"from\s+[\w.\s\\]+?(?=\s*\bimport\b)")
_PYTHONS = ("built-in", "frozen")
_INSTALLED = tuple(
    f"{place}/"
    for place in (
        *site.getsitepackages(),
        site.getusersitepackages(),
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
    )
)

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Sources in order of their paths, and the installed modules they import."""

    sources: tuple[SourceFile, ...]
    third_party: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Module:
    """A file of the bundle. parts: its dotted name in the package; a package's has no __init__."""

    file: Path
    parts: Parts

    @property
    def is_package(self) -> bool:
        return self.file.name == "__init__.py"

    @property
    def package(self) -> Parts:
        return self.parts if self.is_package else self.parts[:-1]

    @property
    def path(self) -> str:
        return "/".join((*self.parts, "__init__") if self.is_package else self.parts) + ".py"


@dataclass(frozen=True, slots=True)
class Places:
    """Where modules are looked for. stages: the package's folder; users: of a user's file."""

    stages: Path
    users: Path | None = None

    def stage(self, dotted: str) -> Parts:
        """The name in the bundle of a module of ``stages``."""
        return tuple(dotted.split("."))

    def user(self, stem: str) -> Parts:
        """The name in the bundle of a user's own file."""
        return (USERS, identifier(stem))


def identifier(text: str) -> str:
    """``text`` as a Python name."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return f"_{name}" if not name or name[0].isdigit() else name


def bundle(files: Iterable[tuple[Path, Parts]], places: Places) -> Bundle:
    """``files``, each with its name in the bundle, and all that they import of ``places``."""
    modules: dict[Parts, _Module] = {}
    sources: dict[str, SourceFile] = {}
    third_party: set[str] = set()
    waiting = [_Module(file, parts) for file, parts in files]
    while waiting:
        module = waiting.pop()
        if module.parts in modules:
            continue
        modules[module.parts] = module
        reader = _Reader(module, places)
        content = reader.rewritten()
        if content.strip():  # FlashInfer-Bench takes no empty file, Python needs none
            sources[module.path] = SourceFile(module.path, content)
        third_party |= reader.third_party
        waiting.extend(reader.needed)
        waiting.extend(_packages_of(module))
    ordered = tuple(sources[path] for path in sorted(sources))
    return Bundle(ordered, tuple(sorted(third_party - sys.stdlib_module_names)))


def _packages_of(module: _Module) -> Iterator[_Module]:
    """The __init__ files of the packages that ``module`` lies in, below the bundle's own folder."""
    folder = module.file.parent.parent if module.is_package else module.file.parent
    parts = module.parts[:-1]
    while parts and parts != (USERS,):
        if (folder / "__init__.py").is_file() and parts[0] in (STAGES, USERS):
            yield _Module(folder / "__init__.py", parts)
        folder, parts = folder.parent, parts[:-1]


class _Reader:
    """One file: its text with relative imports, and which modules it needs."""

    def __init__(self, module: _Module, places: Places) -> None:
        self.module = module
        self.places = places
        self.needed: list[_Module] = []
        self.third_party: set[str] = set()
        self._text = read_source(module.file)

    def rewritten(self) -> str:
        """The text; UsageError for an import that cannot be carried."""
        try:
            tree = ast.parse(self._text, str(self.module.file))
        except SyntaxError as error:
            raise UsageError(
                f"{self.module.file.name}:{error.lineno or 0}: {error.msg}", do="mend the file"
            ) from error
        lines = [line.encode() for line in self._text.split("\n")]
        found = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        # from the last one on, so that positions of the others stay
        for node in sorted(found, key=lambda n: (n.lineno, n.col_offset), reverse=True):
            if isinstance(node, ast.ImportFrom):
                self._rewrite_from(node, lines)
            else:
                self._rewrite_import(node, lines)
        return b"\n".join(lines).decode()

    def _rewrite_from(self, node: ast.ImportFrom, lines: list[bytes]) -> None:
        if node.level:
            package = self.module.package[: len(self.module.package) - node.level + 1]
            target: Parts | None = (*package, *(node.module or "").split("."))
            target = tuple(part for part in target or () if part)
        else:
            target = self._in_bundle(node.module or "", node)
        if target is None:
            self.third_party.add((node.module or "").split(".")[0])
            return
        self._need(target, node)
        for alias in node.names:  # a name that is imported may itself be a module
            file = self._file_of((*target, alias.name))
            if file is not None:
                self.needed.append(_Module(file, (*target, alias.name)))
        if not node.level:
            self._replace_from(node, lines, self._relative(target))

    def _replace_from(self, node: ast.ImportFrom, lines: list[bytes], target: str) -> None:
        first = node.lineno - 1
        last = (node.end_lineno or node.lineno) - 1
        before, rest = lines[first][: node.col_offset], lines[first][node.col_offset :]
        text = b"\n".join([rest, *lines[first + 1 : last + 1]])
        changed = _FROM_IMPORT.sub(f"from {target}".encode(), text, count=1)
        if changed == text:
            raise self._cannot(node, "is written in a way that cannot be rewritten")
        lines[first : last + 1] = (before + changed).split(b"\n")

    def _rewrite_import(self, node: ast.Import, lines: list[bytes]) -> None:
        statements, changed = [], False
        for alias in node.names:
            target = self._in_bundle(alias.name, node)
            as_name = f" as {alias.asname}" if alias.asname else ""
            if target is None:
                self.third_party.add(alias.name.split(".")[0])
                statements.append(f"import {alias.name}{as_name}")
                continue
            if "." in alias.name and not alias.asname:
                raise self._cannot(node, "binds a package", f"from {alias.name} import ...")
            self._need(target, node)
            statements.append(f"from {self._relative(target[:-1])} import {target[-1]}{as_name}")
            changed = True
        if changed:
            first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
            before = lines[first][: node.col_offset]
            after = lines[last][node.end_col_offset :]
            lines[first : last + 1] = [before + "; ".join(statements).encode() + after]

    def _in_bundle(self, dotted: str, node: ast.stmt) -> Parts | None:
        """The bundle's name of an absolute import; None for what is installed."""
        top = dotted.split(".")[0]
        if top == STAGES:
            return self.places.stage(dotted)
        if top == OWN:
            if dotted not in CARRIED:
                raise self._cannot(
                    node, f"is of {dotted}, which no solution can carry", "moeprof.contract"
                )
            return (CARRIED[dotted],)
        if self.module.parts[0] == USERS and not self._is_installed(top):
            parts = (USERS, *dotted.split("."))
            if self._file_of(parts) is not None or self._folder_of(parts) is not None:
                return parts
        return None

    def _is_installed(self, top: str) -> bool:
        """Whether a module is Python's own or a package's, which go before what lies beside."""
        with contextlib.suppress(ValueError):  # a module without a spec
            spec = importlib.util.find_spec(top)
            if spec is not None:
                found = [*(spec.submodule_search_locations or ()), spec.origin or ""]
                return any(place in _PYTHONS or place.startswith(_INSTALLED) for place in found)
        return False

    def _need(self, target: Parts, node: ast.stmt) -> None:
        file = self._file_of(target)
        if file is not None:
            self.needed.append(_Module(file, target))
        elif self._folder_of(target) is None:
            raise self._cannot(node, f"is of {'.'.join(target)}, which is not there")

    def _file_of(self, parts: Parts) -> Path | None:
        """The file of a module of the bundle, where it has one."""
        if len(parts) == 1 and parts[0] in CARRIED.values():
            return carried_file(next(name for name, to in CARRIED.items() if to == parts[0]))
        base = self._folder_base(parts)
        if base is None:
            return None
        for file in (base.with_name(base.name + ".py"), base / "__init__.py"):
            if file.is_file():
                return file
        return None

    def _folder_of(self, parts: Parts) -> Path | None:
        """The folder of a package without an __init__ file."""
        base = self._folder_base(parts)
        return base if base is not None and base.is_dir() else None

    def _folder_base(self, parts: Parts) -> Path | None:
        if parts and parts[0] == STAGES:
            return self.places.stages.joinpath(*parts[1:])
        if parts and parts[0] == USERS and self.places.users is not None:
            return self.places.users.joinpath(*parts[1:])
        return None

    def _relative(self, target: Parts) -> str:
        package = self.module.package
        common = 0
        while common < min(len(package), len(target)) and package[common] == target[common]:
            common += 1
        return "." * (len(package) - common + 1) + ".".join(target[common:])

    def _cannot(self, node: ast.stmt, found: str, expected: str = "") -> UsageError:
        where = f"{self.module.file.name}:{node.lineno}"
        return UsageError(f"{where}: the import {found}", expected, do="change it, then export")


def carried_file(dotted: str) -> Path:
    """The file of a module of ``CARRIED``."""
    spec = importlib.util.find_spec(dotted)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin)


def read_source(file: Path) -> str:
    """A Python file as text, in the encoding that it declares."""
    try:
        with tokenize.open(file) as stream:
            return stream.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no Python text"
        raise UsageError(f"cannot read {file}: {reason}") from error
