"""Values out of parsed JSON by type, each refusal one line that names file, key and what is there.

FlashInfer-Bench's own models ignore keys they do not know; so do readers built on this.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from moeprof.errors import UsageError

Value = TypeVar("Value")

_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}
_ANY = object()


def read_text(path: Path) -> str:
    """The text of a file; UsageError in one line if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}") from error


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text; UsageError in one line if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON: {error}", do="restore the file") from error


def required(container: Any, key: str, kind: type[Value], where: str) -> Value:
    """``container[key]`` of type ``kind``; bool is no int here, an int is a float."""
    value = container.get(key, _ANY) if isinstance(container, dict) else _ANY
    if value is _ANY:
        raise UsageError(f"{where} has no {key!r}", _NAMES[kind])
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)  # type: ignore[return-value]
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise UsageError(f"{where} has {key} = {json.dumps(value)[:60]}", _NAMES[kind])
    return value


def optional(
    container: Any, key: str, kind: type[Value], default: Value, where: str, null: bool = False
) -> Value:
    """The same, or ``default`` where the key is absent, or null where ``null`` may stand for it."""
    if isinstance(container, dict):
        if key not in container or (null and container[key] is None):
            return default
    return required(container, key, kind, where)


def name_of(container: Any, key: str, where: str) -> str:
    """A text that is not empty."""
    value = required(container, key, str, where)
    if not value:
        raise UsageError(f"{where} has an empty {key}", "a text")
    return value


def texts(container: Any, key: str, where: str, empty: bool = False) -> tuple[str, ...]:
    """A list of texts, none of them empty unless ``empty``; an absent key is an empty list."""
    found = optional(container, key, list, [], where)
    for item in found:
        if not isinstance(item, str) or not (item or empty):
            raise UsageError(f"{where} has {json.dumps(item)[:60]} in {key}", "texts")
    return tuple(found)
