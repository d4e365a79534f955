"""A job under a tool: start it, take its answer, keep a report and a clean export beside it.

Everything raw passes through a private folder that is gone at the end, however it ends. What stays
in the user's folder is the tool's own report, which is raw and said to be, and what moeprof made of
it, which names nobody. What the figures mean is the importer's business.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from moeprof.capturing import ncu, nsys
from moeprof.capturing.environment import child_environment, handed_over
from moeprof.capturing.find import Tool
from moeprof.capturing.job import (
    ANSWER,
    JOB,
    SKELETON,
    TRACE,
    Answer,
    GraphNodes,
    Job,
    read,
    write,
)
from moeprof.capturing.namespace import hiding
from moeprof.capturing.process import Finished, run
from moeprof.errors import EnvironmentMissing, MoeprofError, UsageError, WrongResult
from moeprof.records import KernelMetrics, Run
from moeprof.storage.store import load

TORCH_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files of one capture lie. report: the tool's own, raw; the others name nobody."""

    folder: Path
    stem: str
    tool: str

    @property
    def report(self) -> Path | None:
        suffix = {"nsys": ".nsys-rep", "ncu": ".ncu-rep"}.get(self.tool)
        return self._named(suffix) if suffix else None

    @property
    def export(self) -> Path | None:
        suffix = {"nsys": ".sqlite", "torch": ".trace.json.gz"}.get(self.tool)
        return self._named(suffix) if suffix else None

    @property
    def skeleton(self) -> Path:
        return self._named(".skeleton.json.gz")

    @property
    def every(self) -> tuple[Path, ...]:
        possible = (self.report, self.export, self.skeleton)
        return tuple(path for path in possible if path is not None)

    @property
    def half_written(self) -> tuple[Path, ...]:
        """What an interrupted tool may leave beside them."""
        return (self._named(".qdstrm"), self._named(".nsys-rep.tmp"))

    def _named(self, suffix: str) -> Path:
        return self.folder / f"{self.stem}{suffix}"

    def require_free(self, force: bool) -> None:
        """UsageError if one of them exists and may not be replaced; else they are gone."""
        taken = [path for path in self.every if path.exists()]
        if taken and not force:
            raise UsageError(f"{taken[0]} exists", do="--force writes over it")
        for path in taken:
            path.unlink()


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture gave: the record without times, and in graph mode whose each node is.

    alone: the tool saw no processes but its own, so that its report holds nobody's environment.
    """

    skeleton: Run
    nodes: GraphNodes | None = None
    alone: bool = True


def capture_nsys(job: Job, tool: Tool, files: Files) -> Captured:
    """Under Nsight Systems; the report and its scrubbed SQLite export are in ``files`` then.

    In a namespace of its own if there can be one; without, if nothing came of that.
    """
    before = hiding(child_environment(os.environ, Path(tempfile.gettempdir())))
    if before:
        with suppress(EnvironmentMissing):
            return _under_nsys(job, tool, files, before)
    return replace(_under_nsys(job, tool, files, ()), alone=False)


def _under_nsys(job: Job, tool: Tool, files: Files, before: Sequence[str]) -> Captured:
    from moeprof.importing.scrub import scrub_nsys_sqlite

    report, export = files.report, files.export
    assert report is not None and export is not None
    with _private_folder() as folder, _nothing_left_on_failure(files):
        environment = child_environment(os.environ, folder)
        done = nsys.profile(tool, _give(job, folder), report, environment, before=before)
        captured = _take(folder, done)
        nsys.require_report(done, report)
        raw = folder / "raw.sqlite"
        nsys.export_sqlite(report, raw, tool.path)
        scrub_nsys_sqlite(raw, export)
        return captured


def capture_torch(job: Job, files: Files) -> Captured:
    """Under torch's profiler, in a process of its own; its scrubbed trace is in ``files`` then."""
    from moeprof.importing.scrub_kineto import scrub_kineto

    export = files.export
    assert export is not None
    with _private_folder() as folder, _nothing_left_on_failure(files):
        environment = child_environment(os.environ, folder)
        done = run(_give(job, folder), environment, TORCH_SECONDS)
        captured = _take(folder, done)
        if not (folder / TRACE).is_file():
            raise EnvironmentMissing(f"torch.profiler wrote no trace: {nsys.reason(done)}")
        scrub_kineto(folder / TRACE, export, job.settings.iterations)
        return captured


def capture_ncu(job: Job, tool: Tool, files: Files) -> tuple[Captured, tuple[KernelMetrics, ...]]:
    """Counters of ``job.stage`` under Nsight Compute; the report is in ``files`` then."""
    report = files.report
    assert report is not None
    with _private_folder() as folder, _nothing_left_on_failure(files):
        environment = child_environment(os.environ, folder)
        done = ncu.profile(tool, _give(job, folder), report, job.stage, environment)
        captured = _take(folder, done)
        ncu.require_report(done, report, job.stage)
        return captured, ncu.read_report(tool, report, job.stage, environment)


# ---------------------------------------------------------------- telling the child, hearing it


def _give(job: Job, folder: Path) -> Sequence[str]:
    """Put the job where the child finds it; the command that starts the child."""
    write(folder / JOB, replace(job, variables=handed_over(os.environ)))
    return (sys.executable, "-m", "moeprof.capturing.target", str(folder))


def _take(folder: Path, done: Finished) -> Captured:
    """The child's answer; what it says went wrong is raised as what it is."""
    if not (folder / ANSWER).is_file():
        _refuse_silence(done)
    answer = read(Answer, folder / ANSWER)
    if answer.error:
        kind: Callable[[str], MoeprofError] = WrongResult if answer.exit_code == 1 else UsageError
        raise kind(answer.error)
    return Captured(load(folder / SKELETON), answer.nodes)


def _refuse_silence(done: Finished) -> None:
    """The child ended without an answer: a crash of its, or a tool that never started it."""
    nsys.refuse_full_disk(done, Path(tempfile.gettempdir()) / "-")
    if "Traceback (most recent call last)" in done.output:
        raise RuntimeError(f"the captured process failed:\n{done.output[-8000:]}")
    raise EnvironmentMissing(
        f"the captured process ended without an answer: {nsys.reason(done)}",
        do="moeprof run shows whether the solution runs without a profiler",
    )


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Readable by this user alone. In the system's folder, as tools open sockets in it, whose
    paths must be short."""
    with tempfile.TemporaryDirectory(prefix="moeprof-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def _nothing_left_on_failure(files: Files) -> Iterator[None]:
    """Remove what a failed capture has written; the user's folder is as it was."""
    try:
        yield
    except BaseException:
        for path in (*files.every, *files.half_written):
            path.unlink(missing_ok=True)
        raise
