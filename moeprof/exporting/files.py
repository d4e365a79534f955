"""An exported timeline on disk: which format a file's name asks for.

.perfetto-trace, .pftrace   Perfetto, with all that a Timeline holds
.json, .json.gz             Chrome's trace events, for chrome://tracing and what reads Kineto's
.nsys-rep                   stage and gap lanes for Nsight Systems, through its writer
"""

from __future__ import annotations

import gzip
from pathlib import Path

from moeprof.errors import UsageError
from moeprof.exporting.chosen import Which
from moeprof.records import Run
from moeprof.storage.atomic import write_atomically

PERFETTO, CHROME, NSYS = (".perfetto-trace", ".pftrace"), (".json", ".json.gz"), (".nsys-rep",)


def export(run: Run, path: Path, *, iterations: Which = "median", force: bool = False) -> None:
    """Write what ``run`` shows of the iterations asked for to ``path``, whole or not at all.

    Raises UsageError for a name without a known ending, a file that exists (unless ``force``) or an
    unknown iteration; RecordError where the record holds no stage times; EnvironmentMissing where
    the format needs a package that is not installed; ResourceExhausted where the disk is full.
    """
    form = format_of(path)
    require_free(path, force)
    from moeprof.exporting.timeline import timeline_of

    timeline = timeline_of(run, iterations)
    if form == NSYS:
        from moeprof.exporting.nsys_lanes import write_report

        write_report(timeline, path)
        return
    if form == PERFETTO:
        from moeprof.exporting.perfetto import perfetto_trace

        content = perfetto_trace(timeline)
    else:
        from moeprof.exporting.chrome import chrome_trace

        content = chrome_trace(timeline)
        if path.name.lower().endswith(".gz"):
            content = gzip.compress(content, mtime=0)
    try:
        write_atomically(path, content, replace=force)
    except FileExistsError:  # made since it was looked for
        require_free(path, force=False)


def format_of(path: Path) -> tuple[str, ...]:
    """The endings of the format that ``path`` names."""
    for endings in (PERFETTO, CHROME, NSYS):
        if path.name.lower().endswith(endings):
            return endings
    raise UsageError(
        f"{path.name} does not say which format to write",
        f"a name that ends in {', '.join((*PERFETTO, *CHROME, *NSYS))}",
    )


def require_free(path: Path, force: bool) -> None:
    """Raise UsageError where ``path`` cannot be written to."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder", "the name of a file")
    if path.exists() and not force:
        raise UsageError(f"{path} exists", do="--force writes over it")
