"""Files that are locked, half-written, damaged or meant to harm: read or refused, never changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from moeprof.errors import RecordError
from moeprof.importing import nsys_ranges
from moeprof.importing.nsys_sqlite import LONGEST_TEXT, read_nsys_sqlite
from moeprof.importing.nsys_tables import Interned
from tests.importing import nsys_files as files
from tests.importing.traces import check_sound, differences


@pytest.fixture
def path(tmp_path):
    (tmp_path / "folder").mkdir()
    return files.two_iterations().save(tmp_path / "folder" / "capture.sqlite")


def _folder(path: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.parent.iterdir()
    }


def _refused(path: Path) -> str:
    with pytest.raises(RecordError) as caught:
        read_nsys_sqlite(path)
    said = str(caught.value)
    assert said.isprintable() and said.startswith(str(path))
    return said


# -- whatever state the file is in ----------------------------------------------------------------


def test_a_file_of_another_writer_is_read_and_left_as_it_is(path, tmp_path):
    expected = read_nsys_sqlite(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        before = _folder(path)
        assert differences(read_nsys_sqlite(path), expected) == []
        assert _folder(path) == before
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        assert differences(read_nsys_sqlite(path), expected) == []
        assert list(_folder(path)) == ["capture.sqlite"]
    finally:
        path.parent.chmod(0o755)


def test_a_file_in_wal_mode_is_read_without_files_beside_it(path):
    expected = read_nsys_sqlite(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode=WAL")
    before = _folder(path)
    assert differences(read_nsys_sqlite(path), expected) == []
    assert _folder(path) == before == {"capture.sqlite": before["capture.sqlite"]}


def test_changes_that_are_not_yet_in_the_file_are_a_reason_to_refuse(path, tmp_path):
    copy = tmp_path / "copy.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("DELETE FROM NVTX_EVENTS")
        other.commit()
        shutil.copy(path, copy)
        shutil.copy(path.with_name("capture.sqlite-wal"), tmp_path / "copy.sqlite-wal")
    assert "changes not yet in it lie in copy.sqlite-wal" in _refused(copy)
    (tmp_path / "copy.sqlite-wal").write_bytes(b"")
    assert len(read_nsys_sqlite(copy).ranges) == 6
    (tmp_path / "copy.sqlite-journal").write_bytes(b"x")
    assert "copy.sqlite-journal" in _refused(copy)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.5, 0.99])
def test_a_truncated_file_is_refused(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    said = _refused(path)
    assert any(word in said for word in ("empty", "not an SQLite file", "truncated at"))


def test_a_truncated_file_whose_header_does_not_tell_is_refused(path):
    content = bytearray(path.read_bytes()[: 5 * 4096])
    content[92:96] = b"\0\0\0\1"  # written by an SQLite that kept no count of pages
    path.write_bytes(content)
    assert "damaged (malformed" in _refused(path)


def test_paths_that_are_no_exports(tmp_path):
    assert "missing" in _refused(tmp_path / "absent.sqlite")
    assert "is a folder" in _refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is no file" in _refused(tmp_path / "pipe")
    report = tmp_path / "capture.nsys-rep"
    report.write_bytes(b"NVIDIA Tegra Profiler Report " * 10)
    said = _refused(report)
    assert "not an SQLite file" in said and "nsys export --type=sqlite" in said
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE people (name TEXT)")
    assert "none of an export's tables" in _refused(other)


def test_names_of_files_with_signs_that_mean_something_in_a_uri(path, tmp_path):
    odd = tmp_path / "100% ? mode=rw&x#1.sqlite"
    shutil.copy(path, odd)
    assert len(read_nsys_sqlite(odd).operations) == 6


def test_a_file_that_may_not_be_read(path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "Permission denied" in _refused(path)


# -- schemas that are meant to surprise -----------------------------------------------------------


def _change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_views_virtual_tables_and_generated_columns_are_not_looked_at(path):
    endless = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
        "SELECT x AS start, x AS end, 59 AS eventType, 1 AS globalTid FROM n"
    )
    _change(
        path,
        "DROP TABLE NVTX_EVENTS",
        f"CREATE VIEW NVTX_EVENTS AS {endless}",
        "CREATE VIRTUAL TABLE PROFILER_OVERHEAD USING fts4(start, end)",
        "INSERT INTO PROFILER_OVERHEAD VALUES (1, 2)",
        f"ALTER TABLE {files.MEMSET} DROP COLUMN bytes",
        f"ALTER TABLE {files.MEMSET} ADD COLUMN bytes INTEGER AS (zeroblob(1000000000))",
        f"CREATE TRIGGER t AFTER INSERT ON {files.CALLS} BEGIN DELETE FROM StringIds; END",
        f"CREATE INDEX i ON {files.KERNEL} (start, end, correlationId)",
    )
    before = _folder(path)
    trace = read_nsys_sqlite(path)
    assert (len(trace.operations), len(trace.ranges), len(trace.overhead_ns)) == (6, 0, 0)
    assert [operation.bytes for operation in trace.operations.descriptions] == [None] * 3
    assert _folder(path) == before


def test_sql_in_names_of_columns_and_tables_is_not_run(path):
    _change(
        path,
        'CREATE TABLE "x""; DROP TABLE StringIds; --" (a)',
        f'ALTER TABLE {files.KERNEL} ADD COLUMN "start""; DROP TABLE StringIds; --"',
    )
    assert len(read_nsys_sqlite(path).operations) == 6


def test_ids_that_are_double_missing_or_of_another_type(tmp_path):
    export = files.two_iterations()
    export.rows["StringIds"] += [
        {"id": 10, "value": "a second"},
        {"id": None, "value": "nobody's"},
        {"id": "10", "value": "a third"},
        {"id": 11, "value": None},
        {"id": 12, "value": b"blob"},
    ]
    export.range("r", 5_000_000, 5_000_001, textId=987_654)
    export.kernel("k", 6_000_000, 6_000_001, demangledName=-1, shortName=1 << 62, mangledName=-5)
    export.call("c", 7_000_000, 7_900_000)["nameId"] = 987_654
    export.call("d", 8_000_000, 8_900_000)["nameId"] = None
    path = tmp_path / "double.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        for table, rows in export.rows.items():
            columns = files.layout(table, export.schema)
            if table == "StringIds":
                connection.execute("CREATE TABLE StringIds (id, value)")
                connection.executemany(
                    "INSERT INTO StringIds VALUES (?, ?)",
                    [(row["id"], row["value"]) for row in rows],
                )
            else:
                files.write_table(connection, table, rows, columns)
        connection.commit()
    trace = read_nsys_sqlite(path)
    check_sound(trace)
    assert "(no name)" in [operation.name for operation in trace.operations.descriptions]
    assert {("moeprof", ""), ("moeprof", "iteration")} < set(trace.ranges.names)
    assert set(trace.calls.names) == {
        *("cudaMemsetAsync", "cudaLaunchKernel", "cudaDeviceSynchronize", "(no name)")
    }
    assert trace.notes == (
        "1 kernels have no name in the export",
        "left out: 1 strings whose id an earlier one has",
    )


@pytest.mark.parametrize(
    "value",
    [2**63 - 1, -(2**63), 2**62, 1e300, float("inf"), float("nan"), "", "7", b"\0" * 8, None],
)
@pytest.mark.parametrize("table", [files.KERNEL, files.MEMSET, files.CALLS, "NVTX_EVENTS"])
def test_any_value_in_any_column(tmp_path, table, value):
    for column in files.LAYOUT[table].split():
        export = files.two_iterations()
        export.rows[table][-1][column] = value
        path = tmp_path / f"{column}.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            for name, rows in export.rows.items():
                columns = files.layout(name, export.schema)
                connection.execute(f"CREATE TABLE {name} ({', '.join(columns)})")  # of no type
                marks = ", ".join("?" * len(columns))
                connection.executemany(
                    f"INSERT INTO {name} VALUES ({marks})",
                    [[row.get(wanted) for wanted in columns] for row in rows],
                )
            connection.commit()
        check_sound(read_nsys_sqlite(path, demangle=lambda names: {}))


# -- files that hold more than fits in them -------------------------------------------------------


def test_pages_that_refer_to_one_another_do_not_repeat_for_ever(tmp_path):
    """Two pages, each with 400 references to the next, over one page of rows: 10 million rows."""
    export = files.Export()
    for number in range(20):
        export.overhead(number, number + 1)
    path = export.save(tmp_path / "capture.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'PROFILER_OVERHEAD'"
        ((root,),) = connection.execute(query)
    content = bytearray(path.read_bytes())
    pages = len(content) // 4096
    rows = bytes(content[(root - 1) * 4096 : root * 4096])
    content += _interior(pages + 2) + rows
    content[(root - 1) * 4096 : root * 4096] = _interior(pages + 1)
    content[28:32] = struct.pack(">I", pages + 2)
    path.write_bytes(content)
    assert "it holds more than fits in it" in _refused(path)


def _interior(child: int) -> bytes:
    """A page of a table's tree that refers 400 times to one other page."""
    cells = [struct.pack(">I", child) + bytes([number % 100]) for number in range(400)]
    page = bytearray(4096)
    at = 4096
    for number, cell in enumerate(cells):
        at -= len(cell)
        page[at : at + len(cell)] = cell
        page[12 + 2 * number : 14 + 2 * number] = struct.pack(">H", at)
    page[:12] = struct.pack(">BHHHBI", 5, 0, len(cells), at, 0, child)
    return bytes(page)


