"""nsys: what it is told, and what is said when it fails in the ways in which it was seen to."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from moeprof.capturing import nsys
from moeprof.capturing.find import NSYS, find
from moeprof.errors import EnvironmentMissing, MoeprofError, RecordError, ResourceExhausted
from tests.capturing import fakes

ENVIRONMENT = {"PATH": os.environ["PATH"]}
WRITES = 'echo report > "$OUT.nsys-rep"'


def profiled(tmp_path: Path, body: str, seconds: float = 20) -> Path:
    """What ``profile`` and ``require_report`` make of an nsys that does ``body``."""
    tool = find(NSYS, fakes.nsys(tmp_path / "nsys", profile=body))
    report = tmp_path / "out" / "capture.nsys-rep"
    report.parent.mkdir(exist_ok=True)
    done = nsys.profile(tool, ["program", "-t", "x"], report, ENVIRONMENT, seconds)
    nsys.require_report(done, report)
    return report


def test_the_flags_are_those_that_cost_the_host_least(tmp_path: Path) -> None:
    given = tmp_path / "given"
    report = profiled(tmp_path, f'printf "%s\\n" "${{ARGUMENTS[@]}}" > {given}; {WRITES}')
    assert given.read_text().split("\n")[:-1] == [
        *("-t", "cuda,nvtx", "-s", "none", "--cpuctxsw=none", "--cuda-event-trace=false"),
        *("--cuda-graph-trace=node", "-c", "cudaProfilerApi", "--capture-range-end=stop"),
        *("-f", "true", "-o", str(report.with_suffix("")), "program", "-t", "x"),
    ]
    assert report.read_text() == "report\n"


def test_a_per_cent_sign_in_a_path_is_no_macro() -> None:
    assert nsys.output_name(Path("/a/100%h/b.c-T7.nsys-rep")) == "/a/100%%h/b.c-T7"


RECORDED = f"cat <<'END'\n{fakes.RECORDED}\nEND\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            f'{RECORDED} echo "{fakes.NO_LIBDW}"; echo raw > "$OUT.qdstrm"; exit 1',
            "could not import what it recorded (libdw.so.1 is missing); apt-get install libdw1",
        ),
        (f'{RECORDED} echo raw > "$OUT.qdstrm"', "(often libdw.so.1 is missing)"),
        (RECORDED, "(often libdw.so.1 is missing)"),
        ("echo 'unrecognised option --cuda-event-trace'; exit 1", "unrecognised option --cuda-ev"),
        ("echo working; kill -SEGV $$", "wrote no report: killed by signal 11 after 'working'"),
        ("exit 0", "wrote no report: it printed nothing and ended with exit code 0"),
        ('touch "$OUT.nsys-rep"; echo Importer error: empty', "no report: Importer error: empty"),
        ("head -c 200000 /dev/urandom; exit 1", "nsys wrote no report: "),
    ],
    ids=["libdw", "qdstrm", "named", "option", "crash", "silent", "empty", "garbage"],
)
def test_why_there_is_no_report_is_one_line(body: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissing) as raised:
        profiled(tmp_path, body)
    assert words in str(raised.value)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 400
    assert not list((tmp_path / "out").glob("*.qdstrm"))


def test_a_full_disk_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(ResourceExhausted, match="the disk is full .*out.; choose a -o folder"):
        profiled(tmp_path, "echo 'write: No space left on device'; exit 1")


def test_a_hang_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissing, match="nsys did not finish in 1 s and was stopped"):
        profiled(tmp_path, "sleep 60", seconds=1)


# ---------------------------------------------------------------- export


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "capture.nsys-rep"
    path.write_text("a report")
    return path


def test_an_export_is_put_where_it_is_wanted(tmp_path: Path, report: Path) -> None:
    source = tmp_path / "source.sqlite"
    with sqlite3.connect(source) as connection:
        connection.execute("CREATE TABLE StringIds (id, value)")
    path = fakes.nsys(
        tmp_path / "nsys",
        export=f'printf "%s\\n" "${{ARGUMENTS[@]}}" > {tmp_path}/given; cp {source} "$OUT"',
    )
    nsys.export_sqlite(report, tmp_path / "made.sqlite", path)
    assert (tmp_path / "made.sqlite").read_bytes() == source.read_bytes()
    given = (tmp_path / "given").read_text().split()
    assert given[:5] == ["--type", "sqlite", "-f", "true", "-o"] and given[-1] == str(report)
    assert not Path(given[5]).parent.exists()


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("echo 'Error: report of a newer version'; exit 1", RecordError, "report of a newer versi"),
        ("exit 0", RecordError, "cannot export it: it printed nothing and ended with exit code 0"),
        ('touch "$OUT"', RecordError, "nsys 2025.3.1.90 cannot export it"),
        ('echo half > "$OUT"; kill -KILL $$', RecordError, "killed by signal 9"),
        ("echo 'No space left on device'; exit 1", ResourceExhausted, "the disk is full"),
    ],
    ids=["newer", "nothing", "empty", "killed", "full"],
)
def test_a_failed_export_is_one_line_and_leaves_nothing(
    body: str, kind: type[MoeprofError], words: str, tmp_path: Path, report: Path
) -> None:
    path = fakes.nsys(tmp_path / "nsys", export=body)
    with pytest.raises(kind) as raised:
        nsys.export_sqlite(report, tmp_path / "made.sqlite", path)
    assert words in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "made.sqlite").exists()


def test_an_export_that_hangs_is_ended(tmp_path: Path, report: Path) -> None:
    path = fakes.nsys(tmp_path / "nsys", export='echo half > "$OUT"; sleep 60')
    with pytest.raises(EnvironmentMissing, match="nsys did not finish in 1 s"):
        nsys.export_sqlite(report, tmp_path / "made.sqlite", path, seconds=1)
    assert not (tmp_path / "made.sqlite").exists()


def test_a_destination_that_cannot_be_written_is_one_line(tmp_path: Path, report: Path) -> None:
    path = fakes.nsys(tmp_path / "nsys", export='echo whole > "$OUT"')
    with pytest.raises(ResourceExhausted, match="could not be written: No such file"):
        nsys.export_sqlite(report, tmp_path / "nowhere" / "made.sqlite", path)


def test_the_export_runs_with_the_allowed_variables(
    tmp_path: Path, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2hunter2")
    dump = tmp_path / "environment"
    path = fakes.nsys(tmp_path / "nsys", export=f'env > {dump}; echo whole > "$OUT"')
    nsys.export_sqlite(report, tmp_path / "made.sqlite", path)
    assert "PATH=" in dump.read_text() and "SECRET" not in dump.read_text()
    assert shutil.which("env")
