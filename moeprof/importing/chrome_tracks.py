"""What the tracks of a Chrome trace show, by their names, and how copies are called.

A track is a thread of a process. It shows GPU operations if it is called a stream ("stream 7",
"Stream #7(Compute)", "GPU stream 7"), or if its process is called a GPU ("GPU 0", "/device:GPU:0")
and none of that process's tracks is called a stream: XLA draws its modules and steps beside them,
which are no operations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moeprof.importing.trace_tables import Identifier, Track

Names = dict[Any, list[str]]  # of a process, or of a (process, thread)

_STREAM = re.compile(r"\bstream\s*#?\s*(\d{1,9})(?!\d)", re.IGNORECASE)
_GPU = re.compile(r"(?:^|/device:|\()(?:gpu|cuda|device)\s*[:#]?\s*(\d{1,4})(?!\d)", re.IGNORECASE)
_OLD_GPU = "CUDA functions"  # PyTorch's profiler before Kineto; the thread is the GPU's number
UNKNOWN_COPY = "memcpy UNKNOWN"
_COPY = re.compile(r"memcpy[\s:_]*([HDAP])(?:to|2)([HDAP])(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Shown:
    """host: host code. Else a GPU's track: ``stream`` None if it shows no operations."""

    process: Identifier
    host: bool = True
    gpu: int = 0
    stream: int | None = None


def shown_by(tracks: tuple[Track, ...], processes: Names, threads: Names) -> tuple[Shown, ...]:
    """For each track what it shows. An identifier that is text names its track too."""
    gpu_of = {process: _first(_GPU, _called(process, processes)) for process, _ in tracks}
    stream_of = [_first(_STREAM, _called((p, t), threads, t)) for p, t in tracks]
    with_streams = {
        process
        for (process, _), stream in zip(tracks, stream_of, strict=True)
        if stream is not None
    }
    found = []
    for number, ((process, thread), stream) in enumerate(zip(tracks, stream_of, strict=True)):
        gpu = gpu_of[process]
        if stream is not None:
            found.append(Shown(process, False, gpu or 0, stream))
        elif process == _OLD_GPU:
            old = thread if isinstance(thread, int) and 0 <= thread < 10_000 else 0
            found.append(Shown(process, False, old, 0))
        elif gpu is None:
            found.append(Shown(process))
        elif process in with_streams:
            found.append(Shown(process, False, gpu))
        else:
            is_number = isinstance(thread, int) and 0 <= thread < 2**31
            found.append(Shown(process, False, gpu, int(thread) if is_number else number))
    return tuple(found)


def _called(key: Any, names: Mapping[Any, list[str]], alias: Identifier | None = None) -> list[str]:
    alias = key if alias is None else alias
    return [*names.get(key, ()), *([alias] if isinstance(alias, str) else [])]


def _first(pattern: re.Pattern[str], texts: list[str]) -> int | None:
    for text in texts:
        match = pattern.search(text)
        if match:
            return int(match[1])
    return None


def transfer_name(name: str) -> str:
    """How a record calls a copy or memset ("memcpy DTOH"); '' for anything else.

    Kineto: "Memcpy DtoH (Device -> Pinned)", XLA: "MemcpyD2H".
    """
    start = name[:6].lower()
    if start == "memset":
        return "memset"
    if start != "memcpy":
        return ""
    copy = _COPY.match(name)
    return f"memcpy {copy[1].upper()}TO{copy[2].upper()}" if copy else UNKNOWN_COPY
