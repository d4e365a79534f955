"""The measuring process as its watcher holds it: started, listened to, ended with all its children.

What it prints is drained all the time and only the end of it is kept, so that a solution that
prints without end neither blocks nor fills a disk. It dies with its watcher (``die_with_parent``,
called in the process itself). A GPU that is busy for ever holds no process back: the driver ends
its context with it.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from moeprof.benching.messages import Event, Job, Request, Turn, from_line, to_line
from moeprof.capturing.process import MARK, PR_SET_PDEATHSIG, marked, signal_name
from moeprof.checking.trees import own_environment
from moeprof.errors import EnvironmentMissing
from moeprof.fib.unpack import remove_folders
from moeprof.importing.names import printable

MODULE = "moeprof.cli.bench_child"
KEPT_BYTES = 64 * 2**10
MAX_LINE_BYTES = 16 * 2**20
LONGEST_END_SECONDS = 60.0
_READ_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Ended:
    """The process is gone. code: its exit code, negative for a signal. last_line: it printed."""

    code: int
    last_line: str

    def __str__(self) -> str:
        if self.code >= 0:
            return f"its process ended with exit code {self.code}"
        return f"its process was ended by {signal_name(-self.code)}"


class Process:
    """One measuring process, from its start to its end."""

    def __init__(self, request: Request) -> None:
        self._mark = secrets.token_hex(8)
        self._waiting: deque[Event] = deque()
        self._partial = b""
        self._printed = b""
        events, told = os.pipe()
        # -P: a torch.py in the user's folder is not what a solution means by torch
        command = [sys.executable, "-P", "-m", MODULE, str(told), str(os.getpid())]
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(told,),
                env={**own_environment(), MARK: self._mark},
                start_new_session=True,  # Ctrl-C reaches the watcher alone, which ends the rest
            )
        finally:
            os.close(told)
        self._events = events
        assert self._child.stdout is not None
        self._output = self._child.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        for descriptor in (self._events, self._output):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)
        self.send(request)

    def send(self, message: Request | Job) -> None:
        """Give the process its request, then its job; one that is gone shows in ``next``."""
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):
            self._child.stdin.write(to_line(message))
            self._child.stdin.flush()

    def next(self, seconds: float) -> Event | Ended | None:
        """What it tells next; None if it tells nothing for ``seconds``."""
        deadline = time.monotonic() + seconds
        while not self._waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            gone = self._child.poll() is not None
            self._read(0.0 if gone else min(left, 0.2))
            if gone and not self._waiting:
                return Ended(self._child.returncode, self._last_line())
        event = self._waiting.popleft()
        if isinstance(event, Turn):
            self._printed = b""  # what is printed from now on is this solution's
        return event

    def end(self) -> None:
        """End it and all it started, whatever they do.

        EnvironmentMissing if the system cannot: then the GPU is not free either.
        """
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        for process in marked(self._mark):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        try:
            self._child.wait(LONGEST_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise EnvironmentMissing(
                f"the measuring process does not end within {LONGEST_END_SECONDS:.0f} s of SIGKILL",
                do="the GPU may need a reset (nvidia-smi shows who holds it)",
            ) from None
        finally:
            self._close()
            remove_folders(self._child.pid)

    def _close(self) -> None:
        self._selector.close()
        os.close(self._events)
        for file in (self._child.stdin, self._child.stdout):
            if file is not None:
                with suppress(OSError):
                    file.close()

    def _read(self, seconds: float) -> None:
        """Take what there is on both pipes, at most ``seconds`` from now."""
        for key, _ in self._selector.select(seconds):
            while True:
                try:
                    data = os.read(key.fd, _READ_BYTES)
                except BlockingIOError:
                    break
                if not data:
                    self._selector.unregister(key.fd)
                    break
                if key.fd == self._events:
                    self._take(data)
                else:
                    self._printed = (self._printed + data)[-KEPT_BYTES:]
                    break  # one that prints without end leaves time for the other pipe

    def _take(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > MAX_LINE_BYTES:
            raise EnvironmentMissing("the measuring process tells a line without end")
        self._waiting.extend(from_line(line) for line in lines)

    def _last_line(self) -> str:
        lines = self._printed.decode(errors="replace").splitlines()
        return next((printable(line.strip(), 200) for line in reversed(lines) if line.strip()), "")


def die_with_parent(parent: int) -> None:
    """End this process when the one that watches it ends, however that ends."""
    libc: Any = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before this was said
        os.kill(os.getpid(), signal.SIGKILL)
