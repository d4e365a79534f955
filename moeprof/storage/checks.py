"""The folder of one check: the record of every fresh process as it finishes, then the verdict.

    <traces>/checks/<solution>-T<tokens>-<created>/
        baseline/001.json.gz ...    the other side's processes, where they were measured too
        candidate/001.json.gz ...   in the order measured
        check.json                  the verdict

A record enters by one rename, so an interrupted check keeps what it finished and its folder can be
judged (``check --runs``) or accepted (``baseline accept``) like any other. Nothing here measures.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from moeprof.errors import RecordError, ResourceExhausted, UsageError
from moeprof.records import Run
from moeprof.regression.values import Check
from moeprof.storage.atomic import write_atomically
from moeprof.storage.codec import decode, encode
from moeprof.storage.store import SUFFIX, load

FORMAT = "moeprof check"
SCHEMA_VERSION = 1
CHECK_FILE = "check.json"
MAX_JSON_BYTES = 64 * 2**20

SideName = Literal["baseline", "candidate"]


@dataclass(frozen=True, slots=True)
class CheckFolder:
    """Where the records of one check lie."""

    path: Path

    @property
    def scratch(self) -> Path:
        """Where a process under way writes; hidden, so that no reader takes it for finished."""
        return self.path / f".process-{os.getpid()}"

    def keep(self, record: Path, side: SideName) -> Path:
        """Take the finished ``record`` in as the next of ``side``; its new path."""
        folder = self.path / side
        folder.mkdir(exist_ok=True)
        kept = folder / f"{len(self.records(side)) + 1:03d}{SUFFIX}"
        os.replace(record, kept)
        return kept

    def records(self, side: SideName) -> tuple[Path, ...]:
        """The records of one side, in the order measured."""
        return tuple(sorted((self.path / side).glob(f"[0-9]*{SUFFIX}")))

    def discard_scratch(self) -> None:
        """Remove what a process left half-way; a folder without any record goes too."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()


def new_check_folder(traces: Path, solution: str, seq_len: int) -> CheckFolder:
    """A folder of its own under ``<traces>/checks``. solution: a name, or a file's path."""
    name = re.sub(r"[^A-Za-z0-9_.+-]", "_", Path(solution).stem if "/" in solution else solution)
    created = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    stem = f"{name.lstrip('.')}-T{seq_len}-{created}"
    try:
        for attempt in range(1, 1000):
            path = traces / "checks" / (f"{stem}-{attempt}" if attempt > 1 else stem)
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if not path.parent.is_dir():
                    raise
                continue
            return CheckFolder(path)
    except OSError as error:
        raise ResourceExhausted(
            f"{traces / 'checks'} cannot be written to: {error.strerror}",
            do="choose a --traces folder that you can write to",
        ) from None
    raise ResourceExhausted(f"{traces / 'checks'} holds 999 checks of {stem}", do="move some away")


# ---------------------------------------------------------------- records to judge


def runs_in(folder: Path) -> tuple[Run, ...]:
    """The runs to judge in ``folder``: a check's candidate side, else every record below it.

    In the order measured: by number in a check, by creation elsewhere. UsageError if there is none,
    or if they are not of one solution on one workload.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", "a folder of records")
    own = CheckFolder(folder).records("candidate")
    files = own or tuple(
        sorted(path for path in folder.rglob(f"*{SUFFIX}") if _shown(path, folder))
    )
    if not files:
        raise UsageError(f"there is no record in {folder}", f"files that end in {SUFFIX}")
    runs = [load(file) for file in files]
    if not own:
        runs.sort(key=lambda run: run.created)
    require_one_subject(runs, str(folder))
    return tuple(runs)


def _shown(path: Path, folder: Path) -> bool:
    """Whether no part of it below ``folder`` is hidden: hidden is what is being written."""
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def require_one_subject(runs: Sequence[Run], where: str) -> None:
    """Raise UsageError unless all ``runs`` are of one solution, workload and device."""
    for name, values in (
        ("solutions", {run.solution.name for run in runs}),
        ("versions of the solution's source", {run.solution.source_hash for run in runs}),
        ("workloads", {f"T={run.workload.seq_len} {run.workload.uuid[:8]}" for run in runs}),
        ("routings", {run.routing.histogram_hash for run in runs}),
        ("devices", {run.environment.device for run in runs}),
    ):
        if len(values) > 1:
            shown = ", ".join(sorted(value[:12] if len(value) == 64 else value for value in values))
            raise UsageError(
                f"{where} holds records of {len(values)} {name} ({shown})",
                "fresh processes of one solution on one workload",
                "name the folder of one of them",
            )


# ---------------------------------------------------------------- the verdict


def save_check(folder: CheckFolder, check: Check) -> None:
    """Put the verdict beside its records, over an earlier one of the same records."""
    document = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **encode(check)}
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(folder.path / CHECK_FILE, text.encode())


def load_check(path: Path) -> Check:
    """The verdict in a ``check.json``, or in the check's folder; RecordError names the file."""
    path = path / CHECK_FILE if path.is_dir() else path
    try:
        document = json.loads(_bytes_of(path))
        return decode(Check, _content(document))
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not JSON ({str(error):.80})", "a check") from None


def _bytes_of(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise RecordError(f"{path.stat().st_size} bytes", f"at most {MAX_JSON_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise RecordError(f"cannot be read ({error.strerror})") from None


def _content(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RecordError("this is JSON but no check", f"format {FORMAT!r}")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"schema_version is {version!r:.40}", f"{SCHEMA_VERSION}", "update moeprof"
        )
    return {k: v for k, v in document.items() if k not in ("format", "schema_version")}
