"""What the published notes say, and whether the H200's records bear it out; each by a rule."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moeprof.bench.figures import METRICS, Metric, first_call_ms, geometric_mean
from moeprof.reports.bench_grids import four_digits
from scripts.bench_h200_data import Here, Published, groups_of

# a ratio holds within these factors of the published one's logarithm; it has a direction at all
# if it is beyond 1 % of 1, by which kernels differ between two processes
LESS, MORE, DIRECTION = 2 / 3, 3 / 2, 0.01


@dataclass(frozen=True)
class Claim:
    """What a note says, what these records say, and whether it holds."""

    said: str
    here: str
    verdict: str


def _claims_1(one: Published, here: Here) -> list[Claim]:
    slow, fast = one.solutions
    groups = dict(groups_of(one))
    launched = [here.launches(name, 56) for name in (slow, fast)]
    saved = launched[0] - launched[1]
    first = [first_call_ms(cell.run) or 0.0 for cell in here.bench.column(fast) if cell.run]
    rest = statistics.median(first[1:])
    large = {m: _mean_ratio(here, one, m, groups["very large"]) for m in METRICS}
    small = {m: _mean_ratio(here, one, m, groups["small"]) for m in METRICS}
    return [
        _wins(one, here, fast),
        _average(one, here),
        Claim(
            "the gain is larger at small sizes, where launches weigh more (1.22 against 1.13)",
            f"small {_both(small)}, very large {_both(large)}",
            "holds" if small["graph"] > large["graph"] else "does not hold: the opposite",
        ),
        Claim(
            "8 to 9 launches become 6: 2 to 3 fewer",
            f"GPU operations of one forward at T=56: {launched[0]:.0f} and {launched[1]:.0f}",
            f"holds: {saved:.0f} fewer, of more" if 2 <= saved <= 3 else "does not hold",
        ),
        Claim(
            "the first workload pays for compilation",
            f"first call of {fast}: {four_digits(first[0])} ms, median of the others "
            f"{four_digits(rest)} ms",
            "holds; no sample here has it"
            if first[0] > 10 * rest
            else "not seen: caches were warm (findings, 9)",
        ),
    ]


def _claims_2(one: Published, here: Here) -> list[Claim]:
    fast, slow = one.solutions
    groups = dict(groups_of(one))
    host = _host_shares(here, slow, [*groups["tiny"], *groups["small"]])
    most = max(one.speedups)
    gemm = here.account(slow, most).gemm_us / here.account(fast, most).gemm_us
    factor = (here.account(slow, most).rows_factor or 1) / (
        here.account(fast, most).rows_factor or 1
    )
    prepare = [
        sum(dict(a.busy).get(s, 0.0) for s in ("shuffle_rows", "prepare_moe_input")) / a.span_us
        for a in (here.account(slow, t) for t in one.speedups)
    ]
    counted = [here.launches(fast, t) for t in one.speedups]
    return [
        _wins(one, here, fast),
        *(
            _regime_claim(one, here, name, groups[name], "eager")
            for name in ("tiny", "small", "very large")
        ),
        Claim(
            "Python orchestration costs about 10 to 15 % at tiny and small T",
            f"the GPU waits for the host in {_percents(host)} of {slow}'s eager span there",
            "does not hold: more" if min(host) > 0.15 else "holds",
        ),
        Claim(
            "sgl_kernel's grouped GEMM is about 3x slower than FlashInfer's at very large T",
            f"its GEMMs take {gemm:.2f}x as long at T={most:,}, but run {factor:.2f}x the rows: "
            f"{gemm / factor:.2f}x a row",
            "does not hold: unneeded rows" if gemm / factor < 1.5 < gemm else "holds",
        ),
        Claim(
            "shuffle_rows and prepare_moe_input cost about 5 %",
            f"GPU busy in them: {_percents(prepare)} of the span (with their gaps: findings, 7)",
            "holds in kind" if max(prepare) < 0.10 else "does not hold",
        ),
        Claim(
            "FlashInfer launches one kernel",
            f"GPU operations of one forward: {min(counted):.0f} to {max(counted):.0f}",
            "holds" if max(counted) == 1 else "does not hold here",
        ),
    ]


def _claims_3(one: Published, here: Here) -> list[Claim]:
    slow, fast = one.solutions
    tiny = min(one.speedups)
    saved = {
        t: (_busy(here, slow, t, "swiglu_quant") - _busy(here, fast, t, "swiglu_quant"))
        / here.account(slow, t).span_us
        for t in one.speedups
    }
    small = [share for t, share in saved.items() if t < 901]
    large = [share for t, share in saved.items() if t >= 901]
    at_one = {m: here.us(slow, m, tiny) / here.us(fast, m, tiny) for m in METRICS}
    return [
        _average(one, here),
        Claim(
            f"T={tiny}: 1.70x, because a 1 GB workspace is allocated at every call",
            f"{_both(at_one)} here; the workspace alone has no effect that can be seen "
            "(findings, 1)",
            f"{_verdict(1.70, at_one['eager'])}; the cause does not",
        ),
        *(_regime_claim(one, here, n, dict(groups_of(one))[n], "graph") for n in ("very large",)),
        Claim(
            "native quantisation gives 10 to 15 % at all sizes",
            f"GPU time saved in swiglu_quant: {_percents(large)} of the span at T >= 901, "
            f"{_percents(small)} below",
            "holds at T >= 901 only" if max(small) < 0.10 < max(large) else "holds",
        ),
    ]


def _claims_4(one: Published, here: Here) -> list[Claim]:
    slow, fast = one.solutions
    groups = dict(groups_of(one))
    most = max(one.speedups)
    account = here.account(slow, most)
    host = (account.host_us or 0.0) / account.span_us
    return [
        _average(one, here),
        *(
            _regime_claim(one, here, name, groups[name], "eager")
            for name in ("medium", "very large")
        ),
        Claim(
            "at very large T Python-level overhead makes sglang fall behind",
            f"at T={most:,} the GPU waits for the host in {100 * host:.1f} % of the span; the "
            f"GEMMs run {account.rows_factor or 0:.2f}x the needed rows",
            "does not hold: unneeded rows" if host < 0.05 else "holds",
        ),
    ]


def _claims_5(one: Published, here: Here) -> list[Claim]:
    tokens = list(one.speedups)
    groups = dict(groups_of(one))
    eager = {name: here.mean(name, "eager", tokens) for name in one.solutions}
    ranked = sorted(eager, key=lambda name: -eager[name])
    there = sorted(one.solutions, key=lambda n: -statistics.fmean(one.column(n)))
    gain = {m: _times(here, "cutedsl_v3", "cutedsl_v3_2", m, tokens) for m in METRICS}
    spread = {name: _variation([here.speedup(name, "eager", t) for t in tokens]) for name in eager}
    steady = min(spread, key=lambda name: spread[name])
    most = max(tokens)
    account = here.account("triton_v2", most)
    gap = {m: _times(here, "cutedsl_v3_2", "flashinfer_moe", m, tokens) for m in METRICS}
    won = {m: here.won(one.solutions, m, tokens) for m in METRICS}
    counts = {
        m: ", ".join(
            f"{name} {won[m].count(name)}" for name in (*one.solutions, "tie") if name in won[m]
        )
        for m in METRICS
    }
    large = {
        m: _times(here, "triton_v2", "flashinfer_moe", m, groups["very large"]) for m in METRICS
    }
    shown = ", ".join(f"{name} {eager[name]:.1f}x" for name in ranked)
    return [
        Claim(
            f"ranking by mean speedup: {' > '.join(there)}",
            f"eager: {shown}",
            "holds" if ranked == there else "does not hold",
        ),
        Claim(
            "wins: triton_v2 13, flashinfer_moe 6, the CuTe DSL systems none",
            f"eager {counts['eager']}; graph {counts['graph']}",
            "holds" if won["eager"].count("triton_v2") > len(tokens) / 2 else "does not hold",
        ),
        Claim(
            "the CuTe DSL systems are 2.5 to 3 times slower than flashinfer_moe",
            f"cutedsl_v3_2 takes {_both(gap)} of flashinfer_moe's time (geometric means)",
            "holds" if gap["graph"] > 2 else "does not hold: other kernels",
        ),
        Claim(
            "quantising in GEMM1's epilogue makes v3.2 7.1 % faster than v3",
            f"{_both(gain)} (geometric mean of the ratios)",
            _verdict(1.071, gain["graph"]),
        ),
        Claim(
            "at very large T triton_v2 collapses to a third of flashinfer_moe",
            f"flashinfer_moe is {_both(large)} as fast there",
            _verdict(15.85 / 4.96, large["eager"]),
        ),
        Claim(
            "its scatter, gather and SwiGLU kernels dominate there",
            f"at T={most:,} the GEMMs are {100 * account.gemm_us / account.span_us:.0f} % of its "
            f"span, on {account.rows_factor or 0:.2f}x the needed rows; all other kernels "
            f"{100 * account.other_us / account.span_us:.0f} %",
            "does not hold" if account.gemm_us > account.other_us else "holds",
        ),
        Claim(
            "the CuTe DSL systems are the steadiest over sizes (CV 8.5 and 11.2 %)",
            ", ".join(f"{name} {100 * value:.0f} %" for name, value in spread.items()),
            "holds" if steady.startswith("cutedsl") else "does not hold",
        ),
    ]


CLAIMS: tuple[Callable[[Published, Here], list[Claim]], ...] = (
    _claims_1,
    _claims_2,
    _claims_3,
    _claims_4,
    _claims_5,
)


def _wins(one: Published, here: Here, solution: str) -> Claim:
    """Who is faster how often. A published win is a larger figure, whatever its noise."""
    among = len(one.speedups)
    there = sum(values.index(max(values)) == one.solutions.index(solution)
                for values in one.speedups.values())  # fmt: skip
    won = {m: here.won(one.solutions, m, list(one.speedups)) for m in METRICS}
    counts = {m: won[m].count(solution) for m in METRICS}
    ties = {m: won[m].count("tie") for m in METRICS}
    shown = "; ".join(f"{m} {counts[m]}, {ties[m]} tied" for m in METRICS)
    lost = {m: among - counts[m] - ties[m] for m in METRICS}
    if min(counts.values()) >= there:
        word = "holds"
    elif counts["graph"] >= there:
        word = "holds for the GPU; eagerly the host's noise hides it"
    else:
        word = "holds in kind" if all(counts[m] > lost[m] for m in METRICS) else "does not hold"
    return Claim(
        f"{solution} wins {there} of {among} workloads", f"beyond the noise: {shown}", word
    )


def _average(one: Published, here: Here) -> Claim:
    tokens = list(one.speedups)
    first, second = one.solutions
    there = statistics.fmean(one.column(second)) / statistics.fmean(one.column(first))
    own = {m: _mean_ratio(here, one, m, tokens) for m in METRICS}
    return Claim(
        f"{second} is {there:.2f}x as fast as {first} on average (ratio of the mean speedups)",
        _both(own),
        _verdict(there, own["eager"]),
    )


def _regime_claim(
    one: Published, here: Here, name: str, tokens: Sequence[int], judged: Metric
) -> Claim:
    first, second = one.solutions
    there = statistics.fmean(one.column(second, tokens)) / statistics.fmean(
        one.column(first, tokens)
    )
    own = {m: _mean_ratio(here, one, m, tokens) for m in METRICS}
    return Claim(
        f"{name}: {second} / {first} is {there:.2f}", _both(own), _verdict(there, own[judged])
    )


def _busy(here: Here, solution: str, tokens: int, stage: str) -> float:
    return dict(here.account(solution, tokens).busy).get(stage, 0.0)


def _host_shares(here: Here, solution: str, tokens: Sequence[int]) -> list[float]:
    found = [here.account(solution, t) for t in tokens]
    return [(one.host_us or 0.0) / one.span_us for one in found]


def _mean_ratio(here: Here, one: Published, metric: Metric, tokens: Sequence[int]) -> float:
    """The second solution's mean speedup / the first one's, as in the notes."""
    first, second = one.solutions
    return here.mean(second, metric, tokens) / here.mean(first, metric, tokens)


def _times(here: Here, slow: str, fast: str, metric: Metric, tokens: Sequence[int]) -> float:
    """How many times faster, geometric mean."""
    return geometric_mean([here.us(slow, metric, t) / here.us(fast, metric, t) for t in tokens])


def _variation(values: Sequence[float]) -> float:
    return statistics.stdev(values) / statistics.fmean(values)


def _verdict(there: float, own: float) -> str:
    """Of a published ratio (not 1) and the one found here."""
    effect = math.log(own) / math.log(there)
    if abs(own - 1) <= DIRECTION or effect < 0:
        return "does not hold"
    if LESS <= effect <= MORE:
        return "holds"
    return f"holds in kind: {'more' if effect > MORE else 'less'}"


def _both(own: dict[Metric, float]) -> str:
    return ", ".join(f"{metric} {value:.2f}x" for metric, value in own.items())


def _percents(shares: Sequence[float]) -> str:
    low, high = 100 * min(shares), 100 * max(shares)
    return f"{low:.0f} to {high:.0f} %" if round(low) != round(high) else f"{high:.0f} %"
