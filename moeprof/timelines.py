"""What CUPTI saw of a forward: its operations, their launches, other API calls, per iteration.

All times are integer nanoseconds from the iteration's host entry, so that identities can close
exactly. Part of the record (``records.Run.timelines``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moeprof.errors import RecordError

OperationKind = Literal["kernel", "memcpy", "memset"]

# calls that launch nothing are kept if they can block the host or took long enough to matter
NOTABLE_NS = 2_000
NOTABLE_NAMES = ("Synchronize", "Malloc", "Free", "Alloc", "StreamWait")


def require(condition: bool, found: str, expected: str) -> None:
    """Raise RecordError unless ``condition``: the value cannot be what was recorded."""
    if not condition:
        raise RecordError(found, expected, "the record is damaged or was edited: run again")


@dataclass(frozen=True, slots=True)
class Operation:
    """One GPU operation of a forward. ``stage``: whose launch call made it ('' if none)."""

    name: str
    kind: OperationKind
    stage: str
    stream: int
    launch: str = ""  # name of the API call that launched it
    grid: tuple[int, int, int] | None = None
    block: tuple[int, int, int] | None = None
    registers: int | None = None
    shared_bytes: int | None = None
    bytes: int | None = None
    graph_node: int | None = None


@dataclass(frozen=True, slots=True)
class ApiCall:
    """A CUDA API call that launched nothing (synchronise, malloc, event record, ...)."""

    name: str
    begin_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class Iteration:
    """One iteration under CUPTI; element i of each tuple is operation i of ``operation_set``.

    All times in ns from host entry on one clock. launch_*: the launching API call, -1 where API
    records were off. stage_begin_ns/stage_end_ns: host clock at stage boundaries (api pass).
    """

    operation_set: int
    start_ns: tuple[int, ...]
    end_ns: tuple[int, ...]
    launch_begin_ns: tuple[int, ...] = ()
    launch_end_ns: tuple[int, ...] = ()
    stage_begin_ns: tuple[int, ...] = ()
    stage_end_ns: tuple[int, ...] = ()
    exit_ns: int = -1
    calls: tuple[ApiCall, ...] = ()
    dropped: int = 0

    @property
    def span_ns(self) -> int:
        """From the first start to the last end of the operations that were timed; 0 without any."""
        starts_ns = self.start_ns
        if min(self.end_ns, default=0) <= 0:  # some were not timed
            timed = zip(self.start_ns, self.end_ns, strict=True)
            starts_ns = tuple(start_ns for start_ns, end_ns in timed if end_ns > 0)
        return max(self.end_ns, default=0) - min(starts_ns, default=0)

    def __post_init__(self) -> None:
        require(len(self.start_ns) == len(self.end_ns), "starts and ends differ in number", "pairs")
        require(
            len(self.launch_begin_ns) == len(self.launch_end_ns) in (0, len(self.start_ns)),
            "launch calls and operations differ in number",
            "one launch call an operation",
        )


@dataclass(frozen=True, slots=True)
class TimelinePass:
    """The operations of every iteration of a CUPTI pass ('kernels' or 'api').

    operation_sets: the distinct lists of operations seen, in order of operation start; more than
    one means that iterations launched different kernels, which reports must say.
    """

    name: str
    operation_sets: tuple[tuple[Operation, ...], ...] = ()
    iterations: tuple[Iteration, ...] = ()
    unavailable: str | None = None

    def __post_init__(self) -> None:
        for iteration in self.iterations:
            size = len(self.operation_sets)
            require(iteration.operation_set < size, "an iteration of an unknown set", f"< {size}")
            count = len(self.operation_sets[iteration.operation_set])
            require(len(iteration.start_ns) == count, "times and operations differ", f"{count}")
