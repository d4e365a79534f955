"""Nsight Systems: the flags, the report it writes, the export of that report.

Only CUDA and NVTX are traced: stacks, context switches and the operating system's calls slow the
host that is being measured, and ``osrt`` has written gigabytes. Graphs are traced node by node,
without which a replay is one bar. CUDA event records stay off: they add dependencies between
streams that the forward does not have.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from moeprof.capturing.environment import child_environment
from moeprof.capturing.find import NSYS, Tool, find, last_line, printable
from moeprof.capturing.process import Finished, run
from moeprof.errors import EnvironmentMissing, MoeprofError, RecordError, ResourceExhausted

PROFILE_SECONDS = 900.0  # loading, JIT of every kernel and a forward of 14,107 tokens: under 120
EXPORT_SECONDS = 600.0

# stop, not the default stop-shutdown, which kills the process at the end of the range
FLAGS = (
    *("-t", "cuda,nvtx", "-s", "none", "--cpuctxsw=none", "--cuda-event-trace=false"),
    *("--cuda-graph-trace=node", "-c", "cudaProfilerApi", "--capture-range-end=stop"),
    *("-f", "true"),
)
_LIBRARY = re.compile(r"(lib[\w+.-]+\.so[\w.]*): cannot open shared object file")
_FULL = re.compile(r"no space left on device|disk quota exceeded|disk is full", re.IGNORECASE)
_COMPLAINT = re.compile(
    r"error|fail|cannot|unable|not found|no such|unrecogni|invalid|denied", re.IGNORECASE
)
_WRITES_FOLDER = "choose a -o folder with space, or free some"


def profile(
    tool: Tool,
    command: Sequence[str],
    report: Path,
    environment: Mapping[str, str],
    seconds: float = PROFILE_SECONDS,
    before: Sequence[str] = (),
) -> Finished:
    """Run ``command`` under nsys; what it made goes to ``report``, which ends in .nsys-rep.

    before: what nsys itself is run under (``namespace.hiding``).

    Whether a report came of it is ``require_report``'s question: the command's own answer says
    better why there is none.
    """
    return run(
        [*before, str(tool.path), "profile", *FLAGS, "-o", output_name(report), *command],
        environment,
        seconds,
    )


def output_name(report: Path) -> str:
    """What -o must say for ``report``: without its ending, and % twice, which begins a macro."""
    return str(report.with_suffix("")).replace("%", "%%")


def require_report(done: Finished, report: Path) -> None:
    """Raise, with the reason in one line, unless there is a whole report at ``report``."""
    if report.is_file() and report.stat().st_size > 0:
        return
    recorded = report.with_suffix(".qdstrm")
    not_imported = recorded.exists() or ".qdstrm" in done.output
    recorded.unlink(missing_ok=True)  # raw, and of no use without a report
    refuse_full_disk(done, report)
    missing = _LIBRARY.search(done.output)
    if missing or not_imported:
        library = missing.group(1) if missing else "often libdw.so.1"
        raise EnvironmentMissing(
            f"nsys recorded the run but could not import what it recorded ({library} is missing)",
            do="apt-get install libdw1, or add the folder that holds it to LD_LIBRARY_PATH",
        )
    raise EnvironmentMissing(
        f"nsys wrote no report: {reason(done)}", do="moeprof doctor shows which nsys is used"
    )


def export_sqlite(
    report: Path, destination: Path, nsys: Path | None, seconds: float = EXPORT_SECONDS
) -> None:
    """Write the SQLite export of ``report`` (.nsys-rep) to ``destination``, whole or not at all.

    The export is raw: it holds what the report holds, names of host and user among it.
    nsys: by default looked for. Raises EnvironmentMissing, ResourceExhausted, RecordError.
    """
    tool = find(NSYS, nsys)
    with tempfile.TemporaryDirectory(prefix="moeprof-", ignore_cleanup_errors=True) as folder:
        raw = Path(folder) / "export.sqlite"
        command = [*(str(tool.path), "export", "--type", "sqlite", "-f", "true"), "-o", str(raw)]
        environment = child_environment(os.environ, Path(folder))
        done = run([*command, str(report)], environment, seconds)
        if done.code != 0 or not raw.is_file() or raw.stat().st_size == 0:
            refuse_full_disk(done, raw)
            raise RecordError(
                f"{report.name}: nsys {tool.version} cannot export it: {reason(done)}",
                "a whole report of this or an earlier nsys",
            )
        _move(raw, destination)


def reason(done: Finished) -> str:
    """The line of the output that says most about a failure."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", done.output) if line.strip()]
    complaints = [line for line in lines if _COMPLAINT.search(line)]
    said = printable(complaints[-1]) if complaints else last_line(done.output)
    if done.code < 0:
        return f"killed by signal {-done.code}" + (f" after {said!r}" if said else "")
    return said or f"it printed nothing and ended with exit code {done.code}"


def refuse_full_disk(done: Finished, path: Path) -> None:
    """Raise ResourceExhausted if the output says that the disk is full."""
    if _FULL.search(done.output):
        raise ResourceExhausted(f"the disk is full ({path.parent})", do=_WRITES_FOLDER)


def _move(source: Path, destination: Path) -> None:
    try:
        shutil.move(source, destination)
    except OSError as error:
        destination.unlink(missing_ok=True)
        found = f"{destination} could not be written: {error.strerror or error}"
        failure: MoeprofError = ResourceExhausted(found, do=_WRITES_FOLDER)
        raise failure from None
