"""The tables of a bench as grids of marked strings, the same ones for every format.

Stress: the best of a row beyond the noise and those that tie for it (both have a sign of their own
in every format, so that nothing is lost where there is no colour), what is strong only (the largest
of some means, whose noise nobody knows), and what failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from moeprof.bench.cells import Bench, Cell, CellKind
from moeprof.bench.figures import Metric, latency_us, ratio, speedup
from moeprof.bench.summary import Mean, Regime, Summary, mean, ratios, regimes, speedups, summaries
from moeprof.bench.winners import Verdict
from moeprof.reports.units import MISSING, percent

Stress = Literal["", "best", "tie", "strong", "failed"]
Verdicts = Mapping[Metric, Sequence[Verdict | None]]

# what a failed cell shows; the failure's own line says it in full
SHORT: Mapping[CellKind, str] = {
    "wrong result": "WRONG",
    "timeout": "timeout",
    "crashed": "crashed",
    "not available": "n/a",
    "error": "error",
    "interrupted": "cut off",
    "missing": MISSING,
    "measured": MISSING,
}
PARTIAL = "+"  # behind a mean over fewer workloads than there are
EVERY_REGIME = "all"


@dataclass(frozen=True, slots=True)
class Mark:
    """One cell of a table."""

    text: str
    stress: Stress = ""


@dataclass(frozen=True, slots=True)
class MarkedGrid:
    """A table. keys: leading columns that name a row; words: columns of words, by position.

    dropped: headings that may go where space lacks, the first one first. caption: below it.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Mark, ...], ...]
    keys: int = 1
    words: tuple[int, ...] = (0,)
    dropped: tuple[str, ...] = ()
    caption: str = ""


def latency_grid(
    bench: Bench, metric: Metric, verdicts: Verdicts, letters: Mapping[str, str]
) -> MarkedGrid:
    """Every workload by every solution, medians, and who is fastest."""
    timer = _timer(bench)
    where = {
        "eager": f"Eager latency, us: median of the pass bare, {timer}",
        "graph": "Graph latency, us: median of the pass graph, the replayed CUDA graph",
    }
    reference = (bench.reference,) if metric == "eager" and _shows_reference(bench) else ()
    rows = []
    for position, workload in enumerate(bench.workloads):
        found = verdicts[metric][position]
        base = (_latency(bench.references[position], metric),) * len(reference)
        rows.append(
            (
                Mark(f"{workload.seq_len:,}"),
                Mark(workload.name),
                *map(Mark, _sizes(bench, position)),
                *base,
                *(
                    Mark(_latency(cell, metric).text, _stress(cell, found))
                    for cell in bench.cells[position]
                ),
                Mark(_winner(found)),
            )
        )
    names = [_lettered(name, letters) for name in (*reference, *bench.solutions)]
    headings = ("T", "workload", "offset", "P", "A", *names, "winner")
    return MarkedGrid(
        where[metric],
        headings,
        tuple(rows),
        keys=5,
        words=(1, len(headings) - 1),
        dropped=("offset", "A", "winner", "workload", "P"),
    )


def speedup_grid(bench: Bench, metric: Metric, verdicts: Verdicts) -> MarkedGrid:
    """Speedups over the reference's eager latency."""

    def value(position: int, cell: Cell) -> float | None:
        return speedup(cell, bench.references[position], metric)

    what = "Eager" if metric == "eager" else "Graph"
    title = f"{what} speedup over the eager latency of {bench.reference}"
    return _figures(bench, title, metric, verdicts, value)


def ratio_grid(bench: Bench, metric: Metric, verdicts: Verdicts) -> MarkedGrid:
    """How many times faster than the baseline each is, by the same timer."""

    def value(position: int, cell: Cell) -> float | None:
        base = bench.column(bench.baseline)[position]
        return ratio(cell, base, metric)

    what = "Eager" if metric == "eager" else "Graph"
    title = f"{what}: how many times faster than {bench.baseline} (latency of it / own)"
    return _figures(bench, title, metric, verdicts, value)


