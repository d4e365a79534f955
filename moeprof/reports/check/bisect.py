"""How a bisection ended, in a terminal and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.regression.bisection import Commit, Found, Step
from moeprof.reports.check import phrases
from moeprof.reports.compare_text import notes_grid
from moeprof.reports.table import Column, FittedTable
from moeprof.reports.units import MISSING
from moeprof.storage.codec import encode

DOCUMENT = "moeprof.bisect/1"


def headline(found: Found) -> str:
    """One line without a full stop."""
    if found.first is not None:
        return f"FIRST BAD COMMIT {found.first.short}: {found.first.subject}"
    return (
        f"THE FIRST BAD COMMIT is one of {len(found.suspects)}: those between could not be judged"
    )


def render_found(found: Found) -> RenderableType:
    """The commit, its figures and causes, then every revision that was measured."""
    parts: list[RenderableType] = [Text(headline(found), style="bold red")]
    if found.first is None:
        parts += [Text(f"  {one.short} {one.subject}") for one in found.suspects]
    parts += [Text(""), notes_grid(_notes(found)), _table(found)]
    return Group(*parts)


def bisect_document(found: Found) -> dict[str, Any]:
    """The content, without its schema."""
    step = _last_bad(found)
    return {
        "headline": headline(found),
        "good": encode(found.good),
        "bad": encode(found.bad),
        "quantity": encode(found.quantity),
        "first_bad": encode(found.first) if found.first else None,
        "suspects": [encode(one) for one in found.suspects],
        "ratio": _ratio(found, step),
        "causes": _causes(found, step),
        "steps": [
            {
                "commit": encode(one.commit),
                "answer": one.answer,
                "why": one.why,
                "ratio": _ratio(found, one),
                "processes": one.processes,
            }
            for one in found.steps
        ],
    }


def _last_bad(found: Found) -> Step | None:
    """The step of the first bad commit, or of the newest suspect, which is bad."""
    return found.step_of(found.first or found.suspects[-1])


def _notes(found: Found) -> list[tuple[str, str]]:
    step = _last_bad(found)
    notes = []
    if step is not None and step.check is not None:
        notes.append(("against good", phrases.headline(step.check)))
        notes += [("cause", cause) for cause in _causes(found, step)]
    notes.append(("good", _commit(found.good)))
    notes.append(("bad", _commit(found.bad)))
    if found.first is not None:
        notes.append(("see", f"git show {found.first.short}"))
    return notes


def _table(found: Found) -> FittedTable:
    steps = found.steps
    return FittedTable(
        (
            Column("commit", tuple(step.commit.short for step in steps), left=True),
            Column("is", tuple(step.answer for step in steps), left=True),
            Column(f"{found.quantity}\nagainst good", tuple(_change(found, s) for s in steps)),
            Column("processes\na side", tuple(str(s.processes or MISSING) for s in steps)),
            Column("subject", tuple(_cut(s.commit.subject) for s in steps), left=True, dropped=1),
            Column("why", tuple(_cut(_why(s)) for s in steps), left=True, dropped=2),
        )
    )


def _why(step: Step) -> str:
    return step.why if step.answer == "skipped" else ""


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


def _change(found: Found, step: Step) -> str:
    return phrases.percent(_ratio(found, step))


def _ratio(found: Found, step: Step | None) -> float | None:
    if step is None or step.check is None:
        return None
    finding = step.check.finding(found.quantity.stage, found.quantity.measure)
    return finding.ratio if finding else None


def _causes(found: Found, step: Step | None) -> list[str]:
    if step is None or step.check is None:
        return []
    return [cause.sentence for cause in step.check.causes_of(found.quantity.stage)]


def _commit(commit: Commit) -> str:
    return f"{commit.short} {commit.subject}"
