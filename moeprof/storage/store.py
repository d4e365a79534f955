"""Every byte of records on disk: names, schema versions, reading, writing, finding.

    <traces>/runs/<solution>/<definition>/T<seq_len>-<uuid, 8 digits>-<created>.json.gz

A record of another profiler's capture has a folder of its own, <definition>@<tool>: it cannot stand
in for what moeprof measured itself, and is looked up only if its definition is asked for so.
A record is written whole or not at all, and never over another. Reading trusts nothing: any file
that is not a record ends in one RecordError line. What a record means is ``records``' business;
definitions and workloads are read by ``dataset``.

Schema versions:
    1  first version
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from moeprof.errors import RecordError
from moeprof.records import SCHEMA_VERSION, Run
from moeprof.storage.atomic import write_atomically
from moeprof.storage.codec import decode, encode

FORMAT = "moeprof run"
SUFFIX = ".json.gz"
OF_CAPTURE = "@"  # between a definition and the profiler that a capture is of
MAX_FILE_BYTES = 64 * 2**20  # 1000 times a usual record
MAX_JSON_BYTES = 512 * 2**20

# schema version n -> the function that turns such a document into one of version n + 1
UPGRADES: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = MappingProxyType({})

_NAME = re.compile(r"T(?P<seq_len>\d+)-(?P<uuid>[^-]+)-(?P<created>\w+?)(-\d+)?\.json(\.gz)?")
_HEAD = re.compile(rb'\s*\{\s*"format"\s*:\s*"moeprof run"')
_RUN_AGAIN = "run the solution again"


# ---------------------------------------------------------------- document


def to_json(run: Run) -> dict[str, Any]:
    """The document of a run: format and schema version first, then its fields."""
    return {"format": FORMAT, "schema_version": run.schema_version, **encode(run)}


def from_json(document: Any) -> Run:
    """The run of a document of this or an older schema version."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RecordError("this is JSON but no moeprof record", f"format {FORMAT!r}")
    version = document.get("schema_version")
    if type(version) is not int or version < 1:
        raise RecordError(f"schema_version is {version!r:.40}", "a positive integer", _RUN_AGAIN)
    if version > SCHEMA_VERSION:
        raise RecordError(
            f"schema_version {version} is newer than this moeprof",
            f"at most {SCHEMA_VERSION}",
            "update moeprof",
        )
    for step in range(version, SCHEMA_VERSION):
        document = UPGRADES[step](document)
    return decode(Run, {key: value for key, value in document.items() if key != "format"})


# ---------------------------------------------------------------- reading


def load(path: Path | str) -> Run:
    """The run in a ``.json.gz`` or ``.json`` file, told apart by content; errors name the file."""
    path = Path(path)
    try:
        document = json.loads(_read_text(path), parse_constant=_refuse_constant)
        return from_json(document)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RecordError(f"{path}: not JSON ({reason:.80})", "a moeprof record") from None


