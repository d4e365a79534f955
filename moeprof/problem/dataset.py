"""Definitions and workloads from a folder in FlashInfer-Bench's layout.

    definitions/moe/<definition>.json    workloads/moe/<definition>.jsonl    blob/... (optional)

Read: moeprof's own ``traces/`` or any FlashInfer-Trace dataset. Only the routing of a workload can
be recorded; tensors in blobs are named here and read by ``blobs``. Nothing is written, and no other
kind of operation in the folder is looked at.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeprof.definition import SCALAR_INPUTS, Definition, TensorSpec, Workload
from moeprof.errors import UsageError, nearest
from moeprof.problem.json_values import parse_json, read_text
from moeprof.problem.operation import (
    INPUTS,
    OP_TYPE,
    ROUTING_INPUTS,
    VARIABLE_AXIS,
    check_operation,
)

MAX_TOKENS = 1_000_000
DATASET_VARIABLE = "FIB_DATASET_PATH"
DEFAULT_SCALING_FACTOR = 2.5
_CUSTOM_NAMESPACE = uuid.UUID("5d1a8c07-6f5e-4e0b-9d53-0c1b7a2f4e86")
_KINDS = ("random", "scalar", "safetensors")


@dataclass(frozen=True, slots=True)
class TensorFile:
    """One tensor in a safetensors file."""

    path: Path
    key: str


def own_root() -> Path:
    """The ``traces/`` folder that lies beside the packages."""
    return Path(__file__).resolve().parents[2] / "traces"


def dataset_root(option: str | None, environ: Mapping[str, str]) -> Path:
    """Where to read from: the option, else FIB_DATASET_PATH, else moeprof's own folder."""
    chosen = option or environ.get(DATASET_VARIABLE)
    return Path(chosen).expanduser() if chosen else own_root()


