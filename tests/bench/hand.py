"""Hand-made cells of a bench: records whose passes read exactly what is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from moeprof.bench.cells import Bench, assemble
from moeprof.records import PassResult, Run, Sample
from tests.builders import make_run
from tests.comparisons import at, fused, named, pipeline

BASE = make_run(passes=("first",))
CARD = replace(BASE.environment, card="d7bede8a")


def uuid(tokens: int) -> str:
    return f"{tokens:08d}-0000"


def samples(values: float | Sequence[float], trials: int = 1) -> tuple[Sample, ...]:
    """Spans in us; with trials, as many in each, one after the other."""
    values = [float(values)] if isinstance(values, (int, float)) else list(values)
    each = max(1, len(values) // trials)
    return tuple(Sample(us, us + 5.0, trial=i // each) for i, us in enumerate(values))


def timed(
    name: str,
    tokens: int,
    eager: float | Sequence[float] | None = None,
    graph: float | Sequence[float] | None = None,
    trials: int = 1,
    **changes: Any,
) -> Run:
    """A record of one card whose bare and graph passes read exactly this."""
    passes = [PassResult("first", (Sample(7000.0, 7000.0),))]
    if eager is not None:
        passes.append(PassResult("bare", samples(eager, trials)))
    if graph is not None:
        passes.append(PassResult("graph", samples(graph)))
    run = replace(BASE, passes=tuple(passes), timelines=(), environment=CARD)
    return replace(at(named(run, name), tokens, uuid(tokens)), **changes)


def bench(table: Mapping[str, Mapping[int, float | Sequence[float]]], **options: Any) -> Bench:
    """Eager latencies by solution and number of tokens."""
    runs = [timed(name, t, us) for name, column in table.items() for t, us in column.items()]
    return assemble(runs, (), list(table), **options)


def explained() -> list[Run]:
    """Whole records of two solutions and a reference on two workloads."""
    found = []
    for tokens, pairs in ((56, 60), (14107, 13982)):
        scale = tokens / 14107
        for run in (
            pipeline(tokens, pairs, "triton_v2", scale=scale),
            fused(tokens, pairs, "flashinfer_moe", scale=scale),
            pipeline(tokens, pairs, "reference", scale=10 * scale),
        ):
            found.append(at(run, tokens, uuid(tokens)))
    return found
