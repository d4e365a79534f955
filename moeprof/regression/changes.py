"""What differs in what a stage runs, one cause a difference: operations, shapes, work, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from moeprof.analysis.checks import short_name
from moeprof.records import StageInfo
from moeprof.regression.structure import RowStructure, Shape
from moeprof.regression.values import Cause

SHAPE_WORDS = ("grid", "block", "registers a thread", "shared bytes a block")
WORK_WORDS = (
    ("rows_executed", "runs", "rows"),
    ("bytes_read", "reads", "bytes"),
    ("bytes_written", "writes", "bytes"),
    ("flops", "computes", "FLOPs"),
)
MOST_NAMES = 3


def structure_changes(
    stage: str, before: RowStructure | None, after: RowStructure | None
) -> Iterator[Cause]:
    """Every difference of one row between the sides, the most telling first."""
    if before is None or after is None:
        return
    sets = list(_kernel_sets(stage, before, after))
    yield from sets
    if not sets and before.launches != after.launches:
        sentence = f"it makes {after.launches} launches instead of {before.launches}"
        yield Cause(stage, "launches", sentence)
    yield from _shapes(stage, before, after)
    yield from _work(stage, before.info, after.info)
    yield from _allocations(stage, before, after)


def _kernel_sets(stage: str, before: RowStructure, after: RowStructure) -> Iterator[Cause]:
    """Operations that only one side launches, or another number of times."""
    if not before.kernels or not after.kernels:
        return  # one side's launches are not known
    added, gone = (
        Counter(new) - Counter(old)
        for new, old in ((after.kernels, before.kernels), (before.kernels, after.kernels))
    )
    said = []
    if added:
        said.append(f"launches {_names(added)} more")
    if gone:
        said.append(f"no longer launches {_names(gone)}")
    if said:
        yield Cause(stage, "kernel set", f"it {' and '.join(said)}")


def _names(kernels: Counter[str]) -> str:
    """'2 x copy_kernel, fill_kernel and 3 others'."""
    shown = [
        f"{f'{count} x ' if count > 1 else ''}{short_name(name)}"
        for name, count in kernels.most_common(MOST_NAMES)
    ]
    others = len(kernels) - len(shown)
    return ", ".join(shown) + (f" and {others} others" if others else "")


def _shapes(stage: str, before: RowStructure, after: RowStructure) -> Iterator[Cause]:
    """Kernels on both sides that are launched in another shape; the first of each that differs."""
    for name, shapes in after.shapes.items():
        pair = _first_difference(before.shapes.get(name, ()), shapes)
        if pair is None:
            continue
        old, new = pair
        said = [
            f"{word} {_plain(there)} instead of {_plain(here)}"
            for word, here, there in zip(SHAPE_WORDS, old, new, strict=True)
            if here != there
        ]
        yield Cause(stage, "launch shape", f"{short_name(name)} has {', '.join(said)}")


def _first_difference(
    before: tuple[Shape, ...], after: tuple[Shape, ...]
) -> tuple[Shape, Shape] | None:
    differing = (pair for pair in zip(before, after, strict=False) if pair[0] != pair[1])
    return next(differing, None)


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(str(part) for part in value)
    return "unknown" if value is None else f"{value:,}"


def _work(stage: str, before: StageInfo | None, after: StageInfo | None) -> Iterator[Cause]:
    """Executed work and how it is done, as the stage declares it."""
    if before is None or after is None:
        return
    if before.backend != after.backend:
        sentence = f"its backend is {after.backend} instead of {before.backend}"
        yield Cause(stage, "work executed", sentence)
    for name in sorted({*before.options, *after.options}):
        old, new = before.options.get(name, "unset"), after.options.get(name, "unset")
        if old != new:
            yield Cause(stage, "work executed", f"its option {name} is {new} instead of {old}")
    for field, verb, unit in WORK_WORDS:
        one, other = getattr(before, field), getattr(after, field)
        if one != other and one is not None and other is not None:
            sentence = f"it {verb} {other:,} {unit} instead of {one:,}"
            yield Cause(stage, "work executed", sentence)


def _allocations(stage: str, before: RowStructure, after: RowStructure) -> Iterator[Cause]:
    """Calls of the allocator that became more or fewer; half a call a forward is noise."""
    for name in dict.fromkeys((*after.allocations, *before.allocations)):
        old, new = before.allocations.get(name, 0.0), after.allocations.get(name, 0.0)
        if abs(new - old) >= 0.5:
            sentence = f"{name} is called {new:g} times a forward in it instead of {old:g}"
            yield Cause(stage, "allocator", sentence)
