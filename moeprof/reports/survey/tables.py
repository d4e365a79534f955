"""The tables of a report as plain grids of strings, the same ones for every format."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from moeprof.analysis.profiles import StageProfile
from moeprof.compare.comparison import Comparison
from moeprof.ledger.floors import FloorRow
from moeprof.records import Run
from moeprof.reports import phrases
from moeprof.reports.overview import Grid
from moeprof.reports.parity import parity_doubts
from moeprof.reports.survey.data import Entry, ReportData, WorkloadData
from moeprof.reports.units import MISSING, count, number, percent, times, us
from moeprof.reports.waterfall_lines import lines

TIMELINES = ("reconstructed", "api")
Rows = tuple[tuple[str, ...], ...]


def latencies(data: ReportData) -> Grid:
    """Every workload by every solution."""
    rows: list[tuple[str, ...]] = []
    for workload in data.workloads:
        found = [workload.entry(solution) for solution in data.solutions]
        run = workload.entries[0].run
        routed = run.workload.has_definition
        rows.append(
            (
                workload.name,
                number(run.routing.local_pairs if routed else None),
                number(run.routing.active_experts if routed else None),
                *(_latency(entry) for entry in found),
            )
        )
    clock = "wall clock" if _on_cpu(data) else "between the outer events"
    title = f"Latency, us: median of the bare pass, {clock}"
    return Grid(title, ("workload", "P", "A", *data.solutions), tuple(rows))


def fastest(workload: WorkloadData) -> str:
    """The solution with the lowest latency; '' where only one has any."""
    known = [(e.latency_us, e.label) for e in workload.entries if e.latency_us is not None]
    return min(known)[1] if len(known) > 1 else ""


def stages(entry: Entry) -> Grid:
    """The rows of one profile, us: busy time and the gaps before it by cause."""
    profile = entry.profile
    if profile is None:
        return Grid(entry.problem, ("stage",), ())
    title = phrases.source(entry.run, profile)
    if profile.source not in TIMELINES:
        clock = "wall clock" if profile.source == "stage clock" else "event pair"
        columns: list[tuple[str, str]] = [(clock, "busy_ns")]
    else:
        columns = [
            ("GPU busy", "busy_ns"),
            ("host late", "host_late_ns"),
            ("API call", "api_ns"),
            ("launch latency", "launch_latency_ns"),
        ]
        columns += _if_any(profile.stages, ("dependency", "dependency_ns"))
        columns += _if_any(profile.stages, ("overlapped", "overlap_ns"))
    rows = [
        (
            stage.name,
            *(us(getattr(stage, field)) for _, field in columns),
            percent(stage.time_ns, profile.span_ns),
            count(stage.operations),
        )
        for stage in profile.stages
    ]
    totals = [us(sum(getattr(stage, field) for stage in profile.stages)) for _, field in columns]
    launched = count(sum(stage.operations for stage in profile.stages))
    rows.append(("sum", *totals, percent(profile.span_ns, profile.span_ns), launched))
    headings = ("stage", *(heading for heading, _ in columns), "share of span", "operations")
    return Grid(title, headings, tuple(rows))


def ledger(entry: Entry) -> Grid:
    """Work needed, work done, what it took."""
    headings = (
        "stage", "rows needed", "executed", "x", "MB needed", "executed", "x", "GFLOP needed",
        "executed", "x", "launches", "floor us", "work x", "efficiency", "busy us",
        "GB/s", "TFLOP/s", "bound by",
    )  # fmt: skip
    title = "Work: needed by the definition for this input, executed by the solution"
    if any(row.declared for row in entry.ledger):
        title += " (* on the solution's word)"
    return Grid(title, headings, tuple(_ledger_row(row) for row in entry.ledger))


def waterfall(comparison: Comparison) -> Grid:
    """The bars in order, us, with the running total."""
    rows = tuple(
        (line.label, "" if line.total else f"{line.delta_ns / 1e3:+,.1f}", us(line.end_ns))
        for line in lines(comparison)
    )
    title = f"From {comparison.before.label} to {comparison.after.label}, us"
    return Grid(title, ("", "change", "running total"), rows)


def samples(workload: WorkloadData) -> Grid:
    """The distribution of the bare samples of every solution."""
    rows: list[tuple[str, ...]] = []
    for entry in workload.entries:
        spans_us = sorted(entry.bare_us)
        if not spans_us:
            continue
        middle = statistics.median(spans_us)
        low, high = quantile(spans_us, 0.25), quantile(spans_us, 0.75)
        figures = (spans_us[0], low, middle, high, quantile(spans_us, 0.95), spans_us[-1])
        spread = percent(high - low, middle)
        rows.append(
            (entry.label, str(len(spans_us)), *(f"{value:,.1f}" for value in figures), spread)
        )
    headings = ("solution", "n", "min", "25 %", "median", "75 %", "95 %", "max", "IQR / median")
    return Grid("Samples of the bare pass, us", headings, tuple(rows))


def environment(data: ReportData) -> Grid:
    """What the records were made with; of a fact that differs, every value and its records."""
    runs = [entry.run for entry in data.entries]
    libraries = sorted({name for run in runs for name in run.environment.versions})
    facts: list[tuple[str, Callable[[Run], str]]] = [
        ("device", lambda run: run.environment.device),
        ("compute capability", lambda run: run.environment.compute_capability or MISSING),
        ("multiprocessors", lambda run: count(run.environment.multiprocessors)),
        ("driver", lambda run: run.environment.driver or MISSING),
        ("CUDA", lambda run: run.environment.cuda or MISSING),
        ("Python", lambda run: run.environment.python or MISSING),
        *((name, _version(name)) for name in libraries),
        ("moeprof", lambda run: run.moeprof),
        ("routing", lambda run: run.routing.label),
        ("weights, seed", lambda run: f"{run.routing.weights_recipe}, {run.routing.seed}"),
        ("preset", lambda run: _preset(run)),
        ("L2 before each iteration", lambda run: run.settings.l2),
        ("passes", lambda run: ", ".join(run.settings.passes)),
    ]
    rows = [(name, _values([value(run) for run in runs])) for name, value in facts]
    rows.append(("ceilings", data.ceilings_label))
    rows.append(("newest record", data.newest))
    return Grid("Environment and settings", ("", ""), tuple(rows), left=2)


def notes(entry: Entry) -> tuple[phrases.Note, ...]:
    """What is to be known about one record beside its tables."""
    heading = phrases.heading(entry.run)
    told = [note for note in heading if note[0] not in ("solution", "workload")]
    return (*told, *phrases.notes(entry.run, entry.profile))


def warnings(data: ReportData) -> tuple[str, ...]:
    """Every doubt about every record; the same doubt about many is said once."""
    by_sentence: dict[str, list[str]] = {}
    for entry in data.entries:
        where = f"{entry.label} at T = {entry.run.workload.seq_len:,}"
        doubts = [entry.problem] if entry.problem else []
        if entry.profile is not None and entry.profile.trust.verdict == "differ":
            doubts.append("the readings of the orchestration differ")
        doubts += phrases.warnings(entry.run, entry.profile)
        doubts += parity_doubts(entry.run)
        if entry.run.solution.stand_ins:
            doubts.append(f"torch twins stand in for {'; '.join(entry.run.solution.stand_ins)}")
        for doubt in dict.fromkeys(doubts):
            by_sentence.setdefault(doubt, []).append(where)
    return (*data.left_out, *(f"{text}: {_some(where)}" for text, where in by_sentence.items()))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The ``share`` quantile of sorted values, linear between neighbours."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _ledger_row(row: FloorRow) -> tuple[str, ...]:
    work, needed, executed = row.work, row.work.necessary, row.executed
    floor = row.factors
    rows_needed = None if executed.rows is None else needed.rows
    star = "*" if row.declared else ""
    return (
        work.name + star,
        number(rows_needed),
        number(executed.rows),
        times(_ratio(executed.rows, rows_needed)),
        _mega(needed.bytes),
        _mega(executed.bytes),
        times(_ratio(executed.bytes, needed.bytes)),
        _giga(needed.flops),
        _giga(executed.flops),
        times(_ratio(executed.flops, needed.flops)) if executed.flops else MISSING,
        count(work.launches),
        us(floor.floor_ns) if floor else MISSING,
        f"{floor.amplification:,.2f}x" if floor else MISSING,
        percent(floor.efficiency, 1) if floor else MISSING,
        us(work.busy_ns),
        number(row.gigabytes_per_second),
        number(row.teraflops),
        row.bound or MISSING,
    )


def _latency(entry: Entry | None) -> str:
    if entry is None:
        return MISSING
    if not entry.run.correctness.passed:
        return "WRONG"
    return MISSING if entry.latency_us is None else f"{entry.latency_us:,.1f}"


def _if_any(stages: Sequence[StageProfile], column: tuple[str, str]) -> list[tuple[str, str]]:
    return [column] if any(getattr(stage, column[1]) for stage in stages) else []


def _version(name: str) -> Callable[[Run], str]:
    return lambda run: run.environment.versions.get(name, MISSING)


def _preset(run: Run) -> str:
    found = run.settings
    return (
        f"{found.preset}: {found.warmup} warm-ups, {found.iterations} iterations, "
        f"{found.trials} trials"
    )


def _values(found: Sequence[str]) -> str:
    """The value, or each one with the number of records that have it."""
    counts = {value: found.count(value) for value in sorted(set(found))}
    if len(counts) == 1:
        return found[0]
    return "; ".join(f"{value} ({number} records)" for value, number in counts.items())


def _some(where: Sequence[str]) -> str:
    if len(where) <= 4:
        return ", ".join(where)
    return f"{', '.join(where[:3])} and {len(where) - 3} more"


def _on_cpu(data: ReportData) -> bool:
    return all(entry.run.environment.device_kind == "cpu" for entry in data.entries)


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _mega(amount: int | None) -> str:
    return MISSING if amount is None else f"{amount / 1e6:,.2f}"


def _giga(amount: int | None) -> str:
    return MISSING if not amount else f"{amount / 1e9:,.1f}"
