"""A Timeline as Chrome's trace events (JSON), for chrome://tracing and where Perfetto is missing.

The words are those of PyTorch's profiler where it has a word: categories, arguments of a kernel,
``ac2g`` arrows, correlation numbers. So what reads its traces reads these, ``moeprof import``
included: iterations, stages and calls nest on one thread of the host, as they do in its captures,
and the first two are named as those name them.

Times are microseconds with three digits, which is every nanosecond of a timeline of 52 days.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from moeprof.exporting.tracks import Argument, Group, Slice, Timeline, Track, tracks_of

DRIVER_CALL = re.compile(r"cu[A-Z]")
CATEGORIES = {"kernel": "kernel", "memcpy": "gpu_memcpy", "memset": "gpu_memset"}
KINETO_NAMES = {"registers": "registers per thread", "shared_bytes": "shared memory"}
# chrome://tracing draws with the colours it has a name for
COLOURS = {
    "host_late": "terrible",
    "api": "bad",
    "launch_latency": "yellow",
    "dependency": "olive",
    "gap": "grey",
}


def chrome_trace(timeline: Timeline) -> bytes:
    """The bytes of a ``.json`` trace."""
    events: list[dict[str, Any]] = []
    timed: list[dict[str, Any]] = []
    for process, group in enumerate(map(on_threads, timeline.groups), start=1):
        events.extend(_names(process, group))
        timed.extend(_group(process, group))
    timed.sort(key=lambda event: event["ts"])  # stable: of two at once the outer one stays first
    document = {
        "displayTimeUnit": "ns",
        "otherData": dict(timeline.facts),
        "traceEvents": events + timed,
    }
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def on_threads(group: Group) -> Group:
    """The group with all that the host did on one thread; what does not nest there beside it."""
    host = [
        one
        for track in group.tracks
        if track.kind in ("iterations", "stages", "calls")
        for one in track.slices
        if one.name != "span"
    ]
    spans = [
        s for t in group.tracks if t.kind == "iterations" for s in t.slices if s.name == "span"
    ]
    rest = [track for track in group.tracks if track.kind not in ("iterations", "stages", "calls")]
    tracks = (
        *tracks_of("calls", "host", host, nested=True),
        *tracks_of("iterations", "GPU span", spans),
        *rest,
    )
    return replace(group, tracks=tracks)


def _names(process: int, group: Group) -> Iterator[dict[str, Any]]:
    def say(what: str, thread: int, **arguments: object) -> dict[str, Any]:
        return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": arguments}

    yield say("process_name", 0, name=group.name)
    yield say("process_labels", 0, labels=group.description)
    yield say("process_sort_index", 0, sort_index=process)
    for thread, track in enumerate(group.tracks, start=1):
        yield say("thread_name", thread, name=track.name)
        yield say("thread_sort_index", thread, sort_index=thread)


def _group(process: int, group: Group) -> Iterator[dict[str, Any]]:
    calls = _correlations(group)
    for thread, track in enumerate(group.tracks, start=1):
        place = {"pid": process, "tid": thread}
        for one in track.slices:
            yield {**_complete(track, one, calls), **place}
            at = {"cat": "ac2g", "name": "ac2g", "ts": _us(one.begin_ns), **place}
            for arrow in one.arrows_out:
                yield {"ph": "s", "id": arrow, **at}
            for arrow in one.arrows_in:
                yield {"ph": "f", "bp": "e", "id": arrow, **at}
    for counter in group.counters:
        for time_ns, value in counter.points:
            arguments = {counter.unit: value}
            yield {"ph": "C", "name": counter.name, "pid": process, "ts": _us(time_ns),
                   "args": arguments}  # fmt: skip


def _correlations(group: Group) -> dict[int, int]:
    """Of each arrow the number of the call it leaves from: one call can launch many operations."""
    return {
        arrow: one.arrows_out[0]
        for track in group.tracks
        if track.kind == "calls"
        for one in track.slices
        for arrow in one.arrows_out
    }


def _complete(track: Track, one: Slice, calls: Mapping[int, int]) -> dict[str, Any]:
    """One slice as an event with begin and duration."""
    event = {
        "ph": "X",
        "cat": _category(track, one),
        "name": _name(track, one),
        "ts": _us(one.begin_ns),
        "dur": _us(one.end_ns - one.begin_ns),
        "args": _arguments(one, calls),
    }
    if track.kind == "gaps" and one.name in COLOURS:
        event["cname"] = COLOURS[one.name]
    return event


def _category(track: Track, one: Slice) -> str:
    if one.category in CATEGORIES:
        return CATEGORIES[one.category]
    if track.kind != "calls":
        return f"moeprof.{track.kind}"
    if one.category != "call":
        return "user_annotation"
    return "cuda_driver" if DRIVER_CALL.match(one.name) else "cuda_runtime"


def _name(track: Track, one: Slice) -> str:
    if track.kind == "calls" and one.category == "iteration":
        return "moeprof.iteration"
    if track.kind == "calls" and one.category == "stage":
        return f"moeprof.{one.name}"
    return str(one.arguments.get("kernel", one.name)) if one.category in CATEGORIES else one.name


def _arguments(one: Slice, calls: Mapping[int, int]) -> dict[str, Any]:
    found: dict[str, Any] = {
        KINETO_NAMES.get(name, name): _value(name, value) for name, value in one.arguments.items()
    }
    if one.category in CATEGORIES:
        found["device"] = 0
    arrows = one.arrows_out or one.arrows_in
    if arrows:
        found["correlation"] = calls.get(arrows[0], arrows[0])
    return found


def _value(name: str, value: Argument) -> Any:
    """Grids and blocks as lists of numbers."""
    if name in ("grid", "block") and isinstance(value, str):
        return [int(size) for size in value.split("x")]
    return value


def _us(nanoseconds: int) -> float:
    return nanoseconds / 1000
