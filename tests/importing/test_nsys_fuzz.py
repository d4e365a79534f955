"""Exports that were changed at random: a trace that keeps its promises, or one line. Nothing else.

.venv/bin/python -m tests.importing.test_nsys_fuzz 20000    # a long run, with a count of outcomes
"""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.errors import RecordError
from moeprof.importing.demangle import demangled
from moeprof.importing.nsys_parquet import read_nsys_parquet
from moeprof.importing.nsys_sqlite import read_nsys_sqlite
from moeprof.importing.projection import project, summaries
from moeprof.importing.scrub import scrub_nsys_sqlite
from moeprof.importing.trace import Trace
from tests.importing import nsys_files as files
from tests.importing.traces import check_sound, differences

DATA = Path(__file__).resolve().parents[1] / "data" / "nsys"
SQLITE = ["triton_v2-T1.sqlite", "graph-triton_v2-T56.sqlite", "h200_two_iterations.sqlite"]
PARQUET = DATA / "triton_v2-T56-parquet"
SLOW_S = 5.0  # a reading of these takes 0.02 s
ODD = [
    *(0, 1, -1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, -(2**63), 59, 60, 75, 3, 281487073084113),
    *(1.5, float("inf"), -0.0, None, "", "moeprof", "\x1b[2J\u202e", "x" * 5_000, b"", b"\xff\0"),
]
_spelled: dict[str, str] = {}


def _demangle(names: list[str]) -> dict[str, str]:
    """Asks once for each name, as a child process for each of 20,000 files would take minutes."""
    unknown = [name for name in names if name not in _spelled]
    _spelled.update(dict.fromkeys(unknown, "") | demangled(unknown))
    return {name: _spelled[name] for name in names if _spelled[name]}


# -- changes --------------------------------------------------------------------------------------


