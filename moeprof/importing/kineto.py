"""Traces of PyTorch's profiler (Kineto) and other Chrome traces to a Trace.

One pass over the events, in bounded memory. Events of Kineto's categories say themselves what they
are; those of other tools are understood by the names of their tracks (``chrome``). Operators,
Python frames, and the ranges' shadows on the GPU are not kept.

Times stay on the file's own clock, exact to the nanosecond: ``ts`` counts microseconds from
``baseTimeNanoseconds``, which is not needed. Names of hosts, jobs, processes and paths, which such
files carry, are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moeprof.errors import RecordError
from moeprof.importing.chrome import PlainTracks
from moeprof.importing.chrome_tracks import transfer_name
from moeprof.importing.cuda_calls import call_name
from moeprof.importing.event_fields import natural, shape, span_ns
from moeprof.importing.gathered import Gathered, text_of
from moeprof.importing.json_stream import REPEATED, EventStream
from moeprof.importing.json_text import text_pieces
from moeprof.importing.trace import PUSH_POP, Gpu, Trace, TraceSource
from moeprof.importing.trace_tables import UNKNOWN
from moeprof.timelines import Operation, OperationKind

MOST_BYTES = 2**60
MOST_CORRELATION = 2**62
MOST_REMEMBERED = 200_000  # descriptions as the file says them
_NO_ARGUMENTS: dict[str, Any] = {}
# Kineto's other overheads (modules and functions loaded, buffers full) are the program's own
_OWN_OVERHEAD = ("Buffer", "Instrumentation", "Resource")

# by category; those of 2021's PyTorch 1.8 beside today's
OPERATIONS: Mapping[str, OperationKind] = {
    **{"kernel": "kernel", "gpu_memcpy": "memcpy", "gpu_memset": "memset"},
    **{"Kernel": "kernel", "Memcpy": "memcpy", "Memset": "memset", "gpu_kernel": "kernel"},
}
RUNTIME, DRIVER = ("cuda_runtime", "Runtime"), "cuda_driver"
CALLS = (*RUNTIME, DRIVER)
NOT_KEPT = frozenset(
    ("cpu_op", "Operator", "python_function", "gpu_user_annotation", "cpu_instant_event")
)
RANGES, OVERHEAD = "user_annotation", "overhead"
NO_TIMES = "without usable times (missing, negative, both zero, no number or too large)"


def read_kineto(path: Path) -> Trace:
    """The trace in a ``.json`` or ``.json.gz`` file of PyTorch's profiler or of Chrome's format.

    What is unsound in it is left out and counted in ``notes``. Raises RecordError, one line that
    begins with the path, for a file that is none or holds no GPU operation.
    """
    notes: list[str] = []
    try:
        events = EventStream(text_pieces(path, notes))
        reader = _Reader()
        for event in events:
            reader.take(event)
        return reader.trace(events, notes)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None


class _Reader:
    """Sorts events by what they are."""

    def __init__(self) -> None:
        self._found = Gathered()
        self._plain = PlainTracks(self._found)
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._by_category = False  # Kineto's: events of other categories are of no interest
        self._operations_by_category = False

    def take(self, event: Any) -> None:
        """Any value of the array of events."""
        if type(event) is not dict:
            self._found.left_out.add("entries that are no events")
            return
        phase, category = event.get("ph"), event.get("cat")
        if phase == "X" and type(category) is str:
            if category in NOT_KEPT:
                self._by_category = True
            elif category in OPERATIONS:
                self._operations_by_category = True
                self._operation(event, OPERATIONS[category])
            elif category in CALLS:
                self._by_category = True
                self._call(event, category)
            elif category == RANGES:
                self._by_category = True
                self._range(event)
            elif category == OVERHEAD:
                self._overhead(event)
            elif not self._by_category:
                self._plain.take(event)
        elif not self._by_category:
            self._plain.take(event)

    def trace(self, events: EventStream, notes: list[str]) -> Trace:
        """All that was taken."""
        header = events.header
        is_kineto = "schemaVersion" in header and "deviceProperties" in header
        if not (is_kineto or self._by_category):
            self._plain.settle(not self._operations_by_category)
        return self._found.trace(
            TraceSource(
                "PyTorch profiler" if is_kineto else "Chrome trace",
                schema=_version_text(header.get("schemaVersion")) if is_kineto else "",
            ),
            gpus=_gpus(header.get("deviceProperties")),
            cuda=_cuda_version(header.get("cuda_runtime_version")),
            notes=(*notes, *_damage(events)),
        )

    # -- categories -------------------------------------------------------------------------

    def _operation(self, event: dict[str, Any], kind: OperationKind) -> None:
        arguments = self._arguments(event, f"{kind}s")
        if arguments is None:
            return
        span = span_ns(event.get("ts"), event.get("dur"))
        name = text_of(event.get("name"))
        process = event.get("pid")
        gpu = natural(arguments.get("device", process))
        stream = natural(arguments.get("stream", event.get("tid")))
        if span is None:
            self._found.left_out.add(f"{kind}s {NO_TIMES}")
        elif name is None or gpu is None or stream is None:
            self._found.left_out.add(f"{kind}s without a name, GPU or stream")
        else:
            # Kineto puts a GPU's number where the process should be; other writers the process
            own = self._track(event) if process != gpu else None
            self._found.operation(
                span,
                self._correlation(arguments),
                self._description(kind, name, stream, arguments),
                gpu,
                -1 if own is None else own,
            )

    def _description(
        self, kind: OperationKind, name: str, stream: int, arguments: dict[str, Any]
    ) -> int:
        """The number of the description; most events repeat an earlier one's."""
        get = arguments.get
        shapes = (get("grid"), get("block"))
        said = (get("registers per thread"), get("shared memory"), get("bytes"))
        try:
            sizes = (tuple(size) if type(size) is list else None for size in shapes)
            key = (kind, name, stream, get("graph node id"), *said, *sizes)
            known = self._numbers.get(key)
        except TypeError:  # a list or object where a number should be
            return self._found.description(_operation(kind, name, stream, arguments))
        if known is not None:
            return known
        number = self._found.description(_operation(kind, name, stream, arguments))
        if len(self._numbers) < MOST_REMEMBERED:
            self._numbers[key] = number
        return number

    def _call(self, event: dict[str, Any], category: str) -> None:
        arguments = self._arguments(event, "API calls")
        if arguments is None:
            return
        span = span_ns(event.get("ts"), event.get("dur"))
        track, name = self._track(event), text_of(event.get("name"))
        if span is None:
            self._found.left_out.add(f"API calls {NO_TIMES}")
        elif track is None or name is None:
            self._found.left_out.add("API calls without a name or thread")
        else:
            callback = natural(arguments.get("cbid")) if category in RUNTIME else None
            self._found.call(span, self._correlation(arguments), track, call_name(name, callback))

    def _range(self, event: dict[str, Any]) -> None:
        if self._arguments(event, "ranges") is None:
            return
        span = span_ns(event.get("ts"), event.get("dur"))
        track, name = self._track(event), text_of(event.get("name"))
        if span is None:
            self._found.left_out.add(f"ranges {NO_TIMES}")
        elif track is None or name is None:
            self._found.left_out.add("ranges without a name or thread")
        else:
            self._found.range(span, track, name, PUSH_POP)

    def _overhead(self, event: dict[str, Any]) -> None:
        name = event.get("name")
        if type(name) is str and any(word in name for word in _OWN_OVERHEAD):
            span = span_ns(event.get("ts"), event.get("dur"))
            if span is None:
                self._found.left_out.add(f"overheads of the profiler {NO_TIMES}")
            else:
                self._found.overhead(span)

    # -- fields -----------------------------------------------------------------------------

    def _arguments(self, event: dict[str, Any], what: str) -> dict[str, Any] | None:
        """The event's ``args``; None if it says something twice."""
        arguments = event.get("args")
        if type(arguments) is not dict:
            arguments = _NO_ARGUMENTS
        if REPEATED in event or REPEATED in arguments:
            self._found.left_out.add(f"{what} with one key twice")
            return None
        return arguments

    def _track(self, event: dict[str, Any]) -> int | None:
        return self._found.track(event.get("pid"), event.get("tid"))

    def _correlation(self, arguments: dict[str, Any]) -> int:
        """CUPTI counts from 1; 0 is none."""
        return natural(arguments.get("correlation"), MOST_CORRELATION) or UNKNOWN


