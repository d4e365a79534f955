"""Which records a command line means: paths, or names of solutions looked up under ``traces/``.

``<traces>/runs`` holds what was measured here and is searched first, the newest record first; then
``<traces>/recorded/<gpu>``, records that came with the checkout: of several solutions preferably
the records of one such folder, which were measured alike. A name alone does not fix the
workload: where several solutions are named, it is one that all of them have. Captures of another
profiler are passed over unless their definition is asked for (``dsv3@nsight_systems``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moeprof.errors import UsageError, nearest
from moeprof.fib.find import is_fib
from moeprof.storage.store import OF_CAPTURE, RunFile, find_runs, load

Key = tuple[str, int, str]  # definition (its folder), number of tokens, first digits of the uuid


@dataclass(frozen=True, slots=True)
class Wanted:
    """The workload as far as the command line fixes it."""

    num_tokens: int | None = None
    uuid_prefix: str | None = None
    definition: str | None = None

    def __str__(self) -> str:
        parts = [f"T={self.num_tokens}"] if self.num_tokens is not None else []
        parts += [f"workload {self.uuid_prefix}"] if self.uuid_prefix else []
        parts += [f"definition {self.definition}"] if self.definition else []
        return " ".join(parts) or "any workload"


def is_path(name: str) -> bool:
    """Whether ``name`` means a file rather than a solution."""
    if is_fib(name):  # whose name may hold anything
        return False
    return bool(re.search(r"[/\\]|\.json(\.gz)?$", name)) or Path(name).is_file()


def workloads_of(traces: Path, solution: str, wanted: Wanted) -> dict[Key, Path]:
    """The record to use for each workload that ``solution`` has one of.

    Raises UsageError where there is none at all.
    """
    return workloads_of_all(traces, (solution,), wanted)[solution]


def workloads_of_all(
    traces: Path, solutions: Sequence[str], wanted: Wanted
) -> dict[str, dict[Key, Path]]:
    """For each solution the record to use for each workload that it has one of.

    Raises UsageError where a solution has none at all.
    """
    names = tuple(dict.fromkeys(solutions))
    measured = {name: _records(traces / "runs", name, wanted) for name in names}
    folders = sorted((traces / "recorded").glob("*/"))
    recorded = [{name: _records(folder, name, wanted) for name in names} for folder in folders]
    found: dict[str, dict[Key, Path]] = {}
    for name in names:
        keys = dict.fromkeys(key for folder in (measured, *recorded) for key in folder[name])
        found[name] = {}
        for key in keys:
            others = [other for other in names if key not in measured[other]]
            whole = [folder for folder in recorded if all(key in folder[o] for o in others)]
            folder = next(f for f in (measured, *whole, *recorded) if key in f[name])
            found[name][key] = folder[name][key]
        if not found[name]:
            _refuse([traces / "runs", *folders], name, wanted)
    return found


def _records(folder: Path, solution: str, wanted: Wanted) -> dict[Key, Path]:
    """The newest record of each workload in ``folder``."""
    found: dict[Key, Path] = {}
    for file in reversed(_matching(folder, solution, wanted)):
        if wanted.definition is not None or OF_CAPTURE not in file.definition:
            found.setdefault((file.definition, file.seq_len, file.uuid), file.path)
    return found


def one_workload(found: Mapping[str, Mapping[Key, Path]], wanted: Wanted) -> dict[str, Path]:
    """The records of the one workload that every solution has; UsageError if there is no one."""
    shared = shared_workloads(found)
    if len(shared) > 1:
        definitions = sorted({definition for definition, _, _ in shared})
        tokens = sorted({seq_len for _, seq_len, _ in shared})
        if len(tokens) > 1:
            do = f"choose --num-tokens: {', '.join(map(str, tokens))}"
        elif len(definitions) > 1:
            do = f"choose --definition: {', '.join(definitions)}"
        else:
            do = f"choose --workload: {', '.join(uuid for _, _, uuid in shared)}"
        names = " and ".join(found)
        raise UsageError(f"{names} share {len(shared)} workloads of {wanted}", do=do)
    return {solution: records[shared[0]] for solution, records in found.items()}


def same_workload(given: Path, found: Mapping[Key, Path], solution: str) -> Path:
    """The record of ``solution`` on the workload of the record ``given``."""
    workload = load(given).workload
    for (_, seq_len, uuid), path in found.items():
        if seq_len == workload.seq_len and workload.uuid.startswith(uuid):
            return path
    raise UsageError(
        f"there is no record of {solution} for T={workload.seq_len} ({workload.uuid[:8]})",
        do=f"it has T={_tokens(list(found))}",
    )


def find_all(
    traces: Path, solutions: Sequence[str], reference: str, wanted: Wanted
) -> list[dict[str, Path]]:
    """For each workload of one definition that every solution has: solution -> record.

    The reference's record is added where there is one.
    """
    try:
        found = workloads_of_all(traces, (*solutions, reference), wanted)
    except UsageError:  # speedups need the reference, latencies do not
        found = workloads_of_all(traces, solutions, wanted)
    shared = shared_workloads({name: found[name] for name in solutions})
    definitions = sorted({definition for definition, _, _ in shared})
    if len(definitions) > 1:
        names = " and ".join(solutions)
        raise UsageError(
            f"{names} share workloads of {len(definitions)} definitions",
            do=f"choose --definition: {', '.join(definitions)}",
        )
    return [
        {name: records[key] for name, records in found.items() if key in records} for key in shared
    ]


def shared_workloads(found: Mapping[str, Mapping[Key, Path]]) -> list[Key]:
    """The workloads that every solution has, by definition and number of tokens."""
    shared = set.intersection(*(set(records) for records in found.values()))
    if not shared:
        having = [
            f"{solution} has T={_tokens(list(records))}" for solution, records in found.items()
        ]
        raise UsageError(
            f"{' and '.join(found)} have no workload in common ({'; '.join(having)})",
            do="run them on the same workload",
        )
    return sorted(shared)


def _matching(folder: Path, solution: str, wanted: Wanted) -> Sequence[RunFile]:
    return find_runs(folder, solution, wanted.definition, wanted.num_tokens, wanted.uuid_prefix)


def _refuse(folders: Sequence[Path], solution: str, wanted: Wanted) -> None:
    every = [file for folder in folders for file in find_runs(folder)]
    names = {file.solution for file in every}
    if solution not in names:
        raise UsageError(f"there is no record of {solution!r}", do=nearest(solution, names))
    keys = [(f.definition, f.seq_len, f.uuid) for f in every if f.solution == solution]
    captures = sorted({key[0] for key in keys if OF_CAPTURE in key[0]})
    if wanted.definition is None and all(key[0] in captures for key in keys):
        raise UsageError(
            f"of {solution} there are captures of other profilers alone",
            do=f"choose --definition: {', '.join(captures)}",
        )
    raise UsageError(
        f"there is no record of {solution} for {wanted}", do=f"it has T={_tokens(keys)}"
    )


def _tokens(keys: Sequence[Key]) -> str:
    return ", ".join(str(tokens) for tokens in sorted({seq_len for _, seq_len, _ in keys}))