def regime_grids(bench: Bench, metrics: Sequence[Metric]) -> tuple[MarkedGrid, ...]:
    """Every table by regime that says anything; of one workload there is none."""
    if len(bench.workloads) < 2:
        return ()
    found = []
    if bench.has_reference:
        found += [regime_grid(bench, which, metrics) for which in ("arithmetic", "geometric")]
    if len(bench.solutions) > 1:
        found.append(regime_grid(bench, "ratio", metrics))
    return tuple(found)


def regime_grid(
    bench: Bench, which: Literal["arithmetic", "geometric", "ratio"], metrics: Sequence[Metric]
) -> MarkedGrid:
    """A line a regime and timer; the last ones are over all workloads."""
    titles = {
        "arithmetic": f"Speedup over {bench.reference} by regime, arithmetic mean (as in published "
        "tables of this forward)",
        "geometric": f"Speedup over {bench.reference} by regime, geometric mean (the reference "
        "does not decide who leads)",
        "ratio": f"Times faster than {bench.baseline} by regime, geometric mean of the pairwise "
        "ratios",
    }
    rows: list[tuple[Mark, ...]] = []
    partial = False
    for metric in metrics:
        for name, span, members in _spans(bench):
            means = [_mean_of(bench, s, metric, which, members) for s in bench.solutions]
            partial = partial or any(m is not None and not m.whole for m in means)
            cells = [_shown_mean(one, which) for one in means]
            best = _largest(means, which)
            rows.append(
                (
                    Mark(f"{name} ({span})" if span else name),
                    Mark(metric),
                    Mark(str(len(members))),
                    *(
                        Mark(text, "strong" if position == best else "")
                        for position, text in enumerate(cells)
                    ),
                )
            )
    caption = f"{PARTIAL} over the workloads that it has, not all of them" if partial else ""
    return MarkedGrid(
        titles[which],
        ("regime", "timer", "n", *bench.solutions),
        tuple(rows),
        keys=3,
        words=(0, 1),
        dropped=("n",),
        caption=caption,
    )


def summary_grid(bench: Bench, metric: Metric, verdicts: Verdicts) -> MarkedGrid:
    """A line a solution over all workloads."""
    found = summaries(bench, metric, verdicts[metric])
    what = "Eager" if metric == "eager" else "Graph"
    over = f": speedup over {bench.reference}, wins" if bench.has_reference else ""
    best_wins = max((one.wins for one in found), default=0)
    return MarkedGrid(
        f"{what}, all workloads{over}",
        (
            *("solution", "n", "mean", "geometric mean", "median", "min", "max", "CV"),
            *("wins", "ties", f"x {bench.baseline}"),
        ),
        tuple(_summary_row(one, best_wins) for one in found),
        dropped=("median", "CV", "min", "max"),
        caption=f"x {bench.baseline}: geometric mean of how many times faster than it",
    )


def kinds(bench: Bench) -> tuple[CellKind, ...]:
    """Every kind of cell without figures that the tables show."""
    found = dict.fromkeys(cell.kind for cell in bench.every_cell)
    return tuple(kind for kind in SHORT if kind in found and kind != "measured")


def legend(bench: Bench) -> str:
    """What the marks of the tables mean."""
    said = ["* fastest beyond the noise", "~ tied for the fastest"]
    failed = [f"{SHORT[kind]} {kind}" for kind in kinds(bench) if SHORT[kind] != kind]
    return "; ".join([*said, *failed])


def four_digits(value: float) -> str:
    """A time with four significant digits, none behind the point from 1000 on."""
    digits = 0 if value >= 999.95 else 1 if value >= 9.9995 else 2
    return f"{value:,.{digits}f}"


