"""A tool as a child: it ends with all that it started, in time, and its last words are kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moeprof.capturing import process
from moeprof.capturing.process import Finished, run
from moeprof.errors import EnvironmentMissing
from tests.capturing.fakes import program

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def alive(pid_file: Path) -> bool:
    """Whether the process whose number is in the file still runs; one not yet reaped does not."""
    try:
        state = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline, f"{path} was never written"
        time.sleep(0.02)


def test_exit_code_and_both_streams_are_kept(tmp_path: Path) -> None:
    script = program(tmp_path / "tool", "echo out; echo err >&2; exit 7")
    assert run([str(script)], ENVIRONMENT, 10) == Finished(7, "out\nerr\n")


def test_only_the_end_of_endless_output_is_kept(tmp_path: Path) -> None:
    script = program(tmp_path / "tool", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last")
    done = run([str(script)], ENVIRONMENT, 10)
    assert done.output.endswith("x\nlast\n")
    assert len(done.output) == process.KEPT_BYTES


def test_bytes_that_are_no_text_are_kept_as_marks(tmp_path: Path) -> None:
    script = program(tmp_path / "tool", r"printf 'a\377\000b'")
    assert run([str(script)], ENVIRONMENT, 10).output == "a\ufffd\0b"


def test_the_child_reads_nothing_and_gets_the_given_environment_alone(tmp_path: Path) -> None:
    script = program(tmp_path / "tool", "cat; /usr/bin/env")
    variables = run([str(script)], {"ONE": "1"}, 10).output.splitlines()
    names = {line.partition("=")[0] for line in variables} - {"PWD", "SHLVL", "_"}  # bash's own
    assert names == {"ONE", process.MARK}


def test_a_program_that_is_not_there_is_one_line() -> None:
    with pytest.raises(EnvironmentMissing, match="/no/such does not start: No such file"):
        run(["/no/such"], {}, 10)


@pytest.mark.parametrize("deaf", [False, True], ids=["ends when asked", "must be killed"])
def test_a_hang_is_ended_with_everything_that_left_the_group(
    deaf: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.3)
    trap = "trap '' TERM; " if deaf else ""
    body = (
        f"{trap}setsid bash -c '{trap}echo $$ > {tmp_path}/helper; while :; do sleep 0.1; done' &\n"
        f"echo $$ > {tmp_path}/own; while :; do sleep 0.1; done"
    )
    script = program(tmp_path / "tool", body)
    begin = time.monotonic()
    with pytest.raises(EnvironmentMissing, match="tool did not finish in 1 s and was stopped"):
        run([str(script)], ENVIRONMENT, 1)
    assert time.monotonic() - begin < 8
    assert not alive(tmp_path / "own") and not alive(tmp_path / "helper")


def test_a_helper_that_outlives_its_parent_is_ended_and_holds_nothing_up(tmp_path: Path) -> None:
    body = f"setsid bash -c 'echo $$ > {tmp_path}/helper; sleep 60' & \n" + (
        f"while [ ! -s {tmp_path}/helper ]; do sleep 0.02; done; echo done"
    )
    script = program(tmp_path / "tool", body)
    begin = time.monotonic()
    assert run([str(script)], ENVIRONMENT, 30) == Finished(0, "done\n")
    assert time.monotonic() - begin < 5
    deadline = time.monotonic() + 5
    while alive(tmp_path / "helper") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(tmp_path / "helper")


def test_ctrl_c_ends_the_child_and_is_passed_on(tmp_path: Path) -> None:
    script = program(tmp_path / "tool", f"echo $$ > {tmp_path}/own; exec sleep 60")
    parent = started(script)
    wait_for(tmp_path / "own")
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=30)
    assert parent.returncode == -signal.SIGINT and b"KeyboardInterrupt" in errors
    assert not alive(tmp_path / "own")


def test_a_child_in_another_session_gets_no_ctrl_c_of_its_own(tmp_path: Path) -> None:
    script = program(tmp_path / "tool", "ps -o sid= -p $$")
    done = run([str(script)], ENVIRONMENT, 10)
    assert int(done.output) != os.getsid(0)


def test_a_child_does_not_outlive_the_process_that_was_killed(tmp_path: Path) -> None:
    script = program(tmp_path / "tool", f"echo $$ > {tmp_path}/own; exec sleep 60")
    parent = started(script)
    wait_for(tmp_path / "own")
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 5
    while alive(tmp_path / "own") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(tmp_path / "own")


def started(script: Path) -> subprocess.Popen[bytes]:
    """A process that runs ``script`` as a tool."""
    command = [sys.executable, "-c", PARENT, str(script)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])


PARENT = """
import signal, sys
from moeprof.capturing.process import run
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's ignores it
run([sys.argv[1]], {}, 60)
"""
