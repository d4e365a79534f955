"""One iteration as slices: what the host did, what the GPU did, which stage owned it, why it idled.

Busy slices are the parts of the span that the time identity gives to a stage, gaps are its idle
parts by cause, so the two tracks together cover the span once, to the nanosecond. Kernels keep
their full durations on the tracks of their streams.

Names from a capture may hold anything: what cannot be printed is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from moeprof.analysis.identity import Sweep, attribute, collected, sweep
from moeprof.analysis.kernel_names import own_name, qualified_name
from moeprof.analysis.rows import rows_of
from moeprof.exporting.chosen import Shown
from moeprof.exporting.tracks import Argument, Slice
from moeprof.importing.names import printable
from moeprof.records import KernelMetrics, Run
from moeprof.timelines import Operation

HOST_LATE, API, LAUNCH_LATENCY, DEPENDENCY = "host_late", "api", "launch_latency", "dependency"
UNEXPLAINED = "gap"  # no launch call was recorded, as in a replayed graph: the cause is unknown


@dataclass(slots=True)
class Slices:
    """Slices by track. streams: by the stream's number."""

    iterations: list[Slice] = field(default_factory=list)
    stages: list[Slice] = field(default_factory=list)
    calls: list[Slice] = field(default_factory=list)
    busy: list[Slice] = field(default_factory=list)
    streams: dict[int, list[Slice]] = field(default_factory=dict)
    gaps: list[Slice] = field(default_factory=list)


def add_iteration(found: Slices, run: Run, shown: Shown, origin_ns: int, arrow: int) -> int:
    """Add one iteration whose host entry is at ``origin_ns``; how many arrows it used.

    arrow: the first number that no arrow has yet.
    """
    drawer = _Drawer(run, shown, origin_ns, arrow)
    found.iterations.extend(drawer.whole())
    found.stages.extend(drawer.stages())
    found.calls.extend(drawer.calls())
    found.busy.extend(drawer.busy())
    for stream, one in drawer.kernels():
        found.streams.setdefault(stream, []).append(one)
    found.gaps.extend(drawer.gaps())
    return len(drawer.arrows)


def extent_ns(shown: Shown) -> tuple[int, int]:
    """First and last instant of anything in the iteration, from host entry."""
    one = shown.iteration
    begins = [0, *(s for s, e in zip(one.start_ns, one.end_ns, strict=True) if e > 0)]
    begins += [b for b in one.launch_begin_ns if b != -1] + [call.begin_ns for call in one.calls]
    ends = [0, one.exit_ns, *one.end_ns, *one.launch_end_ns, *one.stage_end_ns]
    return min(begins), max(*ends, *(call.end_ns for call in one.calls), 0)


