"""What an exception of somebody's code says, as one line that may be shown and recorded."""

from __future__ import annotations

import re

from moeprof.importing.names import printable

LONGEST = 240
# the folders of an absolute path: they name users and machines
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/'\":,;()<>]+/)+")


def said(error: BaseException) -> str:
    """'ValueError: the message', without folders and control characters, at most 240 characters.

    Of a message of several lines the first; where it ends with a colon (a compiler's place), the
    last as well, which is the reason.
    """
    if isinstance(error, SystemExit):
        return f"SystemExit (sys.exit({printable(str(error.code), 40)}))"
    try:
        text = str(error)
    except Exception:  # foreign __str__
        text = ""
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    kept = lines[:1]
    if len(lines) > 1 and lines[0].endswith(":"):
        kept.append(lines[-1])
    message = _FOLDERS.sub("", " ".join(kept))
    name = type(error).__name__
    return printable(f"{name}: {message}" if message else name, LONGEST)
