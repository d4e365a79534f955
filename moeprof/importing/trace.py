"""What any profiler's capture holds, as columns: the one value between readers and the rest.

A reader (``nsys_sqlite``, ``nsys_parquet``, ``kineto``) fills a Trace; whose work it is, which
iteration it belongs to and which stage launched it are other modules' questions. Columns are numpy
arrays, and what repeats (a kernel's name and shape, an API call's name) is stored once, so that a
capture of millions of operations fits in memory: 28 bytes an operation, 24 a call.

Times are integer nanoseconds on the capture's own clock, which starts anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moeprof.timelines import Operation

Times = NDArray[np.int64]
Numbers = NDArray[np.int32]

PUSH_POP, START_END = 0, 1  # RangeTable.style


@dataclass(frozen=True, slots=True, eq=False)
class OperationTable:
    """GPU operations [N], in order of start.

    description[n] indexes ``descriptions``: stage and launch of those are '' here. correlation: of
    the API call that launched it, -1 if unknown. place[n] indexes ``places``, pairs of process id
    and GPU number: one place is one process's work on one GPU.
    """

    start_ns: Times
    end_ns: Times
    correlation: Times
    description: Numbers
    place: Numbers
    descriptions: tuple[Operation, ...]
    places: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.start_ns)


@dataclass(frozen=True, slots=True, eq=False)
class CallTable:
    """CUDA runtime and driver API calls [M], in order of start.

    thread: a number for each (process, thread) of the capture, the same as in ``RangeTable``.
    name[m] indexes ``names``. Versioned suffixes (``_v3020``) are the reader's to remove.
    """

    start_ns: Times
    end_ns: Times
    correlation: Times
    thread: Times
    name: Numbers
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.start_ns)


@dataclass(frozen=True, slots=True, eq=False)
class RangeTable:
    """Annotated ranges of host code [K] (NVTX, record_function), in order of start.

    end_ns: -1 for a range that was never closed. thread: -1 for one that ended on another thread
    than it started on, as START_END ranges may. name[k] indexes ``names``, each a pair of domain
    ('' for the default one) and text. style[k]: PUSH_POP (one thread, nested) or START_END.
    """

    start_ns: Times
    end_ns: Times
    thread: Times
    name: Numbers
    style: NDArray[np.int8]
    names: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.start_ns)


@dataclass(frozen=True, slots=True)
class TraceSource:
    """Where a trace comes from. ``tool``: 'Nsight Systems', 'PyTorch profiler', 'Chrome trace'.

    tool_version, schema: '' where the file does not say.
    """

    tool: str
    tool_version: str = ""
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """What the capture says of one GPU; None where it does not say."""

    number: int
    name: str
    multiprocessors: int | None = None
    compute_capability: str | None = None
    l2_bytes: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One capture.

    overhead_ns: [J, 2] intervals in which the profiler itself held the program up. notes: what the
    reader left out or doubts, each counted and named, one sentence each. threads: of each thread
    number in the tables the (process id, thread id). driver, cuda: versions, '' if unknown.
    """

    source: TraceSource
    operations: OperationTable
    calls: CallTable
    ranges: RangeTable
    gpus: tuple[Gpu, ...] = ()
    threads: dict[int, tuple[int, int]] = field(default_factory=dict)
    overhead_ns: Times = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))
    notes: tuple[str, ...] = ()
    driver: str = ""
    cuda: str = ""
