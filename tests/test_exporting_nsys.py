"""Lanes for Nsight Systems, through NVTX's own writer into a backend that records what it is told.

The library behind nsys_writer is Nsight Systems' and not here: ``nvtx_writer/recorder.c`` stands in
for it, and a module of one class, made as its documentation describes it, for nsys_writer.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from moeprof.analysis.attribution import profile
from moeprof.analysis.identity import attribute
from moeprof.analysis.rows import rows_of
from moeprof.errors import EnvironmentMissing, UsageError
from moeprof.exporting import export
from moeprof.exporting.nsys_lanes import BACKEND, write_lanes, write_report
from moeprof.exporting.timeline import timeline_of
from tests.builders import make_run

SOURCE = Path(__file__).resolve().parent / "nvtx_writer" / "recorder.c"
NSYS_WRITER = """
import enum, os
import nvtx.writer

class TimeBase(enum.Enum):
    RELATIVE = 1

class Session(nvtx.writer.Session):
    def __init__(self, name, *, time_base, report_merge=None):
        assert time_base is TimeBase.RELATIVE
        backend = nvtx.writer.load_backend(os.environ["NSYS_WRITER_BACKEND"])
        super().__init__(name, backend=backend, config=f"merge={report_merge}")
"""


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the recording backend with")
    library = tmp_path_factory.mktemp("backend") / "recorder.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return library


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the backend writes what it was told."""
    output = tmp_path / "told.txt"
    monkeypatch.setenv("RECORDER_OUTPUT", str(output))
    monkeypatch.delenv("RECORDER_FAILS", raising=False)
    monkeypatch.delenv("RECORDER_REPORT", raising=False)
    return output


@pytest.fixture
def installed(
    tmp_path: Path, backend: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that has nsys_writer and its backend."""
    package = tmp_path / "packages"
    package.mkdir()
    (package / "nsys_writer.py").write_text(NSYS_WRITER)
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.delitem(sys.modules, "nsys_writer", raising=False)
    monkeypatch.setenv(BACKEND, str(backend))
    monkeypatch.setenv("RECORDER_REPORT", "1")


def told(path: Path) -> dict[str, list[tuple[int, int, str, str]]]:
    """By lane: begin, end, colour and text of its ranges."""
    lanes: dict[str, list[tuple[int, int, str, str]]] = {}
    lane = ""
    for line in path.read_text().splitlines():
        what, _, rest = line.partition(" ")
        if what == "stream":
            lane = rest.partition(" ")[2]
            lanes[lane] = []
        elif what == "range":
            begin, end, colour, _, text = rest.split(" ", 4)
            lanes[lane].append((int(begin), int(end), colour, text))
    return lanes


def test_lanes_reach_the_backend_as_the_identity_has_them(backend: Path, recorded: Path) -> None:
    from nvtx.writer import Session, load_backend

    run = make_run(passes=("first", "kernels", "api"))
    timeline = timeline_of(run, "all")
    with Session("lanes", backend=load_backend(backend)) as session:
        write_lanes(session, timeline)
    lanes = told(recorded)
    assert list(lanes) == [
        f"forward under CUPTI/{lane}"
        for lane in ("iterations", "host: stages", "GPU busy: stage", "GPU idle: cause")
    ]
    api = run.timeline("api")
    assert api is not None and profile(run).source == "api"
    rows = rows_of(api.operation_sets[0], run.solution.stages)
    books = [attribute(api.operation_sets[0], i, rows) for i in api.iterations]
    gaps: Counter[str] = Counter()
    for begin, end, colour, text in lanes["forward under CUPTI/GPU idle: cause"]:
        gaps[text] += end - begin
        assert int(colour, 16) >> 24 == 0xFF
    busy: Counter[str] = Counter()
    for begin, end, _, text in lanes["forward under CUPTI/GPU busy: stage"]:
        busy[text] += end - begin
    for stage in books[0].stages:
        mine = [s for book in books for s in book.stages if s.name == stage.name]
        assert busy[stage.name] == sum(s.busy_ns for s in mine)
        for cause in ("host_late", "api", "launch_latency"):
            expected = sum(getattr(s, f"{cause}_ns") for s in mine)
            assert gaps[f"{cause}: {stage.name}"] == expected
    assert recorded.read_text().splitlines()[1] == "domain moeprof"


def test_iterations_stand_where_a_report_has_them() -> None:
    run = make_run(passes=("first", "kernels", "api"))
    origins = {number: 5_000_000 + 1_000_000 * number for number in range(20)}
    forward = timeline_of(run, "all", origins).groups[1]
    whole = [s for s in forward.tracks[0].slices if s.name != "span"]
    assert [one.begin_ns for one in whole] == list(origins.values())


def test_a_report_is_written_whole(installed: None, tmp_path: Path, recorded: Path) -> None:
    path = tmp_path / "out" / "lanes.nsys-rep"
    export(make_run(), path)
    assert path.read_text() == "a report"
    assert [file.name for file in path.parent.iterdir()] == ["lanes.nsys-rep"]
    assert len(told(recorded)) == 4


def test_a_report_that_is_added_to_must_exist(installed: None, tmp_path: Path) -> None:
    timeline = timeline_of(make_run())
    with pytest.raises(UsageError, match="there is no report"):
        write_report(timeline, tmp_path / "out.nsys-rep", into=tmp_path / "missing.nsys-rep")
    report = tmp_path / "mine.nsys-rep"
    report.write_text("mine")
    write_report(timeline, tmp_path / "out.nsys-rep", into=report)
    assert report.read_text() == "mine"


def test_a_writer_that_fails_leaves_nothing(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDER_FAILS", "1")
    with pytest.raises(EnvironmentMissing, match="writer of Nsight Systems failed: StreamOpen"):
        export(make_run(), tmp_path / "out" / "a.nsys-rep")
    assert not list((tmp_path / "out").iterdir())


def test_without_nsys_writer_one_line_says_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nsys_writer", None)
    with pytest.raises(EnvironmentMissing) as error:
        export(make_run(), tmp_path / "a.nsys-rep")
    assert "\n" not in str(error.value)
    for what in ("pip install", "python/packages/nsys_writer", "libNvtxwBackend.so"):
        assert what in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_backend_that_is_not_there_is_named(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BACKEND, str(tmp_path / "gone.so"))
    with pytest.raises(EnvironmentMissing, match="NSYS_WRITER_BACKEND names no file"):
        export(make_run(), tmp_path / "a.nsys-rep")
