"""Chrome traces of tools without Kineto's categories, understood by the names of their tracks.

On a GPU's tracks (``chrome_tracks``) every event is an operation. On all others an event named like
a call of CUDA is one, and anything else is a range.

Which track is what is known at the end only, since names may come last; until then events wait as
rows of numbers. Begins and ends are paired on the way.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from moeprof.importing.chrome_tracks import Names, Shown, shown_by, transfer_name
from moeprof.importing.cuda_calls import call_name
from moeprof.importing.event_fields import moment_ns, natural, shape, span_ns
from moeprof.importing.gathered import Gathered, Numbered, Rows, check_count, text_of
from moeprof.importing.json_stream import REPEATED
from moeprof.importing.left_out import LeftOut
from moeprof.importing.trace import PUSH_POP, START_END, Times
from moeprof.importing.trace_tables import UNKNOWN
from moeprof.timelines import Operation, OperationKind

MOST_OPEN = 1_000_000  # begins without an end at once, and names of tracks
PIECE = 100_000
NEVER = -1  # end of what was never closed
NO_TIMES = "events without usable times (missing, negative, both zero, no number or too large)"

_CALL = re.compile(r"(?:cuda|cu)[A-Z]\w+")
# of XLA: "regs:32 static_shared:0 dynamic_shared:0 grid:8,1,1 block:128,1,1 occ_pct:50"
_XLA_DETAILS = re.compile(r"(\w{1,20}):(\d{1,18}(?:,\d{1,18}){0,2})(?![\d,])")

# grid, block, registers, shared bytes, bytes
Details = tuple[
    tuple[int, int, int] | None, tuple[int, int, int] | None, int | None, int | None, int | None
]
NO_DETAILS: Details = (None, None, None, None, None)


class PlainTracks:
    """Events that wait for the names of their tracks."""

    def __init__(self, found: Gathered) -> None:
        self._found = found
        self._rows = Rows(7)  # start, end (-1: never), correlation, track, name, details, style
        self._names: Numbered[str] = Numbered()
        self._details: Numbered[Details] = Numbered()
        self._described: dict[tuple[int, int, int | None], int] = {}
        self._processes: Names = {}
        self._threads: Names = {}
        self._left_out = LeftOut()
        self._open: dict[Any, list[tuple[int, ...]]] = {}
        self._open_count = 0

    def take(self, event: dict[str, Any]) -> None:
        """An event of any phase."""
        match event.get("ph"):
            case "X":
                self._complete(event)
            case "B" | "b" | "S" as phase:
                self._begin(event, phase == "B")
            case "E" | "e" | "F" as phase:
                self._end(event, phase == "E")
            case "M":
                self._name(event)
            case str(phase) if len(phase) == 1:
                pass  # instants, counters, flows, samples
            case _:
                self._left_out.add("entries that are no events")

    # -- events -----------------------------------------------------------------------------

    def _complete(self, event: dict[str, Any]) -> None:
        span = span_ns(event.get("ts"), event.get("dur"))
        row = self._row(event)
        if span is None:
            self._left_out.add(NO_TIMES)
        elif row is not None:
            self._rows.add((*span, *row, PUSH_POP))

    def _begin(self, event: dict[str, Any], on_thread: bool) -> None:
        begin = moment_ns(event.get("ts"))
        row, key = self._row(event), self._key(event, on_thread)
        if begin is None or self._open_count >= MOST_OPEN:
            self._left_out.add(NO_TIMES if begin is None else "begins of events, too many open")
        elif key is None:
            self._left_out.add("begins of events without a sound id")
        elif row is not None:
            style = PUSH_POP if on_thread else START_END
            self._open.setdefault(key, []).append((begin, *row, style))
            self._open_count += 1

    def _end(self, event: dict[str, Any], on_thread: bool) -> None:
        key, end = self._key(event, on_thread), moment_ns(event.get("ts"))
        begun = self._open.get(key)
        if not begun:
            self._left_out.add("ends of events without a begin")
            return
        begin, *row = begun.pop()
        self._open_count -= 1
        if not begun:
            del self._open[key]
        if end is None or end < begin:
            self._left_out.add(NO_TIMES)
        else:
            self._rows.add((begin, end, *row))

    def _key(self, event: dict[str, Any], on_thread: bool) -> Any:
        """What a begin and its end have in common; None if it cannot be told."""
        fields = ("pid", "tid") if on_thread else ("pid", "cat", "id", "name")
        key = [event.get(field) for field in fields]
        local = event.get("id2")
        if type(local) is dict and not on_thread:
            key[2] = local.get("local", local.get("global"))
        if all(type(value) in (int, str, type(None)) for value in key):
            return (on_thread, *(value[:500] if type(value) is str else value for value in key))
        return None

    def _row(self, event: dict[str, Any]) -> tuple[int, int, int, int] | None:
        """Correlation, track, name and details."""
        arguments = event.get("args")
        if type(arguments) is not dict:
            arguments = {}
        check_count(len(self._rows) + self._open_count + 1)
        name = text_of(event.get("name"))
        track = self._found.track(event.get("pid", 0), event.get("tid", 0))
        if name is None or track is None:
            self._left_out.add("events without a name or track")
        elif REPEATED in event or REPEATED in arguments:
            self._left_out.add("events with one key twice")
        else:
            number = arguments.get("correlation", arguments.get("correlation_id"))
            if type(number) is str and number.isascii() and number.isdigit() and len(number) < 19:
                number = int(number)
            correlation = natural(number, 2**62) or UNKNOWN
            details = self._details.number(_details(arguments))
            return correlation, track, self._names.number(name, len(name)), details
        return None

    def _name(self, event: dict[str, Any]) -> None:
        """process_name, process_labels ("GPU 0" in Kineto's) and thread_name."""
        arguments, process, thread = event.get("args"), event.get("pid", 0), event.get("tid", 0)
        if type(arguments) is not dict or {type(process), type(thread)} - {int, str}:
            return
        match event.get("name"):
            case "process_name" | "process_labels":
                name, key = arguments.get("name", arguments.get("labels")), process
                names = self._processes
            case "thread_name":
                name, key = arguments.get("name"), (process, thread)
                names = self._threads
            case _:
                return
        said = names.setdefault(key, []) if len(names) < MOST_OPEN else []
        if type(name) is str and len(said) < 4:
            said.append(name[:200])

    # -- at the end -------------------------------------------------------------------------

    def settle(self, with_operations: bool) -> None:
        """Hand all events over. with_operations: take GPUs' tracks as such, else leave them."""
        for begun in self._open.values():
            for begin, *row in begun:
                self._rows.add((begin, NEVER, *row))
        for reason, count in self._left_out.counts.items():
            self._found.left_out.add(reason, count)
        rows = self._rows.table()
        order = np.argsort(rows[:, 3], kind="stable")
        used, begins = np.unique(rows[order, 3], return_index=True)
        shown = shown_by(self._found.tracks.values, self._processes, self._threads)
        hosts = {shown[track].process for track in used.tolist() if shown[track].host}
        pieces = np.split(order, begins)[1:]  # what lies before the first begin is nothing
        for track, mine in zip(used.tolist(), pieces, strict=True):
            for some in np.array_split(mine, 1 + len(mine) // PIECE):
                if shown[track].host:
                    self._host(rows[some])
                elif with_operations and shown[track].stream is not None:
                    own = track if shown[track].process in hosts else -1
                    self._operations(rows[some], shown[track], own)

    def _host(self, rows: Times) -> None:
        names = self._names.values
        for start, end, correlation, track, number, _, style in rows.tolist():
            name = names[number]
            if not _CALL.fullmatch(name):
                self._found.range((start, end), track, name, style)
            elif end != NEVER:
                self._found.call((start, end), correlation, track, call_name(name))
            else:
                self._found.left_out.add("API calls without an end")

    def _operations(self, rows: Times, shown: Shown, own_track: int) -> None:
        names, details = self._names.values, self._details.values
        for start, end, correlation, _, number, detail, _ in rows.tolist():
            if end == NEVER:
                self._found.left_out.add("GPU operations without an end")
                continue
            key = (number, detail, shown.stream)
            if key not in self._described:
                operation = _operation(names[number], shown.stream or 0, details[detail])
                self._described[key] = self._found.description(operation)
            description = self._described[key]
            self._found.operation((start, end), correlation, description, shown.gpu, own_track)


def _operation(name: str, stream: int, details: Details) -> Operation:
    grid, block, registers, shared_bytes, size = details
    transfer = transfer_name(name)
    kind: OperationKind = "kernel"
    if transfer:
        kind = "memset" if transfer == "memset" else "memcpy"
    return Operation(
        name=transfer or name,
        kind=kind,
        stage="",
        stream=stream,
        grid=grid,
        block=block,
        registers=registers,
        shared_bytes=shared_bytes,
        bytes=size,
    )


def _details(arguments: dict[str, Any]) -> Details:
    """Kineto's words, or XLA's, which are one string."""
    text = arguments.get("kernel_details", arguments.get("memcpy_details"))
    if type(text) is str:
        said = dict(_XLA_DETAILS.findall(text[:1000]))
        number = {key: int(value) for key, value in said.items() if value.isdigit()}
        static, dynamic = number.get("static_shared"), number.get("dynamic_shared")
        return (
            shape([int(size) for size in said.get("grid", "").split(",") if size]),
            shape([int(size) for size in said.get("block", "").split(",") if size]),
            natural(number.get("regs")),
            None if static is None or dynamic is None else natural(static + dynamic),
            natural(number.get("size"), 2**60),
        )
    return (
        shape(arguments.get("grid")),
        shape(arguments.get("block")),
        natural(arguments.get("registers per thread")),
        natural(arguments.get("shared memory")),
        natural(arguments.get("bytes"), 2**60),
    )
