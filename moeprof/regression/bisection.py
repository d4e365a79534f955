"""What a bisection asked, what each revision answered and what it found. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moeprof.regression.values import Check, Quantity

Answer = Literal["good", "bad", "skipped"]


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit. subject: the first line of its message; parents: their hashes."""

    hash: str
    subject: str = ""
    author_date: str = ""
    parents: tuple[str, ...] = ()

    @property
    def short(self) -> str:
        return self.hash[:8]


@dataclass(frozen=True, slots=True)
class Step:
    """One revision held against the good one.

    why: what the answer rests on, one sentence without a full stop. check: None where nothing could
    be measured. processes: of the revision, in all rounds.
    """

    commit: Commit
    answer: Answer
    why: str
    check: Check | None = None
    processes: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """The end of a bisection.

    first: the first bad commit, None if skipped ones are in between; suspects: those it is one of,
    oldest first. quantity: what became slower between good and bad. steps: in the order measured,
    bad itself first.
    """

    good: Commit
    bad: Commit
    quantity: Quantity
    first: Commit | None
    suspects: tuple[Commit, ...]
    steps: tuple[Step, ...]

    def step_of(self, commit: Commit) -> Step | None:
        return next((step for step in self.steps if step.commit.hash == commit.hash), None)
