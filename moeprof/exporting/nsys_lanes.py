"""Stage and gap lanes for Nsight Systems: written as NVTX events into a report, after the fact.

Nsight Systems brings a Python package, ``nsys_writer``, and a library behind it that writes a
``.nsys-rep`` file, or a copy of one with events added; both work on the API of ``nvtx.writer``.
What its timeline already shows (kernels, API calls) is not written again: iterations, host stages,
the stage that owned each moment of the GPU, and why it idled. Each lane is a scope of its own in
the domain ``moeprof``.

Left out: counters and arrows, which NVTX ranges have no place for.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moeprof.errors import EnvironmentMissing, UsageError
from moeprof.exporting.tracks import Slice, Timeline, TrackKind

DOMAIN = "moeprof"
LANES: tuple[TrackKind, ...] = ("iterations", "stages", "busy", "gaps")
BACKEND = "NSYS_WRITER_BACKEND"  # what nsys_writer reads; set by ``nsys recipe`` itself
ENDING = ".nsys-rep"
# ARGB, of what waits for the host in warm colours; stages in the viewer's own
COLOURS = {
    "host_late": 0xFFD7301F,
    "api": 0xFFFC8D59,
    "launch_latency": 0xFFFDCC8A,
    "dependency": 0xFF74A9CF,
    "gap": 0xFFBDBDBD,
}


def write_report(timeline: Timeline, path: Path, into: Path | None = None) -> None:
    """Write the lanes of ``timeline`` to ``path`` (``.nsys-rep``), whole or not at all.

    into: a report whose copy gets the lanes; the timeline must then be one of its own capture with
    every iteration where the report has it (``origins_ns`` of ``timeline_of``). Raises
    EnvironmentMissing, in one line, where the writer of Nsight Systems is missing or fails;
    UsageError where ``into`` is no report.
    """
    if into is not None and not into.is_file():
        raise UsageError(f"there is no report {into}", f"a file that ends in {ENDING}")
    writer = _writer()
    from nvtx.writer import WriterError

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".nsys-") as folder:
        # the writer adds the ending, and must not be given the report that it copies
        written = Path(folder) / "lanes"
        options: dict[str, Any] = {"time_base": writer.TimeBase.RELATIVE}
        if into is not None:
            options["report_merge"] = str(into)
        try:
            with writer.Session(str(written), **options) as session:
                write_lanes(session, timeline)
        except (OSError, RuntimeError, WriterError) as error:
            raise EnvironmentMissing(
                f"the writer of Nsight Systems failed: {error}",
                do=f"check that ${BACKEND} is the library of the nsys that brought nsys_writer",
            ) from None
        os.replace(written.with_name(written.name + ENDING), path)


def write_lanes(session: Any, timeline: Timeline) -> None:
    """Write the lanes into an open ``nvtx.writer.Session``."""
    domain = session.get_domain(DOMAIN)
    for group in timeline.groups:
        for track in group.tracks:
            if track.kind in LANES:
                lane = f"{group.name}/{track.name}"
                scope = domain.get_scope(lane)
                with session.create_stream(lane, domain=domain, scope=scope) as stream:
                    _write(stream, domain, track.kind, track.slices)


def _write(stream: Any, domain: Any, kind: TrackKind, slices: Sequence[Slice]) -> None:
    for one in slices:
        stage = one.arguments.get("stage")
        charged = f"{one.name}: {stage}" if kind == "gaps" and stage else one.name
        stream.write_pushpop(
            one.begin_ns,
            one.end_ns,
            message=domain.get_registered_string(charged),
            color=COLOURS.get(one.name) if kind == "gaps" else None,
            category=one.category,
        )


def _writer() -> Any:
    """The module ``nsys_writer``, ready to open a session."""
    where = (
        "pip install NSYS/target-linux-x64/python/packages/nsys_writer and set "
        f"{BACKEND}=NSYS/host-linux-x64/libNvtxwBackend.so, both of an Nsight Systems that has "
        "them; or name a file that ends in .perfetto-trace"
    )
    try:
        import nsys_writer
    except ImportError:
        raise EnvironmentMissing(
            f"nsys_writer, the package that writes {ENDING} files, is not installed", do=where
        ) from None
    library = os.environ.get(BACKEND)
    if library is not None and not Path(library).is_file():
        raise EnvironmentMissing(f"${BACKEND} names no file", "a library", where)
    return nsys_writer
