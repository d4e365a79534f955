"""The local store: what goes in comes out, whoever writes beside it, is killed, or lacks space."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from moeprof.errors import RecordError, ResourceExhausted
from moeprof.history.values import CodeLabel, Entry, ProcessTimes
from moeprof.regression.values import Quantity
from moeprof.storage import history, store
from tests.checks import WORKLOAD, make_check, regressed
from tests.privacy import private_words

GEMM1 = Quantity("gemm1", "busy")


def entry(number, solution="triton_v2", us=100.0, in_checks=True, **changes):
    """A check of three processes a side."""
    luck = random.Random(f"{number} {solution}")
    check = make_check(regressed())
    processes = tuple(
        ProcessTimes(
            side,
            place,
            f"2026-11-20T12:{number % 60:02d}:0{place}+00:00",
            "3f" * 32,
            ((Quantity("", "span"), "bare", 10 * us), (GEMM1, "kernels", us * luck.gauss(1, 0.01))),
        )
        for side in ("baseline", "candidate")
        for place in (1, 2, 3)
    )
    made = Entry(
        key=f"{solution}-T56-{number:04d}",
        in_checks=in_checks,
        created=f"2026-11-20T{number // 60:02d}:{number % 60:02d}:03+00:00",
        solution=solution,
        source_hash="3f" * 32,
        workload=WORKLOAD,
        routing_hash="ab" * 32,
        device="NVIDIA H200",
        verdict="REGRESSED",
        exit_code=1,
        headline="REGRESSED gemm1: +4.9 %",
        findings=check.findings,
        processes=processes,
        code=CodeLabel("working tree", "a1b2c3d4" * 5, True),
        against=CodeLabel("3f3f3f3f", "3f" * 20),
    )
    return replace(made, **changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / history.HISTORY_FILE


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_entries_come_out_as_they_went_in(path):
    assert history.read(path) == ()
    first, second, other = entry(1), entry(2), entry(3, "mine")
    history.add(path, [second])
    history.add(path, [first, other])
    assert history.read(path, "triton_v2") == (first, second)
    assert history.read(path, "mine") == (other,)
    assert history.read(path) == (first, second, other)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with sqlite3.connect(path) as connection:
        assert store.leaks("\n".join(connection.iterdump()), private_words()) == ()


def test_the_same_check_again_takes_the_place_of_the_first(path):
    history.add(path, [entry(1)])
    again = entry(1, us=120.0, headline="another")
    history.add(path, [again])
    assert history.read(path) == (again,)
    with sqlite3.connect(path) as connection:
        (left,) = connection.execute("SELECT count(*) FROM times").fetchone()
    assert left == 12, "the times of the first went with it"


def test_all_entries_or_none_go_in(path):
    history.add(path, [entry(1)])
    bad = replace(entry(2), processes=(*entry(2).processes, entry(2).processes[0]))
    with pytest.raises(RecordError):
        history.add(path, [entry(3), bad])
    assert history.read(path) == (entry(1),)


WRITER = """
import sys
from pathlib import Path
from moeprof.storage import history
from tests.test_history_store import entry
path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
for number in range(count):
    history.add(path, [entry(number, name)])
    print(number, flush=True)
