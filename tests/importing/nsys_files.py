"""Hand-made exports of Nsight Systems, as SQLite or Parquet, from plain calls.

    export = Export()
    export.range("gemm1", 100, 900)
    export.kernel("gemm_kernel", 1_000, 5_000, launched=(200, 300))
    export.save(tmp_path / "capture.sqlite")

``rows`` holds what will be written, by table, and may be edited freely before ``save``. The layout
is that of a real export of schema 3.20.3 (all of its columns for the tables that matter), and two
more: 3.16 without what may come later, and 3.25 with columns in another order and unknown ones.
Tables without rows are not created, as nsys does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]

PID, TID, VM = 4242, 4243, 1 << 48
KERNEL, MEMCPY, MEMSET, GRAPH, CALLS, SYNCHRONIZATION = (
    f"CUPTI_ACTIVITY_KIND_{kind}"
    for kind in ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE", "RUNTIME", "SYNCHRONIZATION")
)
PUSH_POP, START_END, MARK, CATEGORY, DOMAIN = 59, 60, 34, 33, 75

_WHERE = "start end deviceId contextId greenContextId streamId correlationId globalPid"
LAYOUT: dict[str, str] = {
    "StringIds": "id value",
    KERNEL: f"{_WHERE} demangledName shortName mangledName launchType cacheConfig "
    "registersPerThread gridX gridY gridZ blockX blockY blockZ staticSharedMemory "
    "dynamicSharedMemory localMemoryPerThread localMemoryTotal gridId sharedMemoryExecuted "
    "graphNodeId sharedMemoryLimitConfig",
    MEMCPY: f"{_WHERE} bytes copyKind deprecatedSrcId srcKind dstKind srcDeviceId srcContextId "
    "dstDeviceId dstContextId migrationCause graphNodeId virtualAddress copyCount",
    MEMSET: f"{_WHERE} value bytes graphNodeId memKind",
    GRAPH: f"{_WHERE} graphId graphExecId",
    CALLS: "start end eventClass globalTid correlationId nameId returnValue callchainId",
    "NVTX_EVENTS": "start end eventType rangeId category color text globalTid endGlobalTid textId "
    "domainId uint64Value int64Value doubleValue uint32Value int32Value floatValue jsonTextId "
    "jsonText binaryData",
    "PROFILER_OVERHEAD": "start end globalTid nameId returnValue",
    "DIAGNOSTIC_EVENT": "timestamp timestampType source severity text globalPid",
    "TARGET_INFO_GPU": "vmId id name busLocation isDiscrete l2CacheSize totalMemory "
    "memoryBandwidth clockRate smCount pwGpuId uuid computeMajor computeMinor",
    "TARGET_INFO_CUDA_DEVICE": "gpuId cudaId pid",
    "TARGET_INFO_SYSTEM_ENV": "globalVid devStateName name nameEnum value",
    "META_DATA_EXPORT": "name value",
    "META_DATA_CAPTURE": "name value",
    "PROCESSES": "globalPid pid name",
    "ThreadNames": "nameId priority globalTid",
}
TEXTS = {"value", "text", "name", "jsonText", "binaryData", "busLocation", "uuid", "devStateName"}
NOT_TEXT = {(MEMSET, "value")}
_LATER = {  # columns that schema 3.16 need not have
    KERNEL: ("sharedMemoryLimitConfig", "greenContextId"),
    MEMCPY: ("copyCount", "virtualAddress", "greenContextId"),
    MEMSET: ("memKind", "greenContextId"),
    CALLS: ("callchainId",),
}


def layout(table: str, schema: str) -> list[str]:
    """Columns of ``table`` in an export of ``schema``."""
    columns = LAYOUT[table].split()
    version = tuple(map(int, schema.split(".")[:2]))
    if version <= (3, 16):
        return [name for name in columns if name not in _LATER.get(table, ())]
    if version >= (3, 25) and table not in ("StringIds", "META_DATA_EXPORT"):
        return [*reversed(columns), "addedLater"]
    return columns


def global_id(pid: int, tid: int = 0) -> int:
    """nsys's serialised id of a thread, or of a process (``tid`` 0)."""
    return VM | pid << 24 | tid


