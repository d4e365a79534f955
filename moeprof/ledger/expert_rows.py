"""How many rows a grouped GEMM ran for each local expert, as far as a record tells.

    counted     the stage's problem sizes, one line an expert
    local       it ran as many rows as there are local pairs: those of the routing
    clamped     all T * 8 pairs, ids of experts elsewhere clamped to a local one: those below the
                rank's range pile up on its first expert, those above on its last

A clamped stage of a rank in the middle has both kinds, and a record without counts does not tell
how many of each. Those rows are ``shared`` between the first and the last expert; what follows is
then known between bounds, which for tiles are one tile apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moeprof.contract import ROUTING
from moeprof.records import Run, StageInfo

CLAMPED_IDS = "clamped_expert_ids"  # a name fixes a meaning: see stages/README.md
Basis = Literal["counted", "local", "clamped"]


@dataclass(frozen=True, slots=True)
class Range:
    """A figure known between bounds; ``low == high`` where it is known."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ExpertRows:
    """Rows by local expert, and ``shared`` more that the first and the last have together."""

    known: tuple[int, ...]
    shared: int
    basis: Basis

    @property
    def total(self) -> int:
        return sum(self.known) + self.shared

    @property
    def busiest(self) -> Range:
        """Rows of the expert with most. Least where the ends share evenly."""
        first, last = self.known[0], self.known[-1]
        even = -(-(first + last + self.shared) // 2)
        least = max(*self.known, even) if self.shared else max(self.known)
        return Range(least, max(*self.known, max(first, last) + self.shared))

    @property
    def imbalance(self) -> Range | None:
        """Busiest expert's rows over the mean of all local experts; None without rows."""
        if not self.total:
            return None
        mean = self.total / len(self.known)
        return Range(self.busiest.low / mean, self.busiest.high / mean)

    def tiles(self, rows_per_tile: int) -> tuple[int, int]:
        """Least and most tiles of ``rows_per_tile`` rows; no tile holds rows of two experts."""
        middle = sum(-(-rows // rows_per_tile) for rows in self.known[1:-1])
        if not self.shared:
            whole = sum(-(-rows // rows_per_tile) for rows in self.known)
            return whole, whole
        first, last = self.known[0], self.known[-1]
        # the number repeats when a whole tile of rows moves from one end to the other
        ends = [
            -(-(first + moved) // rows_per_tile) - (-(last + self.shared - moved) // rows_per_tile)
            for moved in range(min(self.shared, rows_per_tile - 1) + 1)
        ]
        return middle + min(ends), middle + max(ends)


def expert_rows(run: Run, stage: StageInfo) -> tuple[ExpertRows | None, str]:
    """The rows of ``stage`` by expert, or None and the reason."""
    local = run.routing.tokens_per_expert
    rows = stage.rows_executed
    if stage.rows_per_expert:
        return ExpertRows(stage.rows_per_expert, 0, "counted"), ""
    if rows is None or not local:
        return None, "the record does not say how many rows ran"
    if rows == run.routing.local_pairs:
        return ExpertRows(local, 0, "local"), ""
    every_pair = rows == run.workload.seq_len * ROUTING.top_k
    if every_pair and any(CLAMPED_IDS in one.reads for one in run.solution.stages):
        return _clamped(run, rows), ""
    return None, f"{rows:,} rows ran and the record does not say for which experts"


def _clamped(run: Run, rows: int) -> ExpertRows:
    """Where the rank's experts are at an end of all, every clamped id is known."""
    local = list(run.routing.tokens_per_expert)
    elsewhere = rows - run.routing.local_pairs
    offset = run.workload.local_expert_offset
    if offset == 0 or len(local) == 1:
        local[-1] += elsewhere
    elif offset + len(local) == run.workload.constants.get("num_experts"):
        local[0] += elsewhere
    else:
        return ExpertRows(tuple(local), elsewhere, "clamped")
    return ExpertRows(tuple(local), 0, "clamped")
