"""Compiled objects kept on disk between processes, and handed out only as they were written.

An object is native code that the process will run: so a file's name holds the digest of what is in
it, a folder that another user could write to is not used, and a file that was cut off, altered or
written for another key is never returned. Whatever fails here means compiling again, no more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

SUFFIX = ".o"
KEY_DIGITS = 32
WRITABLE_BY_OTHERS = 0o022


def user_folder(name: str) -> Path:
    """moeprof's folder of that name below the user's caches."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "moeprof" / name


def key_of(facts: Mapping[str, object]) -> str:
    """One key for all that an object depends on."""
    text = "\n".join(f"{name}={value}" for name, value in sorted(facts.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


def source_digest(folder: Path) -> str:
    """sha256 over the Python files of ``folder``, in order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class ObjectCache:
    """Objects by key in one folder, which is made at the first ``store``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> Path | None:
        """The intact object of ``key``, or None; damaged ones of that key are removed."""
        found = None
        with contextlib.suppress(OSError):
            if self._is_ours():
                for path in sorted(self.folder.glob(f"{key}-*{SUFFIX}")):
                    if path.name == _name(key, path.read_bytes()):
                        found = path
                    else:
                        self.discard(path)
        return found

    def store(self, key: str, content: bytes) -> Path | None:
        """Keep ``content`` under ``key``; None where it cannot be kept. A reader in another process
        sees all of it or nothing."""
        temporary = None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_ours():
                return None
            handle, temporary = tempfile.mkstemp(dir=self.folder)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            path = self.folder / _name(key, content)
            os.replace(temporary, path)
            return path
        except OSError:
            if temporary is not None:
                self.discard(Path(temporary))
            return None

    @staticmethod
    def discard(path: Path) -> None:
        """Remove an object that turned out to be of no use."""
        with contextlib.suppress(OSError):
            path.unlink()

    def _is_ours(self) -> bool:
        found = self.folder.stat()
        return found.st_uid == os.getuid() and not found.st_mode & WRITABLE_BY_OTHERS


def _name(key: str, content: bytes) -> str:
    return f"{key}-{hashlib.sha256(content).hexdigest()}{SUFFIX}"