@dataclass(frozen=True, slots=True)
class Dataset:
    """A folder of definitions and workloads. Reads on request; holds nothing but its root."""

    root: Path

    def names(self) -> tuple[str, ...]:
        """Names of the definitions of this kind of operation, sorted."""
        return tuple(sorted(path.stem for path in self._definition_folder().glob("*.json")))

    def definitions(self) -> tuple[Definition, ...]:
        """Every definition moeprof can run. One with another contract is left out, not refused."""
        found = []
        for name in self.names():
            definition = _read_definition(self._definition_folder() / f"{name}.json", name)
            try:
                check_operation(definition)
            except UsageError:
                continue
            found.append(definition)
        return tuple(found)

    def definition(self, name: str) -> Definition:
        """The definition called ``name`` or aliased so; UsageError if unknown or another contract.

        Foreign datasets carry no aliases, so those of moeprof's own definitions hold there too.
        """
        names = self.names()
        resolved = name if name in names else self._alias(name)
        if resolved not in names:
            aliases = [d.alias for d in self.definitions() if d.alias]
            raise UsageError(f"unknown definition {name!r}", do=nearest(name, [*names, *aliases]))
        definition = _read_definition(self._definition_folder() / f"{resolved}.json", resolved)
        check_operation(definition)
        return definition

    def workloads(self, definition: Definition) -> tuple[Workload, ...]:
        """The workloads of ``definition`` in file order; none where the dataset has no file."""
        path = self.root / "workloads" / OP_TYPE / f"{definition.name}.jsonl"
        if not path.exists():
            return ()
        lines = enumerate(read_text(path).splitlines(), start=1)
        found = tuple(
            parse_workload(line, definition, f"{path}:{number}")
            for number, line in lines
            if line.strip()
        )
        seen: set[str] = set()
        for workload in found:
            if workload.uuid in seen:
                raise UsageError(f"{path} has workload {workload.uuid} twice")
            seen.add(workload.uuid)
        return found

    def workload(self, definition: Definition, uuid_prefix: str) -> Workload:
        """The one workload whose UUID starts with ``uuid_prefix``."""
        known = {w.uuid: w for w in self.workloads(definition)}
        prefix = uuid_prefix.strip().lower()
        matches = [u for u in known if prefix and u.lower().startswith(prefix)]
        if len(matches) == 1:
            return known[matches[0]]
        if matches:
            raise UsageError(
                f"workload {uuid_prefix!r} is ambiguous",
                do=f"it starts {len(matches)} UUIDs: {', '.join(sorted(matches))}",
            )
        raise UsageError(f"unknown workload {uuid_prefix!r}", do=nearest(prefix, known))

    def workload_of_size(
        self, definition: Definition, num_tokens: int, local_expert_offset: int | None = None
    ) -> Workload:
        """The first workload of ``num_tokens`` (at that offset, if given), else a custom one."""
        check_num_tokens(num_tokens)
        for workload in self.workloads(definition):
            offset = workload.local_expert_offset
            if workload.seq_len == num_tokens and local_expert_offset in (None, offset):
                return workload
        return custom_workload(definition, num_tokens, local_expert_offset or 0)

    def recorded_routing(self, workload: Workload) -> Mapping[str, TensorFile] | None:
        """Where the workload says its routing is recorded, by input name; None if it does not.

        The files may be missing: FlashInfer-Bench keeps them apart from the definitions.
        """
        files = {}
        for name in ROUTING_INPUTS:
            spec = workload.inputs.get(name, {})
            if spec.get("type") != "safetensors":
                return None
            files[name] = TensorFile(self.root / spec["path"], spec["tensor_key"])
        return files

    def _definition_folder(self) -> Path:
        folder = self.root / "definitions" / OP_TYPE
        if not folder.is_dir():
            raise UsageError(
                f"{self.root} holds no definitions/{OP_TYPE} folder",
                expected="a dataset in FlashInfer-Bench's layout",
                do=f"pass --dataset DIR or set {DATASET_VARIABLE}",
            )
        return folder

    def _alias(self, alias: str) -> str | None:
        """The name that ``alias`` stands for here or, failing that, in moeprof's own dataset."""
        own = Dataset(own_root())
        places = (self,) if self.root == own.root or not own.root.is_dir() else (self, own)
        for place in places:
            for definition in place.definitions():
                if definition.alias == alias:
                    return definition.name
        return None


def parse_workload(line: str, definition: Definition, where: str) -> Workload:
    """The workload in one line of a file, called ``where`` in errors; UsageError if it is none."""
    return _workload(parse_json(line, where), definition, where)


def check_num_tokens(num_tokens: int) -> None:
    """Raise UsageError unless 1 <= num_tokens <= MAX_TOKENS."""
    if not 1 <= num_tokens <= MAX_TOKENS:
        raise UsageError(f"{num_tokens} tokens", f"1 to {MAX_TOKENS:,}")


def custom_workload(
    definition: Definition,
    num_tokens: int,
    local_expert_offset: int = 0,
    routed_scaling_factor: float = DEFAULT_SCALING_FACTOR,
) -> Workload:
    """A workload of any size, all inputs synthetic. Its UUID is a function of the arguments."""
    check_num_tokens(num_tokens)
    _check_offset(definition, local_expert_offset, "the workload")
    facts = (definition.name, num_tokens, local_expert_offset, float(routed_scaling_factor))
    scalars = (local_expert_offset, float(routed_scaling_factor))
    inputs: dict[str, dict[str, Any]] = {spec.name: {"type": "random"} for spec in INPUTS}
    for name, value in zip(SCALAR_INPUTS, scalars, strict=True):
        inputs[name] = {"type": "scalar", "value": value}
    return Workload(
        definition=definition.name,
        uuid=str(uuid.uuid5(_CUSTOM_NAMESPACE, "/".join(map(str, facts)))),
        seq_len=num_tokens,
        local_expert_offset=local_expert_offset,
        routed_scaling_factor=float(routed_scaling_factor),
        inputs=inputs,
    )


