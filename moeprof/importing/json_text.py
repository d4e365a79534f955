"""The text of a trace file in pieces, whatever its size, compressed or not.

A file that cannot be one is refused here in one line: a folder, a pipe, an empty file, one beyond
``MAX_JSON_BYTES``, a gzip bomb. A gzip stream that was cut short or damaged is read as far as it
goes, and ``notes`` says so. Bytes that are no UTF-8 become lone surrogates, which the names of
events lose later (``names.printable``): one bad byte does not cost the file.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from moeprof.errors import RecordError

MAX_JSON_BYTES = 8 * 2**30  # of text: some ten million kernels with their launches
# real traces shrink 13 to 26 times; what shrinks more than this is no trace
MOST_INFLATION, SMALL_BYTES = 250, 64 * 2**20
PIECE_BYTES = 1 << 20
GZIP = b"\x1f\x8b"

EXPECTED = "a PyTorch profiler or Chrome trace (.json or .json.gz)"
_RECORD_LESS = "record fewer iterations"


def text_pieces(path: Path, notes: list[str]) -> Iterator[str]:
    """The text of ``path``; what is wrong with it but can be lived with is added to ``notes``.

    Raises RecordError, without the path, at the first piece or on the way.
    """
    try:
        # a pipe without a writer must not hold the reader up
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb", buffering=0) as file:
            _check(os.fstat(descriptor))
            yield from _decoded(_unpacked(_pieces(file), notes))
    except IsADirectoryError:
        raise RecordError("this is a folder", EXPECTED, "name a file in it") from None
    except OSError as error:
        raise RecordError(f"it cannot be read ({error.strerror})", EXPECTED) from None
    except ValueError as error:  # a path with a null character
        raise RecordError(f"it cannot be opened ({error})", EXPECTED) from None


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RecordError("this is no regular file", EXPECTED)
    if status.st_size == 0:
        raise RecordError("the file is empty", EXPECTED)
    _check_size(status.st_size)


def _check_size(size: int) -> None:
    if size > MAX_JSON_BYTES:
        raise RecordError(
            f"it holds more than {MAX_JSON_BYTES / 2**30:.3g} GiB", "less", _RECORD_LESS
        )


def _pieces(file: object) -> Iterator[bytes]:
    read = file.read  # type: ignore[attr-defined]
    while piece := read(PIECE_BYTES):
        yield piece


def _unpacked(pieces: Iterator[bytes], notes: list[str]) -> Iterator[bytes]:
    first = next(pieces, b"")
    if first[:2] == GZIP:
        yield from _inflated(first, pieces, notes)
        return
    size = 0
    for piece in itertools.chain((first,), pieces):  # the file may grow while it is read
        size += len(piece)
        _check_size(size)
        yield piece


def _inflated(piece: bytes, pieces: Iterator[bytes], notes: list[str]) -> Iterator[bytes]:
    """The contents of all members of a gzip file, one after the other."""
    inflate = zlib.decompressobj(wbits=31)
    packed = unpacked = 0
    while piece:
        packed += len(piece)
        while piece:
            if inflate.eof:  # another member, padding, or something else
                piece = piece.lstrip(b"\0")
                if not piece:
                    break
                if not GZIP.startswith(piece[:2]) and piece[:2] != GZIP:
                    notes.append("what follows the end of the gzip stream was not read")
                    return
                inflate = zlib.decompressobj(wbits=31)
            before = inflate.copy()
            try:
                text = inflate.decompress(piece, PIECE_BYTES)
            except zlib.error:
                notes.append("the gzip stream is damaged: what follows the damage was not read")
                yield _before_damage(before, piece)
                return
            piece = inflate.unconsumed_tail or inflate.unused_data
            unpacked += len(text)
            _check_inflation(packed, unpacked)
            yield text
        piece = next(pieces, b"")
    yield inflate.flush()
    if not inflate.eof:
        notes.append("the gzip stream was cut short: what followed is missing")


def _before_damage(inflate: zlib._Decompress, piece: bytes) -> bytes:
    """What ``piece`` gives up to the byte at which it is damaged."""
    found = b""
    for size in (4096, 1):
        with contextlib.suppress(zlib.error):
            while piece and len(found) < PIECE_BYTES:
                last = inflate.copy()
                found += inflate.decompress(piece[:size])
                piece = piece[size:]
        inflate = last
    return found


def _check_inflation(packed: int, unpacked: int) -> None:
    if unpacked > max(SMALL_BYTES, MOST_INFLATION * packed):
        raise RecordError(
            f"it inflates more than {MOST_INFLATION}-fold", "a trace, which shrinks 10 to 30-fold"
        )
    _check_size(unpacked)


def _decoded(pieces: Iterator[bytes]) -> Iterator[str]:
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    first = True
    for piece in pieces:
        text = decode(piece)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        if text:
            yield text
    if rest := decode(b"", final=True):
        yield rest
