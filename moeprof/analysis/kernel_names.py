"""The name of a kernel as a person says it, and as it is the same in every profiler's capture.

CUPTI, Nsight Systems and PyTorch spell one kernel's template arguments, parameters and unnamed
namespaces in three ways, and leave long names mangled. What they agree on is the qualified name of
the function, and for certain its last part.
"""

from __future__ import annotations

import re
from functools import lru_cache

from moeprof.ledger.mangled import demangled

UNNAMED = re.compile(r"\(anonymous namespace\)|<unnamed>|\{anonymous\}|_GLOBAL__N_\w*")
PIECE = re.compile(r"[0-9]{1,5}(?![0-9])")  # length of a name


@lru_cache(maxsize=4096)
def qualified_name(name: str) -> str:
    """``name`` without return type, template arguments and parameters; as it is if not C++."""
    text = demangled(name) or _prefix(name)
    return _bare(UNNAMED.sub("unnamed", text)) or name


def own_name(name: str) -> str:
    """The function's name without its namespaces."""
    return qualified_name(name).rsplit("::", 1)[-1]


def _bare(text: str) -> str:
    """What stands outside any <> up to the first parameter list, without what precedes it."""
    kept: list[str] = []
    depth = 0
    for character in text:
        if character == "<":
            depth += 1
        elif character == ">":
            depth = max(0, depth - 1)
        elif depth == 0 and character == "(":
            break
        elif depth == 0:
            kept.append(character)
    words = "".join(kept).split()
    return words[-1] if words else ""


def _prefix(name: str) -> str:
    """The nested name that a mangled name begins with; ``name`` where it begins with none."""
    if not name.startswith("_Z"):
        return name
    at = len("_ZN") if name.startswith("_ZN") else len("_Z")
    parts: list[str] = []
    while (found := PIECE.match(name, at)) is not None:
        begin = found.end()
        at = begin + int(found.group())
        parts.append(name[begin:at])
        if not name.startswith("_ZN"):
            break
    return "::".join(parts) or name
