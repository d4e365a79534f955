"""What a FlashInfer-Bench TraceSet holds, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.fib.contents import Contents, SolutionFound
from moeprof.fib.find import PREFIX, shown
from moeprof.reports.table import Column, FittedTable

DOCUMENT = "moeprof.traceset/1"
_LOADS = "nothing speaks against it"
MOST_LINES = 20  # of what cannot be read


def render_contents(contents: Contents, place: str) -> RenderableType:
    """Tables for a terminal. place: the folder, as the user would type it."""
    parts: list[RenderableType] = [_definitions(contents), _workloads(contents)]
    parts += [_solutions(contents), _claims(contents)]
    if contents.others:
        parts.append(_line(f"{contents.others} files are of other operations"))
    for file in contents.unreadable[:MOST_LINES]:
        parts.append(_line(f"cannot be read: {file.path}: {file.problem}", "yellow"))
    rest = len(contents.unreadable) - MOST_LINES
    if rest > 0:
        parts.append(_line(f"... and {rest} more", "yellow"))
    for key, count in contents.ignored.items():
        parts.append(_line(f"ignored, as FlashInfer-Bench does: {key} ({count} times)"))
    loadable = [found for found in contents.solutions if not found.problem]
    if loadable:
        name = PREFIX + shown(loadable[0].file.solution.name)
        parts.append(
            _line(f"moeprof run --solution {name} --dataset {place} --trust runs somebody's code")
        )
    return Group(*parts)


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style)


def _titled(title: str, columns: Sequence[Column]) -> RenderableType:
    if not columns[0].cells:
        return Text(f"{title}: none\n", style="bold")
    return Group(Text(title, style="bold"), FittedTable(tuple(columns)))


def _definitions(contents: Contents) -> RenderableType:
    found = contents.definitions
    sizes = {d.name: sum(w.definition == d.name for w in contents.workloads) for d in found}
    return _titled(
        "Definitions of this operation",
        (
            Column("definition", tuple(d.name for d in found), left=True),
            Column("workloads", tuple(str(sizes[d.name]) for d in found)),
            Column("", tuple(d.problem or "runs here" for d in found), left=True),
        ),
    )


def _workloads(contents: Contents) -> RenderableType:
    found = contents.workloads
    return _titled(
        "Workloads",
        (
            Column("definition", _names(contents, [w.definition for w in found]), "", 1, True),
            Column("T", tuple(f"{w.seq_len:,}" for w in found)),
            Column("first local\nexpert", tuple(str(w.local_expert_offset) for w in found)),
            Column("routing", tuple(w.routing for w in found), left=True),
            Column("uuid", tuple(w.uuid[:8] for w in found), left=True),
        ),
    )


def _solutions(contents: Contents) -> RenderableType:
    found = contents.solutions
    solutions = [one.file.solution for one in found]
    return _titled(
        "Solutions",
        (
            Column("name", tuple(shown(s.name) for s in solutions), left=True),
            Column("author", tuple(shown(s.author) for s in solutions), left=True, dropped=2),
            Column("definition", _names(contents, [s.definition for s in solutions]), "", 3, True),
            Column("language", tuple(s.spec.language for s in solutions), left=True),
            Column("style", tuple(map(_style, found)), left=True),
            Column("parameters", tuple(_parameters(one) for one in found)),
            Column("loads", tuple(one.problem or _LOADS for one in found), left=True),
        ),
    )


def _claims(contents: Contents) -> RenderableType:
    found = contents.claims
    return _titled(
        "Traces: the least latency that they claim",
        (
            Column("definition", _names(contents, [c.definition for c in found]), "", 2, True),
            Column("T", tuple("?" if c.seq_len is None else f"{c.seq_len:,}" for c in found)),
            Column("traces", tuple(str(c.traces) for c in found)),
            Column("passed", tuple(str(c.passed) for c in found)),
            Column("us", tuple(_us(c.latency_ms) for c in found)),
            Column("solution", tuple(c.solution or "-" for c in found), left=True),
            Column("timer", tuple(c.timer for c in found), left=True),
            Column("uuid", tuple(c.uuid[:8] for c in found), left=True, dropped=1),
        ),
    )


def _us(latency_ms: float | None) -> str:
    return "-" if latency_ms is None else f"{latency_ms * 1e3:,.1f}"


def _names(contents: Contents, names: Sequence[str]) -> tuple[str, ...]:
    """A column that goes where all rows are of one definition."""
    several = len({d.name for d in contents.definitions} | set(names)) > 1
    return tuple(shown(name) if several else "" for name in names)


def _style(found: SolutionFound) -> str:
    return "fills" if found.file.solution.spec.destination_passing_style else "returns"


def _parameters(found: SolutionFound) -> str:
    return "?" if found.parameters is None else str(found.parameters)


def contents_document(contents: Contents) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "definitions": [
            {"name": d.name, "path": d.path, "problem": d.problem or None}
            for d in contents.definitions
        ],
        "workloads": [
            {
                "definition": w.definition,
                "uuid": w.uuid,
                "seq_len": w.seq_len,
                "local_expert_offset": w.local_expert_offset,
                "routing": w.routing,
            }
            for w in contents.workloads
        ],
        "solutions": [_solution_document(one) for one in contents.solutions],
        "traces": [
            {
                "definition": c.definition,
                "uuid": c.uuid,
                "seq_len": c.seq_len,
                "traces": c.traces,
                "passed": c.passed,
                "solution": c.solution or None,
                "latency_ms": c.latency_ms,
                "timer": c.timer,
            }
            for c in contents.claims
        ],
        "unreadable": [{"path": u.path, "problem": u.problem} for u in contents.unreadable],
        "ignored": dict(contents.ignored),
        "of_other_operations": contents.others,
    }


def _solution_document(found: SolutionFound) -> dict[str, Any]:
    file, solution = found.file, found.file.solution
    return {
        "name": shown(solution.name),
        "author": shown(solution.author),
        "definition": shown(solution.definition),
        "language": solution.spec.language,
        "destination_passing_style": solution.spec.destination_passing_style,
        "parameters": found.parameters,
        "problem": found.problem or None,
        "path": file.path,
        "sha256": file.sha256,
        "fib_hash": solution.hash,
    }
