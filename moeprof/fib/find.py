"""One solution of a TraceSet by name: ``fib:NAME``, and what a user is told before it may run.

Every ``solutions/**/*.json`` may hold it, since FlashInfer-Bench looks at any depth and asks only
that names be unique. Files that cannot be read are passed over, and counted where the name is not
found. Nothing of a solution is imported here; that is ``moeprof.solutions.fib``'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moeprof.errors import UsageError, nearest
from moeprof.fib.schema import FibSolution, parse_solution
from moeprof.importing.names import printable

PREFIX = "fib:"
LARGEST_FILE = 64 << 20  # a solution's sources as text; the largest published ones have 300 KB
LONGEST_SHOWN = 120


@dataclass(frozen=True, slots=True)
class SolutionFile:
    """A solution and the file it was read from. path: from the root; sha256: of the file."""

    path: str
    sha256: str
    solution: FibSolution

    @property
    def label(self) -> str:
        """What it is called in commands and in records."""
        return PREFIX + shown(self.solution.name)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that holds no solution, and why, in one line without its path."""

    path: str
    problem: str


def is_fib(name: str) -> bool:
    """Whether ``name`` means a solution of a TraceSet."""
    return name.startswith(PREFIX)


def shown(text: str, longest: int = LONGEST_SHOWN) -> str:
    """Foreign text made fit for a terminal and a record: one line, nothing that steers."""
    return printable(text.encode("utf-8", "replace").decode(), longest)


def solution_files(root: Path) -> Iterator[SolutionFile | Unreadable]:
    """What each file below ``solutions/`` holds, by path."""
    folder = root / "solutions"
    for path in sorted(folder.rglob("*.json")):
        if path.is_dir():
            continue
        place = shown(path.relative_to(root).as_posix(), 300)
        try:
            yield read_solution(path, place)
        except UsageError as error:
            yield Unreadable(place, str(error).removeprefix(place).removeprefix(": ").strip())


def read_solution(path: Path, place: str) -> SolutionFile:
    """The solution in ``path``, called ``place`` in errors; UsageError in one line."""
    content = read_bytes(path, place)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{place} is not UTF-8 text", do="restore the file") from None
    try:
        solution = parse_solution(text, place)
        solution.hash.encode()  # lone surrogates, which JSON can spell, cannot be written anywhere
    except UnicodeEncodeError:
        raise UsageError(f"{place} holds text that is no Unicode", do="restore the file") from None
    return SolutionFile(place, hashlib.sha256(content).hexdigest(), solution)


def read_bytes(path: Path, place: str, largest: int = LARGEST_FILE) -> bytes:
    """A regular file's content; UsageError where it is none, too large, or cannot be read."""
    try:
        if not path.is_file():
            raise UsageError(f"{place} is no regular file")
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise UsageError(f"{place} cannot be read: {error.strerror}") from None
    if len(content) > largest:
        raise UsageError(f"{place} is larger than {largest >> 20} MiB", do="leave data out of it")
    return content


def find_solution(label: str, root: Path | None) -> SolutionFile:
    """The solution that ``fib:NAME`` means in the TraceSet at ``root``; UsageError if none does."""
    name = label.removeprefix(PREFIX)
    if root is None:
        raise UsageError(
            f"{shown(label)} is a solution of a TraceSet",
            do="commands that take --dataset DIR and --trust can run it: run, bench, explain, "
            "timeline",
        )
    if not (root / "solutions").is_dir():
        raise UsageError(
            f"{root} holds no folder solutions",
            expected="a FlashInfer-Bench TraceSet",
            do="pass --dataset DIR",
        )
    found: list[SolutionFile] = []
    names: list[str] = []
    unreadable = 0
    for file in solution_files(root):
        if isinstance(file, Unreadable):
            unreadable += 1
            continue
        names.append(shown(file.solution.name))
        if name in (file.solution.name, shown(file.solution.name)):
            found.append(file)
    if len(found) > 1:
        places = " and ".join(file.path for file in found[:3])
        raise UsageError(f"{shown(label)} is defined by {places}", "names to be unique")
    if not found:
        broken = f" ({unreadable} files cannot be read)" if unreadable else ""
        raise UsageError(
            f"the TraceSet holds no solution {shown(name)!r}{broken}",
            do=f"{nearest(name, names)}; moeprof import fib DIR lists them",
        )
    return found[0]


def require_trust(file: SolutionFile, trusted: bool) -> None:
    """Raise UsageError, saying whose code it is, unless the user has said --trust."""
    if trusted:
        return
    raise UsageError(
        f"{file.label} is foreign code of {shown(file.solution.author)!r} "
        f"({file.path}, sha256 {file.sha256})",
        expected="your word that it may run here, with all your rights",
        do="read it, then add --trust, which holds for this command only",
    )
