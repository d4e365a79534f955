"""Scrubbed exports: the same trace, nothing private, whole or not there."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from moeprof.errors import RecordError, ResourceExhausted, UsageError
from moeprof.importing.nsys_sqlite import read_nsys_sqlite
from moeprof.importing.nsys_tables import READ
from moeprof.importing.scrub import scrub_nsys_sqlite
from tests.importing import nsys_files as files
from tests.importing.traces import differences
from tests.privacy import private_words

DATA = Path(__file__).resolve().parents[1] / "data" / "nsys"
CAPTURES = sorted(DATA.glob("*.sqlite"))
# what a real export of these captures holds and a scrubbed one must not
TELLING = [
    *(rb"/tmp/", rb"/home/", rb"/root", rb"/opt/", rb"/usr/", rb"quadd_session"),
    *(
        rb"python3?\b",
        rb"HOME=",
        rb"PATH=",
        rb"LD_PRELOAD",
        rb"ENVIRONMENT",
        rb"Hostname",
        rb"USER",
    ),
    *(rb"PROCESSES", rb"ThreadNames", rb"uuid", rb"busLocation", rb"0000:\d\d:\d\d", rb"kworker"),
    *(
        rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}",
        rb"CpuInfo",
        rb"\bxeon\b",
        rb"Ubuntu",
        rb"[a-z]{3}@[a-z]{3}",
    ),
]
SECRET = "s3cret-token"


@pytest.fixture
def telling():
    """An export that holds a secret wherever an export can hold a text."""
    export = files.two_iterations()
    here = f"/home/ann/{SECRET}/a.py"
    for name, value in (
        *(("EXPORT_HOST", SECRET), ("EXPORT_PARAM_INPUT_PATH", here), ("EXPORT_USER", SECRET)),
        *(("EXPORT_SCHEMA_VERSION", f"3.20 {here}"), ("EXPORT_PRODUCT_VERSION", SECRET)),
    ):
        export.add("META_DATA_EXPORT", name=name, value=value)
    export.add("META_DATA_CAPTURE", name="PROCESS_0:ENVIRONMENT_VARIABLE", value=f"KEY={SECRET}")
    for name in ("Hostname", "DeviceEnvironment", "NvDriverVersion", "CudaDriverVersion"):
        export.add("TARGET_INFO_SYSTEM_ENV", name=name, value=SECRET, devStateName=SECRET)
    export.add("PROCESSES", globalPid=1, pid=1, name=SECRET)
    export.add("ThreadNames", nameId=export.string(SECRET), priority=1, globalTid=1)
    for severity in range(5):
        export.diagnostic(severity, f"cannot open {here}, {SECRET}@host or KEY={SECRET}: refused")
    export.range(f"load {here}", 2_000_000, 2_000_001)
    export.range(f"of {here}", 2_000_002, 2_000_003, registered=False)
    export.range(f"by {SECRET}@host", 2_000_004, 2_000_005, domain=f"~/{SECRET}")
    export.range("payload", 2_000_006, 2_000_007, jsonText=SECRET, binaryData=SECRET)
    export.range(SECRET, 2_000_008, None, kind=files.MARK)
    export.range(SECRET, 2_000_008, None, kind=files.CATEGORY, registered=False)
    export.rows["TARGET_INFO_GPU"][0]["uuid"] = SECRET
    return export


def _holds(path: Path, word: bytes) -> bool:
    return word in path.read_bytes()


def test_nothing_secret_is_left_and_the_rest_reads_the_same(telling, tmp_path):
    source = telling.save(tmp_path / "source.sqlite")
    assert _holds(source, SECRET.encode())
    scrub_nsys_sqlite(source, tmp_path / "scrubbed.sqlite")
    assert not _holds(tmp_path / "scrubbed.sqlite", SECRET.encode())
    assert not _holds(tmp_path / "scrubbed.sqlite", b"/home")
    one, other = read_nsys_sqlite(source), read_nsys_sqlite(tmp_path / "scrubbed.sqlite")
    assert differences(one, other) == ["ranges.names"]
    names = [name for name in other.ranges.names if "[...]" in " ".join(name)]
    assert names == [("moeprof", "load [...]"), ("moeprof", "of [...]"), ("[...]", "by [...]")]


def test_only_tables_and_columns_that_are_read_are_left(telling, tmp_path):
    scrub_nsys_sqlite(telling.save(tmp_path / "source.sqlite"), tmp_path / "scrubbed.sqlite")
    for path in [*CAPTURES, tmp_path / "scrubbed.sqlite"]:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            query = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
            for kind, table in connection.execute(query).fetchall():
                assert kind == "table"
                found = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
                assert found == {*READ[table].numbers, *READ[table].texts}
            kept = [row[0] for row in connection.execute("SELECT name FROM META_DATA_EXPORT")]
            assert set(kept) <= {"EXPORT_PRODUCT_VERSION", "EXPORT_SCHEMA_VERSION"}
            referred = " UNION ".join(
                f"SELECT {column} FROM {table}"
                for table, columns in {
                    files.KERNEL: ("mangledName", "demangledName", "shortName"),
                    files.CALLS: ("nameId",),
                    "NVTX_EVENTS": ("textId",),
                }.items()
                for column in columns
            )
            query = f"SELECT value FROM StringIds WHERE id NOT IN ({referred})"
            assert connection.execute(query).fetchall() == []


@pytest.mark.parametrize(
    "path", [*CAPTURES, *DATA.glob("*parquet/*"), *DATA.glob("*.csv")], ids=str
)
def test_committed_captures_tell_nothing_of_the_machine_or_its_user(path):
    content = path.read_bytes()
    for pattern in TELLING:
        assert not re.search(pattern, content, re.IGNORECASE), pattern
    words = {word.encode() for word in private_words() if len(word) > 3}
    assert not [word for word in words if word in content]
    assert len(content) < 300_000


def test_all_committed_captures_are_small():
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 1_500_000


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_scrubbing_what_is_scrubbed_changes_nothing(path, tmp_path):
    scrub_nsys_sqlite(path, tmp_path / "again.sqlite")
    assert differences(read_nsys_sqlite(path), read_nsys_sqlite(tmp_path / "again.sqlite")) == []
    assert [file.name for file in tmp_path.iterdir()] == ["again.sqlite"]


def test_the_first_iterations_only(tmp_path):
    source = DATA / "triton_v2-T56.sqlite"
    scrub_nsys_sqlite(source, tmp_path / "cut.sqlite", iterations=3)
    whole, cut = read_nsys_sqlite(source), read_nsys_sqlite(tmp_path / "cut.sqlite")
    assert len(cut.ranges) == 3 * 8
    window = cut.ranges.start_ns[0], cut.ranges.end_ns.max()
    launched = {
        correlation
        for correlation, start in zip(
            whole.calls.correlation.tolist(), whole.calls.start_ns.tolist(), strict=True
        )
        if window[0] <= start <= window[1]
    }
    expected = [n for n in whole.operations.correlation.tolist() if n in launched]
    assert cut.operations.correlation.tolist() == expected
    assert len(expected) == 3 * 20 + 2  # and what empties the cache between iterations
    assert set(cut.operations.correlation.tolist()) <= set(cut.calls.correlation.tolist())
    assert (tmp_path / "cut.sqlite").stat().st_size < source.stat().st_size * 0.6


def test_a_window_of_time(tmp_path):
    source = files.two_iterations().save(tmp_path / "source.sqlite")
    scrub_nsys_sqlite(source, tmp_path / "cut.sqlite", window_ns=(1_005_000, 1_060_000))
    cut = read_nsys_sqlite(tmp_path / "cut.sqlite")
    assert cut.calls.start_ns.tolist() == [1_008_000, 1_021_000, 1_050_000]
    assert cut.operations.start_ns.tolist() == [1_013_000, 1_026_000]
    assert [cut.ranges.names[number][1] for number in cut.ranges.name] == ["gemm1"]


def test_what_cannot_be_scrubbed_leaves_no_file(tmp_path):
    source = files.two_iterations().save(tmp_path / "source.sqlite")
    target = tmp_path / "target.sqlite"
    with pytest.raises(UsageError, match="0 iterations; expected 1 or more"):
        scrub_nsys_sqlite(source, target, iterations=0)
    with pytest.raises(RecordError, match="no closed NVTX range named iteration"):
        scrub_nsys_sqlite(DATA / "h200_two_iterations.sqlite", target, iterations=1)
    with pytest.raises(RecordError, match="missing"):
        scrub_nsys_sqlite(tmp_path / "absent.sqlite", target)
    with pytest.raises(ResourceExhausted, match="could not be written"):
        scrub_nsys_sqlite(source, tmp_path / "no folder" / "target.sqlite")
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as connection:
        connection.execute("CREATE TABLE people (name TEXT)")
    with pytest.raises(RecordError, match="none of an export's tables"):
        scrub_nsys_sqlite(tmp_path / "other.sqlite", target)
    (tmp_path / "other.sqlite").unlink()
    broken = bytearray(source.read_bytes())
    broken[4096:] = bytes(len(broken) - 4096)
    source.write_bytes(broken)
    with pytest.raises(RecordError, match="damaged"):
        scrub_nsys_sqlite(source, target)
    assert [file.name for file in tmp_path.iterdir()] == ["source.sqlite"]


def test_a_string_without_an_id_is_not_given_one(tmp_path):
    source = files.two_iterations().save(tmp_path / "source.sqlite")
    with closing(sqlite3.connect(source)) as connection:
        connection.executescript(
            "CREATE TABLE strings AS SELECT NULL AS id, value FROM StringIds;"
            "DROP TABLE StringIds; ALTER TABLE strings RENAME TO StringIds;"
            "UPDATE NVTX_EVENTS SET textId = NULL"
        )
    scrub_nsys_sqlite(source, tmp_path / "scrubbed.sqlite")
    trace = read_nsys_sqlite(tmp_path / "scrubbed.sqlite")
    assert trace.calls.names == ("(no name)",)
    assert differences(read_nsys_sqlite(source), trace) == []


def test_a_file_that_exists_is_not_replaced(tmp_path):
    source = files.two_iterations().save(tmp_path / "source.sqlite")
    before = source.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        scrub_nsys_sqlite(source, source)
    assert source.read_bytes() == before
