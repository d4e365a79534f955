"""Putting a file on disk whole or not at all.

The bytes go to an unnamed file (O_TMPFILE) that is given its name once they are on disk, so a kill
at any instant leaves nothing behind. A file system without unnamed files gets a named temporary
one, removed on failure. Leaves out locking: one file has one writer.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from moeprof.errors import ResourceExhausted

_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EXDEV)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(
    path: Path, content: bytes, replace: bool = True, option: str = "--traces"
) -> None:
    """Put ``content`` at ``path`` and flush it to the disk, making folders as needed.

    FileExistsError if the name is taken and ``replace`` is False. ResourceExhausted, with ``path``
    as it was before, if the disk is full or the folder, which ``option`` chooses, cannot be written
    to.
    """
    try:
        _make_folder(path.parent)
        try:
            _write_unnamed(path, content, replace)
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
            _write_named(path, content, replace)
        _sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise _explained(path, error, option) from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file stands where the folder should
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from error


def _write_unnamed(path: Path, content: bytes, replace: bool) -> None:
    descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        _write_through(file, content)
        if not replace:
            _give_name(descriptor, path)
            return
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # a link cannot replace
        beside.unlink(missing_ok=True)
        _give_name(descriptor, beside)
        os.replace(beside, path)


def _give_name(descriptor: int, path: Path) -> None:
    # naming a dir_fd is what makes CPython call linkat, which follows the link in /proc
    open_files = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.link(str(descriptor), path.absolute(), src_dir_fd=open_files, follow_symlinks=True)
    finally:
        os.close(open_files)


def _write_named(path: Path, content: bytes, replace: bool) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            _write_through(file, content)
        if not replace and path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _write_through(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(path: Path, error: OSError, option: str) -> ResourceExhausted:
    found = f"{path} could not be written: {error.strerror or error}"
    if error.errno in _FULL:
        return ResourceExhausted(
            found, do=f"nothing half-written was left; free disk space or choose another {option}"
        )
    return ResourceExhausted(found, do=f"choose a {option} folder that you can write to")
