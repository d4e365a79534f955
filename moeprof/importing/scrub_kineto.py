"""A trace of PyTorch's profiler without what is nobody's business, to be shown or kept.

Such a trace holds the host's name, the job's name, the path it was written to, the names of
processes, the shapes and call stacks of operators. A scrubbed one is written anew with the keys
below and no others, so the same Trace is read from both as far as it goes.

    from moeprof.importing.scrub_kineto import scrub_kineto
    scrub_kineto(Path("capture.json"), Path("scrubbed.json.gz"), iterations=3)

Kept as they are: names of kernels and calls, process and thread numbers, times. Names of ranges and
operators are kept but for words that look like a path or a user at a host.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moeprof.errors import RecordError, UsageError
from moeprof.importing.event_fields import span_ns
from moeprof.importing.json_stream import EventStream
from moeprof.importing.json_text import text_pieces
from moeprof.importing.kineto import CALLS, OPERATIONS, OVERHEAD, RANGES
from moeprof.storage.atomic import write_atomically

HOST = frozenset((*CALLS, RANGES, OVERHEAD, "cpu_op", "gpu_user_annotation"))
HEADER = ("schemaVersion", "cuda_runtime_version", "cuda_driver_version", "cupti_version")
GPU = ("id", "name", "totalGlobalMem", "computeMajor", "computeMinor", "numSms")
EVENT = ("ph", "cat", "name", "pid", "tid", "ts", "dur", "id", "bp")
ARGUMENTS = (
    *("External id", "cbid", "correlation", "device", "context", "stream", "bytes", "grid"),
    *("block", "registers per thread", "shared memory", "queued", "graph id", "graph node id"),
    *("memory bandwidth (GB/s)", "blocks per SM", "warps per SM", "est. achieved occupancy %"),
)
_LABEL = re.compile(r"CPU|GPU \d{1,4}|stream \d{1,9} ?")
_PATH = re.compile(r"(?<![\w>*&)])(?:~|[A-Za-z]:)?/\S*|\S+@\S+\.\S+")


def scrub_kineto(
    source: Path, destination: Path, iterations: int, mark: str = "moeprof.iteration"
) -> None:
    """Write the begin of ``source``, up to its n-th ``mark``, to the new file ``destination``.

    mark: name of the range or CUDA call whose ``iterations``-th occurrence is the last one kept,
    with all that was launched up to its end. Compressed if ``destination`` ends with .gz.
    Raises RecordError if ``source`` is no such trace, UsageError if ``destination`` exists.
    """
    try:
        until_ns = _cut(source, iterations, mark)
        launches = {
            event["args"].get("correlation")
            for event in _events(source)
            if event.get("cat") in CALLS and _starts(event) <= until_ns
        }
        stream = EventStream(text_pieces(source, []))
        kept = [
            _dumped(_scrubbed(event))
            for event in stream
            if type(event) is dict and _is_kept(event, until_ns, launches)
        ]
    except RecordError as error:
        raise RecordError(f"{source}: {error}") from None
    text = _document(stream.header, kept).encode()
    content = gzip.compress(text, mtime=0) if destination.suffix == ".gz" else text
    try:
        write_atomically(destination, content, replace=False)
    except FileExistsError:
        raise UsageError(f"{destination} exists", "a new file", "choose another name") from None


def _events(source: Path) -> Iterator[dict[str, Any]]:
    """Events of host code and GPU operations, each with a dict of arguments."""
    for event in EventStream(text_pieces(source, [])):
        if type(event) is dict and event.get("ph") == "X" and type(event.get("cat")) is str:
            if type(event.get("args")) is not dict:
                event["args"] = {}
            yield event


def _starts(event: dict[str, Any]) -> int:
    span = span_ns(event.get("ts"), event.get("dur", 0))
    return 2**63 if span is None else span[0]


def _cut(source: Path, iterations: int, mark: str) -> int:
    ends = sorted(
        span[1]
        for event in _events(source)
        if event.get("name") == mark and event["cat"] in (*CALLS, RANGES)
        if (span := span_ns(event.get("ts"), event.get("dur")))
    )
    if not 0 < iterations <= len(ends):
        raise RecordError(f"{len(ends)} of {mark!r:.80}", f"at least {iterations}, and that over 0")
    return ends[iterations - 1]


def _is_kept(event: dict[str, Any], until_ns: int, launches: set[Any]) -> bool:
    phase, category, arguments = event.get("ph"), event.get("cat"), event.get("args")
    if phase == "M":
        label = arguments.get("labels", arguments.get("name")) if type(arguments) is dict else None
        return type(label) is str and _LABEL.fullmatch(label) is not None
    if category == "ac2g":
        return event.get("id") in launches
    if phase != "X" or type(category) is not str:
        return False
    if category in OPERATIONS and type(arguments) is dict and "correlation" in arguments:
        return arguments["correlation"] in launches
    return category in HOST and _starts(event) <= until_ns


def _scrubbed(event: dict[str, Any]) -> dict[str, Any]:
    found = {key: event[key] for key in EVENT if key in event}
    arguments = event.get("args")
    if type(arguments) is dict:
        allowed = ("labels", "name") if event.get("ph") == "M" else ARGUMENTS
        found["args"] = {key: arguments[key] for key in allowed if key in arguments}
    if type(found.get("name")) is str and found.get("cat") not in OPERATIONS:
        found["name"] = _PATH.sub("...", found["name"])
    return found


def _document(header: dict[str, Any], events: list[str]) -> str:
    kept = {key: header[key] for key in HEADER if key in header}
    devices = header.get("deviceProperties", [])
    if type(devices) is list:
        kept["deviceProperties"] = [
            {key: device[key] for key in GPU if key in device}
            for device in devices
            if type(device) is dict
        ]
    start = "".join(f"{json.dumps(key)}: {_dumped(value)},\n" for key, value in kept.items())
    return "{\n" + start + '"traceEvents": [\n' + ",\n".join(events) + "\n]\n}\n"


def _dumped(value: Any) -> str:
    """JSON, in which ``bytes`` are the digits of a number: no time is rounded."""
    if type(value) is bytes:
        return value.decode()
    if type(value) is dict:
        return "{" + ", ".join(f"{json.dumps(k)}: {_dumped(v)}" for k, v in value.items()) + "}"
    if type(value) is list:
        return "[" + ", ".join(map(_dumped, value)) + "]"
    return json.dumps(value)
