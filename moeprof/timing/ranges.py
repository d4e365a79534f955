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

from moeprof.errors import UsageError
from moeprof.scopes import LISTENER

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


class ScopeRanges:
    """Listens to stage scopes and opens a range for each."""

    def __init__(self) -> None:
        import nvtx

        self._domain = nvtx.get_domain(DOMAIN)
        self._attributes: dict[str, Any] = {}

    def enter(self, name: str) -> None:
        attributes = self._attributes.get(name)
        if attributes is None:
            attributes = self._domain.get_event_attributes(message=name, category="stage")
            self._attributes[name] = attributes
        self._domain.push_range(attributes)

    def leave(self, name: str) -> None:
        self._domain.pop_range()


def enable_ranges(enabled: bool = True) -> None:
    """Open an NVTX range for every ``moeprof.stage`` entered from now on, or stop doing so.

    For a profiler of another maker that is attached (Nsight Systems); without one a scope costs
    0.2 us more than one that is off. Holds for the calling thread: call it in each thread that
    runs stages. ``moeprof.profile`` opens its own ranges, in the pass that records API calls.
    """
    listener = LISTENER.get()
    if listener is not None and not isinstance(listener, ScopeRanges):
        raise UsageError(
            "enable_ranges was called inside the callable that moeprof.profile measures",
            do="call it before, or not at all: the api pass opens ranges itself",
        )
    LISTENER.set(ScopeRanges() if enabled else None)