class _Drawer:
    """One iteration at its place on the timeline."""

    def __init__(self, run: Run, shown: Shown, origin_ns: int, arrow: int) -> None:
        self.run, self.shown, self.origin_ns = run, shown, origin_ns
        self.operations, self.iteration = shown.operations, shown.iteration
        self.rows = rows_of(shown.operations, run.solution.stages)
        self.sweep = sweep(shown.operations, [shown.iteration])
        self.explained = bool(self.iteration.launch_begin_ns)
        self.arrows = self._arrows(arrow)

    def _arrows(self, first: int) -> dict[int, int]:
        """A number for the arrow to each operation whose launch call is known."""
        launched = [
            position
            for position, begin_ns in enumerate(self.iteration.launch_begin_ns)
            if begin_ns != -1 and collected(self.iteration, position)
            if begin_ns <= self.iteration.start_ns[position]
        ]
        return {position: first + index for index, position in enumerate(launched)}

    def whole(self) -> Iterator[Slice]:
        """Host entry to exit, and in it the span: first operation to last."""
        book = attribute(self.operations, self.iteration, self.rows)
        begin_ns, end_ns = extent_ns(self.shown)
        sums = {
            name: sum(getattr(stage, f"{name}_ns") for stage in book.stages)
            for name in ("busy", HOST_LATE, API, LAUNCH_LATENCY, DEPENDENCY, "overlap")
        }
        if not self.explained:
            sums = {
                "busy": sums["busy"],
                UNEXPLAINED: sums[HOST_LATE],
                "overlap": sums["overlap"],
            }
        arguments: dict[str, Argument] = {
            "iteration": self.shown.number,
            "trial": self.shown.trial,
            "span_ns": book.span_ns,
            "prologue_ns": book.prologue_ns,
            **{f"{name}_ns": value for name, value in sums.items()},
            "operations": sum(stage.operations for stage in book.stages),
        }
        if book.wall_ns is not None and book.epilogue_ns is not None:
            arguments |= {"wall_ns": book.wall_ns, "epilogue_ns": book.epilogue_ns}
        name = f"iteration {self.shown.number}"
        yield self._slice(begin_ns, end_ns, name, "iteration", arguments)
        if book.span_ns:
            end_ns = book.prologue_ns + book.span_ns
            yield self._slice(book.prologue_ns, end_ns, "span", "iteration", {})

    def stages(self) -> Iterator[Slice]:
        """The host's time in each stage."""
        one = self.iteration
        names = self.run.solution.stage_names
        for name, begin_ns, end_ns in zip(
            names, one.stage_begin_ns, one.stage_end_ns, strict=False
        ):
            yield self._slice(begin_ns, end_ns, name, "stage", {"stage": name})

    def calls(self) -> Iterator[Slice]:
        """Each call once, however many operations it launched; then calls that launched nothing."""
        made: dict[tuple[int, int], list[int]] = {}
        bounds = zip(self.iteration.launch_begin_ns, self.iteration.launch_end_ns, strict=True)
        for position, (begin_ns, end_ns) in enumerate(bounds):
            if begin_ns != -1:
                made.setdefault((begin_ns, end_ns), []).append(position)
        for (begin_ns, end_ns), positions in made.items():
            first = positions[0]
            arguments: dict[str, Argument] = {
                "stage": self.rows[first],
                "launched": len(positions),
                "kernel": self.operations[first].name,
            }
            arrows = tuple(self.arrows[p] for p in positions if p in self.arrows)
            name = self.operations[first].launch or "launch"
            yield self._slice(begin_ns, end_ns, name, "call", arguments, arrows_out=arrows)
        for call in self.iteration.calls:
            if (call.begin_ns, call.end_ns) not in made:
                yield self._slice(call.begin_ns, call.end_ns, call.name, "call", {})

    def kernels(self) -> Iterator[tuple[int, Slice]]:
        """Every operation with its own duration, by stream."""
        metrics = _metrics(self.run.kernel_metrics, self.operations)
        swept = self.sweep
        for n, position, counted in _ordered(swept):
            if not counted:
                continue
            operation = self.operations[position]
            start_ns, end_ns = int(swept.start_ns[0, n]), int(swept.end_ns[0, n])
            arguments = {
                **_described(operation, self.rows[position]),
                "operation": position,
                "gap_before_ns": start_ns - int(swept.idle_ns[0, n]),
                "overlap_ns": end_ns - start_ns - int(swept.owned_ns[0, n]),
                **metrics.get(position, {}),
            }
            arrow = self.arrows.get(position)
            name = own_name(operation.name) if operation.kind == "kernel" else operation.name
            arrows_in = () if arrow is None else (arrow,)
            yield (
                operation.stream,
                self._slice(start_ns, end_ns, name, operation.kind, arguments, arrows_in=arrows_in),
            )

    def busy(self) -> Iterator[Slice]:
        """What the identity gives to each stage; what touches and is of one stage is one slice."""
        pending: tuple[int, int, str] | None = None
        swept = self.sweep
        for n, position, counted in _ordered(swept):
            owned_ns, end_ns = int(swept.owned_ns[0, n]), int(swept.end_ns[0, n])
            if not counted or not owned_ns:
                continue
            row, begin_ns = self.rows[position], end_ns - owned_ns
            if pending is not None and (pending[1], pending[2]) == (begin_ns, row):
                begin_ns = pending[0]
            elif pending is not None:
                yield self._owned(*pending)
            pending = (begin_ns, end_ns, row)
        if pending is not None:
            yield self._owned(*pending)

    def _owned(self, begin_ns: int, end_ns: int, row: str) -> Slice:
        return self._slice(begin_ns, end_ns, row, "stage", {"stage": row})

    def gaps(self) -> Iterator[Slice]:
        """The idle time before each operation by cause, charged to the operation's stage."""
        swept = self.sweep
        for n, position, counted in _ordered(swept):
            if not counted:
                continue
            rest = DEPENDENCY if bool(swept.held[0, n]) else LAUNCH_LATENCY
            bounds = (swept.idle_ns, swept.call_ns, swept.returned_ns, swept.start_ns)
            idle_ns, call_ns, returned_ns, start_ns = (int(column[0, n]) for column in bounds)
            parts = (
                (HOST_LATE if self.explained else UNEXPLAINED, idle_ns, call_ns),
                (API, call_ns, returned_ns),
                (rest, returned_ns, start_ns),
            )
            arguments: dict[str, Argument] = {
                "stage": self.rows[position],
                "before": self.operations[position].name,
                "operation": position,
            }
            for cause, begin_ns, end_ns in parts:
                if end_ns > begin_ns:
                    yield self._slice(begin_ns, end_ns, cause, "gap", arguments)

    def _slice(
        self,
        begin_ns: int,
        end_ns: int,
        name: str,
        category: object,
        arguments: Mapping[str, Argument],
        arrows_out: tuple[int, ...] = (),
        arrows_in: tuple[int, ...] = (),
    ) -> Slice:
        cleaned = {k: printable(v) if isinstance(v, str) else v for k, v in arguments.items()}
        return Slice(
            self.origin_ns + begin_ns,
            self.origin_ns + max(begin_ns, end_ns),
            printable(name),
            category,  # type: ignore[arg-type]
            cleaned,
            arrows_out,
            arrows_in,
        )


