"""A lock on a folder or a file that dies with its holder: ``flock``, so a kill leaves none behind.

A folder is locked through its own descriptor: nothing is written for it. A file system without
locks (some network ones) is used without them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from moeprof.errors import ResourceExhausted

_HELD = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_POLL_SECONDS = 0.01


@contextlib.contextmanager
def locked(
    path: Path,
    seconds: float | None,
    shared: bool = False,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold the lock of ``path``, which must exist, while the block runs.

    shared: beside other readers, not beside a writer. waiting: called once if another holds it.
    ResourceExhausted if it is not free within ``seconds`` (None: wait for ever).
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _acquire(descriptor, path, seconds, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, waiting)
        yield
    finally:
        os.close(descriptor)  # which gives the lock back


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock of ``path``; True where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        return _try(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _acquire(
    descriptor: int, path: Path, seconds: float | None, kind: int, waiting: Callable[[], None]
) -> None:
    begin = time.monotonic()
    told = False
    while not _try(descriptor, kind):
        if seconds is not None and time.monotonic() - begin > seconds:
            raise ResourceExhausted(
                f"{path} is being written by another process for more than {seconds:.0f} s",
                do="try again, or end that process",
            )
        if not told:
            waiting()
            told = True
        time.sleep(_POLL_SECONDS)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True
