"""How much memory and time a large export takes.

.venv/bin/python -m tests.importing.test_nsys_size 2000    # an export of 2,000 MB, in /tmp
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.importing import nsys_files as files

STAGES = (
    "routing",
    "prepare_moe_input",
    "shuffle_rows",
    "gemm1",
    "swiglu_quant",
    "gemm2",
    "gather",
)
BYTES_AN_ITERATION = 5_050  # 20 kernels, 80 calls, 2 copies, 8 ranges and a mark

_READ = """
import json, resource, sys, time
from pathlib import Path
from moeprof.importing.nsys_sqlite import read_nsys_sqlite
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.monotonic()
trace = read_nsys_sqlite(Path(sys.argv[1]))
print(json.dumps({
    "seconds": time.monotonic() - began, "processor_seconds": time.process_time(),
    "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "before": before / 1024,
    "operations": len(trace.operations), "calls": len(trace.calls), "ranges": len(trace.ranges),
    "descriptions": len(trace.operations.descriptions), "notes": trace.notes,
}))
"""


def large_export(path: Path, megabytes: float) -> int:
    """Write an export of about that size, a row at a time, and return its iterations.

    Like a capture of many iterations with all API calls: of ten calls two launch, one is notable.
    Copies have sizes of their own, and there is a mark with a text of its own an iteration.
    """
    iterations = int(megabytes * 1e6 / BYTES_AN_ITERATION)
    names = files.Export()
    pattern = files.Export()
    for number in range(20):
        pattern.kernel(f"kernel_{number}<float>(int)", 0, 0, streamId=7 + number % 3, **FILLED)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode=OFF", "synchronous=OFF"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        tables = {
            files.KERNEL: _kernels(iterations, pattern.rows[files.KERNEL]),
            files.MEMCPY: _copies(iterations),
            files.CALLS: _calls(iterations),
            "NVTX_EVENTS": _ranges(iterations),
        }
        for table, rows in tables.items():
            files.write_table(connection, table, rows, files.layout(table, "3.20.3"))
        strings = [
            *pattern.rows["StringIds"],
            *({"id": 1_000 + n, "value": text} for n, text in enumerate((*CALLS, *STAGES))),
            *({"id": 5_000 + n, "value": f"never referred to, {n:060}"} for n in range(iterations)),
        ]
        rest = {"StringIds": strings, "META_DATA_EXPORT": names.rows["META_DATA_EXPORT"]}
        for table, rows in rest.items():
            files.write_table(connection, table, rows, files.layout(table, "3.20.3"))
        connection.execute("COMMIT")
    return iterations


CALLS = ("cudaLaunchKernel_v7000", "cudaGetDevice_v3020", "cudaStreamSynchronize_v3020")
FILLED = {  # columns that are not read but take their place
    **{"greenContextId": 0, "launchType": 1, "cacheConfig": 1, "localMemoryPerThread": 0},
    **{"localMemoryTotal": 250_871_808, "gridId": 875_000_000, "sharedMemoryExecuted": 32_768},
    **{"sharedMemoryLimitConfig": 0, "deviceId": 0, "contextId": 1},
}
TICK = 1_000_000  # ns an iteration


def _kernels(iterations: int, pattern: list[files.Row]) -> Iterator[files.Row]:
    for iteration in range(iterations):
        for number, row in enumerate(pattern):
            start = TICK * iteration + 40_000 * number + 9_000
            correlation = (100 * iteration + 4 * number) % 2**32
            yield {**row, "start": start, "end": start + 30_000, "correlationId": correlation}


def _copies(iterations: int) -> Iterator[files.Row]:
    where = {"deviceId": 0, "streamId": 7, "copyKind": 8, "globalPid": files.global_id(files.PID)}
    for iteration in range(iterations):
        for number in range(2):
            start = TICK * iteration + 900_000 + 1_000 * number
            size = (iteration * 4096) % 100_000_000
            correlation = (100 * iteration + 90 + number) % 2**32
            yield {
                **{"start": start, "end": start + 700, "bytes": size},
                **{"correlationId": correlation, **where},
            }


def _calls(iterations: int) -> Iterator[files.Row]:
    thread = files.global_id(files.PID, files.TID)
    for iteration in range(iterations):
        for number in range(80):
            start = TICK * iteration + 10_000 * number
            kind = 0 if number % 4 == 0 else 2 if number % 10 == 5 else 1
            yield {
                **{"start": start, "end": start + 900, "eventClass": 0, "globalTid": thread},
                **{"correlationId": (100 * iteration + number) % 2**32, "nameId": 1_000 + kind},
                "returnValue": 0,
            }


def _ranges(iterations: int) -> Iterator[files.Row]:
    thread = files.global_id(files.PID, files.TID)
    yield {
        "start": 0,
        "eventType": files.DOMAIN,
        "text": "moeprof",
        "globalTid": thread,
        "domainId": 1,
    }
    for iteration in range(iterations):
        at = TICK * iteration
        common = {"eventType": files.PUSH_POP, "globalTid": thread, "domainId": 1}
        yield {"start": at, "end": at + 990_000, "text": "iteration", **common}
        for number in range(7):
            start = at + 100_000 * number
            yield {"start": start, "end": start + 99_000, "textId": 1_003 + number, **common}
        yield {
            **{"start": at, "eventType": files.MARK, "globalTid": thread, "domainId": 1},
            "text": f"step {iteration} of a run whose every step has a text of its own",
        }


def measured(path: Path) -> dict[str, float]:
    """Peak memory, seconds and sizes of the trace, of a process that does nothing but read."""
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout)


def test_memory_stays_far_below_the_size_of_the_file(tmp_path):
    path = tmp_path / "large.sqlite"
    iterations = large_export(path, 12)
    assert 10e6 < path.stat().st_size < 15e6
    found = measured(path)
    assert found["operations"] == 22 * iterations
    assert found["ranges"] == 8 * iterations
    assert found["calls"] == 28 * iterations  # 20 that launched a kernel and 8 that wait
    assert found["notes"] == []
    # columns, a chunk of rows as Python's integers, and the names: as Python's rows it would be 200
    assert found["megabytes"] - found["before"] < 60


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large.sqlite"
        large_export(file, float(sys.argv[1]))
        print(f"{file.stat().st_size / 1e6:,.0f} MB", measured(file))