def _operation(
    kind: OperationKind, name: str, stream: int, arguments: Mapping[str, Any]
) -> Operation:
    node = natural(arguments.get("graph node id"), MOST_CORRELATION) or None
    if kind == "kernel":
        return Operation(
            name=name,
            kind=kind,
            stage="",
            stream=stream,
            grid=shape(arguments.get("grid")),
            block=shape(arguments.get("block")),
            registers=natural(arguments.get("registers per thread")),
            shared_bytes=natural(arguments.get("shared memory")),
            graph_node=node,
        )
    return Operation(
        name=transfer_name(name) or name,
        kind=kind,
        stage="",
        stream=stream,
        bytes=natural(arguments.get("bytes"), MOST_BYTES),
        graph_node=node,
    )


# -- header ---------------------------------------------------------------------------------


def _gpus(properties: Any) -> tuple[Gpu, ...]:
    found = {}
    for device in properties if type(properties) is list else ():
        if type(device) is not dict:
            continue
        number, name = natural(device.get("id")), text_of(device.get("name"))
        major, minor = natural(device.get("computeMajor")), natural(device.get("computeMinor"))
        if number is not None and name is not None:
            found[number] = Gpu(
                number=number,
                name=name[:200],
                multiprocessors=natural(device.get("numSms")) or None,
                compute_capability=None if major is None or minor is None else f"{major}.{minor}",
                memory_bytes=natural(device.get("totalGlobalMem"), MOST_BYTES) or None,
            )
    return tuple(found.values())


def _version_text(version: Any) -> str:
    number = natural(version)
    return "" if number is None else str(number)


def _cuda_version(version: Any) -> str:
    """13000 is CUDA 13.0."""
    number = natural(version)
    return f"{number // 1000}.{number % 1000 // 10}" if number else ""


def _damage(events: EventStream) -> list[str]:
    found = []
    if events.damaged:
        found.append(f"left out: {events.damaged:,} stretches of the file that are no JSON")
    if events.cut_short:
        found.append("the file is cut short: what followed is missing")
    elif events.given_up:
        found.append("what follows the last stretch was not read")
    elif events.followed:
        found.append("what follows the end of the document was not read")
    return found
