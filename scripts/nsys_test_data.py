"""Makes tests/data/nsys from a folder of exports: scrubbed, and with nsys's own statistics.

    .venv/bin/python scripts/nsys_test_data.py CAPTURES tests/data/nsys

CAPTURES holds NAME.sqlite (nsys export --type=sqlite), NAME_nvtx_gpu_proj_{sum,trace}.csv (nsys
stats --format csv) and NAME-parquet/ (nsys export --type=parquetdir). Missing ones are an error.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
from pathlib import Path

import pyarrow
from pyarrow import compute, parquet

from moeprof.importing.nsys_tables import DIAGNOSTICS, EXPORT, READ, STRINGS, SYSTEM
from moeprof.importing.scrub import scrub_nsys_sqlite

PROJECTED = [
    *("triton_v2-T1", "triton_v2-T56", "triton_v2-T14107", "sglang_v2-T56", "sglang_v2-T14107"),
    *("flashinfer_moe-T56", "flashinfer_moe-T14107"),
]
GRAPHS = ["graph-triton_v2-T56", "graphlevel-triton_v2-T56"]
AS_PARQUET = "triton_v2-T56"


def main(captures: Path, data: Path) -> None:
    """Fill the folder ``data``, which may exist but not hold the files."""
    data.mkdir(parents=True, exist_ok=True)
    for name in PROJECTED + GRAPHS:
        scrub_nsys_sqlite(captures / f"{name}.sqlite", data / f"{name}.sqlite")
    for name in PROJECTED:
        for report in ("sum", "trace"):
            shutil.copy(captures / f"{name}_nvtx_gpu_proj_{report}.csv", data)
    scrub_parquet(captures / f"{AS_PARQUET}-parquet", data / f"{AS_PARQUET}.sqlite", data)


def scrub_parquet(folder: Path, scrubbed: Path, data: Path) -> None:
    """Cut a folder of Parquet files down to the columns and rows of the scrubbed SQLite file."""
    destination = data / folder.name
    destination.mkdir()
    connection = sqlite3.connect(f"{scrubbed.absolute().as_uri()}?mode=ro", uri=True)
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    for name in sorted(tables & READ.keys()):
        table = parquet.read_table(folder / f"{name}.parquet")
        read = READ[name]
        table = table.select([c for c in table.column_names if c in read.numbers + read.texts])
        key = {STRINGS: "id", EXPORT: "name", SYSTEM: "name", DIAGNOSTICS: "text"}.get(name)
        if key is not None:
            kept = [row[0] for row in connection.execute(f"SELECT {key} FROM {name}")]
            values = pyarrow.array(kept, table[key].type)
            table = table.filter(compute.is_in(table[key], value_set=values))
        parquet.write_table(table, destination / f"{name}.parquet", compression="zstd")
    connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
