"""Writes docs/bench-h200.md: the five published comparisons on a B200 beside an H200's records.

    .venv/bin/python -m scripts.bench_h200 [RECORDS] > docs/bench-h200.md

RECORDS: traces/recorded/h200-bench by default. What was published is docs/bench-b200.json. Every
figure and every verdict on the page is computed from these two; a test holds the page to them.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from moeprof.bench.causes import explain
from moeprof.bench.cells import assemble
from moeprof.bench.conditions import conditions, letters
from moeprof.bench.figures import (
    METRICS,
    geometric_mean,
    latency_us,
)
from moeprof.bench.winners import verdicts
from moeprof.reports import bench_phrases as phrases
from moeprof.reports.bench_details import account_grid, stage_grid
from moeprof.reports.bench_grids import latency_grid, legend, regime_grid, summary_grid
from moeprof.reports.bench_markdown import grid_lines
from moeprof.reports.compare_markdown import escape, rows
from moeprof.storage.store import load
from scripts.bench_h200_claims import CLAIMS, Claim
from scripts.bench_h200_data import ROOT, Here, Published, facts, groups_of, published

RECORDS = ROOT / "traces" / "recorded" / "h200-bench"
ORDER = (
    *("sglang_v1", "sglang_v2", "triton_v1", "triton_v2"),
    *("flashinfer_moe", "cutedsl_v3", "cutedsl_v3_2", "triton_v3"),
)
SHOWN_STAGES = (56, 14107)


def main(records: Path = RECORDS) -> str:
    """The page."""
    runs = [load(path) for path in sorted(records.rglob("*.json.gz"))]
    here = Here(assemble(runs, (), [n for n in ORDER if any(r.solution.name == n for r in runs)]))
    every = published()
    lines = [*_introduction(here, every), *_differs(here, every)]
    for number, one in enumerate(every, start=1):
        lines += [*_table(number, one, here), *_claims(CLAIMS[number - 1](one, here))]
    lines += _all_systems(here)
    return "\n".join(lines).rstrip("\n") + "\n"


def _introduction(here: Here, every: Sequence[Published]) -> list[str]:
    groups = conditions(here.bench)
    dates = sorted({one.date for one in every})
    lines = [
        "# The published comparisons of this forward, on an H200",
        "",
        "Five bench notes compare solutions of this forward on a B200 "
        f"({dates[0]} to {dates[-1]}).",
        "Here each of their tables stands beside the same solutions on one NVIDIA H200, from the",
        "records of one `moeprof bench`, `traces/recorded/h200-bench`. This page is written by",
        "`python -m scripts.bench_h200` from those records and `docs/bench-b200.json`; no measured",
        "figure in it is typed. The causes named are tested one by one in `docs/findings.md`.",
        "",
        "A published ratio 'holds' if its logarithm comes out within a third here, and 'holds in",
        "kind' if only its direction does. A winner is one beyond the noise, else it is a tie.",
        "",
        *_bullets(f"{label}: {escape(text)}" for label, text in phrases.header(here.bench, groups)),
    ]
    for warning in phrases.warnings(here.bench, groups):
        lines += [f"> **{escape(warning)}**", ""]
    return lines


def _differs(here: Here, every: Sequence[Published]) -> list[str]:
    tokens = [workload.seq_len for workload in here.bench.workloads]
    first, last = min(tokens), max(tokens)
    known = facts()
    there = [known["reference_ms"][str(t)] for t in (first, last)]
    own = [latency_us(here.cell(here.bench.reference, t), "eager") or 0.0 for t in (first, last)]
    host = [here.account("triton_v2", t) for t in (first, last)]
    shares = [100 * (one.host_us or 0.0) / one.span_us for one in host]
    b200, h200 = known["machine"]["b200"], known["machine"]["h200"]
    return [
        "## What is not the same",
        "",
        *_bullets(
            (
                "The reference. Both sides divide by a PyTorch reference, but not by the same one: "
                "the notes' materialises the dequantised weights of all 32 local experts, this "
                "one takes expert by expert, and only those with a token. It needs "
                f"{own[0] / 1e3:.1f} ms at T={first:,} and {own[1] / 1e3:.1f} ms at T={last:,}; "
                f"public traces of the notes' show {there[0][0]} to {there[0][1]} and "
                f"{there[1][0]:.0f} to {there[1][1]:.0f} ms on a B200. At small T speedups are "
                "lower here for that reason alone. What can be compared is the ratio of two "
                "solutions: the reference cancels out.",
                "The timer. The notes time a call between two events, so that the host's "
                "launches count wherever the GPU waits for them: 'eager' here. 'graph' replays the "
                "same kernels as one CUDA graph, without the host. At small T the host decides: "
                f"the GPU waits for it during {shares[0]:.0f} % of triton_v2's span at "
                f"T={first:,} and {shares[1]:.0f} % at T={last:,}, and the hosts of the two "
                "machines are not the same.",
                "`flashinfer_moe`. The notes run `trtllm_fp8_block_scale_moe`, which needs SM100. "
                "On SM90 it is `cutlass_fused_moe`, which takes bfloat16 activations: they are "
                "dequantised before it and quantised again inside.",
                "`cutedsl_v3`, `cutedsl_v3_2`. The same design (flat layout, aligned to 128 rows; "
                "v3_2 quantises in the epilogue of GEMM1), but other kernels: the notes' are for "
                "SM100, these were written for SM90.",
                "The routing. That of the 19 recorded workloads is not public; a seeded uniform "
                "router takes its place, so that local pairs and active experts differ.",
                f"The machine. Dense FP8 {h200['fp8_petaflops']} against {b200['fp8_petaflops']} "
                f"PFLOP/s, memory {h200['memory_terabytes_per_second']} against "
                f"{b200['memory_terabytes_per_second']} TB/s, by the data sheets.",
                *_printed(every),
            )
        ),
    ]


def _printed(every: Sequence[Published]) -> list[str]:
    """Notes whose own means are not those of their tables."""
    found = []
    for number, one in enumerate(every, start=1):
        means = [statistics.fmean(one.column(name)) for name in one.solutions]
        if any(abs(m - p) > 0.01 for m, p in zip(means, one.printed_means, strict=False)):
            printed = ", ".join(f"{mean:.2f}x" for mean in one.printed_means)
            own = ", ".join(f"{mean:.2f}x" for mean in means)
            found.append(f"note {number} prints {printed}, its table gives {own}")
    if not found:
        return []
    return [
        f"Means. Those of published figures are taken anew from the tables: {'; '.join(found)}."
    ]


def _table(number: int, one: Published, here: Here) -> list[str]:
    """Speedups of both machines, workload by workload and by regime; then the ratio of a pair."""
    pair = len(one.solutions) == 2
    headings = ["T", "workload"]
    for solution in one.solutions:
        headings += [f"{solution} B200", "eager", "graph"]
    if pair:
        headings += [f"{one.solutions[1]} / {one.solutions[0]} B200", "eager", "graph"]
    headings += ["fastest B200", "eager", "graph"]
    lines = [
        f"## {number}. {escape(one.title)} ({one.date})",
        "",
        "Speedup over each machine's own reference; eager and graph are this H200.",
        "",
    ]
    table = [_row(one, here, t) for t in one.speedups]
    names = {w.seq_len: w.name for w in here.bench.workloads}
    table = [[f"{t:,}", names[t], *row] for t, row in zip(one.speedups, table, strict=True)]
    lines += [*rows([escape(text) for text in headings], table, 2), ""]
    return [*lines, *_regimes(one, here)]


def _row(one: Published, here: Here, tokens: int) -> list[str]:
    values = one.speedups[tokens]
    own = {m: [here.speedup(s, m, tokens) for s in one.solutions] for m in METRICS}
    cells: list[str] = []
    for position, value in enumerate(values):
        cells += [_x(value), *(_x(own[metric][position]) for metric in METRICS)]
    if len(values) == 2:
        cells += [_ratio(values), *(_ratio(own[metric]) for metric in METRICS)]
    best = one.solutions[values.index(max(values))]
    return [
        *cells,
        escape(best),
        *(escape(here.fastest(one.solutions, metric, tokens)) for metric in METRICS),
    ]


def _regimes(one: Published, here: Here) -> list[str]:
    """Arithmetic means as in the notes; the geometric mean of all workloads beside them."""
    headings = ["mean of", "n"]
    for solution in one.solutions:
        headings += [f"{solution} B200", "eager", "graph"]
    table = [_mean_row(name, one, here, of, False) for name, of in groups_of(one)]
    table.append(_mean_row("all, geometric mean", one, here, list(one.speedups), True))
    if len(one.solutions) == 2:
        headings += ["ratio B200", "eager", "graph"]
    return [*rows([escape(text) for text in headings], table, 1), ""]


def _mean_row(
    name: str, one: Published, here: Here, tokens: list[int], geometric: bool
) -> list[str]:
    mean = geometric_mean if geometric else statistics.fmean
    there = [mean(one.column(solution, tokens)) for solution in one.solutions]
    own = {m: [here.mean(s, m, tokens, geometric) for s in one.solutions] for m in METRICS}
    cells: list[str] = []
    for position, value in enumerate(there):
        cells += [_x(value), *(_x(own[metric][position]) for metric in METRICS)]
    if len(there) == 2:
        cells += [_ratio(there), *(_ratio(own[metric]) for metric in METRICS)]
    return [name, str(len(tokens)), *cells]


def _claims(claims: Sequence[Claim]) -> list[str]:
    table = [(escape(c.said), escape(c.here), escape(c.verdict)) for c in claims]
    return [*rows(("the note says", "these records", "verdict"), table, 3), ""]


def _all_systems(here: Here) -> list[str]:
    bench = here.bench
    found, names = verdicts(bench), letters(bench, conditions(bench))
    lines = ["## 6. All systems, and why they differ", ""]
    lines += _bullets(
        escape(text) for text in (*phrases.headline(bench, found), *phrases.averages(bench))
    )
    for metric in METRICS:
        lines += grid_lines(latency_grid(bench, metric, found, names), 3)
    lines += [f"Bold: {escape(legend(bench))}.", ""]
    lines += grid_lines(regime_grid(bench, "geometric", METRICS), 3)
    for metric in METRICS:
        lines += grid_lines(summary_grid(bench, metric, found), 3)
    lines += [f"{escape(phrases.ACCOUNT_NOTE)}.", ""]
    positions = [i for i, w in enumerate(bench.workloads) if w.seq_len in SHOWN_STAGES]
    for one in explain(bench, positions):
        lines += grid_lines(account_grid(bench, one), 3)
        lines += grid_lines(stage_grid(bench, one, "graph"), 3)
    return lines


def _x(value: float) -> str:
    return f"{value:.2f}x"


def _ratio(values: Sequence[float]) -> str:
    return f"{values[1] / values[0]:.2f}"


def _bullets(sentences: Iterable[str]) -> list[str]:
    return [*(f"- {sentence}" for sentence in sentences), ""]


if __name__ == "__main__":
    sys.stdout.write(main(*map(Path, sys.argv[1:2])))
