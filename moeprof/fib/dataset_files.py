"""What an export puts into a dataset, decided in full before anything is written.

Nothing that is there is changed: a definition of the same contract, its workloads and its blobs
are kept, and only a solution is replaced, if asked to. A new dataset gets moeprof's definition, its
workloads and a synthetic routing for each, in blobs named by the workload, never by the name of a
recorded one. Blobs that a user's own workloads lack are written in their places only on request:
a routing that nobody recorded would pass for the recorded one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from moeprof import __version__
from moeprof.definition import Definition, Workload
from moeprof.errors import UsageError
from moeprof.fib import layout
from moeprof.fib.schema import FibSolution, dump_solution, parse_solution
from moeprof.problem.blobs import read_notes, routing_blob
from moeprof.problem.dataset import Dataset, own_root
from moeprof.problem.json_values import parse_json, read_text
from moeprof.problem.operation import OP_TYPE, ROUTING_INPUTS
from moeprof.problem.routing import RoutingSpec, make_routing
from moeprof.storage.atomic import write_atomically

SYNTHETIC = ("uniform", "zipf", "balanced", "single", "file")
DEFAULT_ROUTING = RoutingSpec("uniform")


@dataclass(frozen=True, slots=True)
class File:
    """One file of the dataset. content: what to write; None where the file is kept.

    action: written, replaced, kept; detail: what a reader should know of it.
    """

    path: PurePosixPath
    action: str
    detail: str = ""
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What blobs are to hold, and for which workloads. routing: None where nothing was asked for;
    num_tokens: empty for all workloads."""

    routing: RoutingSpec | None
    seed: int
    num_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Export:
    """Everything an export does. warnings: what will not work afterwards, and why."""

    root: Path
    definition: Definition
    files: tuple[File, ...]
    warnings: tuple[str, ...]

    def write(self) -> None:
        """Write what is to be written, each file whole or not at all; a solution comes last."""
        for file in self.files:
            if file.content is not None:
                path = self.root / file.path
                try:
                    write_atomically(
                        path, file.content, replace=file.action == "replaced", option="--dataset"
                    )
                except FileExistsError:
                    raise UsageError(f"{path} was made meanwhile", do="export again") from None


def check_root(root: Path) -> None:
    """Raise UsageError unless ``root`` is a dataset, or empty, or can be made."""
    if root.exists() and not root.is_dir():
        raise UsageError(f"{root} is a file", "the folder of a dataset, or a new one")
    if root.is_dir() and not layout.is_dataset(root):
        others = sorted(entry.name for entry in root.iterdir())
        if others:
            raise UsageError(
                f"{root} is no dataset: it holds {', '.join(others[:3])}",
                f"an empty folder, or one with {', '.join(layout.FOLDERS[:3])}",
            )
    nearest_there = next(place for place in (root, *root.absolute().parents) if place.exists())
    if not nearest_there.is_dir() or not os.access(nearest_there, os.W_OK | os.X_OK):
        raise UsageError(
            f"{nearest_there} cannot be written to", do="choose another --dataset folder"
        )


def choose_definition(root: Path, name: str) -> Definition:
    """The definition of that name or alias: the dataset's own where it has one, else moeprof's.

    UsageError where the dataset's is another operation, or of other sizes than moeprof's of the
    same name, or where it lies in two files.
    """
    own = Dataset(own_root())
    theirs = Dataset(root)
    names = theirs.names() if (root / "definitions" / OP_TYPE).is_dir() else ()
    try:
        known = own.definition(name)
    except UsageError:
        if name not in names:
            raise
        known = theirs.definition(name)
    path = root / layout.definition_path(known.name)
    for other, data in _json_files(root / "definitions"):
        if other != path and isinstance(data, dict) and data.get("name") == known.name:
            raise UsageError(f"{other} defines {known.name} as well", do="remove one of the files")
    if known.name not in names:
        return known
    found = theirs.definition(known.name)
    for axis, size in known.constants.items():
        if found.constants[axis] != size:
            raise UsageError(f"{path} has {axis} = {found.constants[axis]}", str(size))
    return found


