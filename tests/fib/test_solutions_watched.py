"""A foreign run as a whole process: it prints, hangs, ends itself, and leaves threads behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fib import tracesets
from tests.fib.tracesets import filling


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tracesets.make(tmp_path / "set")


def start(root: Path, main: str, *arguments: str) -> subprocess.Popen[str]:
    tracesets.put(root, tracesets.solution("theirs", main))
    return subprocess.Popen(
        [sys.executable, "-m", "moeprof", "run", "--solution", "fib:theirs", "--trust",
         "--dataset", str(root), "--traces", str(root.parent / "traces"), "--num-tokens", "7",
         "--device", "cpu", "--passes", "bare", "--iterations", "2", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(root.parent / "tmp")},
    )  # fmt: skip


def run(root: Path, main: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    process = start(root, main, *arguments)
    out, error = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def records(root: Path) -> list[Path]:
    return sorted((root.parent / "traces").rglob("*.json.gz"))


def left_behind(root: Path) -> list[str]:
    return [n for n in os.listdir(root.parent / "tmp") if n.startswith("moeprof-fib-")]


def test_what_it_prints_and_leaves_running_does_not_reach_the_report(root: Path) -> None:
    main = (
        "import atexit, ctypes, threading, time\n"
        "print('loaded')\natexit.register(print, 'at exit')\n"
        "def talk():\n    while True:\n        time.sleep(0.01)\n        print('thread')\n"
        "threading.Thread(target=talk).start()\n"
        + filling("print('called')\nctypes.CDLL(None).puts(b'from C')")
    )
    begin = time.monotonic()
    done = run(root, main, "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads(done.stdout)  # nothing else is on stdout
    assert document["schema"] == "moeprof.run/1"
    (found,) = document["runs"]
    assert found["solution"]["name"] == "fib:theirs"
    assert found["solution"]["author"] == "somebody" and len(found["solution"]["fib_hash"]) == 40
    for text in ("loaded", "called", "thread", "from C"):
        assert text in done.stderr
    assert time.monotonic() - begin < 60  # the endless thread held nobody
    assert not left_behind(root)
    (record,) = records(root)
    assert str(root).encode() not in record.read_bytes()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("while True: pass", "did not come back within 4 s (pass first T=7) and was stopped"),
        ("import os; os._exit(0)", "ended the process (exit code 0) in pass first T=7"),
        ("import os; os.kill(os.getpid(), 11)", "ended the process (SIGSEGV) in pass first T=7"),
    ],
)
def test_what_never_comes_back_is_one_line(root: Path, body: str, told: str) -> None:
    done = run(root, filling(body), "--timeout", "4")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and f"fib:theirs {told}" in done.stderr
    assert not records(root) and not left_behind(root)


def test_a_hang_while_it_is_imported_is_one_line_too(root: Path) -> None:
    done = run(root, "import time\ntime.sleep(100)", "--timeout", "1.5")
    assert done.returncode == 1
    assert "did not come back within 1.5 s (loading) and was stopped" in done.stderr


def test_the_other_process_keeps_exit_codes_and_lines(root: Path) -> None:
    done = run(root, "def run(:")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "main.py:1: invalid syntax" in done.stderr
    late = filling(
        "KEPT['calls'] = KEPT.get('calls', 0) + 1\n"
        "if KEPT['calls'] > 5:\n    output.copy_(KEPT['result'])\n    return",
        "KEPT['result'] = output.clone()",
    )
    done = run(root, late)  # right at first; the clocks have run before it is found out
    assert done.returncode == 1 and "wrong result: fib:theirs on T=7" in done.stderr
    assert "after the measurement its result is wrong" in done.stderr
    assert "WRONG" in done.stdout and len(records(root)) == 1


def test_ctrl_c_ends_both_processes_with_one_line(root: Path) -> None:
    mark = root.parent / "called"
    process = start(root, filling(f"open({str(mark)!r}, 'w').close()\nwhile True: pass"))
    deadline = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert error.strip() == "moeprof: error: interrupted; finished records were kept"
    assert not left_behind(root)