def flip_bytes(content: bytearray, chance: random.Random) -> None:
    """A few bytes to other values, more often in the pages that hold the schema and the trees."""
    for _ in range(chance.choice([1, 1, 2, 5, 20, 200])):
        page = 4096 * chance.randrange(max(len(content) // 4096, 1))
        near = chance.random() < 0.5
        at = page + chance.randrange(120) if near else chance.randrange(len(content))
        content[min(at, len(content) - 1)] = chance.choice([0, 1, 255, chance.randrange(256)])


def truncate(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def move_piece(content: bytearray, chance: random.Random) -> None:
    """A piece of the file over another place of it."""
    length = min(chance.choice([4, 100, 4096]), len(content))
    begin, at = (chance.randrange(len(content) - length + 1) for _ in range(2))
    content[at : at + length] = content[begin : begin + length]


def grow(content: bytearray, chance: random.Random) -> None:
    content += chance.randbytes(chance.choice([1, 4096, 20_000]))


BYTES = [flip_bytes, flip_bytes, flip_bytes, truncate, move_piece, grow]


def edit_rows(connection: sqlite3.Connection, chance: random.Random) -> None:
    """Odd values in cells, rows twice or gone."""
    table, columns = _table(connection, chance)
    for _ in range(chance.choice([1, 3, 30])):
        column, value = chance.choice(columns), chance.choice(ODD)
        every = chance.choice([1, 2, 10, 100])
        some = f"rowid % {every} = {chance.randrange(every)}"
        kind = chance.random()
        if kind < 0.6:
            connection.execute(
                f'UPDATE OR IGNORE {table} SET "{column}" = ? WHERE {some}', (value,)
            )
        elif kind < 0.8:
            connection.execute(f"INSERT OR IGNORE INTO {table} SELECT * FROM {table} WHERE {some}")
        else:
            connection.execute(f"DELETE FROM {table} WHERE {some}")


def edit_schema(connection: sqlite3.Connection, chance: random.Random) -> None:
    """Tables and columns gone, renamed, without types, or views."""
    table, columns = _table(connection, chance)
    column, other = chance.choice(columns), chance.choice(columns)
    statement = chance.choice(
        [
            f"DROP TABLE {table}",
            f"ALTER TABLE {table} RENAME TO Elsewhere",
            f'ALTER TABLE {table} RENAME COLUMN "{column}" TO another',
            f'ALTER TABLE {table} ADD COLUMN added AS ("{column}")',
            f'ALTER TABLE {table} DROP COLUMN "{column}"',
            f'CREATE INDEX i ON {table} ("{column}", "{other}")',
            f"ALTER TABLE {table} RENAME TO t; CREATE TABLE {table} AS SELECT * FROM t",
            f"ALTER TABLE {table} RENAME TO t; CREATE VIEW {table} AS SELECT * FROM t",
            f'ALTER TABLE {table} RENAME TO t; CREATE TABLE {table} AS SELECT "{column}" AS '
            f'"{other}", * FROM t',
        ]
    )
    connection.executescript(statement)


def _table(connection: sqlite3.Connection, chance: random.Random) -> tuple[str, list[str]]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    tables = [row[0] for row in connection.execute(query)]
    table = chance.choice(tables)
    return table, [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


ROWS = [edit_rows, edit_rows, edit_schema]


# -- one input ------------------------------------------------------------------------------------


def changed_sqlite(source: Path, path: Path, chance: random.Random) -> None:
    """``source`` with a few changes of one sort, at ``path``."""
    shutil.copyfile(source, path)
    if chance.random() < 0.5:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            for _ in range(chance.choice([1, 1, 2, 4])):
                try:
                    chance.choice(ROWS)(connection, chance)
                except sqlite3.Error:
                    continue  # this change is not possible after the one before
    else:
        content = bytearray(path.read_bytes())
        for _ in range(chance.choice([1, 1, 2])):
            if content:
                chance.choice(BYTES)(content, chance)
        path.write_bytes(content)


def changed_parquet(folder: Path, chance: random.Random) -> None:
    """PARQUET with one file changed, at ``folder``."""
    shutil.copytree(PARQUET, folder)
    path = chance.choice(sorted(folder.iterdir()))
    content = bytearray(path.read_bytes())
    chance.choice(BYTES)(content, chance)
    path.write_bytes(content)


def outcome(path: Path) -> str:
    """'read', or 'refused: ...'; fails if the reader does anything else, or takes long."""
    began = time.monotonic()
    try:
        read = read_nsys_parquet if path.is_dir() else read_nsys_sqlite
        trace = read(path, demangle=_demangle)
    except RecordError as error:
        said = str(error)
        assert said.isprintable() and said.startswith(str(path))
        found = "refused: " + re.sub(r"[\d,]+", "N", said.removeprefix(f"{path}: "))[:40]
    else:
        _check(trace)
        found = "read" + (" with notes" if trace.notes else "")
    assert time.monotonic() - began < SLOW_S, "hangs"
    return found


def scrubbed_outcome(path: Path, folder: Path) -> None:
    """What is scrubbed reads as before, but for names that look like paths; or it is refused."""
    target = folder / "scrubbed.sqlite"
    target.unlink(missing_ok=True)
    try:
        scrub_nsys_sqlite(path, target)
    except RecordError as error:
        assert str(error).isprintable()
        assert not target.exists()
        return
    try:
        before = read_nsys_sqlite(path, demangle=_demangle)
    except RecordError:
        return  # scrubbing does not look at all that reading does
    after = read_nsys_sqlite(target, demangle=_demangle)
    assert set(differences(before, after)) <= {"ranges.names", "ranges.name", "notes"}


def _check(trace: Trace) -> None:
    check_sound(trace)
    for row in summaries(project(trace)):
        assert row.total_projected_ns >= 0 and row.instances > 0


def fuzz(seed: int, folder: Path) -> str:
    """One input, made from ``seed``, and what became of it."""
    chance = random.Random(seed)
    kind = chance.random()
    if kind < 0.15:
        path = folder / "folder"
        shutil.rmtree(path, ignore_errors=True)
        changed_parquet(path, chance)
    else:
        path = folder / "capture.sqlite"
        if kind < 0.5:
            path.unlink(missing_ok=True)
            source = files.two_iterations(chance.choice(["3.16.1", "3.20.3", "3.25.0"])).save(path)
            source = source.rename(folder / "source.sqlite")
        else:
            source = DATA / chance.choice(SQLITE)
        changed_sqlite(source, path, chance)
    try:
        if path.is_file():
            scrubbed_outcome(path, folder)
        return outcome(path)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


# -- tests ----------------------------------------------------------------------------------------


def test_changes_lead_to_every_kind_of_outcome(tmp_path):
    outcomes = Counter(fuzz(seed, tmp_path).split(":")[0] for seed in range(100))
    assert set(outcomes) == {"read", "read with notes", "refused"}


@settings(max_examples=100, deadline=None)
@given(st.integers(min_value=100, max_value=2**32))
def test_any_change_is_read_or_refused_in_one_line(seed):
    with tempfile.TemporaryDirectory() as place:
        fuzz(seed, Path(place))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        count = int(sys.argv[1])
        first = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
        seen = Counter(fuzz(seed, Path(place)) for seed in range(first, first + count))
    for said, times in seen.most_common():
        print(f"{times:8,} {said}")
