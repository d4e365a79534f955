"""Which revision to look at next, as git itself would choose it, without git's bisection state.

``git rev-list --bisect-all`` orders what is left by how well it halves a history with branches and
merges; it only reads. ``git bisect`` keeps its state in refs and files of a working tree, which a
kill would leave behind, and a skipped range comes out of it as text.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from moeprof.checking.trees import git
from moeprof.checking.worktree import resolve
from moeprof.errors import EnvironmentMissing, UsageError
from moeprof.regression.bisection import Commit


def commit_of(repository: Path, revision: str) -> Commit:
    """The commit of a revision; UsageError if git knows none."""
    full = resolve(repository, revision)
    told = git(repository, "log", "-1", "--format=%H%x1f%P%x1f%aI%x1f%s", full)
    if not told:
        raise EnvironmentMissing(f"git cannot read {full[:8]}", do="see `git fsck`")
    name, parents, date, subject = told.split("\x1f", 3)
    return Commit(name, subject, date, tuple(parents.split()))


def require_ancestor(repository: Path, good: Commit, bad: Commit) -> None:
    """Raise UsageError unless ``good`` is before ``bad``."""
    if good.hash == bad.hash:
        raise UsageError(f"good and bad are both {good.short}", "two different commits")
    base = git(repository, "merge-base", good.hash, bad.hash)
    if base != good.hash:
        do = f"take their common one, {base[:8]}" if base else "they have no common one"
        raise UsageError(f"{good.short} is no ancestor of {bad.short}", "good before bad", do)


def left_over(repository: Path, bad: str, good: Collection[str]) -> tuple[str, ...]:
    """The hashes that may still be the first bad one, ``bad`` among them, the best to try first."""
    listed = git(repository, "rev-list", "--bisect-all", bad, "--not", *good)
    if listed is None:
        raise EnvironmentMissing("git cannot list the commits between good and bad")
    return tuple(line.split()[0] for line in listed.splitlines() if line)


def in_order(repository: Path, hashes: Collection[str]) -> tuple[Commit, ...]:
    """The commits of ``hashes``, each after its ancestors."""
    order = git(repository, "rev-list", "--topo-order", "--reverse", *hashes) or ""
    place = {name: number for number, name in enumerate(order.splitlines())}
    return tuple(
        commit_of(repository, name) for name in sorted(hashes, key=lambda n: place.get(n, 0))
    )
