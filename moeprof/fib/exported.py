"""What an exported solution carries besides its stages; every export holds a copy of this file.

FlashInfer-Bench calls a solution with clones of the weights and with outputs that hold anything,
one shape after another in one process. So nothing here outlives a call but scratch memory, and
that of one shape only. Imports ``contract`` alone, which is copied as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from moeprof.contract import Buffers, Solution


def functions_of(solution: Solution, names: Sequence[str]) -> tuple[Callable[..., Any], ...]:
    """The bare functions of the solution's stages, which must be called ``names``.

    ImportError where this machine gives the solution other stages than the ones exported, or where
    a stage on a GPU would get a torch twin in place of its library: right, and no measurement.
    """
    from torch import cuda

    found = tuple(stage.name for stage in solution.stages)
    if found != tuple(names):
        raise ImportError(
            f"{solution.name} has the stages {', '.join(found)} on this machine and was exported "
            f"with {', '.join(names)}: export it here again"
        )
    if cuda.is_available():
        for library in solution.stand_ins:
            raise ImportError(
                f"{solution.name} needs {library.name}, which cannot be used here: "
                f"{library.stand_in}"
            )
    return tuple(stage.function for stage in solution.stages)


class CallBuffers(Buffers):
    """Buffers of which nothing is a function of a weight tensor: clones come and go."""

    __slots__ = ()

    def once(self, name: str, source: Any, make: Callable[[Any], Any]) -> Any:
        """``make(source)`` at every call."""
        return make(source)


class Scratch:
    """Where the stages of one call get their memory from: one forward at a time, on one stream.

    With ``keep``, memory is kept while calls have one number of tokens and one device, and given
    back to torch when either changes: a process that sees many shapes holds what one of them needs.
    """

    __slots__ = ("_buffers", "_device", "_keep", "_tokens")

    def __init__(self, keep: bool) -> None:
        self._keep = keep
        self._tokens: int | None = None
        self._device: Any = None
        self._buffers = CallBuffers(keep=False)

    def of(self, tokens: int, device: Any) -> CallBuffers:
        """The buffers for a call with so many tokens on ``device``."""
        if self._keep and (tokens != self._tokens or device != self._device):
            self._buffers = CallBuffers(keep=True)
            self._tokens, self._device = tokens, device
        return self._buffers
