"""What a bench says in words: what was measured and how, who is fastest, what failed, doubts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from moeprof.bench.cells import Bench, Cell
from moeprof.bench.conditions import Conditions, doubts, sm_clocks, stand_ins
from moeprof.bench.figures import METRICS, Metric, latency_us, samples, why_no_graph
from moeprof.bench.summary import mean, speedups
from moeprof.bench.winners import BETWEEN_CARDS, BETWEEN_PROCESSES, wins
from moeprof.ledger.necessary import AXES
from moeprof.records import Run
from moeprof.reports.bench_grids import Verdicts

Note = tuple[str, str]  # label, sentence
MOST_LISTED = 6
ACCOUNT_NOTE = (
    "span = GEMM + other + no step (work that the definition does not ask for) + gaps (launch "
    "latency, waits between streams) + host (the GPU waits for a launch); GEMM rows: executed / "
    "needed; behind: this span less the fastest's, split by cause"
)


def title(bench: Bench) -> str:
    """How many of what."""
    competing = len(bench.solutions)
    return f"{_number(competing, 'solution')} on {_number(len(bench.workloads), 'workload')}"


def headline(bench: Bench, verdicts: Verdicts) -> tuple[str, ...]:
    """Who wins, by each timer; the most wins first."""
    found = []
    for metric in METRICS:
        own = verdicts[metric]
        among = sum(one is not None for one in own)
        if not among:
            continue
        won = sorted((-wins(own, name), name) for name in bench.solutions)
        shown = [f"{name} on {-count}" for count, name in won if count]
        tied = sum(one is not None and one.winner is None for one in own)
        said = f"{', '.join(shown) or f'tied on {tied}'} of {_number(among, 'workload')}"
        rest = f", {tied} tied" if tied and shown else ""
        found.append(f"Fastest {_timed(metric)}: {said}{rest}")
    return tuple(found)


def averages(bench: Bench) -> tuple[str, ...]:
    """Mean speedups over all workloads, by each timer, the largest first."""
    found = []
    for metric in METRICS:
        means = [
            (one.geometric, one.arithmetic, name, one.whole)
            for name in bench.solutions
            if (one := mean(speedups(bench, name, metric), len(bench.workloads))) is not None
        ]
        shown = [
            f"{name} {geometric:.1f}x" + " (not all workloads)" * (not whole)
            for geometric, _, name, whole in sorted(means, key=lambda one: (-one[0], one[2]))
        ]
        if shown:
            over = f"Speedup over {bench.reference} {_timed(metric)}, geometric mean"
            found.append(f"{over}: {', '.join(shown)}")
    return tuple(found)


def header(bench: Bench, groups: Sequence[Conditions]) -> tuple[Note, ...]:
    """Where, on what and how; only what is known."""
    runs = _runs(bench)
    if not runs:
        return ()
    notes = [
        ("machine", _machine(runs)),
        ("card", _card(runs)),
        ("libraries", _versions(runs)),
        ("definition", _definition(runs)),
        ("routing", _routing(runs)),
        ("settings", _settings(runs)),
        ("eager", _eager(bench, runs)),
        ("graph", _graph(bench, runs)),
        ("speedup", _speedup(bench)),
        ("winner", _winner_rule()),
        ("clocks", _clocks(bench, runs)),
        ("measured", _measured(runs)),
    ]
    return tuple(note for note in notes if note[1])


def warnings(bench: Bench, groups: Sequence[Conditions]) -> tuple[str, ...]:
    """What a reader must know first: conditions that differ, doubts, what is left out."""
    found = [_mixed(groups)] if len(groups) > 1 else []
    found += _different_work(bench)
    found += [*doubts(bench), *stand_ins(bench), *bench.left_out]
    runs = _runs(bench)
    if runs and all(run.environment.device_kind == "cpu" for run in runs):
        found.append("CPU timings: not GPU performance")
    if not bench.has_reference:
        found.append(_no_reference(bench))
    return tuple(found)


def failures(bench: Bench) -> tuple[str, ...]:
    """A line for each failure; the same one of a solution on many workloads is told once."""
    found: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in bench.every_cell:
        if cell.failure is not None:
            message = " ".join(cell.failure.message.split())
            found.setdefault((cell.solution, cell.kind, message), []).append(cell)
    return tuple(
        f"{solution} at T = {_where(cells)}: {kind}: {message}"
        for (solution, kind, message), cells in found.items()
    )


def missing(bench: Bench) -> tuple[str, ...]:
    """A line for each solution with cells that nobody measured."""
    found = []
    for name in bench.solutions:
        lost = [cell for cell in bench.column(name) if cell.kind == "missing"]
        if lost:
            found.append(f"{name} was not measured at T = {_where(lost)}")
    return tuple(found)


def _where(cells: Sequence[Cell]) -> str:
    """The workloads of some cells, as far as a line holds them."""
    if len(cells) == 1:
        return f"{cells[0].workload.seq_len:,} ({cells[0].workload.name})"
    shown = ", ".join(f"{cell.workload.seq_len:,}" for cell in cells[:MOST_LISTED])
    rest = f" and {len(cells) - MOST_LISTED} more" if len(cells) > MOST_LISTED else ""
    return f"{shown}{rest} ({len(cells)} workloads)"


def _machine(runs: Sequence[Run]) -> str:
    found = []
    for run in runs:
        here = run.environment
        parts = [f"compute capability {here.compute_capability}"] * bool(here.compute_capability)
        parts += [f"{here.multiprocessors} SMs"] * bool(here.multiprocessors)
        parts += [f"driver {here.driver}"] * bool(here.driver)
        found.append(here.device + (f" ({', '.join(parts)})" if parts else ""))
    return _counted(found)


def _card(runs: Sequence[Run]) -> str:
    """Which GPU of its model; nothing on a CPU."""
    on_gpu = [run.environment for run in runs if run.environment.device_kind == "cuda"]
    return _counted([environment.card or "not read" for environment in on_gpu]) if on_gpu else ""


def _versions(runs: Sequence[Run]) -> str:
    names = dict.fromkeys(name for run in runs for name in run.environment.versions)
    shown = [f"Python {_set(run.environment.python for run in runs)}"]
    cuda = {run.environment.cuda for run in runs if run.environment.cuda}
    shown += [f"CUDA {_set(cuda)}"] if cuda else []
    for name in names:
        own = [run.environment.versions[name] for run in runs if name in run.environment.versions]
        shown.append(f"{name} {_set(own)}")
    return ", ".join(shown)


def _definition(runs: Sequence[Run]) -> str:
    found = []
    for run in runs:
        workload = run.workload
        sizes = workload.constants
        axes = ", ".join(f"{name} {sizes[name]:,}" for name in AXES if name in sizes)
        found.append(workload.definition + (f" ({axes})" if axes else ""))
    return _counted(found)


def _routing(runs: Sequence[Run]) -> str:
    return _counted(
        [
            f"{run.routing.label}, seed {run.routing.seed}; weights {run.routing.weights_recipe}"
            for run in runs
            if run.workload.has_definition
        ]
    )


def _settings(runs: Sequence[Run]) -> str:
    found = []
    for run in runs:
        own = run.settings
        l2 = "L2 flushed before each" if own.l2 == "flush" else "L2 left warm"
        found.append(
            f"preset {own.preset}: {own.warmup} warm-ups, {own.iterations} iterations, "
            f"{own.trials} trials, {l2}; right within rtol {own.rtol:g}, atol {own.atol:g} for "
            f"{100 * own.required_matched_ratio:g} % and a relative L2 of {own.max_relative_l2:g}"
        )
    return _counted(found)


def _eager(bench: Bench, runs: Sequence[Run]) -> str:
    counts = {len(samples(run, "eager")) for run in runs} - {0}
    if not counts:
        return ""
    timers = dict.fromkeys(workload.timer for workload in bench.workloads if workload.timer)
    words = {
        "CUDA events": "between the outer pair of CUDA events of the pass bare",
        "host clock": "wall clock of the pass bare",
    }
    where = ", ".join(words.get(timer, timer) for timer in timers)
    return f"median of {_span(counts)} samples, {where}"


def _graph(bench: Bench, runs: Sequence[Run]) -> str:
    counts = {len(samples(run, "graph")) for run in runs} - {0}
    whys = dict.fromkeys(
        f"{cell.solution} {why}"
        for cell in bench.every_cell
        if cell.measured is not None and (why := why_no_graph(cell.measured))
    )
    said = []
    if counts:  # none on a CPU
        said.append(f"median of {_span(counts)} replays of one CUDA graph, the pass graph")
    # the reason goes on with advice: its first clause is enough here
    said += [f"{why.split(';')[0]}" for why in list(whys)[:2]]
    return "; ".join(said)


def _speedup(bench: Bench) -> str:
    if not bench.has_reference:
        return _no_reference(bench)
    captured = any(latency_us(cell, "graph") is not None for cell in bench.references)
    why = "one scale for both" if captured else "the reference was not captured as a graph"
    return f"eager latency of {bench.reference} / own latency, eager or graph ({why})"


def _no_reference(bench: Bench) -> str:
    return f"no speedups: {bench.reference} has no latency here to compare with"


def _winner_rule() -> str:
    return (
        "the lowest median, if every other one is slower by more than the 95 % interval of the "
        f"difference and than {100 * BETWEEN_PROCESSES:g} % ({100 * BETWEEN_CARDS:g} % where the "
        "card is not known to be the same), in all trials against all trials; else a tie"
    )


def _clocks(bench: Bench, runs: Sequence[Run]) -> str:
    found = sm_clocks(bench)
    if found is None:
        return ""
    watts = [clock.power_w for run in runs for clock in run.clocks]
    why = Counter(reason for run in runs for reason in {r for c in run.clocks for r in c.throttle})
    shown = [f"{name} in {number} cells" for name, number in sorted(why.items())]
    low, middle, high = found
    return (
        f"SM {low:,.0f} to {high:,.0f} MHz (median {middle:,.0f}), {min(watts):,.0f} to "
        f"{max(watts):,.0f} W; clock reasons: {', '.join(shown) or 'none'}"
    )


def _measured(runs: Sequence[Run]) -> str:
    moments = sorted(run.created for run in runs)
    when = moments[0] if moments[0] == moments[-1] else f"{moments[0]} to {moments[-1]}"
    return f"{when} with moeprof {_set(run.moeprof for run in runs)}"


def _mixed(groups: Sequence[Conditions]) -> str:
    shown = []
    for group in groups:
        facts = ", ".join(f"{name} {value or 'unknown'}" for name, value in group.differing)
        shown.append(f"[{group.letter}] {facts}: {', '.join(group.solutions)}")
    return f"not all cells were measured under the same conditions: {'; '.join(shown)}"


def _different_work(bench: Bench) -> list[str]:
    """Rows of one uuid that are told apart by what they really ran."""
    by_uuid: dict[str, list[str]] = {}
    for workload in bench.workloads:
        by_uuid.setdefault(workload.uuid, []).append(workload.name)
    return [
        f"{len(names)} rows are of one workload but not of the same work, and are not compared: "
        f"{'; '.join(names)}"
        for names in by_uuid.values()
        if len(names) > 1
    ]


def _runs(bench: Bench) -> list[Run]:
    return [cell.measured for cell in bench.every_cell if cell.measured is not None]


def _counted(found: Sequence[str]) -> str:
    """The value, or each one with the number of records that have it."""
    counts = Counter(found)
    if len(counts) == 1:
        return found[0]
    return "; ".join(f"{value} ({number} records)" for value, number in sorted(counts.items()))


def _set(found: Iterable[str]) -> str:
    return " / ".join(sorted(set(found)))


def _span(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _timed(metric: Metric) -> str:
    return "launched eagerly" if metric == "eager" else "as a CUDA graph"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
