"""FlashInfer-Bench's Solution as a value: parsed, checked by its rules, dumped, hashed.

The rules are those of flashinfer-bench 0.1.2's models; a file it would refuse is refused here in
one line. Keys it does not know are dropped, as it drops them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from moeprof.errors import UsageError
from moeprof.problem.json_values import name_of, optional, parse_json, required, texts

LANGUAGES = ("python", "triton", "cpp", "cuda", "tilelang")
BINDINGS = ("tvm-ffi", "torch")
PYTHON_LANGUAGES = ("python", "triton", "tilelang")  # imported as a package, not compiled


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a solution. path: relative, in the solution's own folder."""

    path: str
    content: str


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """How a solution is built and called.

    entry_point: 'file::symbol'. destination_passing_style: outputs are the last parameters.
    """

    language: str
    entry_point: str
    target_hardware: tuple[str, ...] = ("cuda",)
    dependencies: tuple[str, ...] = ()
    destination_passing_style: bool = True
    binding: str | None = None

    @property
    def entry_path(self) -> str:
        return self.entry_point.partition("::")[0]

    @property
    def entry_symbol(self) -> str:
        return self.entry_point.partition("::")[2]


@dataclass(frozen=True, slots=True)
class FibSolution:
    """An implementation of a definition, sources included. ``name`` is unique in a dataset."""

    name: str
    definition: str
    author: str
    spec: BuildSpec
    sources: tuple[SourceFile, ...] = field(repr=False)
    description: str = ""

    @property
    def hash(self) -> str:
        """FlashInfer-Bench 0.1.2's own: sha1 over all that decides what the solution does."""
        digest = hashlib.sha1(usedforsecurity=False)
        for text in (
            self.name,
            self.definition,
            self.spec.language,
            self.spec.entry_point,
            self.spec.binding or "",
            *self.spec.dependencies,
            *(part for source in self.sources for part in (source.path, source.content)),
        ):
            digest.update(text.encode())
        return digest.hexdigest()

    def source(self, path: str) -> str:
        """The content of a file of it."""
        return next(source.content for source in self.sources if source.path == path)


def parse_solution(text: str, where: str) -> FibSolution:
    """The solution in a JSON text; UsageError if FlashInfer-Bench would not load it either."""
    data = parse_json(text, where)
    solution = FibSolution(
        name=name_of(data, "name", where),
        definition=name_of(data, "definition", where),
        author=name_of(data, "author", where),
        spec=_spec(required(data, "spec", dict, where), f"{where}: spec"),
        sources=tuple(
            SourceFile(
                name_of(item, "path", f"{where}: source {number}"),
                name_of(item, "content", f"{where}: source {number}"),
            )
            for number, item in enumerate(required(data, "sources", list, where), start=1)
        ),
        description=optional(data, "description", str, "", where, null=True),
    )
    check_solution(solution, where)
    return solution


def _spec(data: dict[str, Any], where: str) -> BuildSpec:
    return BuildSpec(
        language=name_of(data, "language", where),
        entry_point=name_of(data, "entry_point", where),
        target_hardware=texts(data, "target_hardware", where, empty=True),
        dependencies=texts(data, "dependencies", where),
        destination_passing_style=optional(data, "destination_passing_style", bool, True, where),
        binding=None if data.get("binding") is None else required(data, "binding", str, where),
    )


def check_solution(solution: FibSolution, where: str) -> None:
    """Raise UsageError unless FlashInfer-Bench would load it."""
    spec, paths = solution.spec, [source.path for source in solution.sources]
    if spec.language not in LANGUAGES:
        raise UsageError(f"{where} is in language {spec.language!r}", " or ".join(LANGUAGES))
    if spec.binding is not None and spec.binding not in BINDINGS:
        raise UsageError(f"{where} has binding {spec.binding!r}", " or ".join(BINDINGS))
    if not spec.target_hardware:
        raise UsageError(f"{where} names no target_hardware", "at least one, such as cuda")
    if spec.entry_point.count("::") != 1:
        raise UsageError(f"{where} has entry_point {spec.entry_point!r}", "FILE::SYMBOL")
    if not paths:
        raise UsageError(f"{where} has no sources", "at least one file")
    for path in paths:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            raise UsageError(f"{where} has a source {path!r}", "a relative path without '..'")
        if paths.count(path) > 1:
            raise UsageError(f"{where} has source {path!r} twice")
    if spec.entry_path not in paths:
        raise UsageError(f"{where} has no source {spec.entry_path!r}, its entry point")


def dump_solution(solution: FibSolution) -> str:
    """The JSON text of a solution, as FlashInfer-Bench writes it; a trailing newline."""
    spec: dict[str, Any] = {
        "language": solution.spec.language,
        "target_hardware": list(solution.spec.target_hardware),
        "entry_point": solution.spec.entry_point,
        "dependencies": list(solution.spec.dependencies),
        "destination_passing_style": solution.spec.destination_passing_style,
    }
    if solution.spec.binding is not None:
        spec["binding"] = solution.spec.binding
    data: dict[str, Any] = {
        "name": solution.name,
        "definition": solution.definition,
        "author": solution.author,
        "spec": spec,
        "sources": [{"path": s.path, "content": s.content} for s in solution.sources],
    }
    if solution.description:
        data["description"] = solution.description
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