def test_texts_that_share_their_bytes_are_not_read_again_and_again(tmp_path):
    """Rows whose texts of 0.9 MB each are one page of overflow that follows itself."""
    export = files.Export()
    export.diagnostic(3, "short")
    path = export.save(tmp_path / "capture.sqlite")
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'DIAGNOSTIC_EVENT'"
        ((root,),) = connection.execute(query)
    content = bytearray(path.read_bytes())
    circle = len(content) // 4096 + 1
    content[(root - 1) * 4096 : root * 4096] = _leaf(220 * 4092 + 476, circle)
    content += struct.pack(">I", circle) + b"x" * 4092
    content += bytes(224 * 4096)  # SQLite does refuse a text longer than its file
    content[28:32] = struct.pack(">I", len(content) // 4096)
    path.write_bytes(content)
    with closing(sqlite3.connect(path)) as connection:  # but would read this
        ((length,),) = connection.execute("SELECT sum(length(text)) FROM DIAGNOSTIC_EVENT")
        assert length > 5 * len(content)
    assert "it holds more than fits in it" in _refused(path)


def _leaf(length: int, overflow: int) -> bytes:
    """A page of six diagnostics of severity 3, whose texts go on at page ``overflow``."""
    header = b"\x01\x01\x01\x01" + _varint(13 + 2 * length) + b"\0"
    record = bytes([1 + len(header)]) + header + b"\1\1\3\3"
    size = len(record) + length
    local = 489 + (size - 489) % 4092
    assert local == 489, "what SQLite keeps in the cell"
    page = bytearray(4096)
    at = 4096
    for row in range(6):
        start = record + b"x" * (local - len(record))
        cell = _varint(size) + bytes([row + 1]) + start + struct.pack(">I", overflow)
        at -= len(cell)
        page[at : at + len(cell)] = cell
        page[8 + 2 * row : 10 + 2 * row] = struct.pack(">H", at)
    page[:8] = struct.pack(">BHHHB", 13, 0, 6, at, 0)
    return bytes(page)


def _varint(value: int) -> bytes:
    digits = [value & 127]
    while value := value >> 7:
        digits.append(value & 127 | 128)
    return bytes(reversed(digits))


def test_a_text_longer_than_any_name_is_refused(tmp_path):
    export = files.two_iterations()
    export.diagnostic(3, "x" * (LONGEST_TEXT + 1))
    assert "too big" in _refused(export.save(tmp_path / "capture.sqlite"))


def test_ranges_with_ever_new_names_are_left_out_at_some_point(tmp_path, monkeypatch):
    monkeypatch.setattr(nsys_ranges, "MOST_TEXTS", 5)
    export = files.Export()
    for number in range(9):
        export.range(f"step {number}", number, number + 1, registered=False, domain="")
    export.range("step 0", 20, 21, registered=False, domain="")
    trace = read_nsys_sqlite(export.save(tmp_path / "capture.sqlite"))
    assert [trace.ranges.names[n][1] for n in trace.ranges.name.tolist()] == [
        *(f"step {number}" for number in range(5)),
        "step 0",
    ]
    left_out = "left out: 4 NVTX ranges whose names come after 5 different ones"
    assert trace.notes[1:] == (left_out,)


def test_more_kinds_of_kernels_than_any_workload_has_are_refused():
    import numpy as np

    interned = Interned(2, most=3, what="kernels")
    assert interned.add([np.array([1, 1, 2]), np.array([5, 5, 5])]).tolist() == [0, 0, 1]
    assert interned.add([np.array([2, 3]), np.array([5, 5])]).tolist() == [1, 2]
    assert interned.rows().tolist() == [[1, 5], [2, 5], [3, 5]]
    with pytest.raises(RecordError, match="more than 3 different kernels"):
        interned.add([np.array([4]), np.array([5])])
