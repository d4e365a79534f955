"""Baselines on disk: what later runs are checked against, small and readable enough for git.

    <traces>/baselines/<gpu>/<name>/baseline.json           what it is, its policy, its noise
                                    001.json.gz ...         the record of each fresh process
    <traces>/baselines/<gpu>/<name>@<created>/              what it replaced: its history

A baseline is put in place by renaming a whole folder, under a lock that dies with its holder. What
a kill left half-written is removed and what it left whole is put in place by whoever comes next, so
that every reader finds a baseline whole or not at all. One that is damaged is named and leaves the
others usable. What its files hold is ``baseline_files``' business.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moeprof.errors import RecordError, ResourceExhausted, UsageError, nearest
from moeprof.records import Run
from moeprof.regression.values import Baseline
from moeprof.storage.baseline_files import (
    BASELINE_FILE,
    read_index,
    read_record,
    require_own,
    verify,
    write_files,
)
from moeprof.storage.locks import locked

LOCK_SECONDS = 30.0

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.\d+\.new")


@dataclass(frozen=True, slots=True)
class StoredBaseline:
    """A baseline with its runs, every file verified."""

    baseline: Baseline
    runs: tuple[Run, ...]
    folder: Path

    @property
    def gpu(self) -> str:
        return self.folder.parent.name


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder of the store. problem: why it cannot be used, '' where it can."""

    folder: Path
    baseline: Baseline | None
    problem: str = ""

    @property
    def gpu(self) -> str:
        return self.folder.parent.name

    @property
    def name(self) -> str:
        """With '@' and a date: history."""
        return self.folder.name

    @property
    def is_history(self) -> bool:
        return "@" in self.name


def gpu_folder(device: str) -> str:
    """The folder for a device: 'NVIDIA H200' is h200."""
    text = re.sub(r"\((R|TM)\)|^NVIDIA ", "", device, flags=re.IGNORECASE).lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-") or "unknown"


def check_name(name: str) -> None:
    """Raise UsageError unless ``name`` can name a baseline."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a baseline", "letters, digits and _ . + -")


# ---------------------------------------------------------------- finding


def entries(root: Path) -> tuple[Entry, ...]:
    """Every baseline below ``root`` and every one it replaced, by GPU and name.

    A damaged one is an Entry with its problem: the others stay usable.
    """
    found = []
    for place in sorted(root.glob("[!.]*/")):
        with _reading(place):
            found += [_entry(folder) for folder in sorted(place.glob("[!.]*/"))]
    return tuple(found)


def find(root: Path, name: str) -> Path:
    """The folder of a baseline: by name, by gpu/name, or by its path. UsageError if unclear."""
    if (Path(name) / BASELINE_FILE).is_file():
        return Path(name)
    places = sorted(root.glob("[!.]*/"))
    for place in places:
        with _reading(place):
            pass
    known = {
        f"{folder.parent.name}/{folder.name}": folder
        for place in places
        for folder in place.glob("[!.]*/")
    }
    found = [path for key, path in known.items() if name in (key, path.name)]
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(sorted(f"{path.parent.name}/{path.name}" for path in found))
        raise UsageError(f"there are {len(found)} baselines {name!r}", do=f"name one: {choices}")
    current = sorted(key for key in known if "@" not in key)
    do = nearest(name, current) if current else "moeprof baseline record makes one"
    raise UsageError(f"there is no baseline {name!r}", do=do)


# ---------------------------------------------------------------- reading


def open_baseline(folder: Path) -> StoredBaseline:
    """The baseline in ``folder``; RecordError names the first file that is not what it was."""
    with _reading(folder.parent):
        baseline = read_index(folder)
        runs = tuple(read_record(folder / file.file, file.sha256) for file in baseline.runs)
    for file, run in zip(baseline.runs, runs, strict=True):
        require_own(baseline, run, folder / file.file)
    return StoredBaseline(baseline, runs, folder)


def _entry(folder: Path) -> Entry:
    try:
        return Entry(folder, verify(folder))
    except RecordError as error:
        return Entry(folder, None, str(error))


# ---------------------------------------------------------------- writing


def save(root: Path, baseline: Baseline, runs: Sequence[Run], replace: bool = False) -> Path:
    """Put a baseline in place; its folder. What it replaces stays as ``<name>@<created>``.

    baseline.runs is filled in here. UsageError if the name is taken and ``replace`` is False;
    ResourceExhausted, with everything as it was, if the disk is full.
    """
    check_name(baseline.name)
    place = root / gpu_folder(baseline.device)
    _make_folder(place)
    with _explained(place), locked(place, LOCK_SECONDS):
        _finish_what_was_left(place)
        folder = place / baseline.name
        if not replace:
            require_free(root, baseline.device, baseline.name)
        draft = place / f".{baseline.name}.{os.getpid()}.new"
        try:
            write_files(draft, baseline, runs)
            _put_in_place(draft, folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return folder


def require_free(root: Path, device: str, name: str) -> None:
    """Raise UsageError if there is a baseline of that name for that device."""
    folder = root / gpu_folder(device) / name
    if folder.exists():
        raise UsageError(
            f"there is a baseline {folder.parent.name}/{folder.name}",
            do="--force replaces it and keeps it as history, --name names another",
        )


def remove(folder: Path) -> None:
    """Remove a baseline's folder, whole or not at all."""
    with _explained(folder.parent), locked(folder.parent, LOCK_SECONDS):
        doomed = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        os.rename(folder, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _put_in_place(draft: Path, folder: Path) -> None:
    """Give ``draft`` its name; what has it becomes history first. The lock is held."""
    history = _history_folder(folder)
    try:
        if folder.exists():
            os.rename(folder, history)
        os.rename(draft, folder)
    except BaseException:  # Ctrl-C between the two
        if history.exists() and not folder.exists():
            os.rename(history, folder)
        raise
    descriptor = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _history_folder(folder: Path) -> Path:
    try:
        created = re.sub(r"[^0-9T]", "", read_index(folder).created.split("+")[0]) + "Z"
    except RecordError:  # damaged: kept all the same
        created = "unreadable"
    for attempt in range(1, 1000):
        path = folder.with_name(f"{folder.name}@{created}{f'-{attempt}' * (attempt > 1)}")
        if not path.exists():
            return path
    raise ResourceExhausted(
        f"{folder.parent} holds 999 of {folder.name}@{created}", do="moeprof baseline prune"
    )


def _finish_what_was_left(place: Path) -> None:
    """Put in place what a killed writer left whole, remove the rest. The lock is held."""
    for left in sorted(place.glob(".*.new")):
        match = _UNFINISHED.fullmatch(left.name)
        if match is not None and _is_whole(left):
            _put_in_place(left, place / match["name"])
        else:
            shutil.rmtree(left, ignore_errors=True)
    for left in place.glob(".*.old"):
        shutil.rmtree(left, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder)
    except RecordError:
        return False
    return True


@contextlib.contextmanager
def _reading(place: Path) -> Iterator[None]:
    """Read beside other readers, never while a baseline is being put in place."""
    if not place.is_dir():
        yield
        return
    if os.access(place, os.W_OK) and any(place.glob(".*.new")):
        with locked(place, LOCK_SECONDS):
            _finish_what_was_left(place)
    with locked(place, LOCK_SECONDS, shared=True):
        yield


def _make_folder(place: Path) -> None:
    with _explained(place):
        place.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _explained(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceExhausted(
            f"{place} cannot be written to: {error.strerror or error}",
            do="free disk space, or choose a --traces folder that you can write to",
        ) from None