class Export:
    """One capture of one process on one GPU, until told otherwise."""

    def __init__(self, schema: str = "3.20.3", gpu: bool = True) -> None:
        self.schema = schema
        self.rows: dict[str, list[Row]] = {}
        self._ids: dict[str, int] = {}
        self._domains: dict[tuple[int, str], int] = {}
        self._correlation = 100
        for name, value in (
            ("EXPORT_PRODUCT_NAME", "NVIDIA Nsight Systems"),
            ("EXPORT_PRODUCT_VERSION", "2025.3.2.0"),
            ("EXPORT_SCHEMA_VERSION", schema),
        ):
            self.add("META_DATA_EXPORT", name=name, value=value)
        if gpu:
            self.gpu()

    def add(self, table: str, **columns: Any) -> Row:
        """One row as it is; columns not given are NULL."""
        self.rows.setdefault(table, []).append(columns)
        return columns

    def string(self, text: str) -> int:
        """Id of ``text`` in StringIds."""
        if text not in self._ids:
            self._ids[text] = len(self._ids) + 10
            self.add("StringIds", id=self._ids[text], value=text)
        return self._ids[text]

    def gpu(self, number: int = 0, name: str = "NVIDIA H200") -> Row:
        return self.add(
            "TARGET_INFO_GPU",
            **{"vmId": VM, "id": number, "name": name, "busLocation": "0000:00:06.0"},
            **{"l2CacheSize": 62_914_560, "totalMemory": 150_109_880_320, "smCount": 132},
            **{"uuid": "a1048be9-f25b-110a-fcd5-e52398291b42"},
            **{"computeMajor": 9, "computeMinor": 0},
        )

    def call(
        self,
        name: str,
        start: int | None,
        end: int | None,
        correlation: int | None = None,
        pid: int = PID,
        tid: int = TID,
    ) -> Row:
        """An API call; name as nsys spells it, with its version."""
        if correlation is None:
            correlation = self._next()
        return self.add(
            CALLS,
            **{"start": start, "end": end, "eventClass": 0, "globalTid": global_id(pid, tid)},
            **{"correlationId": correlation, "nameId": self.string(name), "returnValue": 0},
        )

    def kernel(
        self,
        name: str,
        start: int | None,
        end: int | None,
        launched: tuple[int, int] | None = None,
        pid: int = PID,
        tid: int = TID,
        mangled: str | None = None,
        **columns: Any,
    ) -> Row:
        """A kernel, and the call that launched it. mangled: '' is NULL."""
        row = {
            **self._operation(start, end, launched, "cudaLaunchKernel_v7000", pid, tid, columns),
            **{"demangledName": self.string(name), "shortName": self.string(name.split("(")[0])},
            "mangledName": None if mangled == "" else self.string(mangled or name),
            **{"registersPerThread": 64, "gridX": 132, "gridY": 1, "gridZ": 1},
            **{"blockX": 128, "blockY": 1, "blockZ": 1},
            **{"staticSharedMemory": 1024, "dynamicSharedMemory": 2048},
        }
        return self.add(KERNEL, **{**row, **columns})

    def memcpy(
        self,
        start: int | None,
        end: int | None,
        launched: tuple[int, int] | None = None,
        pid: int = PID,
        tid: int = TID,
        **columns: Any,
    ) -> Row:
        """A copy, from device to device unless ``copyKind`` says otherwise."""
        row = self._operation(start, end, launched, "cudaMemcpyAsync_v3020", pid, tid, columns)
        return self.add(MEMCPY, **{**row, "bytes": 4096, "copyKind": 8, **columns})

    def memset(
        self,
        start: int | None,
        end: int | None,
        launched: tuple[int, int] | None = None,
        pid: int = PID,
        tid: int = TID,
        **columns: Any,
    ) -> Row:
        row = self._operation(start, end, launched, "cudaMemsetAsync_v3020", pid, tid, columns)
        return self.add(MEMSET, **{**row, "bytes": 512, "value": 0, **columns})

    def range(
        self,
        name: str,
        start: int,
        end: int | None,
        domain: str = "moeprof",
        kind: int = PUSH_POP,
        pid: int = PID,
        tid: int = TID,
        registered: bool = True,
        **columns: Any,
    ) -> Row:
        """An NVTX range. registered: whether its name stands in StringIds."""
        row: Row = {
            **{"start": start, "end": end, "eventType": kind, "globalTid": global_id(pid, tid)},
            "domainId": self._domain(domain, pid, tid),
            "textId" if registered else "text": self.string(name) if registered else name,
        }
        return self.add("NVTX_EVENTS", **{**row, **columns})

    def diagnostic(self, severity: int, text: str) -> Row:
        return self.add(
            "DIAGNOSTIC_EVENT", timestamp=1, timestampType=1, source=3, severity=severity, text=text
        )

    def overhead(self, start: int, end: int) -> Row:
        name = self.string("CUPTI Buffer flush")
        return self.add("PROFILER_OVERHEAD", start=start, end=end, nameId=name, returnValue=0)

    def save(self, path: Path, page_size: int = 4096) -> Path:
        """Write an SQLite file, with only the tables that have rows."""
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA page_size={page_size}")
            for table, rows in self.rows.items():
                write_table(connection, table, rows, layout(table, self.schema))
        connection.close()
        return path

    def save_parquet(self, folder: Path) -> Path:
        """Write a folder of Parquet files, one a table, as `nsys export --type=parquetdir` does."""
        import pyarrow
        from pyarrow import parquet

        folder.mkdir()
        for table, rows in self.rows.items():
            columns = {}
            for name in layout(table, self.schema):
                is_text = name in TEXTS and (table, name) not in NOT_TEXT
                kind = pyarrow.large_string() if is_text else pyarrow.int64()
                values = [row.get(name) for row in rows]
                columns[name] = pyarrow.array(values, kind)
            parquet.write_table(pyarrow.table(columns), folder / f"{table}.parquet")
        return folder

    def _next(self) -> int:
        self._correlation += 1
        return self._correlation

    def _operation(
        self,
        start: int | None,
        end: int | None,
        launched: tuple[int, int] | None,
        call: str,
        pid: int,
        tid: int,
        columns: Mapping[str, Any],
    ) -> Row:
        correlation = columns.get("correlationId", self._next())
        if launched is not None:
            self.call(call, *launched, correlation=correlation, pid=pid, tid=tid)
        return {
            **{"start": start, "end": end, "deviceId": 0, "contextId": 1, "streamId": 7},
            **{"correlationId": correlation, "globalPid": global_id(pid)},
        }

    def _domain(self, name: str, pid: int, tid: int) -> int:
        if not name:
            return 0
        key = (pid, name)
        if key not in self._domains:
            self._domains[key] = 1 + sum(owner == pid for owner, _ in self._domains)
            self.add(
                "NVTX_EVENTS",
                **{"start": -1_000, "eventType": DOMAIN, "text": name},
                **{"globalTid": global_id(pid, tid), "domainId": self._domains[key]},
            )
        return self._domains[key]