def is_record(path: Path) -> bool:
    """Whether ``path`` begins as a record does, damaged or not: other tools write JSON too."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    if head[:2] == b"\x1f\x8b":
        with contextlib.suppress(zlib.error):
            head = zlib.decompressobj(wbits=31).decompress(head, 4096)
    return _HEAD.match(head) is not None


def _read_text(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RecordError("not a regular file", f"a record ({SUFFIX})")
            if status.st_size > MAX_FILE_BYTES:
                raise RecordError(f"{status.st_size} bytes", f"a record, at most {MAX_FILE_BYTES}")
            content = file.read(MAX_FILE_BYTES + 1)
    except IsADirectoryError:
        raise RecordError("a folder", f"a record ({SUFFIX})", "name a file in it") from None
    except OSError as error:
        raise RecordError(f"cannot be read ({error.strerror})") from None
    if not content:
        raise RecordError("the file is empty", "a record", _RUN_AGAIN)
    return _inflate(content) if content[:2] == b"\x1f\x8b" else content


def _inflate(content: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            text = file.read(MAX_JSON_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RecordError(f"damaged or cut short ({error})", "a whole file", _RUN_AGAIN) from None
    if len(text) > MAX_JSON_BYTES:
        raise RecordError("inflates without end", f"at most {MAX_JSON_BYTES} bytes of JSON")
    return text


def _refuse_constant(name: str) -> float:
    raise RecordError(f"it holds {name}", "finite numbers", _RUN_AGAIN)


# ---------------------------------------------------------------- writing


def save(run: Run, folder: Path, definition: str | None = None) -> Path:
    """Write ``run`` under ``folder`` (usually ``<traces>/runs``) and return the new file's path.

    definition: the short name used as folder, by default the definition's own.
    """
    parent = folder / plain(run.solution.name) / definition_folder(run, definition)
    created = re.sub(r"[^0-9TZ]", "", run.created.split(".")[0].split("+")[0]).rstrip("Z") + "Z"
    stem = f"T{run.workload.seq_len}-{plain(run.workload.uuid)[:8]}-{created}"
    content = _content(run)
    for attempt in range(1, 1000):
        path = parent / f"{stem}{f'-{attempt}' if attempt > 1 else ''}{SUFFIX}"
        with contextlib.suppress(FileExistsError):
            write_atomically(path, content, replace=False)
            return path
    raise RecordError(f"{parent} holds 999 records of {stem}", do="move some of them away")


def write(run: Run, path: Path, replace: bool = False) -> None:
    """Write ``run`` to ``path`` itself. FileExistsError if it is there and ``replace`` is False."""
    write_atomically(path, _content(run), replace=replace)


def definition_folder(run: Run, definition: str | None = None) -> str:
    """The folder's name of a record's definition, or of ``definition``, its short name."""
    name = plain(definition or run.workload.definition)
    if run.capture is None or not run.workload.has_definition:
        return name
    return f"{name}{OF_CAPTURE}{plain(run.capture.tool.lower())}"


def _content(run: Run) -> bytes:
    text = json.dumps(to_json(run), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return gzip.compress(text.encode(), mtime=0)


def check_writable(folder: Path) -> None:
    """Fail now rather than after measuring: ResourceExhausted if no record could be put there."""
    probe = folder / f".writable-{os.getpid()}"
    write_atomically(probe, b"")
    probe.unlink()


def plain(name: str) -> str:
    """``name`` as one path component: no separators, no leading dot, no dash (it divides names)."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", name).lstrip(".") or "_"


# ---------------------------------------------------------------- finding


@dataclass(frozen=True, slots=True)
class RunFile:
    """A record by its name alone, unopened."""

    path: Path
    solution: str
    definition: str
    seq_len: int
    uuid: str  # its first 8 digits
    created: str  # 20260131T125959Z


def find_runs(
    folder: Path,
    solution: str | None = None,
    definition: str | None = None,
    seq_len: int | None = None,
    uuid_prefix: str | None = None,
) -> tuple[RunFile, ...]:
    """The records under ``folder`` that match, oldest first. A folder that does not exist has none.

    definition: the folder's name, which is the definition's alias where it has one.
    """
    return tuple(
        sorted(
            (
                run
                for run in _run_files(folder)
                if (solution is None or run.solution == plain(solution))
                and (definition is None or run.definition in (definition, plain(definition)))
                and (seq_len is None or run.seq_len == seq_len)
                and (uuid_prefix is None or run.uuid.startswith(uuid_prefix[:8]))
            ),
            key=lambda run: (run.created, run.path),
        )
    )


def _run_files(folder: Path) -> Iterator[RunFile]:
    for path in folder.glob("*/*/T*.json*"):
        match = _NAME.fullmatch(path.name)
        if match:
            yield RunFile(
                path=path,
                solution=path.parts[-3],
                definition=path.parts[-2],
                seq_len=int(match["seq_len"]),
                uuid=match["uuid"],
                created=match["created"],
            )


# ---------------------------------------------------------------- scrubbing


def leaks(text: str, forbidden: Iterable[str]) -> tuple[str, ...]:
    """Which of ``forbidden`` (user, host, home, values of variables) ``text`` holds as whole words.

    Strings of fewer than 4 characters are ignored: they occur in any text.
    """
    return tuple(
        word
        for word in dict.fromkeys(forbidden)
        if len(word) >= 4 and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)
    )