def _figures(
    bench: Bench,
    title: str,
    metric: Metric,
    verdicts: Verdicts,
    value: Callable[[int, Cell], float | None],
) -> MarkedGrid:
    rows = []
    for position, workload in enumerate(bench.workloads):
        found = verdicts[metric][position]
        figures = [(cell, value(position, cell)) for cell in bench.cells[position]]
        rows.append(
            (
                Mark(f"{workload.seq_len:,}"),
                Mark(workload.name),
                *(
                    Mark(_times(figure), _stress(cell, found))
                    if figure is not None
                    else _absent(cell)
                    for cell, figure in figures
                ),
                Mark(_winner(found)),
            )
        )
    headings = ("T", "workload", *bench.solutions, "winner")
    words = (1, len(headings) - 1)
    return MarkedGrid(title, headings, tuple(rows), 2, words, ("winner", "workload"))


def _latency(cell: Cell, metric: Metric) -> Mark:
    found = latency_us(cell, metric)
    return _absent(cell) if found is None else Mark(four_digits(found))


def _absent(cell: Cell) -> Mark:
    return Mark(SHORT[cell.kind], "failed" if cell.failure is not None else "")


def _stress(cell: Cell, found: Verdict | None) -> Stress:
    if cell.failure is not None:
        return "failed"
    if found is None or cell.solution not in found.names:
        return ""
    return "best" if found.winner else "tie"


def _winner(found: Verdict | None) -> str:
    if found is None:
        return MISSING
    return found.winner or f"tie: {', '.join(found.names)}"


def _sizes(bench: Bench, position: int) -> tuple[str, ...]:
    workload = bench.workloads[position]
    sizes = (workload.local_expert_offset, workload.local_pairs, workload.active_experts)
    return tuple(MISSING if size is None else f"{size:,}" for size in sizes)


def _shows_reference(bench: Bench) -> bool:
    return bench.has_reference and bench.reference not in bench.solutions


def _lettered(name: str, letters: Mapping[str, str]) -> str:
    return f"{name} [{letters[name]}]" if letters.get(name) else name


def _timer(bench: Bench) -> str:
    timers = dict.fromkeys(workload.timer for workload in bench.workloads if workload.timer)
    words = {"CUDA events": "between the outer pair of CUDA events", "host clock": "wall clock"}
    return ", ".join(words.get(timer, timer) for timer in timers)


def _spans(bench: Bench) -> list[tuple[str, str, tuple[int, ...]]]:
    """(name, tokens, rows) of each regime, then of all where there are several."""
    found: list[Regime] = list(regimes(bench))
    spans = [(one.name, one.span, one.rows) for one in found]
    if len(found) > 1:
        spans.append((EVERY_REGIME, "", tuple(range(len(bench.workloads)))))
    return spans


def _mean_of(
    bench: Bench, solution: str, metric: Metric, which: str, rows: Sequence[int]
) -> Mean | None:
    of = ratios if which == "ratio" else speedups
    return mean(of(bench, solution, metric, rows), len(rows))


def _shown_mean(found: Mean | None, which: str) -> str:
    if found is None:
        return MISSING
    value = found.arithmetic if which == "arithmetic" else found.geometric
    return _times(value) + PARTIAL * (not found.whole)


def _largest(means: Sequence[Mean | None], which: str) -> int | None:
    """Which mean is the largest; None where one is over fewer workloads: they do not compare."""
    if len(means) < 2 or any(one is None or not one.whole for one in means):
        return None
    values = [m.arithmetic if which == "arithmetic" else m.geometric for m in means if m]
    best = max(values)
    return values.index(best) if values.count(best) == 1 else None


def _summary_row(one: Summary, best_wins: int) -> tuple[Mark, ...]:
    whole = one.speedup
    n = str(one.measured) if one.measured == one.among else f"{one.measured} of {one.among}"
    return (
        Mark(one.solution),
        Mark(n),
        Mark(_times(whole.arithmetic if whole else None)),
        Mark(_times(whole.geometric if whole else None)),
        Mark(_times(one.median)),
        Mark(_times(one.minimum)),
        Mark(_times(one.maximum)),
        Mark(percent(one.variation, 1, 0)),
        Mark(str(one.wins), "strong" if one.wins == best_wins > 0 else ""),
        Mark(str(one.ties)),
        Mark(_shown_mean(one.ratio, "geometric")),
    )


def _times(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.2f}x"
