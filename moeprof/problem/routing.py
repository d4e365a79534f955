"""Where the tokens of a workload go: a recorded or synthetic router output and what it means.

    auto        recorded if the dataset has the blob, else uniform
    recorded    the blob of the workload            uniform     every expert equally likely
    zipf:S      popularity ~ rank^-S                balanced    equal counts, up to one token
    single      all tokens on 8 experts, 2 local    file:PATH   .safetensors or .npz

Synthetic routings are functions of (definition, workload, seed). Making tensors of them is
``inputs``' work.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moeprof.definition import Definition, Workload
from moeprof.errors import UsageError, nearest
from moeprof.problem import synthetic_routing
from moeprof.problem.blobs import read_notes, read_tensors, round_to_bfloat16
from moeprof.problem.dataset import Dataset, TensorFile
from moeprof.problem.group_topk import Float32Array, select
from moeprof.problem.operation import ROUTING_INPUTS
from moeprof.problem.seeding import seed_of
from moeprof.records import RoutingIdentity

__all__ = ["Routing", "RoutingSpec", "identify", "make_routing", "parse_spec", "select"]

KINDS = ("auto", "recorded", "uniform", "zipf", "balanced", "single", "file")
MAX_SKEW = 10.0
MAX_ATTEMPTS = 100
RECORDED = "recorded"
MAX_NOTE = 80


@dataclass(frozen=True, slots=True, eq=False)
class Routing:
    """A router's output. logits [T, E] float32; bias [E] float32, each value exactly bfloat16.

    attempt: how many draws before this one had no local work.
    """

    label: str
    logits: Float32Array
    bias: Float32Array
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class RoutingSpec:
    """What the user asked for. skew: of ``zipf``; path: of ``file``."""

    kind: str
    skew: float | None = None
    path: Path | None = None


def parse_spec(text: str) -> RoutingSpec:
    """The routing that ``text`` names; UsageError if it names none."""
    kind, _, argument = text.strip().partition(":")
    if kind not in KINDS:
        raise UsageError(f"unknown routing {text!r}", do=nearest(kind, KINDS))
    if kind == "zipf":
        return RoutingSpec(kind, skew=_skew(argument))
    if kind == "file":
        if not argument:
            raise UsageError("routing 'file' names no file", "file:PATH")
        return RoutingSpec(kind, path=Path(argument).expanduser())
    if argument:
        raise UsageError(f"routing {kind!r} takes no argument, found {argument!r}")
    return RoutingSpec(kind)


def _skew(argument: str) -> float:
    try:
        skew = float(argument)
    except ValueError:
        skew = math.nan
    if not 0.0 <= skew <= MAX_SKEW:
        raise UsageError(f"routing 'zipf:{argument}'", f"zipf:S with S from 0 to {MAX_SKEW:g}")
    return skew


def make_routing(
    spec: RoutingSpec,
    definition: Definition,
    workload: Workload,
    seed: int,
    *,
    dataset: Dataset | None = None,
    allow_no_local_work: bool = False,
) -> Routing:
    """The routing that ``spec`` asks for on ``workload``.

    A synthetic one without any local (token, expert) pair is drawn again, a recorded one refused,
    unless ``allow_no_local_work``. dataset: where recorded routings are looked for.
    """
    files = dataset.recorded_routing(workload) if dataset else None
    if spec.kind == "auto":
        present = files is not None and all(file.path.exists() for file in files.values())
        spec = RoutingSpec("recorded" if present else "uniform")
    if spec.kind in ("recorded", "file"):
        if spec.kind == "recorded":
            routing = _recorded(files, definition, workload)
        else:
            routing = _from_file(spec.path or Path(), definition, workload)
        if not (allow_no_local_work or _has_local_work(routing, definition, workload)):
            raise UsageError(
                f"routing {routing.label!r} sends no token of workload {workload.uuid} to experts "
                f"{_local_range(definition, workload)}",
                expected="at least one local pair",
                do="pass --allow-no-local-work to run it all the same",
            )
        return routing
    for attempt in range(MAX_ATTEMPTS):
        routing = _synthetic(spec, definition, workload, seed, attempt)
        if allow_no_local_work or _has_local_work(routing, definition, workload):
            return routing
    raise UsageError(
        f"{MAX_ATTEMPTS} draws of {routing.label!r} sent no token to experts "
        f"{_local_range(definition, workload)}",
        do="choose another seed, routing or number of tokens",
    )


def identify(
    routing: Routing, definition: Definition, workload: Workload, recipe: str, seed: int
) -> RoutingIdentity:
    """What the routing means for this rank: P, A, tokens per local expert and their hash.

    The hash is sha256 over the histogram as little-endian int64, followed by the local expert
    offset as one more: two runs with one hash had the same work to do on the same experts.
    """
    offset = workload.local_expert_offset
    count = definition.constants["num_local_experts"]
    local_ids, is_local = _local_ids(routing, definition, workload)
    histogram = np.bincount(local_ids[is_local], minlength=count).astype("<i8")
    digest = hashlib.sha256(histogram.tobytes() + offset.to_bytes(8, "little", signed=True))
    return RoutingIdentity(
        label=routing.label,
        weights_recipe=recipe,
        seed=seed,
        histogram_hash=digest.hexdigest(),
        local_pairs=int(histogram.sum()),
        active_experts=int(np.count_nonzero(histogram)),
        local_tokens=int(is_local.any(axis=1).sum()),
        tokens_per_expert=tuple(int(tokens) for tokens in histogram),
    )


def _local_ids(
    routing: Routing, definition: Definition, workload: Workload
) -> tuple[np.ndarray, np.ndarray]:
    """[T, 8] expert ids relative to the rank's first, and which of them the rank holds."""
    ids, _ = select(routing.logits, routing.bias, workload.routed_scaling_factor)
    relative = ids - workload.local_expert_offset
    return relative, (relative >= 0) & (relative < definition.constants["num_local_experts"])


