"""Sentences of a bench that end up on disk: without the machine's paths."""

from __future__ import annotations

import re

_PATH = re.compile(r"(?<![\w.])~?(?:/[^\s/'\",:;()]+)+/(?=[^\s/'\",:;()]+)")


def without_paths(text: str) -> str:
    """``text`` on one line, each absolute path cut down to its last part."""
    return " ".join(_PATH.sub("", text).split())
