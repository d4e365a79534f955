"""What the measuring process and its watcher tell each other: one JSON object a line.

The watcher sends a Request, then a Job; all else comes from the measuring process, over a pipe of
its own, so that nothing a solution prints can be taken for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from moeprof.bench.cells import Failure, FailureKind
from moeprof.benching.words import without_paths
from moeprof.storage.benches import BenchPlan, BenchSolution
from moeprof.storage.codec import decode, encode


@dataclass(frozen=True, slots=True)
class Asked:
    """One solution as asked for. by_name: the user typed it; else it is one of all there are."""

    solution: str
    by_name: bool

    @property
    def name(self) -> str:
        """What it is called until it says so itself."""
        path = Path(self.solution)
        return path.stem if path.suffix == ".py" else self.solution

    def lost(self, kind: FailureKind, problem: str) -> BenchSolution:
        """The column of what never came to be a solution."""
        return BenchSolution(
            name=self.name,
            origin=Path(self.solution).name,
            kind=kind,
            problem=without_paths(problem),
            asked=self.by_name,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """What to make ready. options: those of a measurement, by the names of ``RunOptions``."""

    solutions: tuple[Asked, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """Which cells to measure, (solution, uuid) each, and the bench's folder."""

    folder: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Loading:
    """A solution's code is about to run for the first time. asked: as in the request."""

    asked: str


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything is loaded; the plan as this process would measure it."""

    plan: BenchPlan


@dataclass(frozen=True, slots=True)
class Preparing:
    """No solution's code runs: weights, inputs, ceilings."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A solution's turn begins. turn: a pass, or 'rest' (does it meet the power cap?)."""

    turn: str
    solution: str
    uuid: str
    seq_len: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A cell's record is on disk."""

    solution: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A cell has no record and will have none. ends: the process cannot go on after it."""

    failure: Failure
    ends: bool


@dataclass(frozen=True, slots=True)
class Fatal:
    """What ends the whole bench: one line and an exit code."""

    message: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Broken:
    """Moeprof's own code failed: a bug, with its traceback."""

    traceback: str


@dataclass(frozen=True, slots=True)
class End:
    """Every cell of the job has a record or a failure."""


Event = Loading | Ready | Preparing | Turn | Recorded | Failed | Fatal | Broken | End
Message = Event | Request | Job
_KINDS: Mapping[str, type[Any]] = MappingProxyType(
    {kind.__name__: kind for kind in get_args(Message)}
)


def to_line(message: Message) -> bytes:
    """The line of a message, with its newline."""
    document = {"kind": type(message).__name__, "content": encode(message)}
    return json.dumps(document, allow_nan=False).encode() + b"\n"


def from_line(line: bytes) -> Any:
    """The message of a line; RecordError or ValueError if it is none."""
    document = json.loads(line)
    return decode(_KINDS[document["kind"]], document["content"])
