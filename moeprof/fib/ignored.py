"""The keys of FlashInfer-Bench 0.1.2's files, and which keys of a file are none of them.

Its loader drops what it does not know without a word, here they are named. A shape is a mapping of
keys, ``{ANY: shape}`` where keys are free, ``[shape]`` for a list; None takes anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moeprof.importing.names import printable

ANY = "*"
_TENSORS = {ANY: {"shape": None, "dtype": None, "description": None}}

SOLUTION: dict[str, Any] = {
    **dict.fromkeys(("name", "definition", "author", "description")),
    "spec": dict.fromkeys(
        (
            *("language", "target_hardware", "entry_point", "dependencies"),
            *("destination_passing_style", "binding"),
        )
    ),
    "sources": [{"path": None, "content": None}],
}
DEFINITION: dict[str, Any] = {
    **dict.fromkeys(("name", "op_type", "reference", "tags", "description", "constraints")),
    "axes": {ANY: {"type": None, "value": None, "description": None}},
    "inputs": _TENSORS,
    "outputs": _TENSORS,
}
TRACE: dict[str, Any] = {
    "definition": None,
    "solution": None,
    "workload": {
        "axes": None,
        "uuid": None,
        "inputs": {ANY: dict.fromkeys(("type", "value", "path", "tensor_key"))},
    },
    "evaluation": {
        **dict.fromkeys(("status", "timestamp", "log")),
        "environment": {"hardware": None, "libs": None},
        "correctness": dict.fromkeys(("max_relative_error", "max_absolute_error", "extra")),
        "performance": dict.fromkeys(("latency_ms", "reference_latency_ms", "speedup_factor")),
    },
}


def ignored_keys(document: Any, shape: Any, place: str = "") -> Iterator[str]:
    """Paths such as 'performance.stages' of what the loader would drop; free keys read '*'."""
    if isinstance(shape, list):
        for item in document if isinstance(document, list) else ():
            yield from ignored_keys(item, shape[0], f"{place}[]")
        return
    if not isinstance(shape, dict) or not isinstance(document, dict):
        return
    for key, value in document.items():
        free = ANY in shape
        inner = f"{place}.{ANY if free else printable(key, 60)}".lstrip(".")
        if free or key in shape:
            yield from ignored_keys(value, shape[ANY if free else key], inner)
        else:
            yield inner
