"""The code of a revision: a git worktree in a temporary folder, there while it is measured.

Removed however the measuring ends; what a kill left behind is found by a lock that died with its
holder and removed at the next start. The user's own tree, index and branches are not touched.
Submodules are not checked out.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moeprof.checking.trees import Tree, base_folder, git, here, is_path, require_repository
from moeprof.errors import ResourceExhausted, UsageError
from moeprof.storage.locks import is_free, locked

PREFIX = "moeprof-worktree-"
_LOCK, _CODE = "lock", "code"


@contextmanager
def revision_tree(solution: str, revision: str) -> Iterator[Tree]:
    """``solution`` as it is at ``revision`` of the repository that it lies in.

    solution: a name, or the path of a file in the working tree. UsageError if git does not know the
    revision or the solution was not there then.
    """
    repository = require_repository(solution)
    commit = resolve(repository, revision)
    sweep(repository)
    home = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    try:
        lock = home / _LOCK
        lock.touch()
        with locked(lock, None):
            root = home / _CODE
            _check_out(repository, commit, root)
            yield _tree(solution, repository, root, commit)
    finally:
        _remove(repository, home)


def resolve(repository: Path, revision: str) -> str:
    """The full hash of a revision's commit; UsageError if there is none."""
    wanted = f"{revision}^{{commit}}"
    commit = git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", wanted)
    if not commit:
        raise UsageError(
            f"git knows no revision {revision!r} here",
            do="git fetch it, or name a branch, tag or commit",
        )
    return commit


def sweep(repository: Path) -> int:
    """Remove worktrees whose process was killed; how many there were."""
    listed = git(repository, "worktree", "list", "--porcelain") or ""
    roots = [
        Path(line.removeprefix("worktree "))
        for line in listed.splitlines()
        if line.startswith("worktree ")
    ]
    homes = [root.parent for root in roots if root.parent.name.startswith(PREFIX)]
    left = [home for home in homes if is_free(home / _LOCK)]
    for home in left:
        _remove(repository, home)
    return len(left)


def _check_out(repository: Path, commit: str, root: Path) -> None:
    if git(repository, "worktree", "add", "--detach", "--quiet", str(root), commit) is None:
        raise ResourceExhausted(
            f"git cannot check {commit[:8]} out into a temporary folder",
            do="free disk space there (TMPDIR says where) and see `git worktree list`",
        )


def _remove(repository: Path, home: Path) -> None:
    git(repository, "worktree", "remove", "--force", "--force", str(home / _CODE))
    shutil.rmtree(home, ignore_errors=True)
    git(repository, "worktree", "prune")


def _tree(solution: str, repository: Path, root: Path, commit: str) -> Tree:
    def moved(path: Path) -> Path:
        """The same place in the revision, for whatever lies in the repository."""
        if path.is_relative_to(repository) and not path.is_relative_to(Path(sys.prefix)):
            return root / path.relative_to(repository)
        return path

    label = commit[:8]
    python_path = tuple(moved(path) for path in here())
    if python_path and not (python_path[0] / "moeprof" / "__main__.py").is_file():
        raise UsageError(f"{label} has no moeprof to measure it with", do="name a later revision")
    if is_path(solution):
        given = moved(Path(solution).resolve())
        shown = str(Path(solution).resolve().relative_to(repository))
        if not given.is_file():
            raise UsageError(f"{label} has no file {shown}", do="name a revision that has it")
    else:
        folder = moved(base_folder(solution)) / "solutions"
        if not (folder / f"{solution}.py").is_file():
            names = sorted(p.stem for p in folder.glob("[!_]*.py"))
            raise UsageError(
                f"{label} has no solution {solution!r}", do=f"it has {', '.join(names) or 'none'}"
            )
    current = moved(Path.cwd())
    return Tree(
        label=label,
        solution=str(given) if is_path(solution) else solution,
        folder=current if current.is_dir() else root,
        python_path=python_path,
        root=root,
        foreign=repository,
        commit=commit,
    )
