"""Parquet exports: the same trace as from SQLite, and folders that are no exports."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from moeprof.errors import EnvironmentMissing, RecordError
from moeprof.importing.nsys_parquet import SPARE_ROWS, read_nsys_parquet
from moeprof.importing.nsys_sqlite import read_nsys_sqlite
from tests.importing import nsys_files as files
from tests.importing.traces import differences

DATA = Path(__file__).resolve().parents[1] / "data" / "nsys"


def test_a_real_capture_reads_the_same_as_from_sqlite():
    one = read_nsys_parquet(DATA / "triton_v2-T56-parquet")
    other = read_nsys_sqlite(DATA / "triton_v2-T56.sqlite")
    assert len(one.operations) == 420 and len(one.ranges) == 160
    assert differences(one, other) == []


@pytest.mark.parametrize("schema", ["3.16.1", "3.20.3", "3.25.0"])
def test_hand_made_captures_read_the_same_as_from_sqlite(tmp_path, schema):
    export = files.two_iterations(schema)
    export.memcpy(2_000_000, 2_000_100)
    export.range("open \x1b[2J", 3_000_000, None, registered=False)
    export.range("there", 3_000_001, 3_000_002, kind=files.START_END, endGlobalTid=5)
    export.kernel("k", 0, 0)
    export.kernel("unknown place", 9_000_000, 9_000_100, globalPid=None, streamId=None)
    export.add(files.GRAPH, start=1, end=2)
    export.diagnostic(3, "stopped at /tmp/x")
    export.overhead(5, 6)
    export.add("TARGET_INFO_SYSTEM_ENV", name="NvDriverVersion", value="580.1")
    one = read_nsys_parquet(export.save_parquet(tmp_path / "folder"))
    other = read_nsys_sqlite(export.save(tmp_path / "capture.sqlite"))
    assert len(one.operations) == 8
    assert differences(one, other) == []


def _rewrite(path: Path, **columns) -> None:
    table = parquet.read_table(path)
    for name, column in columns.items():
        position = table.column_names.index(name)
        table = table.set_column(position, name, column)
    parquet.write_table(table, path)


@pytest.fixture
def folder(tmp_path):
    return files.two_iterations().save_parquet(tmp_path / "folder")


def test_columns_of_other_types_are_missing(folder):
    count = parquet.read_table(folder / f"{files.KERNEL}.parquet").num_rows
    _rewrite(
        folder / f"{files.KERNEL}.parquet",
        gridX=pyarrow.array(["wide"] * count),
        streamId=pyarrow.array([1.5] * count),
        registersPerThread=pyarrow.array([[64]] * count),
        correlationId=pyarrow.array([2**64 - 1] * count, pyarrow.uint64()),
    )
    strings = folder / "StringIds.parquet"
    _rewrite(strings, value=pyarrow.array([0] * parquet.read_table(strings).num_rows))
    trace = read_nsys_parquet(folder)
    kernels = [op for op in trace.operations.descriptions if op.kind == "kernel"]
    assert [(op.name, op.grid, op.stream, op.registers) for op in kernels] == [
        ("(no name)", None, -1, None)
    ]
    assert trace.operations.correlation.tolist().count(-1) == count


def test_texts_that_are_no_utf8_are_repaired(folder):
    path = folder / "NVTX_EVENTS.parquet"
    count = parquet.read_table(path).num_rows
    text = pyarrow.array([b"gemm\xff1"] * count, pyarrow.binary()).view(pyarrow.string())
    _rewrite(path, text=text, textId=pyarrow.nulls(count, pyarrow.int64()))
    assert read_nsys_parquet(folder).ranges.names == (("gemm\ufffd1", "gemm\ufffd1"),)


def test_more_rows_than_bytes_is_refused_not_read(folder):
    count = 20 * SPARE_ROWS
    same = pyarrow.array([7] * count)
    times = {name: same for name in ("start", "end", "deviceId", "streamId", "correlationId")}
    path = folder / f"{files.KERNEL}.parquet"
    parquet.write_table(pyarrow.table(times), path)
    assert path.stat().st_size < SPARE_ROWS
    with pytest.raises(RecordError, match="more rows than fit"):
        read_nsys_parquet(folder)


@pytest.mark.parametrize("kept", [0, 3, 100, -5])
def test_a_truncated_file_is_refused_in_one_line(folder, kept):
    path = folder / f"{files.CALLS}.parquet"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RecordError, match=r"damaged \(.*export again") as caught:
        read_nsys_parquet(folder)
    assert str(caught.value).isprintable()


def test_a_missing_column_is_refused_and_a_missing_table_is_empty(folder):
    (folder / f"{files.CALLS}.parquet").unlink()
    assert len(read_nsys_parquet(folder).calls) == 0
    path = folder / f"{files.KERNEL}.parquet"
    parquet.write_table(parquet.read_table(path).drop(["end"]), path)
    with pytest.raises(RecordError, match="has no column end"):
        read_nsys_parquet(folder)


def test_folders_that_are_no_exports(tmp_path):
    with pytest.raises(RecordError, match="no folder"):
        read_nsys_parquet(tmp_path / "absent")
    with pytest.raises(RecordError, match="none of an export's tables"):
        read_nsys_parquet(tmp_path)


def test_without_pyarrow_one_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EnvironmentMissing, match=r"pip install 'moeprof\[parquet\]'"):
        read_nsys_parquet(folder)
