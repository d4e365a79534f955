"""A solution's sources as files in a folder of their own: nothing may land outside it.

FlashInfer-Bench refuses absolute paths and '..'; refused here as well is what another system or a
terminal would read differently: backslashes, drives, control characters. Nothing is imported.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from moeprof.errors import UsageError
from moeprof.fib.schema import FibSolution
from moeprof.importing.names import printable

LONGEST_PART = 200


def folder_prefix(process: int) -> str:
    """How the names of a process's temporary folders begin; it may end without clearing up."""
    return f"moeprof-fib-{process}-"


def remove_folders(process: int) -> None:
    """Clear up after a process that has ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{folder_prefix(process)}*"):
        shutil.rmtree(folder, ignore_errors=True)


def source_hash(solution: FibSolution) -> str:
    """sha256 over the sources, by content only: as that of a solution given by path."""
    digests = sorted(hashlib.sha256(s.content.encode()).digest() for s in solution.sources)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def check_paths(solution: FibSolution) -> None:
    """Raise UsageError unless every source's path names a file inside the solution's folder."""
    for source in solution.sources:
        path = source.path
        parts = PurePosixPath(path).parts
        windows = PureWindowsPath(path)
        unsafe = (
            path.startswith("/")
            or ".." in (*parts, *windows.parts)
            or windows.drive
            or "\\" in path
            or not path.isprintable()
            or not parts
            or any(len(part.encode()) > LONGEST_PART for part in parts)
        )
        if unsafe:
            raise UsageError(
                f"a source of {printable(solution.name, 80)!r} is called {path[:80]!r}",
                expected="a relative path of plain names, without '..'",
            )


def unpack(solution: FibSolution, folder: Path) -> None:
    """Write the sources below ``folder``, which exists. UsageError for what cannot be written."""
    check_paths(solution)
    for source in solution.sources:
        path = folder / source.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source.content, encoding="utf-8")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise UsageError(
                f"source {source.path!r} of {printable(solution.name, 80)!r} is a file and a folder"
            ) from None