def _ordered(swept: Sweep) -> Iterator[tuple[int, int, bool]]:
    """Place in the sweep, place in the record, whether it was timed: in order of start."""
    columns = swept.position[0].tolist(), swept.counted[0].tolist()
    for n, (position, counted) in enumerate(zip(*columns, strict=True)):
        yield n, position, counted


def _described(operation: Operation, row: str) -> dict[str, Argument]:
    """What the record knows of an operation; what it does not know is left out."""
    known: dict[str, Argument | None] = {
        "stage": row,
        "kernel": operation.name,
        "stream": operation.stream,
        "launch": operation.launch or None,
        "grid": _shape(operation.grid),
        "block": _shape(operation.block),
        "registers": operation.registers,
        "shared_bytes": operation.shared_bytes,
        "bytes": operation.bytes,
        "graph_node": operation.graph_node,
    }
    return {name: value for name, value in known.items() if value is not None}


def _shape(of: tuple[int, int, int] | None) -> str | None:
    return None if of is None else "x".join(map(str, of))


def _metrics(
    metrics: Sequence[KernelMetrics], operations: Sequence[Operation]
) -> dict[int, dict[str, Argument]]:
    """Nsight Compute's counters by operation: the n-th kernel of a stage has the n-th's."""
    if not metrics:
        return {}
    known = {(m.stage, m.launch): m for m in metrics}
    seen: dict[str, int] = {}
    found: dict[int, dict[str, Argument]] = {}
    for position, operation in enumerate(operations):
        if operation.kind != "kernel":
            continue
        launch = seen.get(operation.stage, 0)
        seen[operation.stage] = launch + 1
        one = known.get((operation.stage, launch))
        if one is not None and qualified_name(one.name) == qualified_name(operation.name):
            fields = ("dram_bytes_per_second", "dram_fraction", "tensor_pipe_fraction",
                      "occupancy_fraction", "sm_clock_hz")  # fmt: skip
            values = {name: getattr(one, name) for name in fields}
            found[position] = {f"ncu.{k}": v for k, v in values.items() if v is not None}
    return found
