"""Why the solutions of a workload differ: busy time by stage, idle time by cause, gaps by reason.

Rows are the profile's (the undisturbed eager forward where it was reconstructed), so that

    span = GEMM busy + other busy + busy without a step + gaps + host

holds for each solution; ``compare`` splits each difference to the fastest one by cause. Busy times
of the graph's nodes stand beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.analysis.attribution import graph_rows
from moeprof.analysis.attribution import profile as explain_run
from moeprof.analysis.profiles import Profile, StageProfile
from moeprof.analysis.rows import stage_rows
from moeprof.bench.cells import Bench, Cell
from moeprof.bench.figures import latency_us
from moeprof.compare.compare import Side, compare_sides
from moeprof.compare.comparison import Cause, Explained
from moeprof.contract import STEPS
from moeprof.errors import RecordError
from moeprof.ledger.ceilings import ceilings_of
from moeprof.ledger.ledger import Ceilings, work_rows
from moeprof.records import Run

GEMM_STEPS = frozenset(("gemm1", "gemm2"))
TIMELINES = ("reconstructed", "api")  # sources that see idle time


@dataclass(frozen=True, slots=True)
class Account:
    """Where one solution's span goes, us. gaps_us, host_us: None where the source sees no idle
    time; rows_factor: rows executed by the GEMMs / rows needed, None where unknown.

    busy: by row. gap_us: this span less the fastest's, split into causes; None where they cannot
    be compared. graph_busy: by node's stage; graph_gap_us: between the nodes.
    """

    solution: str
    source: str
    span_us: float
    gemm_us: float
    other_us: float
    stepless_us: float
    gaps_us: float | None
    host_us: float | None
    launches: float
    rows_factor: float | None
    busy: tuple[tuple[str, float], ...]
    gap_us: float | None = None
    causes: tuple[tuple[Cause, float], ...] = ()
    graph_busy: tuple[tuple[str, float], ...] = ()
    graph_gap_us: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The accounts of one workload. fastest: by eager latency; '' where none is known.

    rows: names of all busy rows, steps first; first_steps: the first step of each, '' for none.
    missing: solutions without stage times, and why.
    """

    row: int
    fastest: str
    accounts: tuple[Account, ...]
    rows: tuple[str, ...]
    first_steps: tuple[str, ...]
    missing: tuple[tuple[str, str], ...] = ()


def explain(bench: Bench, rows: Sequence[int] | None = None) -> tuple[Explanation, ...]:
    """One explanation a workload, of those at ``rows`` (all by default)."""
    chosen = range(len(bench.workloads)) if rows is None else rows
    runs = [cell.measured for cell in bench.every_cell if cell.measured is not None]
    ceilings, _ = ceilings_of(runs)
    return tuple(_explanation(bench, row, ceilings) for row in chosen)


def _explanation(bench: Bench, row: int, ceilings: Ceilings) -> Explanation:
    profiles: dict[str, tuple[Run, Profile]] = {}
    missing: list[tuple[str, str]] = []
    for cell in bench.cells[row]:
        if cell.measured is None:
            continue
        try:
            profiles[cell.solution] = cell.measured, explain_run(cell.measured)
        except RecordError as error:
            missing.append((cell.solution, str(error)))
    known = [cell for cell in bench.cells[row] if cell.solution in profiles]
    fastest = _fastest(known)
    sides = {name: _side(name, *found, ceilings) for name, found in profiles.items()}
    accounts = []
    for name, (run, profile) in profiles.items():
        gap_us, causes = _gap(sides.get(fastest), sides[name], ceilings)
        accounts.append(_account(name, run, profile, gap_us, causes))
    rows = _row_names(profiles)
    names, steps = tuple(rows), tuple(rows.values())
    return Explanation(row, fastest, tuple(accounts), names, steps, tuple(missing))


def _fastest(cells: Sequence[Cell]) -> str:
    known = [(found, c.solution) for c in cells if (found := latency_us(c, "eager")) is not None]
    return min(known)[1] if known else ""


def _side(name: str, run: Run, profile: Profile, ceilings: Ceilings) -> Side | None:
    try:
        return Side.of(Explained(run, profile, name), ceilings)
    except RecordError:
        return None  # a profile that does not add up has no bars


def _gap(
    fastest: Side | None, own: Side | None, ceilings: Ceilings
) -> tuple[float | None, tuple[tuple[Cause, float], ...]]:
    """The difference of the spans and its causes; nothing where the clocks are not the same."""
    if fastest is None or own is None:
        return None, ()
    sources = (fastest.explained.profile.source, own.explained.profile.source)
    if sources[0] != sources[1] and not set(sources) <= set(TIMELINES):
        return None, ()
    found = compare_sides(fastest, own, ceilings, "the bench's")
    return found.delta_ns / 1e3, tuple((cause, ns / 1e3) for cause, ns in found.causes)


def _account(
    name: str,
    run: Run,
    profile: Profile,
    gap_us: float | None,
    causes: tuple[tuple[Cause, float], ...],
) -> Account:
    covers = {row.name: row.covers for row in stage_rows(run.solution.stages)}
    sums = {"gemm": 0.0, "other": 0.0, "stepless": 0.0}
    for stage in profile.stages:
        steps = covers.get(stage.name, ())
        kind = "gemm" if GEMM_STEPS & set(steps) else "other" if steps else "stepless"
        sums[kind] += stage.busy_ns / 1e3
    sees_idle = profile.source in TIMELINES
    idle_us = sum(s.launch_latency_ns + s.dependency_ns for s in profile.stages) / 1e3
    graph = graph_rows(run)
    return Account(
        solution=name,
        source=profile.source,
        span_us=profile.span_ns / 1e3,
        gemm_us=sums["gemm"],
        other_us=sums["other"],
        stepless_us=sums["stepless"],
        gaps_us=idle_us if sees_idle else None,
        host_us=profile.orchestration_ns / 1e3 if sees_idle else None,
        launches=sum(stage.operations for stage in profile.stages),
        rows_factor=_rows_factor(run, profile),
        busy=_busy(profile.stages),
        gap_us=gap_us,
        causes=causes,
        graph_busy=_busy(graph),
        graph_gap_us=sum(stage.gap_ns for stage in graph) / 1e3 if graph else None,
    )


def _busy(stages: Sequence[StageProfile]) -> tuple[tuple[str, float], ...]:
    return tuple((s.name, s.busy_ns / 1e3) for s in stages if s.operations or s.busy_ns)


def _rows_factor(run: Run, profile: Profile) -> float | None:
    """Of the GEMMs, the largest."""
    found = [
        row.row_amplification
        for row in work_rows(run, profile)
        if GEMM_STEPS & set(row.covers) and row.row_amplification is not None
    ]
    return max(found, default=None)


def _row_names(profiles: dict[str, tuple[Run, Profile]]) -> dict[str, str]:
    """Every row with busy time and its first step ('' if none): by step, then by name."""
    order = [*map(str, STEPS), ""]
    found: dict[str, str] = {}
    for run, profile in profiles.values():
        covers = {row.name: row.covers for row in stage_rows(run.solution.stages)}
        for name, _ in _busy(profile.stages):
            known = [step for step in covers.get(name, ()) if step in order]
            own = min(known, key=order.index, default="")
            found[name] = min(found.get(name, own), own, key=order.index)
    return {name: found[name] for name in sorted(found, key=lambda n: (order.index(found[n]), n))}
