"""Every error a user can cause, each with the exit code it ends the command with.

    MoeprofError                 2  base: one line: what was found, expected, what to do
    ├── UsageError               2  an argument that cannot be meant (unknown name, T of 0)
    ├── EnvironmentMissing       2  this machine lacks what was asked for (GPU, library, CUPTI)
    ├── RecordError              2  a record file that is truncated, foreign, newer or hand-edited
    ├── ContractError            2  a solution file whose stages cannot be wired together
    ├── ResourceExhausted        2  out of GPU memory, disk full
    └── WrongResult              1  the solution ran and its result is not the definition's

Anything that is not a MoeprofError is a bug in moeprof and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_WRONG_RESULT = 1
EXIT_USAGE = 2
EXIT_INCOMPLETE = 4  # a bench of which some cells could not be measured
EXIT_INTERRUPTED = 130


class MoeprofError(Exception):
    """Base of all errors that are the user's to resolve. ``str(error)`` is one line."""

    exit_code = EXIT_USAGE

    def __init__(self, found: str, expected: str = "", do: str = "") -> None:
        parts = [found.rstrip(". ")]
        if expected:
            parts.append(f"expected {expected}".rstrip(". "))
        if do:
            parts.append(do.rstrip(". "))
        super().__init__(" ".join("; ".join(parts).split()))


class UsageError(MoeprofError):
    """An argument or input file that cannot be meant."""


class EnvironmentMissing(MoeprofError):
    """The machine lacks something that the command needs."""


class RecordError(MoeprofError):
    """A record that cannot be read as one."""


class ContractError(MoeprofError):
    """A solution or stage that breaks the contract of ``moeprof.contract``."""


class ResourceExhausted(MoeprofError):
    """Memory or disk ran out."""


class WrongResult(MoeprofError):
    """A solution ran to its end and produced something other than the definition asks for."""

    exit_code = EXIT_WRONG_RESULT


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch says that the GPU's memory is full; by name, as torch is not imported here."""
    return type(error).__name__ == "OutOfMemoryError"


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """The known names closest to ``name``, as a phrase for an error message."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=limit, cutoff=0.4)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "known: " + (", ".join(choices) if choices else "none")
