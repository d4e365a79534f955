"""Interventions: one thing changed in a solution, to see whether it costs what a profile says.

Planned from the solutions alone, before anything runs. What an intervention should change is
``predictions``' question, what it did change ``explain`` measures, and ``verdicts`` compares them.

Variants are made with options that stages offer by name (``local_only``, ``workspace_bytes``,
``per_call_views``), by exchanging a stage for the other solution's, and by the switch between kept
and fresh buffers. Nothing here knows a particular backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from moeprof.contract import Solution, Stage, Step, check_wiring
from moeprof.errors import ContractError

SMALL_WORKSPACE, LARGE_WORKSPACE = 90_000, 1 << 30


class Kind(StrEnum):
    """What is changed."""

    GRAPH = "graph replay"
    FIRST_CALL = "first call"
    LOCAL_ONLY = "local pairs only"
    SWAP = "other backend"
    BUFFERS = "buffers"
    WORKSPACE = "workspace"
    VIEWS = "weight views"


@dataclass(frozen=True, slots=True)
class Intervention:
    """One thing changed in ``solution``.

    variant: the changed solution; None where passes over the unchanged one show the effect.
    stages: names of the stages it changes. impossible: why it cannot be tried, if so.
    """

    kind: Kind
    solution: str
    name: str
    changes: str
    stages: tuple[str, ...] = ()
    variant: Solution | None = None
    impossible: str = ""

    @property
    def bounded_stages(self) -> frozenset[str]:
        """Stages of the variant that run as many rows as they are given, not all there is room for.

        Dropping pairs reaches these, whichever stages were changed to drop them.
        """
        stages = self.variant.stages if self.variant is not None else ()
        return frozenset(
            stage.name
            for stage in stages
            if stage.rows_run is not None and stage.rows_run.kind in ("problem_sizes", "slots")
        )


def plan_interventions(
    base: Solution, other: Solution, given: Sequence[str], local_pairs: int, device: str
) -> tuple[Intervention, ...]:
    """What can be tried on ``base``, and what cannot and why, in the order of a report.

    given: names available before the first stage. local_pairs: P of the routing.
    """
    found = [
        *(_graph(solution, device) for solution in (base, other)),
        _local_only(base, local_pairs),
        *_swaps(base, other, given),
        _buffers(base),
        _workspace(base),
        _views(base),
        Intervention(Kind.FIRST_CALL, base.name, "first call", "the first call of all, with JIT"),
    ]
    return tuple(found)


def with_options(solution: Solution, stages: Sequence[str], **options: Any) -> Solution:
    """``solution`` with ``options`` set in the stages of these names."""
    changed = tuple(
        stage.with_options(**options) if stage.name in stages else stage
        for stage in solution.stages
    )
    return replace(solution, stages=changed)


def same_stage(one: Stage, other: Stage) -> bool:
    """Whether two solutions run the same code with the same options there."""
    return _function(one) is _function(other) and dict(one.options) == dict(other.options)


def _function(stage: Stage) -> Callable[..., Any]:
    function = stage.function
    while hasattr(function, "func"):  # with_options makes partials
        function = function.func
    return function


def _graph(solution: Solution, device: str) -> Intervention:
    no_gpu = "" if device == "cuda" else "CUDA graphs need a GPU"
    changes = "every launch replayed from one CUDA graph"
    return Intervention(
        Kind.GRAPH, solution.name, f"graph replay of {solution.name}", changes, impossible=no_gpu
    )


def _local_only(base: Solution, local_pairs: int) -> Intervention:
    able = [stage for stage in base.stages if "local_only" in stage.option_names]
    names = tuple(stage.name for stage in able)
    changes = f"no pair of another rank's expert in {_listed(names)}"
    declared = any(stage.rows_run and stage.rows_run.kind == "local_pairs" for stage in base.stages)
    # a gather with the option reads a row for every slot: the first one where a slot has none
    reads_row_0 = any(Step.GATHER in stage.covers for stage in able)
    impossible = ""
    if declared:
        impossible = f"{base.name} runs local pairs only, on its own word"
    elif not able:
        impossible = f"no stage of {base.name} has the option local_only"
    elif all(stage.options.get("local_only") for stage in able):
        impossible = f"{base.name} runs local pairs only already"
    elif not local_pairs and reads_row_0:
        impossible = "no pair is local here, and the gather needs one row that holds numbers"
    variant = None if impossible else with_options(base, names, local_only=True)
    return Intervention(
        Kind.LOCAL_ONLY, base.name, "local pairs only", changes, names, variant, impossible
    )


def _swaps(base: Solution, other: Solution, given: Sequence[str]) -> list[Intervention]:
    """One for each stage that differs; stages that the other side performs in one call share it.

    Where the other's stage does not fit into ``base``, base's may fit into the other solution.
    """
    found: list[Intervention] = []
    opaque: dict[str, list[str]] = {}
    for stage in base.stages:
        partner = next((s for s in other.stages if set(s.covers) & set(stage.covers)), None)
        if partner is None or same_stage(stage, partner):
            continue
        if len(stage.covers) > len(partner.covers):
            why = _one_call(base, stage)
            found.append(_impossible_swap(base, other, (stage.name,), why))
        elif partner.covers != stage.covers:
            opaque.setdefault(partner.name, []).append(stage.name)
        else:
            swap = _swap(base, stage, other, partner, given)
            found.append(swap)
            if swap.impossible:
                found.append(_swap(other, partner, base, stage, given))
    for call, names in opaque.items():
        why = _one_call(other, next(s for s in other.stages if s.name == call))
        found.append(_impossible_swap(base, other, tuple(names), why))
    return found


def _swap(
    base: Solution, stage: Stage, other: Solution, partner: Stage, given: Sequence[str]
) -> Intervention:
    """``partner`` of ``other`` in the place of ``stage`` in ``base``, if it fits."""
    variant = base.with_stage(base.stages.index(stage), partner.named(stage.name))
    why = why_not_wired(variant, given, other)
    changes = f"{other.name}'s stage in place of its own: {_backends(stage, partner)}"
    name, chosen = f"other {stage.name}", None if why else variant
    return Intervention(Kind.SWAP, base.name, name, changes, (stage.name,), chosen, why)


def _impossible_swap(
    base: Solution, other: Solution, names: tuple[str, ...], why: str
) -> Intervention:
    changes = f"{other.name}'s stages in place of its own"
    name = f"other {_listed(names)}"
    return Intervention(Kind.SWAP, base.name, name, changes, names, impossible=why)


def _one_call(solution: Solution, stage: Stage) -> str:
    steps = len(stage.covers)
    return f"{solution.name} performs {steps} steps in one call, {stage.name}, which has no parts"


def why_not_wired(variant: Solution, given: Sequence[str], other: Solution) -> str:
    """What keeps the stages from working together, in one line; '' if they do."""
    available = set(given)
    for stage in variant.stages:
        for name in stage.reads:
            if name not in available:
                return (
                    f"{stage.name} ({stage.backend}) reads {name!r}, which nothing writes once "
                    f"{other.name}'s stage is in"
                )
        available.update(stage.writes)
    try:
        check_wiring(variant, given)
    except ContractError as error:
        return str(error)
    return ""


def _backends(stage: Stage, partner: Stage) -> str:
    """The two backends, or the options that differ where the code is the same."""
    if _function(stage) is not _function(partner):
        return f"{partner.backend} for {stage.backend}"
    names = sorted({*stage.options, *partner.options})
    differing = [name for name in names if stage.options.get(name) != partner.options.get(name)]
    return f"another {', '.join(differing)}"


def _buffers(base: Solution) -> Intervention:
    users = tuple(stage.name for stage in base.stages if "buffers" in stage.reads)
    keep = not base.keeps_buffers
    name = "kept buffers" if keep else "fresh buffers"
    changes = "memory " + ("kept from call to call" if keep else "asked for at every call")
    why = "" if users else f"no stage of {base.name} takes its memory from buffers"
    variant = None if why else replace(base, keeps_buffers=keep)
    return Intervention(Kind.BUFFERS, base.name, name, changes, users, variant, why)


def workspace_bytes(stage: Stage) -> int:
    """What a stage with this option asks for."""
    return int(stage.options.get("workspace_bytes", SMALL_WORKSPACE))


def other_workspace(base: Solution) -> int:
    """1 GB for a solution whose workspaces are small, 90,000 bytes for one whose are large."""
    sizes = [workspace_bytes(s) for s in base.stages if "workspace_bytes" in s.option_names]
    return SMALL_WORKSPACE if max(sizes, default=0) > SMALL_WORKSPACE else LARGE_WORKSPACE


def _workspace(base: Solution) -> Intervention:
    names = tuple(s.name for s in base.stages if "workspace_bytes" in s.option_names)
    size = other_workspace(base)
    name = "1 GB workspace" if size == LARGE_WORKSPACE else "90 KB workspace"
    changes = f"{size:,} bytes of scratch in {_listed(names)}, nothing else"
    why = "" if names else f"no stage of {base.name} has the option workspace_bytes"
    variant = None if why else with_options(base, names, workspace_bytes=size)
    return Intervention(Kind.WORKSPACE, base.name, name, changes, names, variant, why)


def _views(base: Solution) -> Intervention:
    names = tuple(
        s.name
        for s in base.stages
        if "per_call_views" in s.option_names and s.options.get("per_call_views", True)
    )
    changes = f"weights transposed and scales cast once, not at every call, in {_listed(names)}"
    why = "" if names else f"no stage of {base.name} makes weight views at every call"
    variant = None if why else with_options(base, names, per_call_views=False)
    return Intervention(Kind.VIEWS, base.name, "views made once", changes, names, variant, why)


def _listed(names: Sequence[str]) -> str:
    """Names for a sentence; many of them as first to last."""
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}"
