"""Rounds of fresh processes: one side in a row, or two interleaved A B B A A B B A on one device.

The fresh process is the unit of a check: iterations of one process share its luck (which clock the
GPU held, where its memory lies, which core the host got) and are not samples of the code.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from moeprof.checking.process import fresh_record
from moeprof.checking.request import Request
from moeprof.checking.trees import Tree
from moeprof.errors import EnvironmentMissing, MoeprofError
from moeprof.records import Run
from moeprof.storage.checks import CheckFolder, SideName
from moeprof.storage.locks import locked
from moeprof.storage.store import load

Say = Callable[[str], None]  # gets one line of progress
Trees = Mapping[SideName, Tree]


def measure(
    trees: Trees, request: Request, processes: int, folder: CheckFolder, say: Say
) -> dict[SideName, tuple[Run, ...]]:
    """``processes`` fresh processes of each side, in the order measured.

    A wrong result ends the round. Errors as ``fresh_runs``.
    """
    found: dict[SideName, list[Run]] = {side: [] for side in trees}
    for side, run in fresh_runs(trees, request, processes, folder, say):
        found[side].append(run)
        if not run.correctness.passed:
            break
    return {side: tuple(runs) for side, runs in found.items()}


def fresh_runs(
    trees: Trees, request: Request, processes: int, folder: CheckFolder, say: Say
) -> Iterator[tuple[SideName, Run]]:
    """Each run as it finishes, its record already in ``folder``.

    MoeprofError, one line, if a process fails: which one, why, and what was kept.
    """
    order = interleaved(tuple(trees), processes)
    begin = time.monotonic()
    try:
        for number, side in enumerate(order, start=1):
            what = f"process {number} of {len(order)}"
            label = f" ({trees[side].label})" if len(trees) > 1 else ""
            say(f"{what}{label}{_left(begin, number - 1, len(order))}")
            try:
                record = fresh_record(trees[side], request, folder.scratch)
            except MoeprofError as error:
                raise _told(error, f"{what}{label}", folder, number - 1) from None
            yield side, load(folder.keep(record, side))
    finally:
        folder.discard_scratch()


def interleaved(sides: tuple[SideName, ...], processes: int) -> tuple[SideName, ...]:
    """A B B A A B B A ...: what drifts slowly meets both sides alike, neighbours are pairs."""
    turns = (sides if turn % 2 == 0 else sides[::-1] for turn in range(processes))
    return tuple(side for turn in turns for side in turn)


@contextmanager
def device_alone(say: Say) -> Iterator[None]:
    """Wait until no other check of this user's measures on the same device, then hold it.

    Two that measure at once would slow each other; the lock dies with its holder.
    """
    visible = "".join(c for c in os.environ.get("CUDA_VISIBLE_DEVICES", "all") if c.isalnum())
    path = Path(tempfile.gettempdir()) / f"moeprof-{os.getuid()}-{visible[:40]}.lock"
    try:
        path.touch()
    except OSError as error:
        raise EnvironmentMissing(
            f"{path.parent} cannot be written to: {error.strerror}", do="set TMPDIR"
        ) from None
    with locked(path, None, waiting=lambda: say("another check measures here; waiting for it")):
        yield


def _left(begin: float, done: int, total: int) -> str:
    if not done:
        return ""
    each = (time.monotonic() - begin) / done
    return f", {each:.1f} s each, about {each * (total - done):.0f} s left"


def _told(error: MoeprofError, what: str, folder: CheckFolder, finished: int) -> MoeprofError:
    records = "1 finished record is" if finished == 1 else f"{finished} finished records are"
    kept = f"; {records} in {os.path.relpath(folder.path)}" * bool(finished)
    told = EnvironmentMissing(f"{what} failed: {error}{kept}")
    told.exit_code = error.exit_code
    return told
