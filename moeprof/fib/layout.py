"""Where FlashInfer-Bench looks for what, below the root of a dataset."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from moeprof.errors import UsageError
from moeprof.problem.operation import OP_TYPE

# every JSON file below these but blob is parsed when a dataset is loaded, whatever its name
FOLDERS = ("definitions", "workloads", "solutions", "traces", "blob")


def definition_path(definition: str) -> PurePosixPath:
    return PurePosixPath("definitions", OP_TYPE, f"{definition}.json")


def workloads_path(definition: str) -> PurePosixPath:
    return PurePosixPath("workloads", OP_TYPE, f"{definition}.jsonl")


def blob_path(definition: str, uuid: str) -> PurePosixPath:
    name = f"{definition}_{uuid.replace('-', '')}.safetensors"
    return PurePosixPath("blob", "workloads", OP_TYPE, definition, name)


def solution_path(author: str, definition: str, solution: str) -> PurePosixPath:
    return PurePosixPath("solutions", author, OP_TYPE, definition, f"{solution}.json")


def check_segment(text: str, what: str) -> None:
    """Raise UsageError unless ``text`` can be the name of a folder or file there."""
    if not text.strip() or text != text.strip() or text in (".", "..") or not text.isprintable():
        raise UsageError(f"{what} {text!r} cannot be the name of a folder", "letters and digits")
    if "/" in text or "\\" in text:
        raise UsageError(f"{what} {text!r} holds a slash", "one name, not a path")


def is_dataset(root: Path) -> bool:
    """Whether any of a dataset's folders is there."""
    return any((root / folder).is_dir() for folder in FOLDERS)