def write_table(
    connection: sqlite3.Connection, table: str, rows: Iterable[Row], columns: list[str]
) -> None:
    """Create ``table`` as nsys declares it, and fill it."""
    declared = ", ".join(
        f"{name} {'TEXT' if name in TEXTS and (table, name) not in NOT_TEXT else 'INTEGER'}"
        + (" NOT NULL PRIMARY KEY" if (table, name) == ("StringIds", "id") else "")
        for name in columns
    )
    connection.execute(f"CREATE TABLE {table} ({declared})")
    marks = ", ".join("?" * len(columns))
    connection.executemany(
        f"INSERT INTO {table} VALUES ({marks})",
        ([row.get(name) for name in columns] for row in rows),
    )


def two_iterations(schema: str = "3.20.3") -> Export:
    """Two iterations of two stages, three operations each, that start 1,000 ns after their call.

    One kernel has a mangled name, one call blocks, and every kind of operation occurs.
    """
    export = Export(schema)
    for iteration in range(2):
        at = 1_000_000 + 100_000 * iteration
        export.range("iteration", at, at + 90_000)
        export.range("routing", at + 1_000, at + 19_000)
        export.range("gemm1", at + 20_000, at + 49_000)
        export.memset(at + 6_000, at + 7_000, (at + 2_000, at + 5_000))
        name = "scale_kernel(float const*, int)"
        launched = (at + 8_000, at + 12_000)
        export.kernel(name, at + 13_000, at + 16_000, launched, mangled="_Z12scale_kernelPKfi")
        export.kernel("gemm_kernel", at + 26_000, at + 76_000, (at + 21_000, at + 25_000))
        export.call("cudaDeviceSynchronize_v3020", at + 50_000, at + 80_000)
    return export
