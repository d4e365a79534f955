"""The folder of one bench: what was planned, every record as it is finished, what has none.

    <traces>/bench/<name>/bench.json                       the plan, written first
                          failures.json                    cells without a record, and why
                          <solution>/<definition>/T...     records, named as those of ``run``

A record enters whole or not at all, so whatever ends a bench loses nothing that was finished, and
which cells are left to do is read off the folder: those without a record. Folders hold no path of
the machine: a solution given as a file is known by its name and its source's hash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moeprof.bench.cells import Failure, FailureKind
from moeprof.errors import RecordError, UsageError
from moeprof.records import Environment, Run, Settings
from moeprof.storage.atomic import write_atomically
from moeprof.storage.codec import decode, encode
from moeprof.storage.locks import is_free
from moeprof.storage.store import find_runs, load, plain, save

FORMAT, FAILURES_FORMAT = "moeprof bench", "moeprof bench failures"
SCHEMA_VERSION = 1
BENCH_FILE, FAILURES_FILE = "bench.json", "failures.json"
MAX_JSON_BYTES = 4 * 2**20

Cell = tuple[str, str]  # a solution's name, a workload's uuid


@dataclass(frozen=True, slots=True)
class BenchSolution:
    """One column. kind, problem: why it cannot be run here, '' if it can. asked: by its name."""

    name: str
    origin: str
    source_hash: str = ""
    kind: FailureKind | None = None
    problem: str = ""
    asked: bool = True


@dataclass(frozen=True, slots=True)
class BenchWorkload:
    """One row."""

    uuid: str
    seq_len: int

    def __str__(self) -> str:
        return f"T={self.seq_len} {self.uuid[:8]}"


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """All that decides a bench's figures; records of two plans do not belong together.

    definition: its name; alias: the name of its folder. routing: as asked for, a file by its name.
    """

    moeprof: str
    definition: str
    alias: str
    routing: str
    weights: str
    settings: Settings
    environment: Environment
    solutions: tuple[BenchSolution, ...]
    workloads: tuple[BenchWorkload, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(solution.name for solution in self.solutions)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """What is to be measured: every solution that runs here on every workload."""
        return tuple(
            (solution.name, workload.uuid)
            for workload in self.workloads
            for solution in self.solutions
            if solution.kind is None
        )


@dataclass(frozen=True, slots=True)
class _Index:
    created: str
    plan: BenchPlan


@dataclass(frozen=True, slots=True)
class _Failures:
    failures: tuple[Failure, ...] = field(default_factory=tuple)


def difference(begun: BenchPlan, now: BenchPlan) -> str:
    """What differs first, as 'WHAT was X and is Y'; '' if both are the same plan."""
    for what, was, found in _compared(begun, now):
        if was != found:
            return f"{what} was {was or 'absent'} and is {found or 'absent'}"
    return ""


def _compared(begun: BenchPlan, now: BenchPlan) -> Iterable[tuple[str, str, str]]:
    """(what, in one, in the other), the plainest first."""

    def listed(names: Iterable[object]) -> str:
        return ", ".join(map(str, names))

    yield "the definition", begun.definition, now.definition
    yield "the list of workloads", listed(begun.workloads), listed(now.workloads)
    yield "the list of solutions", listed(begun.names), listed(now.names)
    for one, other in zip(begun.solutions, now.solutions, strict=True):
        what = f"the source of {one.name}"
        yield what, one.source_hash[:12] or one.problem, other.source_hash[:12] or other.problem
    yield "the routing", begun.routing, now.routing
    yield "the weights", begun.weights, now.weights
    for name in (each.name for each in fields(Settings)):
        was, found = getattr(begun.settings, name), getattr(now.settings, name)
        yield f"the setting {name}", _text(was), _text(found)
    for name in (each.name for each in fields(Environment)):
        was, found = getattr(begun.environment, name), getattr(now.environment, name)
        yield f"the machine's {name.replace('_', ' ')}", _text(was), _text(found)
    yield "moeprof", begun.moeprof, now.moeprof


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


# ---------------------------------------------------------------- one folder


@dataclass(frozen=True, slots=True)
class BenchFolder:
    """A bench on disk."""

    path: Path
    created: str
    plan: BenchPlan

    def keep(self, run: Run) -> Path:
        """Put a finished record in; its path."""
        return save(run, self.path, self.plan.alias)

    def recorded(self) -> frozenset[Cell]:
        """The cells that have a record, by the names of the files."""
        names = {plain(name): name for name in self.plan.names}
        uuids = {(w.seq_len, plain(w.uuid)[:8]): w.uuid for w in self.plan.workloads}
        found = find_runs(self.path)
        return frozenset(
            (names[file.solution], uuids[file.seq_len, file.uuid])
            for file in found
            if file.solution in names and (file.seq_len, file.uuid) in uuids
        )

    def missing(self) -> tuple[Cell, ...]:
        """The cells that have none, workload by workload."""
        recorded = self.recorded()
        return tuple(cell for cell in self.plan.cells if cell not in recorded)

    def runs(self) -> tuple[Run, ...]:
        """Every record in it. RecordError names one that is damaged."""
        return tuple(load(file.path) for file in find_runs(self.path))

    def write_failures(self, failures: Sequence[Failure]) -> None:
        """Put down why cells have no record, in place of what was put down before."""
        _write(self.path / FAILURES_FILE, FAILURES_FORMAT, _Failures(tuple(failures)))

    def failures(self) -> tuple[Failure, ...]:
        """Why each cell without a record has none; one that nobody came to is 'interrupted'."""
        known = {(one.solution, one.uuid): one for one in self._written_failures()}
        missing = set(self.missing())
        found = []
        for workload in self.plan.workloads:
            for solution in self.plan.solutions:
                cell = (solution.name, workload.uuid)
                what = (*cell, workload.seq_len)
                if solution.kind is not None:
                    found.append(Failure(*what, solution.kind, solution.problem))
                elif cell in missing:
                    never = Failure(*what, "interrupted", "the bench ended before it was measured")
                    found.append(known.get(cell, never))
        return tuple(found)

    def _written_failures(self) -> tuple[Failure, ...]:
        path = self.path / FAILURES_FILE
        return _read(path, FAILURES_FORMAT, _Failures).failures if path.exists() else ()


def create(traces: Path, name: str | None, plan: BenchPlan, fresh: bool = False) -> BenchFolder:
    """A new bench under ``<traces>/bench``, named by the time unless ``name`` says otherwise.

    fresh: a bench of that name is moved aside, to ``<name>@<created>``. UsageError if the name is
    taken or none, ResourceExhausted if nothing can be written there.
    """
    created = datetime.now(UTC)
    stem = check_name(name) if name else created.strftime("%Y%m%dT%H%M%SZ")
    for attempt in range(1, 1000):
        path = traces / "bench" / (stem if name or attempt == 1 else f"{stem}-{attempt}")
        if name and fresh and (path / BENCH_FILE).exists():
            move_aside(path)
        folder = BenchFolder(path, created.isoformat(timespec="seconds"), plan)
        try:
            _write(path / BENCH_FILE, FORMAT, _Index(folder.created, plan), replace=False)
        except FileExistsError:
            if name:
                raise taken(path) from None
            continue
        return folder
    raise UsageError(f"{traces / 'bench'} holds 999 benches of {stem}", do="move some away")


def taken(path: Path) -> UsageError:
    """The error of a name that is another bench's."""
    do = "--resume goes on with it, --fresh moves it aside, or choose another --name"
    return UsageError(f"there is a bench {path.name} already", do=do)


