"""One profiler run as a child: bounded in time, ended with all its children, its output kept.

The tools start helpers that leave the process group and outlive a kill of it, and one that holds
the GPU spoils every later measurement. Each run is therefore marked by a variable in its own
environment, by which whatever is left of it is found in /proc and ended.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from moeprof.errors import EnvironmentMissing

MARK = "MOEPROF_CAPTURE"
KEPT_BYTES = 64 * 2**10  # of the end of the output: where a reason stands
GRACE_SECONDS = 5.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Finished:
    """How a child ended: its exit code (negative: the signal) and the end of what it printed."""

    code: int
    output: str


def signal_name(number: int) -> str:
    """What a signal is called."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    seconds: float,
    kept_bytes: int = KEPT_BYTES,
) -> Finished:
    """Run ``command`` to its end, with stdout and stderr in one, of which the end is kept.

    EnvironmentMissing if it cannot be started or takes more than ``seconds``. However this is left,
    Ctrl-C included, nothing of it keeps running.
    """
    mark = secrets.token_hex(8)
    # a file, not a pipe: a helper that outlives its parent would hold a pipe open for ever
    with tempfile.TemporaryFile() as output:
        child = None
        try:
            child = _start(command, {**environment, MARK: mark}, output)
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise EnvironmentMissing(
                f"{Path(command[0]).name} did not finish in {seconds:.0f} s and was stopped",
                do="try fewer --iterations, or see with nvidia-smi whether the GPU is held",
            ) from None
        finally:
            _end(child, mark)
        return Finished(code, _tail(output, kept_bytes))


def _start(
    command: Sequence[str], environment: Mapping[str, str], output: BinaryIO
) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the rest
            # and if this process is killed, nobody else would end the child
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )
    except OSError as error:
        raise EnvironmentMissing(f"{command[0]} does not start: {error.strerror}") from None


def _end(child: subprocess.Popen[bytes] | None, mark: str) -> None:
    """Ask, wait, then kill: the group, and all that bear the mark wherever they are.

    child: None if this process was interrupted while it started one.
    """
    if child is None or child.poll() is None:
        group = [] if child is None else [-child.pid]
        for number in (signal.SIGTERM, signal.SIGKILL):
            _signal_all([*group, *marked(mark)], number)
            if _gone(child, mark, GRACE_SECONDS):
                break
        if child is not None:
            child.wait()
    _signal_all(marked(mark), signal.SIGKILL)


def _gone(child: subprocess.Popen[bytes] | None, mark: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (child is None or child.poll() is not None) and not marked(mark):
            return True
        time.sleep(0.02)
    return False


def _signal_all(processes: Sequence[int], number: int) -> None:
    for process in processes:
        try:
            os.kill(process, number)
        except (ProcessLookupError, PermissionError):
            continue


def marked(mark: str) -> list[int]:
    """The processes that were started with this mark and still run."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                held = (entry / "environ").read_bytes()
            except OSError:  # gone, or another user's
                continue
            if wanted in held.split(b"\0"):
                found.append(int(entry.name))
    return found


def _tail(output: BinaryIO, kept_bytes: int) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - kept_bytes))
    return output.read().decode(errors="replace")
