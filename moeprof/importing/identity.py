"""Who and what an imported record is of: as far as the capture says, or as a like record does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

import numpy as np

from moeprof.analysis.checks import short_name
from moeprof.errors import UsageError
from moeprof.importing.iterations import Forwards
from moeprof.importing.placed import Placed
from moeprof.importing.rules import step_span
from moeprof.importing.stages import Told
from moeprof.importing.trace import Gpu, Trace
from moeprof.presets import ATOL, MAX_RELATIVE_L2, REQUIRED_MATCHED_RATIO, RTOL
from moeprof.records import (
    IMPORTED,
    Environment,
    Run,
    Settings,
    SolutionIdentity,
    StageInfo,
    WorkloadIdentity,
)

if TYPE_CHECKING:
    from moeprof.importing.record import ImportOptions

UNKNOWN_GPU = "a GPU that the capture does not name"


def borrowed(like: Run, trace: Trace, placed: Placed) -> tuple[str, ...]:
    """What is to be said of a record that lent its identity: nothing of one without timings.

    Whether it can be of the same solution is asked of kernel names, without their arguments.
    """
    if not like.passes:
        return ()
    ran = [o for t in like.timelines for operations in t.operation_sets for o in operations]
    known = {short_name(operation.name) for operation in ran}
    made = like.created.partition("T")[0]
    notes = [f"solution, workload, routing and result are those of a record of {made}"]
    seen = np.unique(placed.description).tolist()
    names = {short_name(trace.operations.descriptions[number].name) for number in seen}
    missing = sorted(known - names)
    if missing:
        notes.append(
            f"{len(missing)} of the {len(known)} kernels of that record are not in the capture "
            f"({', '.join(missing[:3])}): it may be of another solution or workload"
        )
    return tuple(notes)


def require_same_gpu(like: Run, trace: Trace, gpu: int, num_tokens: int | None) -> None:
    """Raise UsageError where the record ``like`` contradicts the capture or the options."""
    named = _gpu(trace, gpu)
    there = like.environment.device
    if named is not None and named.name and named.name.casefold() != there.casefold():
        raise UsageError(
            f"the capture is of an {named.name}, the record of an {there}",
            do="give a record made on the same GPU",
        )
    if num_tokens not in (None, like.workload.seq_len):
        raise UsageError(
            f"--num-tokens {num_tokens} with a record of T = {like.workload.seq_len}",
            do="leave --num-tokens out, or give a record of that workload",
        )


def solution_of(
    told: Told, kept: Forwards, placed: Placed, options: ImportOptions, like: Run | None
) -> tuple[SolutionIdentity, Told, tuple[str, ...]]:
    """The solution, with stages as the record knows them, and what could not be mapped."""
    if like is None:
        ordered = _ordered(told, kept)
        infos = tuple(_stage(label) for label in ordered.labels)
        return SolutionIdentity(_variant(options), "", infos), ordered, ()
    mapped = [_covering(label, like) for label in told.labels]
    names = like.solution.stage_names
    number = np.array([*(names.index(m) if m else -1 for m in mapped), -1], dtype=np.int64)
    renamed = replace(told, labels=names, label=number[told.label])
    unknown = [
        label
        for position, (label, stage) in enumerate(zip(told.labels, mapped, strict=True))
        if not stage and ((told.label == position) & (kept.of >= 0)).any()
    ]
    notes: tuple[str, ...] = ()
    if unknown:
        notes = (f"{like.solution.name} has no stage for {', '.join(unknown[:4])}: unattributed",)
    return like.solution, renamed, notes


def workload_of(options: ImportOptions, like: Run | None) -> WorkloadIdentity:
    """The workload of ``like``, or one that the name and the number of tokens make the same."""
    if like is not None:
        return like.workload
    tokens = 1 if options.num_tokens is None else options.num_tokens
    if tokens < 1:
        raise UsageError(f"--num-tokens is {tokens}", "a whole number from 1 on")
    definition = f"{IMPORTED}{_title(options)}"
    return WorkloadIdentity(
        definition=definition,
        uuid=str(uuid5(NAMESPACE_URL, f"{definition}/T{tokens}")),
        seq_len=tokens,
        local_expert_offset=0,
        routed_scaling_factor=1.0,
        constants={},
    )


def environment_of(trace: Trace, gpu: int) -> Environment:
    """What the capture says of the machine."""
    named = _gpu(trace, gpu) or Gpu(gpu, "")
    return Environment(
        device=named.name or UNKNOWN_GPU,
        device_kind="cuda",
        python="",
        versions={},
        compute_capability=named.compute_capability,
        driver=trace.driver or None,
        cuda=trace.cuda or None,
        multiprocessors=named.multiprocessors,
        l2_bytes=named.l2_bytes,
        memory_bytes=named.memory_bytes,
    )


def settings_of(iterations: int, like: Run | None) -> Settings:
    """Settings of ``like``; of a bare capture that moeprof prepared, repeated and flushed nothing.

    Either way one pass was read and no other.
    """
    if like is not None:
        return replace(like.settings, passes=("api",), iterations=iterations)
    return Settings(
        preset="imported",
        warmup=0,
        iterations=iterations,
        trials=1,
        seed=0,
        l2="warm",
        passes=("api",),
        rtol=RTOL,
        atol=ATOL,
        required_matched_ratio=REQUIRED_MATCHED_RATIO,
        max_relative_l2=MAX_RELATIVE_L2,
    )


def _ordered(told: Told, kept: Forwards) -> Told:
    """Without labels that no forward has; in the order of the steps, else of first launch."""
    inside = told.label[(kept.of >= 0) & (told.label >= 0)]
    seen = list(dict.fromkeys(inside.tolist()))
    spans = [step_span(told.labels[number]) for number in seen]
    if all(spans):
        seen = [number for _, number in sorted(zip(spans, seen, strict=True))]
    place = np.full(len(told.labels) + 1, -1, dtype=np.int64)
    place[seen] = np.arange(len(seen))
    labels = tuple(told.labels[number] for number in seen)
    return replace(told, labels=labels, label=place[told.label])


def _stage(label: str) -> StageInfo:
    covers = tuple(label.split("+")) if step_span(label) is not None else ()
    return StageInfo(name=label, covers=covers, backend="imported", reads=(), writes=())


def _covering(label: str, like: Run) -> str:
    """The stage of ``like`` of that name, or the one that covers the label's steps; '' if none."""
    if label in like.solution.stage_names:
        return label
    if step_span(label) is None:
        return ""
    steps = set(label.split("+"))
    found = [stage.name for stage in like.solution.stages if steps <= set(stage.covers)]
    return found[0] if len(found) == 1 else ""


def _gpu(trace: Trace, number: int) -> Gpu | None:
    named = next((gpu for gpu in trace.gpus if gpu.number == number), None)
    return named or (trace.gpus[0] if len(trace.gpus) == 1 else None)


def _title(options: ImportOptions) -> str:
    """What is computed: the name given, else the file's without its endings."""
    title = options.name
    if title is None:
        title = PurePath(options.file).name.split(".")[0] or "capture"
    if not title.strip() or not title.isprintable() or len(title) > 120:
        raise UsageError(f"--name is {title!r:.60}", "a short text such as 'moe_layer'")
    return title


def _variant(options: ImportOptions) -> str:
    variant = options.variant
    if variant is None:
        return _title(options)
    if not variant.strip() or not variant.isprintable() or len(variant) > 120:
        raise UsageError(f"--variant is {variant!r:.60}", "a short text such as 'before'")
    return variant
