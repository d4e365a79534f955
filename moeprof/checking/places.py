"""Where the code of a solution's stages lies in its repository, for annotations and SARIF."""

from __future__ import annotations

from pathlib import Path

from moeprof.checking.trees import is_path, repository_of
from moeprof.errors import MoeprofError
from moeprof.records import Run
from moeprof.reports.check.places import NOWHERE, Places
from moeprof.solutions.sources import solution_files, stage_backends


def places_of(run: Run, solution: str = "") -> Places:
    """The files of ``run``'s stages. solution: as the user named it, else the record's name.

    Empty where the solution's file is not known or lies in no repository.
    """
    name = solution or run.solution.name
    try:
        repository = repository_of(name)
        if repository is None:
            return NOWHERE
        own = "" if is_path(name) else name
        file = _inside(repository, _file_of(own) if own else Path(name))
        return Places(file, {stage: path for stage, path in _stages(run, repository) if path})
    except (MoeprofError, OSError):  # it is told without a place then
        return NOWHERE


def _file_of(name: str) -> Path | None:
    return next((file.path for file in solution_files() if file.name == name), None)


def _stages(run: Run, repository: Path) -> list[tuple[str, str]]:
    backends = stage_backends()
    found = []
    for stage in run.solution.stages:
        files = [file for step in stage.covers[:1] for file in backends.get(step, ())]
        path = next((file.path for file in files if file.name == stage.backend), None)
        found.append((stage.row or stage.name, _inside(repository, path)))
    return found


def _inside(repository: Path, path: Path | None) -> str:
    """``path`` from the repository's root; '' if it is not in it."""
    if path is None or not path.resolve().is_relative_to(repository):
        return ""
    return path.resolve().relative_to(repository).as_posix()
