"""What the captured process is told and what it answers: JSON files in a private folder.

A file and not a command line: a capture keeps the command line of every process it sees. Beside the
answer lies the skeleton, a record of everything but times, which the importer fills from the
capture, and in graph mode which node of the graph is whose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from moeprof.definition import Workload
from moeprof.errors import RecordError
from moeprof.records import Settings
from moeprof.storage.atomic import write_atomically
from moeprof.storage.codec import decode, encode

JOB, ANSWER, SKELETON, TRACE = "job.json", "answer.json", "skeleton.json", "trace.json"

ToolName = Literal["nsys", "torch", "ncu"]
Mode = Literal["eager", "graph"]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Job:
    """One capture. variables: of the environment, set by the process itself before it loads torch.

    dataset: its folder. trusted: a solution of it may run. stage: whose kernels ncu measures, ''
    for the other tools.
    """

    tool: ToolName
    mode: Mode
    stage: str
    solution: str
    definition: str
    workload: Workload
    dataset: str
    settings: Settings
    routing: str
    weights: str
    device: Literal["cuda", "cpu"]
    allow_no_local_work: bool = False
    trusted: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GraphNodes:
    """How many nodes the captured graph had after each stage: node k belongs to the first stage
    whose count is above k."""

    stages: tuple[str, ...]
    nodes_after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a job. error: one line, with its exit code; then there is no skeleton.

    nodes: in graph mode.
    """

    error: str = ""
    exit_code: int = 0
    nodes: GraphNodes | None = None


def write(path: Path, value: Job | Answer | GraphNodes) -> None:
    """Put ``value`` at ``path``, whole or not at all."""
    write_atomically(path, json.dumps(encode(value), indent=1).encode())


def read(kind: type[Value], path: Path) -> Value:
    """The value that ``write`` put there; RecordError if it is another's or damaged."""
    try:
        return decode(kind, json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read ({error})", "a whole JSON file") from None