"""


def writer(path, name, count, root):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
    )


def test_several_write_at_once_and_nothing_is_lost(path, root):
    """Into a store that none of them finds there."""
    names = ("a", "b", "c")
    writers = [writer(path, name, 15, root) for name in names]
    read = []
    while any(one.poll() is None for one in writers):
        read.append(len(history.read(path)))
        time.sleep(0.02)
    assert [one.communicate()[1] for one in writers] == ["", "", ""]
    assert read == sorted(read), "a reader never sees less than it saw"
    for name in names:
        assert history.read(path, name) == tuple(entry(n, name) for n in range(15))


def test_a_kill_at_any_moment_leaves_whole_checks(path, root):
    luck = random.Random(7)
    for attempt in range(6):
        process = writer(path, f"k{attempt}", 400, root)
        process.stdout.readline()
        time.sleep(luck.uniform(0.0, 0.25))
        process.send_signal(signal.SIGKILL)
        told = [int(line) for line in process.stdout.read().split()]
        process.wait()
        found = history.read(path, f"k{attempt}")
        assert found == tuple(entry(n, f"k{attempt}") for n in range(len(found)))
        assert len(found) in (len(told), len(told) + 1), "what was said to be in it is in it"
        history.add(path, [entry(999, f"k{attempt}")])
    names = {file.name for file in path.parent.iterdir()} - {path.name}
    assert all(name.startswith(f".{path.name}") for name in names), "no journal is left"


def test_a_transaction_that_was_cut_off_is_rolled_back(path):
    """What a kill in the middle of a commit leaves: half of the pages, and the journal."""
    history.add(path, [entry(n) for n in range(40)])
    before = history.read(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE times SET us = 0")
    connection.execute("DELETE FROM checks")
    journal = path.with_name(f"{path.name}-journal")
    copy = path.parent / "killed" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    copy.with_name(journal.name).write_bytes(journal.read_bytes())
    connection.execute("ROLLBACK")
    connection.close()
    assert copy.read_bytes() != path.read_bytes(), "pages were half-written"
    assert history.read(copy) == before
    assert not copy.with_name(journal.name).exists()


def test_a_full_disk_is_one_line_and_loses_nothing(path):
    history.add(path, [entry(n) for n in range(5)])
    before = history.read(path)
    limit = path.stat().st_size + 4096
    child = os.fork()
    if not child:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            history.add(path, [entry(n) for n in range(10, 60)])
        except ResourceExhausted as error:
            code = 0 if "\n" not in str(error) and "free disk space" in str(error) else 3
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert history.read(path) == before
    history.add(path, [entry(9)])
    assert len(history.read(path)) == 6


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ResourceExhausted) as error:
        history.add(blocked / history.HISTORY_FILE, [entry(1)])
    assert "cannot be used" in one_line(error)


def test_a_lock_that_is_never_given_back_is_one_line(path, monkeypatch):
    history.add(path, [entry(1)])
    monkeypatch.setattr(history, "BUSY_SECONDS", 0.2)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(ResourceExhausted) as error:
            history.add(path, [entry(2)])
        assert "locked" in one_line(error)
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    history.add(path, [entry(2)])
    assert len(history.read(path)) == 2


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "empty":
        content = bytearray()
    elif how == "text":
        content = bytearray(b"not a database at all\n" * 400)
    elif how == "cut":
        content = content[: len(content) // 2]
    elif how == "page":
        middle = 4096 * (len(content) // 8192)
        content[middle : middle + 4096] = b"\x5a" * 4096
    elif how == "header":
        content[:16] = b"\0" * 16
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["empty", "text", "cut", "page", "header"])
def test_a_damaged_store_is_named_and_left_until_it_is_rebuilt(how, path):
    entries = [entry(n) for n in range(30)]
    history.add(path, entries)
    damage(path, how)
    damaged = path.read_bytes()
    for use in (lambda: history.read(path), lambda: history.add(path, [entry(1)])):
        with pytest.raises(RecordError) as error:
            use()
        text = one_line(error)
        assert text.startswith(str(path)) and "moeprof history --rebuild" in text
        assert path.read_bytes() == damaged
    count, aside = history.rebuild(path, entries)
    assert count == 30 and history.read(path) == tuple(entries)
    assert aside is not None and aside.read_bytes() == damaged


def test_values_that_nobody_wrote_are_damage(path):
    history.add(path, [entry(1)])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE checks SET rest = '{}'")
    with pytest.raises(RecordError, match="is damaged .*--rebuild"):
        history.read(path)


def test_another_programs_file_and_a_newer_one_are_refused(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    with pytest.raises(RecordError, match="another program"):
        history.add(path, [entry(1)])
    path.unlink()
    history.add(path, [entry(1)])
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(RecordError, match="schema 9; expected 1; update moeprof"):
        history.read(path)


def test_rebuilding_keeps_what_no_check_tells_and_takes_what_ended_meanwhile(path):
    elsewhere = entry(5, in_checks=False)
    history.add(path, [entry(1), entry(2), elsewhere])
    meanwhile = entry(6)
    count, aside = history.rebuild(path, [entry(1)], lambda: [meanwhile])
    assert (count, aside) == (3, None)
    assert history.read(path) == (entry(1), elsewhere, meanwhile)


def test_a_journal_of_the_old_store_is_not_taken_for_the_new_ones(path):
    history.add(path, [entry(n) for n in range(20)])
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE times SET us = 0")
    journal = path.with_name(f"{path.name}-journal")
    hot = journal.read_bytes()
    connection.execute("ROLLBACK")
    connection.close()
    damage(path, "header")
    journal.write_bytes(hot)
    history.rebuild(path, [entry(1)])
    assert not journal.exists()
    assert history.read(path) == (entry(1),)


def test_writers_wait_for_a_rebuild(path):
    history.add(path, [entry(1)])
    begun, results = threading.Event(), []

    def later():
        begun.set()
        time.sleep(0.3)
        return []

    rebuilding = threading.Thread(target=history.rebuild, args=(path, [entry(1)], later))
    rebuilding.start()
    begun.wait()
    history.add(path, [entry(2)])
    rebuilding.join()
    results = history.read(path)
    assert results == (entry(1), entry(2))