def _has_local_work(routing: Routing, definition: Definition, workload: Workload) -> bool:
    return bool(_local_ids(routing, definition, workload)[1].any())


def _local_range(definition: Definition, workload: Workload) -> str:
    first = workload.local_expert_offset
    return f"{first} to {first + definition.constants['num_local_experts'] - 1}"


def _synthetic(
    spec: RoutingSpec, definition: Definition, workload: Workload, seed: int, attempt: int
) -> Routing:
    drawn_for = (definition.name, workload.uuid, seed, "routing", attempt)
    generator = np.random.Generator(np.random.PCG64(seed_of(*drawn_for)))
    bias = synthetic_routing.bias(generator, definition)
    name = spec.kind
    if spec.kind == "zipf":
        skew = spec.skew or 0.0
        name = f"zipf:{skew:g}"
        logits = synthetic_routing.zipf(generator, definition, workload, bias, skew)
    else:
        draws = {
            "uniform": synthetic_routing.uniform,
            "balanced": synthetic_routing.balanced,
            "single": synthetic_routing.single,
        }
        logits = draws[spec.kind](generator, definition, workload, bias)
    return Routing(f"synthetic {name}", logits, bias, attempt)


def _recorded(
    files: Mapping[str, TensorFile] | None, definition: Definition, workload: Workload
) -> Routing:
    if files is None:
        raise UsageError(
            f"workload {workload.uuid} has no recorded routing",
            do="choose another --routing, or a dataset that records it",
        )
    logits, bias = (_one_tensor(files[name], name, definition, workload) for name in ROUTING_INPUTS)
    return Routing(RECORDED + _made_up(files[ROUTING_INPUTS[0]]), logits, bias)


def _made_up(file: TensorFile) -> str:
    """' (synthetic ...)' where moeprof itself wrote the blob, for a dataset that had none."""
    notes = read_notes(file.path)
    text = notes.get("routing", "")
    told = notes.get("made_by", "").startswith("moeprof") and text.isprintable()
    return f" ({text[:MAX_NOTE]})" if told and text else ""


def _from_file(path: Path, definition: Definition, workload: Workload) -> Routing:
    """A float32 bias is rounded to bfloat16, the definition's type for it."""
    logits, bias = (
        _one_tensor(TensorFile(path, name), name, definition, workload) for name in ROUTING_INPUTS
    )
    return Routing(f"file {path.name}", logits, round_to_bfloat16(bias))


def _one_tensor(
    file: TensorFile, name: str, definition: Definition, workload: Workload
) -> Float32Array:
    values = read_tensors(file.path, [file.key])[file.key].values
    spec = next(spec for spec in definition.inputs if spec.name == name)
    shape = definition.shape_of(spec, workload.seq_len)
    if values.shape != shape:
        raise UsageError(f"{name} in {file.path} is {list(values.shape)}", f"{list(shape)}")
    if not np.isfinite(values).all():
        raise UsageError(f"{name} in {file.path} holds NaN or infinity", "finite values")
    return values
