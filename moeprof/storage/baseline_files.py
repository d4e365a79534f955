"""The files of one baseline's folder: its index, and its records held to their hashes.

Every damage is one line that names the file. Whole folders, their names and their locks are
``baselines``' business.

Records are trimmed to what a check reads: the 12 of triton_v2 at T = 56 on an H200 take 0.2 MB.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moeprof.errors import RecordError
from moeprof.records import Run
from moeprof.regression.values import Baseline, BaselineFile
from moeprof.storage.atomic import write_atomically
from moeprof.storage.codec import decode, encode
from moeprof.storage.store import SUFFIX, load, to_json

FORMAT = "moeprof baseline"
SCHEMA_VERSION = 1
BASELINE_FILE = "baseline.json"
MAX_JSON_BYTES = 2**20

# what a check reads of a record: the others cost space in git and say nothing to it
PASSES_READ = ("bare", "events", "stages")
TIMELINES_READ = ("kernels", "api")

_RECORD_AGAIN = "git checkout it, or record the baseline again"


# ---------------------------------------------------------------- reading


def verify(folder: Path) -> Baseline:
    """The baseline in ``folder``, its records held to their hashes but not read."""
    baseline = read_index(folder)
    for file in baseline.runs:
        _verified_bytes(folder / file.file, file.sha256)
    return baseline


def read_index(folder: Path) -> Baseline:
    """What ``folder``'s baseline.json says; its records are not looked at."""
    path = folder / BASELINE_FILE
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise RecordError(f"{path.stat().st_size} bytes", f"at most {MAX_JSON_BYTES}")
        baseline = decode(Baseline, _content(json.loads(path.read_bytes())))
        for file in baseline.runs:
            if Path(file.file).name != file.file or file.file.startswith("."):
                raise RecordError(f"runs names {file.file!r}", "a file of the baseline's folder")
        if not baseline.runs:
            raise RecordError("runs is empty", "at least one record")
        return baseline
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None
    except OSError as error:
        found = f"{path} cannot be read ({error.strerror})"
        raise RecordError(found, "a baseline", _RECORD_AGAIN) from None
    except (ValueError, RecursionError) as error:
        found = f"{path}: not JSON ({str(error):.80})"
        raise RecordError(found, "a baseline", _RECORD_AGAIN) from None


def _content(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RecordError("this is JSON but no baseline", f"format {FORMAT!r}")
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"schema_version is {version!r:.40}", f"{SCHEMA_VERSION}", "update moeprof"
        )
    return {k: v for k, v in document.items() if k not in ("format", "schema_version")}


def read_record(path: Path, sha256: str) -> Run:
    """One record, whose bytes must have that hash."""
    _verified_bytes(path, sha256)
    return load(path)


def _verified_bytes(path: Path, sha256: str) -> None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{path} is missing", "it is in baseline.json", _RECORD_AGAIN) from None
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror})", do=_RECORD_AGAIN) from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise RecordError(
            f"{path} was changed since it was recorded: its sha256 is {found[:12]}",
            f"{sha256[:12]}",
            _RECORD_AGAIN,
        )


def require_own(baseline: Baseline, run: Run, path: Path) -> None:
    """Raise RecordError if a hand-edited baseline.json claims other runs than it has."""
    for name, said, found in (
        ("solution", baseline.solution, run.solution.name),
        ("source", baseline.source_hash, run.solution.source_hash),
        ("workload", baseline.workload, run.workload),
        ("routing", baseline.routing_hash, run.routing.histogram_hash),
        ("device", baseline.device, run.environment.device),
    ):
        if said != found:
            folder = path.parent
            found_text = f"{folder / BASELINE_FILE} names another {name} than {path.name} holds"
            raise RecordError(found_text, do=_RECORD_AGAIN)


# ---------------------------------------------------------------- writing


def trimmed(run: Run) -> Run:
    """``run`` without what no check reads: other passes, the graph's timeline, counters."""
    return dataclasses.replace(
        run,
        passes=tuple(p for p in run.passes if p.name in PASSES_READ),
        timelines=tuple(t for t in run.timelines if t.name in TIMELINES_READ),
        kernel_metrics=(),
    )


def write_files(draft: Path, baseline: Baseline, runs: Sequence[Run]) -> None:
    """Write the records, then the index, into the folder ``draft``; each file whole."""
    files = []
    for number, run in enumerate(runs, start=1):
        content = _record_bytes(run)
        file = BaselineFile(f"{number:03d}{SUFFIX}", hashlib.sha256(content).hexdigest())
        write_atomically(draft / file.file, content)
        files.append(file)
    document = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        **encode(dataclasses.replace(baseline, runs=tuple(files))),
    }
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(draft / BASELINE_FILE, text.encode())


def _record_bytes(run: Run) -> bytes:
    document = to_json(trimmed(run))
    text = json.dumps(document, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return gzip.compress(text.encode(), mtime=0)
