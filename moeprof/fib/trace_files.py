"""Traces and stage data into a dataset: traces/<author>/moe/<definition>.jsonl, and beside it all.

The place of a trace is that of flashinfer-bench's main; 0.1.2 finds it there too. Stage data goes
to ``moeprof/stages/<definition>/<solution>/<uuid>-<record>.json``, which no loader looks at.

A trace that is there already is kept, one of the same record that says something else is replaced,
and no other line is touched, not a byte of it. A file is locked while it is read and written whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from moeprof.definition import Workload
from moeprof.errors import ResourceExhausted, UsageError
from moeprof.fib.evaluations import record_id, solution_name
from moeprof.fib.find import find_solution
from moeprof.fib.layout import check_segment, workloads_path
from moeprof.fib.schema import FibSolution
from moeprof.fib.traces import Trace, ours, parse_lines, trace_document, trace_line
from moeprof.fib.unpack import source_hash
from moeprof.problem.dataset import Dataset
from moeprof.problem.operation import OP_TYPE
from moeprof.problem.routing import identify, make_routing, parse_spec
from moeprof.records import Run
from moeprof.storage.atomic import write_atomically
from moeprof.storage.locks import locked

STAGE_FOLDER = PurePosixPath("moeprof", "stages")
LOCK_SECONDS = 30.0
# what an exported solution's description ends with
_EXPORTED = re.compile(r"moeprof \S+, source ([0-9a-f]+)\.")


@dataclass(frozen=True, slots=True)
class Target:
    """The dataset's own words for what a record ran: its solution, and its workload's line."""

    solution: FibSolution
    workload: dict[str, Any]

    @property
    def path(self) -> PurePosixPath:
        """Where the trace goes."""
        name = f"{self.solution.definition}.jsonl"
        return PurePosixPath("traces", self.solution.author, OP_TYPE, name)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one trace. action: added, replaced or kept."""

    trace: Trace
    path: PurePosixPath
    action: str


def find_target(root: Path, run: Run, where: str) -> Target:
    """What ``run`` is of in the dataset at ``root``; UsageError where it is of something else."""
    definition = Dataset(root).definition(run.workload.definition)
    workload = next(
        (w for w in Dataset(root).workloads(definition) if w.uuid == run.workload.uuid), None
    )
    if workload is None:
        raise UsageError(
            f"{where} is of workload {run.workload.uuid}, which {root} has not",
            do="moeprof export fib writes moeprof's workloads into a new dataset",
        )
    solution = find_solution(solution_name(run), root).solution
    check_segment(solution.author, f"the author of {solution.name}")
    check_segment(solution.name, "the solution")
    check_segment(workload.uuid, "the workload")
    _require_same(run, where, solution, workload, root)
    return Target(solution, _line_of(root, definition.name, workload.uuid))


def stage_path(run: Run) -> PurePosixPath:
    """Where the stage data of a record goes."""
    name = f"{run.workload.uuid}-{record_id(run)}.json"
    return STAGE_FOLDER / run.workload.definition / solution_name(run) / name


