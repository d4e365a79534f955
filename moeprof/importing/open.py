"""Which reader a file is for, told by what is in it and not by what it is called."""

from __future__ import annotations

from pathlib import Path

from moeprof.errors import RecordError
from moeprof.importing.trace import Trace

EXPECTED = (
    "an export of Nsight Systems (SQLite, or a folder of Parquet), or a trace of PyTorch's "
    "profiler or of Chrome's format (.json, .json.gz)"
)
REPORT_ENDINGS = (".nsys-rep", ".qdrep", ".qdstrm")
_SQLITE, _GZIP, _BYTE_ORDER_MARK = b"SQLite format 3\0", b"\x1f\x8b", b"\xef\xbb\xbf"


def is_report(path: Path) -> bool:
    """Whether ``path`` is a report of Nsight Systems, which only nsys can read."""
    return path.suffix.lower() in REPORT_ENDINGS


def read_trace(path: Path) -> Trace:
    """The capture in ``path``.

    Raises RecordError, one line that begins with the path, if it is none that moeprof can read.
    """
    if path.is_dir():
        if not any(path.glob("*.parquet")):
            raise RecordError(f"{path}: a folder without Parquet files", EXPECTED)
        from moeprof.importing.nsys_parquet import read_nsys_parquet

        return read_nsys_parquet(path)
    head = _head(path)
    if head.startswith(_SQLITE):
        from moeprof.importing.nsys_sqlite import read_nsys_sqlite

        return read_nsys_sqlite(path)
    text = head.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if head.startswith(_GZIP) or text[:1] in (b"{", b"["):
        from moeprof.importing.kineto import read_kineto

        return read_kineto(path)
    if is_report(path):
        raise RecordError(
            f"{path}: a report of Nsight Systems that is not exported",
            do="nsys export --type=sqlite FILE makes one that can be read",
        )
    raise RecordError(
        f"{path}: {'not a capture that moeprof knows' if head else 'empty'}", EXPECTED
    )


def _head(path: Path) -> bytes:
    try:
        if not path.exists():
            raise RecordError(f"{path}: there is no such file", EXPECTED)
        if not path.is_file():
            raise RecordError(f"{path}: not a regular file", EXPECTED)
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
