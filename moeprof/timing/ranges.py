"""NVTX ranges in the domain ``moeprof``: one an iteration, one a stage, for any attached tool.

Push/pop ranges with registered strings, since start/end ranges are not attributed by stack tools
and an unregistered string cannot trigger a capture. Category 1 is 'iteration', 2 is 'stage'; the
payload is the number of tokens for an iteration and the stage's position for a stage. Without an
attached tool a push and pop costs about 0.4 us here, so no unprofiled pass makes ranges.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DOMAIN = "moeprof"


class Ranges:
    """Ranges for the stages of one solution."""

    def __init__(self, stages: tuple[str, ...], seq_len: int) -> None:
        import nvtx

        self._domain = nvtx.get_domain(DOMAIN)
        self._iteration = self._attributes("iteration", "iteration", seq_len)
        self._stages = [
            self._attributes(stage, "stage", position) for position, stage in enumerate(stages)
        ]

    def _attributes(self, message: str, category: str, payload: int) -> Any:
        return self._domain.get_event_attributes(
            message=message, category=category, payload=payload
        )

    def enter(self, position: int) -> None:
        """Open the range of stage ``position``."""
        self._domain.push_range(self._stages[position])

    def leave(self, position: int) -> None:
        """Close the range of stage ``position``."""
        self._domain.pop_range()

    @contextmanager
    def iteration(self) -> Iterator[None]:
        """The range of one whole forward."""
        self._domain.push_range(self._iteration)
        try:
            yield
        finally:
            self._domain.pop_range()
