"""What a TraceSet holds, from its files alone: nothing is imported, nothing is refused wholesale.

A file that cannot be read is a line with its reason, and the rest goes on. Keys that FlashInfer-
Bench does not know are ignored, as it ignores them, and named. Whether a solution loads is what can
be told without running it: syntax, entry point, number of parameters.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeprof.definition import Definition
from moeprof.errors import UsageError
from moeprof.fib.find import SolutionFile, Unreadable, read_bytes, shown, solution_files
from moeprof.fib.ignored import DEFINITION, SOLUTION, TRACE, ignored_keys
from moeprof.fib.signature import signature_of
from moeprof.fib.traces import PASSED, ours
from moeprof.problem.dataset import Dataset, parse_workload
from moeprof.problem.operation import OP_TYPE

LARGEST_LINES = 1 << 30  # traces carry logs of up to 5 MiB each
RECORDED, MISSING, RANDOM = "recorded", "blob missing", "random"


@dataclass(frozen=True, slots=True)
class DefinitionFound:
    """A definition of this kind of operation. problem: why moeprof cannot run it, '' if it can."""

    name: str
    path: str
    problem: str


@dataclass(frozen=True, slots=True)
class WorkloadFound:
    """A workload. routing: recorded, blob missing or random."""

    definition: str
    uuid: str
    seq_len: int
    local_expert_offset: int
    routing: str


@dataclass(frozen=True, slots=True)
class SolutionFound:
    """A solution. parameters: of its entry point, None where they cannot be told.

    problem: why it would not load, '' where nothing speaks against it.
    """

    file: SolutionFile
    parameters: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What the traces say of one workload: how many, and the least latency of those that passed.

    timer: '0.1.2' or 'main', with '?' where only the file's place says so, or 'unknown'.
    """

    definition: str
    uuid: str
    seq_len: int | None
    traces: int
    passed: int
    solution: str = ""
    latency_ms: float | None = None
    timer: str = "unknown"


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything found. others: definitions and solutions of other operations, and their number."""

    definitions: tuple[DefinitionFound, ...]
    workloads: tuple[WorkloadFound, ...]
    solutions: tuple[SolutionFound, ...]
    claims: tuple[Claim, ...]
    unreadable: tuple[Unreadable, ...]
    ignored: Mapping[str, int]
    others: int


def is_trace_set(folder: Path) -> bool:
    """Whether ``folder`` is laid out as one."""
    return any((folder / part).is_dir() for part in ("definitions", "solutions"))


def read_contents(root: Path) -> Contents:
    """What the TraceSet at ``root`` holds. UsageError if it is none."""
    if not is_trace_set(root):
        found = "does not exist" if not root.exists() else "holds no definitions or solutions"
        raise UsageError(f"{root} {found}", "the folder of a FlashInfer-Bench TraceSet")
    reader = _Reader(root)
    definitions = tuple(reader.definitions())
    runnable = {d.name: d for d in reader.runnable}
    solutions = tuple(reader.solutions({d.name for d in definitions}))
    workloads = tuple(reader.workloads(runnable))
    return Contents(
        definitions=definitions,
        workloads=workloads,
        solutions=solutions,
        claims=tuple(reader.claims({d.name for d in definitions})),
        unreadable=tuple(reader.unreadable),
        ignored=dict(sorted(reader.ignored.items())),
        others=reader.others,
    )


class _Reader:
    """Reads folder by folder and gathers what is wrong on the way."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unreadable: list[Unreadable] = []
        self.ignored: Counter[str] = Counter()
        self.others = 0
        self.runnable: list[Definition] = []

    def definitions(self) -> Iterator[DefinitionFound]:
        """Those of this kind of operation; others are counted."""
        for path, place in self._files("definitions", "*.json"):
            document = self._json(path, place)
            if document is None:
                continue
            if not isinstance(document, dict) or document.get("op_type") != OP_TYPE:
                self.others += 1
                continue
            self.ignored.update(f"definition: {key}" for key in ignored_keys(document, DEFINITION))
            name, problem = document.get("name"), ""
            try:
                definition = Dataset(self.root).definition(path.stem)
                if path.parent != self.root / "definitions" / OP_TYPE or name != path.stem:
                    problem = f"not at definitions/{OP_TYPE}/NAME.json"
                else:
                    self.runnable.append(definition)
            except UsageError as error:
                problem = self._plain(error, place)
            yield DefinitionFound(shown(str(name)), place, problem)

    def workloads(self, runnable: Mapping[str, Definition]) -> Iterator[WorkloadFound]:
        """The workloads of the definitions that moeprof can run, in file order."""
        dataset = Dataset(self.root)
        for path, place in self._files("workloads", "*.jsonl"):
            for number, line in self._lines(path, place):
                where = f"{place}:{number}"
                document = self._parsed(line, where)
                if not isinstance(document, dict):
                    continue
                self.ignored.update(f"workload: {key}" for key in ignored_keys(document, TRACE))
                definition = runnable.get(str(document.get("definition")))
                if definition is None:
                    continue
                try:
                    workload = parse_workload(line, definition, where)
                    files = dataset.recorded_routing(workload)
                except UsageError as error:
                    self.unreadable.append(Unreadable(where, self._plain(error, where)))
                    continue
                routing = RANDOM
                if files is not None:
                    present = all(_is_file(file.path) for file in files.values())
                    routing = RECORDED if present else MISSING
                yield WorkloadFound(
                    definition=definition.name,
                    uuid=shown(workload.uuid, 64),
                    seq_len=workload.seq_len,
                    local_expert_offset=workload.local_expert_offset,
                    routing=routing,
                )

    def solutions(self, definitions: set[str]) -> Iterator[SolutionFound]:
        """The solutions of those definitions, and of any that the TraceSet does not define."""
        known = {file.stem for file, _ in self._files("definitions", "*.json")}
        names: dict[str, str] = {}
        for file in solution_files(self.root):
            if isinstance(file, Unreadable):
                self.unreadable.append(file)
                continue
            self._count_ignored(file)
            name = file.solution.name
            twice = names.get(name)
            names.setdefault(name, file.path)
            definition = shown(file.solution.definition)
            if definition not in definitions and definition in known:
                self.others += 1
                continue
            signature = signature_of(file.solution)
            problem = signature.problem
            if twice is not None:
                problem = f"has the name of {twice}"
            elif definition not in definitions:
                problem = f"its definition {definition} is not here"
            yield SolutionFound(file, signature.parameters, shown(problem, 200))

    def claims(self, definitions: set[str]) -> Iterator[Claim]:
        """The traces by workload, in order of tokens."""
        found: dict[tuple[str, str], list[Claim]] = {}
        for path, place in self._files("traces", "*.jsonl"):
            for number, line in self._lines(path, place):
                document = self._parsed(line, f"{place}:{number}")
                if not isinstance(document, dict):
                    continue
                self.ignored.update(f"trace: {key}" for key in ignored_keys(document, TRACE))
                if shown(str(document.get("definition"))) not in definitions:
                    continue
                claim = _claim(document, place)
                found.setdefault((claim.definition, claim.uuid), []).append(claim)
        merged = [_merged(claims) for claims in found.values()]
        yield from sorted(merged, key=lambda c: (c.definition, c.seq_len or 0, c.uuid))

    # -- files ------------------------------------------------------------------------------

    def _files(self, folder: str, pattern: str) -> Iterator[tuple[Path, str]]:
        for path in sorted((self.root / folder).rglob(pattern)):
            if not path.is_dir():
                yield path, shown(path.relative_to(self.root).as_posix(), 300)

    def _json(self, path: Path, place: str) -> Any:
        try:
            return self._parsed(read_bytes(path, place).decode(errors="replace"), place)
        except UsageError as error:
            self.unreadable.append(Unreadable(place, self._plain(error, place)))
            return None

    def _lines(self, path: Path, place: str) -> Iterator[tuple[int, str]]:
        try:
            text = read_bytes(path, place, LARGEST_LINES).decode(errors="replace")
        except UsageError as error:
            self.unreadable.append(Unreadable(place, self._plain(error, place)))
            return
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, line

    def _parsed(self, text: str, place: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            self.unreadable.append(Unreadable(place, f"not JSON: {shown(str(error), 100)}"))
            return None

    def _count_ignored(self, file: SolutionFile) -> None:
        document = json.loads((self.root / file.path).read_bytes())
        self.ignored.update(f"solution: {key}" for key in ignored_keys(document, SOLUTION))

    def _plain(self, error: UsageError, place: str) -> str:
        """An error's text without the place, which stands beside it, and without the root."""
        text = str(error).replace(f"{self.root}/", "")
        text = text.partition("is another operation than its name says: ")[2] or text
        return shown(text.removeprefix(place).lstrip(": "), 240)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a null byte
        return False


def _claim(document: Mapping[str, Any], place: str) -> Claim:
    """One trace; what is not as it should be claims nothing."""
    workload, evaluation = _object(document, "workload"), _object(document, "evaluation")
    performance = _object(evaluation, "performance")
    seq_len = _object(workload, "axes").get("seq_len")
    passed = evaluation.get("status") == PASSED
    latency_ms = _positive(performance.get("latency_ms")) if passed else None
    return Claim(
        definition=shown(str(document.get("definition"))),
        uuid=shown(str(workload.get("uuid")), 64),
        seq_len=seq_len if type(seq_len) is int else None,
        traces=1,
        passed=int(passed),
        solution=shown(str(document.get("solution"))) if latency_ms else "",
        latency_ms=latency_ms,
        timer=_timer(document, place),
    )


def _positive(value: Any) -> float | None:
    if type(value) is int and 0 < value < 1 << 53:
        return float(value)
    return value if type(value) is float and 0 < value < math.inf else None


def _object(container: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = container.get(key)
    return value if isinstance(value, dict) else {}


def _timer(document: Mapping[str, Any], place: str) -> str:
    """Whose clock: moeprof notes it; flashinfer-bench's releases write to different places."""
    noted = ours(document) if _object(document, "evaluation") else None
    if noted is not None:
        return shown(str(noted.get("timer") or "unknown"), 20)
    parts = place.split("/")
    if len(parts) == 3 and parts[1] == OP_TYPE:
        return "0.1.2?"
    return "main?" if len(parts) == 4 and parts[2] == OP_TYPE else "unknown"


def _merged(claims: list[Claim]) -> Claim:
    timed = [claim for claim in claims if claim.latency_ms is not None]
    best = min(timed, key=lambda claim: claim.latency_ms or math.inf) if timed else claims[0]
    return Claim(
        definition=best.definition,
        uuid=best.uuid,
        seq_len=best.seq_len,
        traces=len(claims),
        passed=sum(claim.passed for claim in claims),
        solution=best.solution,
        latency_ms=best.latency_ms,
        timer=best.timer if timed else "unknown",
    )
