"""The code of one side: where a fresh process finds the solution, its stages and moeprof itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import moeprof
from moeprof.errors import EnvironmentMissing, UsageError

GIT_SECONDS = 120
_SITE = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True)
class Tree:
    """What a process of one side is started with.

    label: as people call it. solution: a name, or a file's absolute path. folder: where the process
    runs. python_path: searched before what is installed. root: of a revision's own files, and
    foreign: the folder of the other side's, from which no module may be loaded; None for the
    working tree. commit: '' where there is none; dirty: there are changes that are in no commit.
    """

    label: str
    solution: str
    folder: Path
    python_path: tuple[Path, ...]
    root: Path | None = None
    foreign: Path | None = None
    commit: str = ""
    dirty: bool = False

    def environment(self) -> dict[str, str]:
        """This process's environment with the tree's modules first."""
        return _environment(self.python_path)


def working_tree(solution: str) -> Tree:
    """The code that runs now. solution: a name, or the path of a file. UsageError if it is none."""
    from moeprof.solutions.catalog import check_exists

    own = check_exists(solution)
    given = solution if own else str(Path(solution).resolve())
    commit, dirty = "", False
    repository = repository_of(solution)
    if repository is not None:
        commit = git(repository, "rev-parse", "--verify", "--quiet", "HEAD") or ""
        dirty = bool(git(repository, "status", "--porcelain", "--untracked-files=no"))
    return Tree("working tree", given, Path.cwd(), here(), commit=commit, dirty=dirty)


def own_environment() -> dict[str, str]:
    """This process's environment, in which another one runs the very same moeprof."""
    return _environment(here())


def _environment(python_path: Iterable[Path]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, python_path))}


def here() -> tuple[Path, ...]:
    """The checkout of this very moeprof, if it is one, then PYTHONPATH."""
    checkout = Path(moeprof.__file__).resolve().parents[1]
    given = [Path(part).absolute() for part in os.environ.get("PYTHONPATH", "").split(os.pathsep)
             if part]  # fmt: skip
    own = [] if checkout.name in _SITE else [checkout]
    return tuple(dict.fromkeys((*own, *given)))


def base_folder(solution: str) -> Path:
    """The folder whose repository a solution belongs to: its file's, or that of ``stages``."""
    from moeprof.solutions.catalog import check_exists
    from moeprof.solutions.sources import package_folder

    if is_path(solution):
        check_exists(solution)
        return Path(solution).resolve().parent
    return package_folder()


def is_path(solution: str) -> bool:
    """Whether it means a file rather than one of the solutions that come with moeprof."""
    return solution.endswith(".py") or os.sep in solution


def repository_of(solution: str) -> Path | None:
    """The root of the git repository that ``solution`` lies in; None if it lies in none."""
    try:
        root = git(base_folder(solution), "rev-parse", "--show-toplevel")
    except EnvironmentMissing:  # no git
        return None
    return Path(root) if root else None


def require_repository(solution: str) -> Path:
    """As ``repository_of``; EnvironmentMissing without git, UsageError outside a repository."""
    folder = base_folder(solution)
    root = git(folder, "rev-parse", "--show-toplevel")
    if not root:
        raise UsageError(
            f"{solution} lies in no git repository", do="check it with --baseline instead"
        )
    return Path(root)


def git(folder: Path, *arguments: str) -> str | None:
    """What git says in ``folder``, or None if it fails. EnvironmentMissing where there is none."""
    # hooks are of a person's work, not of a measurement's
    command = ["git", "-C", str(folder), "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_SECONDS,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise EnvironmentMissing("git is not installed", do="install git") from None
    except subprocess.TimeoutExpired:
        raise EnvironmentMissing(
            f"git {arguments[0]} did not finish in {GIT_SECONDS} s", do="see what holds it"
        ) from None
    return done.stdout.strip() if done.returncode == 0 else None
