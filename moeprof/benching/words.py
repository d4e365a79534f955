"""Sentences of a bench that end up on disk: without the machine's paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_PLACES: Mapping[str, str] = MappingProxyType(
    {"rest": "while its power was tried", "again": "in the check after the passes"}
)

_PATH = re.compile(r"(?<![\w.])~?(?:/[^\s/'\",:;()]+)+/(?=[^\s/'\",:;()]+)")


def place(turn: str) -> str:
    """Where a turn is, as the end of a sentence."""
    return _PLACES.get(turn, f"in pass {turn}")


def without_paths(text: str) -> str:
    """``text`` on one line, each absolute path cut down to its last part."""
    return " ".join(_PATH.sub("", text).split())
