"""A Timeline as a Perfetto trace (protobuf), written with Perfetto's own Python library.

A group is a track that holds others, in the given order (of a process's tracks the viewer ignores
the order), an arrow is a flow. Names and the strings of arguments are interned, as a kernel's name
can have thousands of characters and comes back in every iteration.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from moeprof.errors import EnvironmentMissing
from moeprof.exporting.tracks import Argument, Group, Slice, Timeline, in_order

SEQUENCE = 1  # one writer, so one sequence of packets
INT64 = range(-(2**63), 2**63)


def perfetto_trace(timeline: Timeline) -> bytes:
    """The bytes of a ``.perfetto-trace`` file.

    Raises EnvironmentMissing where the perfetto package is not installed.
    """
    return _Writer().write(timeline)


def _library() -> tuple[Any, Any]:
    """The builder and the messages; 40 ms to import, so not before they are needed."""
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2
        from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder
    except ImportError:
        raise EnvironmentMissing(
            "the perfetto package, which writes Perfetto traces, is not installed",
            do="pip install perfetto, or name a file that ends in .json: Chrome's format needs "
            "nothing and Perfetto opens it",
        ) from None
    return StreamingTraceProtoBuilder, perfetto_trace_pb2


class _Writer:
    """Packets in order of time. numbers: of the strings that earlier packets have interned."""

    def __init__(self) -> None:
        builder, self.protos = _library()
        self.file = io.BytesIO()
        self.builder = builder(self.file)
        self.numbers: dict[tuple[str, str], int] = {}
        self.uuid = 0

    def write(self, timeline: Timeline) -> bytes:
        start = self._packet()
        start.sequence_flags = self.protos.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        self.builder.write_packet(start)
        events: list[tuple[int, int, bool, Slice | float]] = []
        for group in timeline.groups:
            events.extend(self._group(group))
        events.sort(key=lambda event: event[0])  # stable: what happens at once keeps its order
        for time_ns, uuid, begins, what in events:
            packet = self._packet()
            packet.timestamp = time_ns
            packet.track_event.track_uuid = uuid
            self._event(packet, begins, what)
            self.builder.write_packet(packet)
        return self.file.getvalue()

    def _group(self, group: Group) -> Iterator[tuple[int, int, bool, Slice | float]]:
        """Describe a group's tracks; yields (time, track, whether it begins, what happens)."""
        descriptor = self._descriptor(group.name)
        descriptor.description = group.description
        descriptor.child_ordering = self.protos.TrackDescriptor.EXPLICIT
        parent = self._described(descriptor)
        for rank, track in enumerate(group.tracks):
            descriptor = self._descriptor(track.name, parent, rank)
            merging = self.protos.TrackDescriptor.SIBLING_MERGE_BEHAVIOR_NONE
            descriptor.sibling_merge_behavior = merging
            uuid = self._described(descriptor)
            for begins, one in in_order(track):
                yield one.begin_ns if begins else one.end_ns, uuid, begins, one
        for rank, counter in enumerate(group.counters, start=len(group.tracks)):
            descriptor = self._descriptor(counter.name, parent, rank)
            descriptor.counter.unit_name = counter.unit
            uuid = self._described(descriptor)
            for time_ns, value in counter.points:
                yield time_ns, uuid, True, value

    def _descriptor(self, name: str, parent: int = 0, rank: int = 0) -> Any:
        self.uuid += 1
        descriptor = self.protos.TrackDescriptor(uuid=self.uuid, name=name)
        if parent:
            descriptor.parent_uuid = parent
            descriptor.sibling_order_rank = rank
        return descriptor

    def _described(self, descriptor: Any) -> int:
        packet = self._packet()
        packet.track_descriptor.CopyFrom(descriptor)
        self.builder.write_packet(packet)
        uuid: int = descriptor.uuid
        return uuid

    def _event(self, packet: Any, begins: bool, what: Slice | float) -> None:
        event, kinds = packet.track_event, self.protos.TrackEvent
        if not isinstance(what, Slice):
            event.type, event.double_counter_value = kinds.TYPE_COUNTER, what
            return
        if not begins:
            event.type = kinds.TYPE_SLICE_END
            return
        event.type = kinds.TYPE_SLICE_BEGIN
        event.name_iid = self._number(packet, "event_names", what.name)
        event.category_iids.append(self._number(packet, "event_categories", what.category))
        event.flow_ids.extend(what.arrows_out)
        event.terminating_flow_ids.extend(what.arrows_in)
        for name, value in what.arguments.items():
            annotation = event.debug_annotations.add()
            annotation.name_iid = self._number(packet, "debug_annotation_names", name)
            self._value(packet, annotation, value)

    def _value(self, packet: Any, annotation: Any, value: Argument) -> None:
        if isinstance(value, str):
            number = self._number(packet, "debug_annotation_string_values", value)
            annotation.string_value_iid = number
        elif isinstance(value, int) and value in INT64:
            annotation.int_value = value
        else:
            annotation.double_value = float(value)

    def _number(self, packet: Any, table: str, text: str) -> int:
        """The number of ``text`` in an interning table; its first use puts it there."""
        number = self.numbers.get((table, text))
        if number is None:
            number = self.numbers[table, text] = len(self.numbers) + 1
            entry = getattr(packet.interned_data, table).add()
            entry.iid = number
            if table == "debug_annotation_string_values":
                entry.str = text.encode()
            else:
                entry.name = text
        return number

    def _packet(self) -> Any:
        packet = self.builder.create_packet()
        packet.trusted_packet_sequence_id = SEQUENCE
        packet.sequence_flags = self.protos.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        return packet
