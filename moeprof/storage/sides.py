"""Whose code the sides of a check ran: ``sides.json`` beside its records, which do not tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from moeprof.errors import RecordError
from moeprof.history.values import CodeLabel, Side
from moeprof.storage.atomic import write_atomically
from moeprof.storage.checks import CheckFolder
from moeprof.storage.codec import decode, encode

SIDES_FILE = "sides.json"
MAX_JSON_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class _Sides:
    baseline: CodeLabel | None = None
    candidate: CodeLabel | None = None


def save_sides(folder: CheckFolder, sides: Mapping[Side, CodeLabel]) -> None:
    """Put the labels beside the records of the check."""
    kept = _Sides(sides.get("baseline"), sides.get("candidate"))
    text = json.dumps(encode(kept), indent=1) + "\n"
    write_atomically(folder.path / SIDES_FILE, text.encode())


def load_sides(folder: CheckFolder) -> dict[Side, CodeLabel]:
    """The labels; none where they were not kept. RecordError names a file that is damaged."""
    path = folder.path / SIDES_FILE
    try:
        if not path.is_file() or path.stat().st_size > MAX_JSON_BYTES:
            return {}
        kept = decode(_Sides, json.loads(path.read_bytes()))
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror})") from None
    except (RecordError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: {str(error):.120}", "the labels of a check") from None
    sides: dict[Side, CodeLabel | None] = {"baseline": kept.baseline, "candidate": kept.candidate}
    return {side: label for side, label in sides.items() if label is not None}