def check_name(name: str) -> str:
    """``name`` if it can be a folder's; UsageError if not."""
    if not re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]{0,99}", name):
        raise UsageError(f"{name!r} cannot name a bench", "letters, digits and any of _.+-")
    return name


def move_aside(path: Path) -> None:
    """Give a bench's name free: its folder becomes ``<name>@<created>``."""
    if not is_free(path / BENCH_FILE):
        raise UsageError(f"bench {path.name} is being measured by another process", do="end it")
    created = re.sub(r"[^0-9TZ]", "", open_folder(path).created.split("+")[0]) + "Z"
    for attempt in range(1, 1000):
        aside = path.with_name(f"{path.name}@{created}{f'-{attempt}' if attempt > 1 else ''}")
        if not aside.exists():
            path.rename(aside)
            return
    raise UsageError(f"{path.parent} holds 999 benches {path.name}@{created}", do="move some away")


def open_folder(path: Path) -> BenchFolder:
    """The bench in ``path``; RecordError, one line, if there is none or it is damaged."""
    index = _read(path / BENCH_FILE, FORMAT, _Index)
    return BenchFolder(path, index.created, index.plan)


def is_bench(path: Path) -> bool:
    """Whether ``path`` is the folder of a bench."""
    return (path / BENCH_FILE).is_file()


def benches(traces: Path) -> tuple[BenchFolder, ...]:
    """Every bench under ``<traces>/bench``, the newest first."""
    folders = [open_folder(path.parent) for path in (traces / "bench").glob(f"*/{BENCH_FILE}")]
    return tuple(sorted(folders, key=lambda one: (one.created, one.path.name), reverse=True))


def to_resume(traces: Path, name: str | None) -> tuple[BenchFolder, ...]:
    """The benches that ``--resume`` may mean, the newest first: those with cells left to do.

    UsageError where there is none.
    """
    if name:
        path = traces / "bench" / check_name(name)
        if not is_bench(path):
            raise UsageError(f"there is no bench {name} to resume", do="leave --resume out")
        found: tuple[BenchFolder, ...] = (open_folder(path),)
    else:
        found = benches(traces)
    unfinished = tuple(one for one in found if one.missing())
    if not unfinished:
        what = f"bench {name} has" if name else "every bench there has"
        found_text = f"{what} all its records" if found else "there is no bench"
        raise UsageError(f"nothing to resume: {found_text}", do="leave --resume out")
    return unfinished


# ---------------------------------------------------------------- files


def _write(path: Path, form: str, value: Any, replace: bool = True) -> None:
    document = {"format": form, "schema_version": SCHEMA_VERSION, **encode(value)}
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode(), replace=replace)


def _read(path: Path, form: str, kind: type[Any]) -> Any:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise RecordError(f"{path.stat().st_size} bytes", f"at most {MAX_JSON_BYTES}")
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict) or document.get("format") != form:
            raise RecordError("this is JSON but not what it should be", f"format {form!r}")
        version = document.get("schema_version")
        if version != SCHEMA_VERSION:
            found = f"schema_version is {version!r:.40}"
            raise RecordError(found, f"{SCHEMA_VERSION}", "update moeprof")
        content = {k: v for k, v in document.items() if k not in ("format", "schema_version")}
        return decode(kind, content)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror})", "a bench") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not JSON ({str(error):.80})", "a bench") from None