def _check_offset(definition: Definition, offset: int, where: str) -> None:
    last = definition.constants["num_experts"] - definition.constants["num_local_experts"]
    if not 0 <= offset <= last:
        raise UsageError(f"{where} has local_expert_offset {offset}", f"0 to {last}")


def _get(container: Any, key: str, kind: type, where: str) -> Any:
    """``container[key]`` of type ``kind``; bool is no int here."""
    value = container.get(key) if isinstance(container, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        name = {dict: "an object", list: "a list", str: "a text", int: "an integer"}[kind]
        raise UsageError(f"{where} has {key} = {json.dumps(value)[:60]}", name)
    return value


def _read_definition(path: Path, name: str) -> Definition:
    where = str(path)
    data = parse_json(read_text(path), where)
    if _get(data, "name", str, where) != name:
        raise UsageError(f"{where} defines {data['name']}", "the name that the file has")
    axes: dict[str, Any] = _get(data, "axes", dict, where)
    constant = {n for n in axes if _get(axes[n], "type", str, f"{where}: axis {n}") == "const"}
    return Definition(
        name=name,
        op_type=_get(data, "op_type", str, where),
        constants={
            n: _get(axes[n], "value", int, f"{where}: axis {n}") for n in axes if n in constant
        },
        variables=tuple(n for n in axes if n not in constant),
        inputs=_tensor_specs(data, "inputs", where),
        outputs=_tensor_specs(data, "outputs", where),
        reference=_get(data, "reference", str, where),
        tags=tuple(str(t) for t in (_get(data, "tags", list, where) if data.get("tags") else ())),
        description=str(data.get("description") or ""),
    )


def _tensor_specs(data: Any, key: str, where: str) -> tuple[TensorSpec, ...]:
    specs = []
    for name, spec in _get(data, key, dict, where).items():
        place = f"{where}: {name}"
        dtype = _get(spec, "dtype", str, place)
        scalar = spec.get("shape") is None
        shape = None if scalar else tuple(str(axis) for axis in _get(spec, "shape", list, place))
        specs.append(TensorSpec(name, shape, dtype))
    return tuple(specs)


def _workload(line: Any, definition: Definition, where: str) -> Workload:
    if _get(line, "definition", str, where) != definition.name:
        raise UsageError(f"{where} is a workload of {line['definition']}", definition.name)
    body = _get(line, "workload", dict, where)
    inputs = {
        name: _input_spec(spec, f"{where}: {name}")
        for name, spec in _get(body, "inputs", dict, where).items()
    }
    seq_len = _get(_get(body, "axes", dict, where), VARIABLE_AXIS, int, where)
    if not 1 <= seq_len <= MAX_TOKENS:
        raise UsageError(f"{where} has seq_len {seq_len}", f"1 to {MAX_TOKENS:,}")
    offset, factor = (_scalar(inputs, name, where) for name in SCALAR_INPUTS)
    if offset != int(offset):
        raise UsageError(f"{where} has local_expert_offset {offset}", "an integer")
    _check_offset(definition, int(offset), where)
    return Workload(
        definition=definition.name,
        uuid=_get(body, "uuid", str, where),
        seq_len=seq_len,
        local_expert_offset=int(offset),
        routed_scaling_factor=factor,
        inputs=inputs,
    )


def _input_spec(spec: Any, where: str) -> Mapping[str, Any]:
    kind = _get(spec, "type", str, where)
    if kind not in _KINDS:
        raise UsageError(f"{where} is of type {kind!r}", " or ".join(_KINDS))
    if kind == "safetensors":
        _get(spec, "path", str, where)
        _get(spec, "tensor_key", str, where)
    return dict(spec)


def _scalar(inputs: Mapping[str, Mapping[str, Any]], name: str, where: str) -> float:
    """FlashInfer-Bench draws a scalar that is not given; a random offset would mean nothing."""
    value = inputs.get(name, {}).get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{where} gives {name} = {json.dumps(value)}", "a scalar with a number")
    return float(value)