def plan(
    root: Path,
    definition: Definition,
    solutions: Sequence[FibSolution],
    asked: Asked,
    force: bool,
) -> Export:
    """All files of the export; UsageError where one cannot be what it has to be."""
    added = list(_solution_files(root, solutions, force))
    warnings = [text for file in added for text in _outdated(root, file)]
    is_new = not (root / layout.workloads_path(definition.name)).exists()
    chosen = (
        _new_workloads(definition, asked) if is_new else _kept_workloads(root, definition, asked)
    )
    files = [_definition_file(root, definition)]
    blobs, missing = _blobs(root, definition, chosen, asked, is_new)
    files += [*blobs, _workloads_file(definition, chosen if is_new else None)]
    if missing:
        warnings.append(
            f"{len(missing)} of {len(chosen)} workloads lack their blob and fail in "
            f"flashinfer-bench (T = {', '.join(str(w.seq_len) for w in missing)}): get the "
            "recorded ones, or --routing uniform writes synthetic ones in their places"
        )
    warnings += _unusable(root, definition, chosen, {workload.uuid for workload in missing})
    return Export(root, definition, (*files, *added), tuple(warnings))


def _definition_file(root: Path, definition: Definition) -> File:
    path = layout.definition_path(definition.name)
    if (root / path).exists():
        return File(path, "kept")
    return File(path, "written", "moeprof's own", (own_root() / path).read_bytes())


def _new_workloads(definition: Definition, asked: Asked) -> tuple[Workload, ...]:
    """moeprof's, or those of the sizes asked for; their routing in blobs of their own names."""
    own = Dataset(own_root())
    if asked.num_tokens:
        found = tuple(own.workload_of_size(definition, tokens) for tokens in asked.num_tokens)
    else:
        found = own.workloads(definition)
    if not found:
        raise UsageError(f"{definition.name} has no workloads", do="choose --num-tokens")
    return tuple(_in_blob(workload) for workload in found)


def _in_blob(workload: Workload) -> Workload:
    path = layout.blob_path(workload.definition, workload.uuid)
    inputs = {
        name: (
            {"type": "safetensors", "path": f"./{path}", "tensor_key": name}
            if name in ROUTING_INPUTS
            else dict(spec)
        )
        for name, spec in workload.inputs.items()
    }
    return Workload(
        workload.definition,
        workload.uuid,
        workload.seq_len,
        workload.local_expert_offset,
        workload.routed_scaling_factor,
        inputs,
    )


def _kept_workloads(root: Path, definition: Definition, asked: Asked) -> tuple[Workload, ...]:
    """Those of the dataset; of the sizes asked for, if any were."""
    found = Dataset(root).workloads(definition)
    sizes = [workload.seq_len for workload in found]
    for tokens in asked.num_tokens:
        if tokens not in sizes:
            raise UsageError(
                f"{root / layout.workloads_path(definition.name)} has no workload of {tokens} "
                "tokens, and is not changed",
                f"one of {', '.join(map(str, sorted(set(sizes))))}",
            )
    return tuple(w for w in found if not asked.num_tokens or w.seq_len in asked.num_tokens)


def _workloads_file(definition: Definition, workloads: Iterable[Workload] | None) -> File:
    path = layout.workloads_path(definition.name)
    if workloads is None:
        return File(path, "kept")
    lines = [json.dumps(_line(workload), separators=(",", ":")) for workload in workloads]
    return File(path, "written", f"{len(lines)} workloads", ("\n".join(lines) + "\n").encode())


def _line(workload: Workload) -> dict[str, Any]:
    return {
        "definition": workload.definition,
        "solution": None,
        "workload": {
            "uuid": workload.uuid,
            "axes": {"seq_len": workload.seq_len},
            "inputs": dict(workload.inputs),
        },
        "evaluation": None,
    }


def _blobs(
    root: Path, definition: Definition, workloads: Sequence[Workload], asked: Asked, is_new: bool
) -> tuple[list[File], list[Workload]]:
    """The blobs of the workloads, and which workloads have none and are to get none."""
    files: dict[PurePosixPath, File] = {}
    missing = []
    spec = asked.routing or (DEFAULT_ROUTING if is_new else None)
    for workload in workloads:
        stored = [workload.inputs.get(name, {}) for name in ROUTING_INPUTS]
        places = {str(entry["path"]) for entry in stored if entry.get("type") == "safetensors"}
        for path in (PurePosixPath(place) for place in sorted(places)):
            if path in files:
                continue
            if (root / path).exists():
                files[path] = File(path, "kept", read_notes(root / path).get("routing", ""))
            elif spec is None:
                missing.append(workload)
                break
            else:
                _check_writable(root, path, workload, places)
                files[path] = _synthetic(path, definition, workload, spec, asked.seed)
    return list(files.values()), missing


