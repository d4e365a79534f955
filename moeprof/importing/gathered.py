"""What a reader of trace events has found so far, and the Trace that it becomes.

Events come one by one and are untrusted, so they go into rows of plain integers (40 bytes an event)
and what repeats is numbered.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

import numpy as np

from moeprof.errors import RecordError
from moeprof.importing.left_out import LeftOut
from moeprof.importing.names import printable
from moeprof.importing.trace import Gpu, Times, Trace, TraceSource
from moeprof.importing.trace_tables import (
    Track,
    call_table,
    operation_table,
    owners,
    range_table,
    threads,
)
from moeprof.timelines import Operation

MOST_EVENTS = 40_000_000  # kept ones: 1.6 GB while they are read
MOST_DISTINCT = 1_000_000  # names, shapes, threads: a server's graphs have some 100,000 nodes
MOST_NAME_CHARACTERS = 64 << 20

Value = TypeVar("Value", bound=Hashable)


class Rows:
    """Rows of ``width`` integers."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._values = array("q")
        self.add = self._values.extend

    def __len__(self) -> int:
        return len(self._values) // self._width

    def table(self) -> Times:
        """[n, width]; a view, so no row can be added while it is in use."""
        return np.frombuffer(self._values, dtype=np.int64).reshape(-1, self._width)


class Numbered(Generic[Value]):
    """Distinct values, numbered as they appear."""

    def __init__(self) -> None:
        self._number: dict[Value, int] = {}
        self._characters = 0

    def number(self, value: Value, characters: int = 0) -> int:
        """The number of ``value``; characters: how long the text in it is."""
        found = self._number.get(value)
        if found is None:
            found = self._number[value] = len(self._number)
            self._characters += characters
            if found >= MOST_DISTINCT or self._characters > MOST_NAME_CHARACTERS:
                raise RecordError(
                    "too many different names, shapes or threads",
                    f"at most {MOST_DISTINCT:,}",
                    "record fewer iterations",
                )
        return found

    @property
    def values(self) -> tuple[Value, ...]:
        """All of them, in order of their numbers."""
        return tuple(self._number)


class Gathered:
    """Events so far. ``left_out``: how many were not taken, by what they are and why."""

    def __init__(self) -> None:
        self._operations = Rows(6)  # start, end, correlation, description, GPU, its track or -1
        self._calls = Rows(5)  # start, end, correlation, track, name
        self._ranges = Rows(5)  # start, end, track, name, style
        self._overhead = Rows(2)
        self._descriptions: Numbered[Operation] = Numbered()
        self._call_names: Numbered[str] = Numbered()
        self._range_names: Numbered[tuple[str, str]] = Numbered()
        self.tracks: Numbered[Track] = Numbered()
        self.left_out = LeftOut()
        self._events = 0

    # -- events -----------------------------------------------------------------------------

    def track(self, process: object, thread: object) -> int | None:
        """The number of a track; None if it is not named by numbers or texts."""
        key: list[int | str] = []
        for part in (process, thread):
            if type(part) is int and abs(part) < 2**63:
                key.append(part)
            elif type(part) is str:
                key.append(part[:200])
            else:
                return None
        return self.tracks.number((key[0], key[1]))

    def description(self, operation: Operation) -> int:
        """The number of a description, for ``operation``."""
        return self._descriptions.number(operation, len(operation.name))

    def operation(
        self,
        span_ns: tuple[int, int],
        correlation: int,
        description: int,
        gpu: int,
        own_track: int = -1,
    ) -> None:
        """own_track: the event's, if the process that it names is the launching one."""
        self._count()
        self._operations.add((*span_ns, correlation, description, gpu, own_track))

    def call(self, span_ns: tuple[int, int], correlation: int, track: int, name: str) -> None:
        """A call of the CUDA runtime or driver."""
        self._count()
        self._calls.add((*span_ns, correlation, track, self._call_names.number(name, len(name))))

    def range(self, span_ns: tuple[int, int], track: int, name: str, style: int) -> None:
        """A range of host code; its end is -1 if it was never closed.

        moeprof names its own ``moeprof.X`` where a tool knows no domains.
        """
        self._count()
        domain, dot, text = name.partition(".")
        pair = ("moeprof", text) if domain == "moeprof" and dot and text else ("", name)
        number = self._range_names.number(pair, len(name))
        self._ranges.add((*span_ns, track, number, style))

    def overhead(self, span_ns: tuple[int, int]) -> None:
        """The profiler held the program up."""
        self._count()
        self._overhead.add(span_ns)

    def _count(self) -> None:
        self._events += 1
        check_count(self._events)

    # -- the trace --------------------------------------------------------------------------

    def trace(
        self, source: TraceSource, gpus: tuple[Gpu, ...], cuda: str, notes: Iterable[str]
    ) -> Trace:
        """All of it. Raises RecordError if there is no GPU operation."""
        if not len(self._operations):
            why = ", ".join(self.left_out.phrases())
            raise RecordError(
                "no GPU operation in it" + (f" (left out: {why})" if why else ""),
                "kernels, copies or memsets",
                "profile with GPU activities (ProfilerActivity.CUDA)",
            )
        owner = owners(self.tracks.values)
        calls, ranges = self._calls.table(), self._ranges.table()
        operations, doubts = operation_table(
            self._operations.table(), calls, ranges[:, 2], owner, self._descriptions.values
        )
        kept = call_table(calls, operations.correlation, self._call_names.values)
        used = np.unique(np.concatenate((kept.thread, ranges[:, 2]))).tolist()
        return Trace(
            source=source,
            operations=operations,
            calls=kept,
            ranges=range_table(ranges, self._range_names.values),
            gpus=gpus,
            threads=threads(self.tracks.values, owner, used),
            overhead_ns=self._overhead.table().copy(),
            notes=(*notes, *self.left_out.notes(), *doubts),
            cuda=cuda,
        )


def check_count(events: int) -> None:
    """Raise RecordError if so many events are more than is kept."""
    if events > MOST_EVENTS:
        raise RecordError("too many events", f"at most {MOST_EVENTS:,}", "record fewer iterations")


def text_of(name: object) -> str | None:
    """The name of an event fit to be printed, None if it has none."""
    return printable(name) if type(name) is str and name else None