def write_stages(root: Path, path: PurePosixPath, document: dict[str, Any]) -> None:
    """One file of stage data, whole."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(root / path, text.encode(), option="--dataset")


def check_traces(root: Path, path: PurePosixPath, traces: Sequence[Trace]) -> None:
    """Raise UsageError where ``add_traces`` would, as the file is now."""
    _with_traces(root / path, path, traces)


def add_traces(root: Path, path: PurePosixPath, traces: Sequence[Trace]) -> list[Written]:
    """Put traces of one author and definition into their file.

    UsageError where the file cannot be read, or holds latencies of moeprof's by another timer.
    """
    file = root / path
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceExhausted(
            f"{file.parent} cannot be made: {error.strerror}", do="choose another --dataset"
        ) from None
    with locked(file.parent, LOCK_SECONDS):
        text, found = _with_traces(file, path, traces)
        if any(one.action != "kept" for one in found):
            write_atomically(file, text.encode(), option="--dataset")
    return found


def _with_traces(
    file: Path, path: PurePosixPath, traces: Sequence[Trace]
) -> tuple[str, list[Written]]:
    """The file's text with ``traces`` in it, and what becomes of each."""
    before = _read(file)
    parse_lines(before, str(file))
    lines = before.removesuffix("\n").split("\n") if before else []
    known = [_Line(number, line) for number, line in enumerate(lines) if line.strip()]
    found: list[Written] = []
    for trace in traces:
        document, line = trace_document(trace), trace_line(trace)
        _require_one_timer(file, document, known)
        same = next((one for one in known if one.is_of(document)), None)
        if same is None:
            known.append(_Line(len(lines), line))
            lines.append(line)
        elif same.document != document:
            lines[same.number] = line
            known[known.index(same)] = _Line(same.number, line)
        kept = same is not None and same.document == document
        action = "kept" if kept else "added" if same is None else "replaced"
        found.append(Written(trace, path, action))
    return "\n".join(lines) + "\n", found


class _Line:
    """A line of the file and what it says."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.document = json.loads(text)

    def is_of(self, document: dict[str, Any]) -> bool:
        """Whether moeprof wrote it of the same record."""
        return ours(self.document) is not None and _key(self.document) == _key(document)


def _key(document: dict[str, Any]) -> tuple[Any, ...]:
    noted = ours(document) or {}
    return (
        document.get("definition"),
        document.get("solution"),
        (document.get("workload") or {}).get("uuid"),
        document["evaluation"].get("timestamp"),
        noted.get("record"),
    )


def _require_one_timer(file: Path, document: dict[str, Any], known: Sequence[_Line]) -> None:
    timer = (ours(document) or {}).get("timer")
    others = {
        (ours(one.document) or {}).get("timer") for one in known if not one.is_of(document)
    } - {None, timer}
    if timer is not None and others:
        raise UsageError(
            f"{file} holds latencies by flashinfer-bench {others.pop()}'s timer, beside which "
            f"those by {timer}'s would be misread",
            do="choose that --timer, or another --dataset",
        )


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read {file}: {reason}") from None


def _require_same(
    run: Run, where: str, solution: FibSolution, workload: Workload, root: Path
) -> None:
    """Raise UsageError where the dataset's solution or workload is not what was measured."""
    if solution.definition != run.workload.definition:
        raise UsageError(
            f"{solution.name} of {root} is for {solution.definition}", run.workload.definition
        )
    exported = _EXPORTED.search(solution.description)
    measured = run.solution.source_hash
    if run.solution.name != solution.name:  # fib:NAME: what ran is what the dataset holds
        same = source_hash(solution) == measured
    else:
        same = exported is not None and measured.startswith(exported.group(1))
    if not same:
        raise UsageError(
            f"{where} is of other source than {solution.name} in {root}",
            do="export or run the solution again",
        )
    if Dataset(root).recorded_routing(workload) is None:
        return
    definition = Dataset(root).definition(run.workload.definition)
    routing = make_routing(
        parse_spec("recorded"),
        definition,
        workload,
        run.routing.seed,
        dataset=Dataset(root),
        allow_no_local_work=True,
    )
    known = identify(routing, definition, workload, run.routing.weights_recipe, run.routing.seed)
    if known.histogram_hash != run.routing.histogram_hash:
        raise UsageError(
            f"{where} routed the tokens of workload {workload.uuid[:8]} otherwise "
            f"({run.routing.label}) than {root} has recorded",
            do="run it with --dataset and --routing recorded",
        )


def _line_of(root: Path, definition: str, uuid: str) -> dict[str, Any]:
    """The workload as the dataset's own line has it."""
    text = (root / workloads_path(definition)).read_text(encoding="utf-8")
    workloads = (json.loads(line)["workload"] for line in text.split("\n") if line.strip())
    found: dict[str, Any] = next(one for one in workloads if one["uuid"] == uuid)
    return found