def _check_writable(
    root: Path, path: PurePosixPath, workload: Workload, places: Iterable[str]
) -> None:
    """Raise UsageError where a workload wants of its blob what a routing blob cannot be."""
    where = f"the blob of workload {workload.uuid}"
    if not (root / path).resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{where} lies outside the dataset: {path}", "a path inside it")
    keys = [workload.inputs[name].get("tensor_key") for name in ROUTING_INPUTS]
    if len(set(places)) != 1 or keys != list(ROUTING_INPUTS):
        raise UsageError(
            f"{where} is to hold {', '.join(map(str, keys))}",
            f"one file with {' and '.join(ROUTING_INPUTS)}",
        )


def _synthetic(
    path: PurePosixPath, definition: Definition, workload: Workload, spec: RoutingSpec, seed: int
) -> File:
    """The routing that ``moeprof run`` makes of the same workload and seed."""
    routing = make_routing(spec, definition, workload, seed)
    label = routing.label + ("" if spec.kind == "file" else f", seed {seed}")
    notes = {"routing": label, "made_by": f"moeprof {__version__}"}
    return File(path, "written", label, routing_blob(routing.logits, routing.bias, notes))


def _unusable(
    root: Path, definition: Definition, workloads: Sequence[Workload], missing: set[str]
) -> Iterator[str]:
    """What flashinfer-bench will stumble over in blobs that are there."""
    dataset = Dataset(root)
    for workload in workloads:
        others = [
            name
            for name, spec in workload.inputs.items()
            if spec.get("type") == "safetensors" and name not in ROUTING_INPUTS
        ]
        if others:
            yield (
                f"workload {workload.uuid} reads {', '.join(others)} from a blob; copies of the "
                "dataset from before 2026-04 say so although no blob holds them"
            )
        files = dataset.recorded_routing(workload)
        if files is None or workload.uuid in missing:
            continue
        if all(file.path.exists() for file in files.values()):
            try:
                recorded = RoutingSpec("recorded")
                make_routing(
                    recorded, definition, workload, 0, dataset=dataset, allow_no_local_work=True
                )
            except UsageError as error:
                yield str(error)


def _solution_files(root: Path, solutions: Sequence[FibSolution], force: bool) -> Iterator[File]:
    """The solutions' files; UsageError where a name is taken."""
    taken: dict[str, Path] = {}
    made: set[str] = set()
    for file, data in _json_files(root / "solutions"):
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            taken[data["name"]] = file
    for solution in solutions:
        layout.check_segment(solution.author, "--author")
        layout.check_segment(solution.name, "solution")
        path = layout.solution_path(solution.author, solution.definition, solution.name)
        place = root / path
        owner = taken.get(solution.name, place)
        if owner != place:
            raise UsageError(
                f"{owner} has a solution called {solution.name} already",
                "a name that no other solution of the dataset has",
                do="rename one of them",
            )
        if solution.name in made:
            raise UsageError(f"two of the solutions are called {solution.name}", do="rename one")
        made.add(solution.name)
        content = dump_solution(solution).encode()
        if not place.exists():
            yield File(path, "written", _facts(solution), content)
        elif _is_the_same(place, solution):
            yield File(path, "kept", "the same")
        elif force:
            yield File(path, "replaced", _facts(solution), content)
        else:
            raise UsageError(f"{place} exists and differs", do="--force replaces it")


def _is_the_same(place: Path, solution: FibSolution) -> bool:
    try:
        return parse_solution(place.read_text(encoding="utf-8"), str(place)) == solution
    except UsageError:  # no solution at all
        return False


def _facts(solution: FibSolution) -> str:
    count = len(solution.sources)
    return f"{count} file{'s' * (count != 1)}, hash {solution.hash[:12]}"


def _outdated(root: Path, file: File) -> Iterator[str]:
    """Traces that a replaced solution leaves behind: they are found by its name."""
    if file.action != "replaced":
        return
    name = json.dumps(file.path.stem)
    said = re.compile(rf'"solution"\s*:\s*{re.escape(name)}')
    count = sum(
        len(said.findall(path.read_text(encoding="utf-8", errors="replace")))
        for path in (root / "traces").rglob("*.jsonl")
    )
    if count:
        yield f"{count} traces of {file.path.stem} are of the source that was replaced"


def _json_files(folder: Path) -> Iterator[tuple[Path, Any]]:
    """Every JSON file below ``folder``, as flashinfer-bench finds them."""
    for path in sorted(folder.rglob("*.json")):
        yield path, parse_json(read_text(path), str(path))
