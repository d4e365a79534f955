"""What an exported timeline is: groups of tracks of slices, counters, and arrows between slices.

No file format is known here and nothing is measured: a Timeline is made from a record and handed to
a writer. Times are integer nanoseconds on the timeline's own clock, which starts at 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Argument = int | float | str
TrackKind = Literal["record", "iterations", "stages", "calls", "busy", "stream", "gaps"]
# of a slice; those of GPU operations are timelines.OperationKind
Category = Literal["record", "iteration", "stage", "call", "kernel", "memcpy", "memset", "gap"]


@dataclass(frozen=True, slots=True)
class Slice:
    """[begin_ns, end_ns) with a name. category: what it is, of one word.

    arrows_out, arrows_in: numbers of the arrows that leave from and arrive at its begin; a number
    is used for one arrow only, and an arrow arrives no earlier than it leaves.
    """

    begin_ns: int
    end_ns: int
    name: str
    category: Category
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    arrows_out: tuple[int, ...] = ()
    arrows_in: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Track:
    """Slices in order of begin, outer before inner, of which any two are apart or nested.

    stream: of the GPU, where the track shows one.
    """

    kind: TrackKind
    name: str
    slices: tuple[Slice, ...]
    stream: int | None = None


@dataclass(frozen=True, slots=True)
class Counter:
    """A quantity that keeps each value until the next point, (time in ns, value)."""

    name: str
    unit: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Tracks that share one clock: one pass over the forward. description: how it was read."""

    name: str
    description: str
    tracks: tuple[Track, ...]
    counters: tuple[Counter, ...] = ()


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a file shows. facts: whose record it is and how it was measured, in order.

    Groups are passes that ran one after another; each starts at 0, so that they can be compared.
    """

    title: str
    groups: tuple[Group, ...]
    facts: Mapping[str, Argument]

    @property
    def end_ns(self) -> int:
        """When the last slice of all ends."""
        ends_ns = (s.end_ns for g in self.groups for track in g.tracks for s in track.slices)
        return max(ends_ns, default=0)


def tracks_of(
    kind: TrackKind,
    name: str,
    slices: Iterable[Slice],
    *,
    nested: bool = False,
    stream: int | None = None,
) -> tuple[Track, ...]:
    """One track, and beside it as many more as overlapping slices need; none without a slice.

    No viewer draws two slices on one track that overlap (Perfetto and Chrome drop or cut one).
    nested: a slice inside another one stays on its track, below it, as calls made within a call
    are drawn. Two kernels of one stream that overlap never nest: neither is a part of the other.
    """
    rows: list[list[Slice]] = []
    open_ns: list[list[int]] = []  # of each row, the ends of the slices that are still open
    for one in sorted(slices, key=lambda s: (s.begin_ns, -s.end_ns)):
        row = _row_for(one, open_ns, nested)
        if row == len(rows):
            rows.append([])
        rows[row].append(one)
    return tuple(
        Track(kind, _row_name(name, number), tuple(row), stream) for number, row in enumerate(rows)
    )


def _row_for(one: Slice, open_ns: list[list[int]], nested: bool) -> int:
    """The first row that ``one`` fits on; it is open there from now on."""
    for number, ends_ns in enumerate(open_ns):
        while ends_ns and ends_ns[-1] <= one.begin_ns:
            ends_ns.pop()
        if not ends_ns or (nested and one.end_ns <= ends_ns[-1]):
            ends_ns.append(one.end_ns)
            return number
    open_ns.append([one.end_ns])
    return len(open_ns) - 1


def _row_name(name: str, number: int) -> str:
    if number == 0:
        return name
    return f"{name} (overlapping)" if number == 1 else f"{name} (overlapping, {number})"


def in_order(track: Track) -> Sequence[tuple[bool, Slice]]:
    """Begins (True) and ends (False) of a track as a viewer must read them: well nested.

    At one instant what ends comes before what begins, but for a slice that has no length.
    """
    found: list[tuple[bool, Slice]] = []
    still: list[Slice] = []
    for one in track.slices:
        while still and still[-1].end_ns <= one.begin_ns:
            found.append((False, still.pop()))
        found.append((True, one))
        still.append(one)
    found.extend((False, one) for one in reversed(still))
    return found
