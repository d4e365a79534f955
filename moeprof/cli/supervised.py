"""A run in a process of its own, watched from outside: for code that may never come back.

A thread could not stop an endless loop that holds the interpreter, nor a hung kernel, nor say
anything after ``os._exit``. So the command starts itself again with a pipe to this process, tells
what it begins, and is ended if that takes too long. Whatever becomes of it, one line says so.

Messages, one a line: ``begin WHAT`` starts the clock, ``idle`` stops it, ``done CODE`` is the exit
code that the command decided on; what a foreign thread or exit handler does later changes nothing.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from moeprof.errors import EXIT_INTERRUPTED, MoeprofError, WrongResult
from moeprof.importing.names import printable

if TYPE_CHECKING:
    from moeprof.measure.execute import Progress

DEFAULT_SECONDS = 300.0  # FlashInfer-Bench's own for a solution on a workload
GRACE_SECONDS = 5.0  # for what a process still does after its last word
LONGEST_NAME = 120
ARGUMENTS = "moeprof.arguments"
Command = TypeVar("Command", bound=Callable[..., Any])


class KeepsArguments(click.Command):
    """A command that remembers its own command line, to be started again with."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


def timeout_options(command: Command) -> Command:
    """--timeout, and the hidden option by which the watched process knows that it is one."""
    timeout = click.option(
        "--timeout",
        "seconds",
        type=click.FloatRange(0, min_open=True),
        metavar="S",
        help="Stop a solution whose pass on a workload takes longer than S seconds "
        f"[default: {DEFAULT_SECONDS:g} for fib:NAME, else none].",
    )
    return timeout(click.option("--supervisor", type=int, hidden=True)(command))


# ---------------------------------------------------------------- inside


class Supervisor:
    """The end of the pipe in the watched process. descriptor: None where nobody watches."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = None
        if descriptor is not None:
            with suppress(OSError):  # it is a pipe only where ``supervised`` made it one
                os.set_inheritable(descriptor, False)
                self._descriptor = descriptor

    def begin(self, what: str) -> None:
        """Foreign code is about to run."""
        self._tell(f"begin {what}")

    def idle(self) -> None:
        """Only moeprof's own code runs from here on."""
        self._tell("idle")

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tell the exit code that leaving the block means."""
        try:
            yield
        except click.exceptions.Exit as exit:
            self._tell(f"done {exit.exit_code}")
            raise
        except MoeprofError as error:
            self._tell(f"done {error.exit_code}")
            raise
        except (KeyboardInterrupt, click.Abort):
            self._tell(f"done {EXIT_INTERRUPTED}")
            raise
        except BaseException:
            self._tell("done 1")
            raise
        self._tell("done 0")

    def _tell(self, message: str) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.write(self._descriptor, f"{message}\n".encode())


class WatchedProgress:
    """``execute.Progress`` that also tells the supervisor of every step."""

    def __init__(self, progress: Progress, supervisor: Supervisor) -> None:
        self._progress = progress
        self._supervisor = supervisor

    def start(self, total_steps: int) -> None:
        self._progress.start(total_steps)

    def step(self, label: str) -> None:
        self._supervisor.begin(f"pass {label}")
        self._progress.step(label)

    def finish(self) -> None:
        self._supervisor.idle()
        self._progress.finish()


# ---------------------------------------------------------------- outside


def supervised(context: click.Context, solutions: Sequence[str], seconds: float | None) -> int:
    """Run the command of ``context`` again as a watched process; its exit code.

    WrongResult if it does not come back within ``seconds`` of what it said it begins, or ends
    without having decided on an exit code. solutions: whom to blame.
    """
    name = " or ".join(printable(solution, LONGEST_NAME) for solution in solutions)
    arguments = [str(context.info_name), *context.meta[ARGUMENTS]]
    ours, theirs = os.pipe()
    try:
        child = _start([*arguments, "--supervisor", str(theirs)], theirs)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    try:
        return _watch(child, ours, name, seconds or DEFAULT_SECONDS)
    finally:
        os.close(ours)
        _end(child)


def _start(arguments: Sequence[str], descriptor: int) -> subprocess.Popen[bytes]:
    from moeprof.capturing.process import PR_SET_PDEATHSIG
    from moeprof.checking.trees import own_environment

    libc = ctypes.CDLL(None)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "moeprof", *arguments],
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        env=own_environment(),
        start_new_session=True,  # one signal ends it with all that it has started
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )


def _watch(child: subprocess.Popen[bytes], pipe: int, solution: str, seconds: float) -> int:
    doing, pending = "", b""
    deadline: float | None = None
    code: int | None = None
    while True:
        try:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([pipe], [], [], left)[0]:
                raise WrongResult(
                    f"{solution} did not come back within {seconds:g} s ({doing}) and was stopped",
                    do="--timeout S allows more; records of finished workloads were kept",
                )
            text = os.read(pipe, 4096)
        except KeyboardInterrupt:
            if _interrupted(child):
                return EXIT_INTERRUPTED  # it has said so itself
            raise
        if not text:
            break
        *lines, pending = (pending + text).split(b"\n")
        for line in lines:
            word, _, rest = line.decode(errors="replace").partition(" ")
            if word == "begin":
                doing, deadline = rest, time.monotonic() + seconds
            elif word == "idle":
                doing, deadline = "", None
            elif word == "done" and rest.isdecimal():
                code, deadline = int(rest), time.monotonic() + GRACE_SECONDS
                break
        if code is not None:
            _wait(child)
            return code
    raise WrongResult(
        f"{solution} ended the process ({_ending(child)}){f' in {doing}' if doing else ''}",
        do="records of finished workloads were kept",
    )


def _wait(child: subprocess.Popen[bytes]) -> None:
    """Let it print and tidy up; a foreign thread that never ends does not hold the command."""
    with suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_SECONDS)


def _interrupted(child: subprocess.Popen[bytes]) -> bool:
    """Pass Ctrl-C on; whether the process ended of it."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.kill(child.pid, signal.SIGINT)
        return child.wait(GRACE_SECONDS) == EXIT_INTERRUPTED
    return False


def _ending(child: subprocess.Popen[bytes]) -> str:
    from moeprof.capturing.process import signal_name

    try:
        code = child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        return "it closed its files"
    if code >= 0:
        return f"exit code {code}"
    return signal_name(-code)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Nothing of it keeps running, and no folder of it stays."""
    from moeprof.fib.unpack import remove_folders

    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_SECONDS)
    remove_folders(child.pid)
