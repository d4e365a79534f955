"""Traces made in tests: event by event, or of a record's own api pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from moeprof.importing.trace import (
    PUSH_POP,
    CallTable,
    Gpu,
    OperationTable,
    RangeTable,
    Trace,
    TraceSource,
)
from moeprof.records import Run
from moeprof.timelines import Operation

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "traces" / "recorded" / "h200"
FLUSH = "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<signed char>"
STEPS = "routing prepare_moe_input shuffle_rows gemm1 swiglu_quant gemm2 gather".split()
# one kernel a step, as sgl_kernel and moeprof's triton_v2 name them
KERNELS = (
    "void moe_fused_gate_kernel<float, 32, 256>(void*)",
    "compute_arg_sorts(int const*)",
    "scatter_rows_kernel",
    "void cutlass::device_kernel<cutlass::gemm::GroupProblemShape<int>>",
    "swiglu_quant_kernel",
    "void cutlass::device_kernel<cutlass::gemm::GroupProblemShape<int>>",
    "gather_kernel",
)


@dataclass
class TraceBuilder:
    """Collects operations, calls and ranges, and makes a Trace of them."""

    source: TraceSource = TraceSource("Nsight Systems", "2025.3.2", "3.20.3")
    gpus: tuple[Gpu, ...] = (Gpu(0, "NVIDIA H200", 132, "9.0"),)
    operations: list[tuple[int, int, int, Operation, tuple[int, int]]] = field(default_factory=list)
    calls: list[tuple[int, int, int, int, str]] = field(default_factory=list)
    ranges: list[tuple[int, int, int, tuple[str, str], int]] = field(default_factory=list)
    threads: dict[int, tuple[int, int]] = field(default_factory=dict)
    overhead: list[tuple[int, int]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def operation(
        self,
        name: str,
        start: int,
        end: int,
        correlation: int = -1,
        place: tuple[int, int] = (100, 0),
        **described: Any,
    ) -> None:
        """A GPU operation alone; ``described``: fields of ``Operation``."""
        operation = replace(Operation(name, "kernel", "", 7), **described)
        self.operations.append((start, end, correlation, operation, place))

    def call(
        self,
        begin: int,
        end: int,
        correlation: int,
        thread: int = 1,
        name: str = "cudaLaunchKernel",
        process: int = 100,
    ) -> None:
        """An API call; its thread belongs to ``process``."""
        self.threads.setdefault(thread, (process, thread))
        self.calls.append((begin, end, correlation, thread, name))

    def launch(
        self,
        name: str,
        at: int,
        start: int,
        end: int,
        thread: int = 1,
        place: tuple[int, int] = (100, 0),
        **described: Any,
    ) -> None:
        """An operation and the call that launched it at ``at``, 5 ns long."""
        correlation = len(self.calls) + 1
        self.call(at, at + 5, correlation, thread, process=place[0])
        self.operation(name, start, end, correlation, place, **described)

    def range(
        self, text: str, begin: int, end: int, thread: int = 1, domain: str = "moeprof"
    ) -> None:
        """A push/pop range; end -1: left open."""
        self.threads.setdefault(thread, (100, thread))
        self.ranges.append((begin, end, thread, (domain, text), PUSH_POP))

    def forward(
        self,
        at: int,
        kernels: Sequence[str] = KERNELS,
        ranges: bool = False,
        thread: int = 1,
        place: tuple[int, int] = (100, 0),
        stream: int = 7,
    ) -> int:
        """One kernel a step, launched every 100 ns and 50 ns long; when it is over."""
        for number, (kernel, step) in enumerate(zip(kernels, STEPS, strict=False)):
            begin = at + 100 * number
            self.launch(kernel, begin + 10, begin + 30, begin + 80, thread, place, stream=stream)
            if ranges:
                self.range(step, begin + 5, begin + 20, thread)
        if ranges:
            self.range("iteration", at, at + 100 * len(kernels), thread)
        return at + 100 * len(kernels)

    def trace(self) -> Trace:
        """What was collected, in the order that readers give."""
        return Trace(
            source=self.source,
            operations=self._operations(),
            calls=self._calls(),
            ranges=self._ranges(),
            gpus=self.gpus,
            threads=self.threads,
            overhead_ns=np.array(self.overhead, dtype=np.int64).reshape(-1, 2),
            notes=self.notes,
        )

    def _operations(self) -> OperationTable:
        rows = sorted(self.operations, key=lambda row: row[0])
        descriptions = {row[3]: 0 for row in rows}
        places = {row[4]: 0 for row in rows}
        return OperationTable(
            start_ns=_times(row[0] for row in rows),
            end_ns=_times(row[1] for row in rows),
            correlation=_times(row[2] for row in rows),
            description=_numbers(list(descriptions), [row[3] for row in rows]),
            place=_numbers(list(places), [row[4] for row in rows]),
            descriptions=tuple(descriptions),
            places=tuple(places),
        )

    def _calls(self) -> CallTable:
        rows = sorted(self.calls, key=lambda row: row[0])
        names = {row[4]: 0 for row in rows}
        return CallTable(
            start_ns=_times(row[0] for row in rows),
            end_ns=_times(row[1] for row in rows),
            correlation=_times(row[2] for row in rows),
            thread=_times(row[3] for row in rows),
            name=_numbers(list(names), [row[4] for row in rows]),
            names=tuple(names),
        )

    def _ranges(self) -> RangeTable:
        rows = sorted(self.ranges, key=lambda row: row[0])
        names = {row[3]: 0 for row in rows}
        return RangeTable(
            start_ns=_times(row[0] for row in rows),
            end_ns=_times(row[1] for row in rows),
            thread=_times(row[2] for row in rows),
            name=_numbers(list(names), [row[3] for row in rows]),
            style=np.array([row[4] for row in rows], dtype=np.int8),
            names=tuple(names),
        )


def of_run(run: Run, iterations: int = 20, ranges: bool = False) -> tuple[Trace, list[str]]:
    """The api pass of a record as a profiler's trace, and the stage of each operation in order.

    Iterations follow each other; a fill that empties the L2 cache, in no stage, precedes each.
    """
    api = run.timeline("api")
    assert api is not None
    builder = TraceBuilder(gpus=(Gpu(0, run.environment.device),))
    stages: list[str] = []
    now = 1_000_000
    for iteration in api.iterations[:iterations]:
        builder.launch(FLUSH, now, now + 10, now + 40_000)
        stages.append("")
        now += 100_000
        rows = zip(
            api.operation_sets[iteration.operation_set],
            iteration.start_ns,
            iteration.end_ns,
            iteration.launch_begin_ns,
            iteration.launch_end_ns,
            strict=True,
        )
        for operation, start, end, begin, returned in sorted(rows, key=lambda row: row[3]):
            correlation = len(builder.calls) + 1
            builder.call(now + begin, now + returned, correlation, name=operation.launch)
            bare = replace(operation, stage="", launch="")
            builder.operations.append((now + start, now + end, correlation, bare, (100, 0)))
            stages.append(operation.stage)
        if ranges:
            builder.range("iteration", now, now + iteration.exit_ns)
            names = run.solution.stage_names
            times = zip(names, iteration.stage_begin_ns, iteration.stage_end_ns, strict=True)
            for stage, begin, end in times:
                builder.range(stage, now + begin, now + end)
        now += iteration.exit_ns + 50_000
    return builder.trace(), stages


def _times(values: Iterable[int]) -> Any:
    return np.fromiter(values, dtype=np.int64)


def _numbers(distinct: Sequence[Any], values: Sequence[Any]) -> Any:
    number = {value: position for position, value in enumerate(distinct)}
    return np.array([number[value] for value in values], dtype=np.int32)
