"""What docs/bench-h200.md is made from: the published tables, and the records of the H200."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from moeprof.bench.causes import Account, explain
from moeprof.bench.cells import Bench, Cell
from moeprof.bench.figures import Metric, geometric_mean, latency_us, launches, speedup
from moeprof.bench.winners import verdict
from moeprof.compare.tables import regime

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "docs" / "bench-b200.json"


@dataclass(frozen=True)
class Published:
    """One published comparison. speedups: of each number of tokens, one a solution.

    printed_means: what the note gives as its mean speedups, () where it gives none.
    """

    date: str
    title: str
    solutions: tuple[str, ...]
    speedups: dict[int, tuple[float, ...]]
    printed_means: tuple[float, ...] = ()

    def column(self, solution: str, tokens: Sequence[int] | None = None) -> list[float]:
        position = self.solutions.index(solution)
        chosen = self.speedups if tokens is None else tokens
        return [self.speedups[t][position] for t in chosen]


@dataclass(frozen=True)
class Here:
    """The H200's side."""

    bench: Bench

    def cell(self, solution: str, tokens: int) -> Cell:
        rows = [i for i, w in enumerate(self.bench.workloads) if w.seq_len == tokens]
        return self.bench.column(solution)[rows[0]]

    def us(self, solution: str, metric: Metric, tokens: int) -> float:
        found = latency_us(self.cell(solution, tokens), metric)
        assert found is not None, f"{solution} has no {metric} latency at T={tokens}"
        return found

    def speedup(self, solution: str, metric: Metric, tokens: int) -> float:
        reference = self.cell(self.bench.reference, tokens)
        found = speedup(self.cell(solution, tokens), reference, metric)
        assert found is not None
        return found

    def mean(
        self, solution: str, metric: Metric, tokens: Sequence[int], geometric: bool = False
    ) -> float:
        values = [self.speedup(solution, metric, t) for t in tokens]
        return geometric_mean(values) if geometric else statistics.fmean(values)

    def account(self, solution: str, tokens: int) -> Account:
        return self.accounts[solution, tokens]

    @cached_property
    def accounts(self) -> dict[tuple[str, int], Account]:
        return {
            (account.solution, self.bench.workloads[one.row].seq_len): account
            for one in explain(self.bench)
            for account in one.accounts
        }

    def launches(self, solution: str, tokens: int) -> float:
        run = self.cell(solution, tokens).measured
        return (launches(run) if run is not None else None) or 0.0

    def fastest(self, solutions: Sequence[str], metric: Metric, tokens: int) -> str:
        found = verdict([self.cell(name, tokens) for name in solutions], metric)
        assert found is not None
        return found.winner or "tie"

    def won(self, solutions: Sequence[str], metric: Metric, tokens: Sequence[int]) -> list[str]:
        return [self.fastest(solutions, metric, t) for t in tokens]


def facts() -> dict[str, Any]:
    """Everything that is not measured here."""
    found: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return found


def published() -> list[Published]:
    """The five comparisons, oldest first."""
    return [_published(one) for one in facts()["benches"]]


def _published(one: dict[str, Any]) -> Published:
    speedups = {row[0]: tuple(row[1:]) for row in one["speedups"]}
    means = tuple(one.get("printed_means", ()))
    return Published(one["date"], one["title"], tuple(one["solutions"]), speedups, means)


def groups_of(one: Published) -> list[tuple[str, list[int]]]:
    members: dict[str, list[int]] = {}
    for tokens in one.speedups:
        members.setdefault(regime(tokens), []).append(tokens)
    return [*members.items(), ("all", list(one.speedups))]
