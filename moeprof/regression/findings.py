"""Numbers of one check to findings: each quantity's verdict in words, with its reason.

``decide`` says what holds; here only what is said of it. A reason is one sentence that a reader can
check against the figures beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from moeprof.regression.decide import PACE_TOLERANCE, Decision
from moeprof.regression.limits import Limits
from moeprof.regression.paces import CLOCK_OF
from moeprof.regression.policy import Policy
from moeprof.regression.statistics import Array
from moeprof.regression.values import Clock, Confirmation, Finding, Quantity, Verdict

# normal quantiles of a one-sided 5 % level and of 90 % power
SAME_LEVEL_AND_POWER = 1.645 + 1.282
SUSPECTED = "suspected"  # how the reason of a suspicion begins
MOST_PROCESSES = 50  # more than anybody would wait for


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The numbers of one check, [Q] each. processes: of both sides, all rounds together.

    medians_us: of both sides; intervals: low and high of the ratio; pace_gap: logarithm of how much
    slower the candidate's processes were; host_gap: and their hosts as a whole.
    """

    policy: Policy
    rounds: int
    processes: tuple[int, int]
    medians_us: tuple[Array, Array]
    intervals: tuple[Array, Array]
    rank_p: Array
    pace_gap: Array
    host_gap: float
    limits: Limits
    decision: Decision


def finding_of(judged: Judged, place: int, quantity: Quantity, source: str) -> Finding:
    """What is said of the quantity at ``place``."""
    decision = judged.decision
    verdict = _verdict(decision, place)
    clock: Clock = CLOCK_OF[quantity.measure] if decision.divided[place] else "none"
    return Finding(
        quantity=quantity,
        verdict=verdict,
        reason=_reason(judged, place, quantity, verdict),
        processes=judged.processes,
        source=source,
        baseline_us=_known(judged.medians_us[0][place]),
        candidate_us=_known(judged.medians_us[1][place]),
        ratio=_known(decision.ratio[place]),
        ratio_low=_known(judged.intervals[0][place]),
        ratio_high=_known(judged.intervals[1][place]),
        shift_us=_known(decision.estimate.shift_us[place]),
        p_value=_known(decision.p_value[place]),
        p_holm=_known(decision.p_holm[place]),
        p_rank=_known(judged.rank_p[place]),
        p_same=_known(decision.p_same[place]),
        relative_floor=float(decision.relative_floor[place]),
        absolute_floor_us=float(judged.limits.floor_us[place]),
        noise=_known(decision.estimate.noise[place]),
        slowest=_known(decision.slowest[place]),
        clock=clock,
        ratio_per_clock=_known(decision.ratio_paced[place]),
        confirmation=_confirmation(judged, place),
        severe=bool(decision.severe[place] and verdict == "REGRESSED"),
        cleared=bool(decision.cleared[place]),
    )


def few_finding(
    quantity: Quantity,
    source: str,
    times_us: tuple[Array, Array],
    processes: tuple[int, int],
    policy: Policy,
) -> Finding:
    """Of a side with a single process: an estimate, and nothing that could be said of it."""
    medians_us = [float(np.median(side)) for side in times_us]
    return Finding(
        quantity=quantity,
        verdict="INCONCLUSIVE",
        reason=_too_few(processes, policy),
        processes=processes,
        source=source,
        baseline_us=medians_us[0],
        candidate_us=medians_us[1],
        ratio=medians_us[1] / medians_us[0],
        shift_us=medians_us[1] - medians_us[0],
    )


def missing_finding(
    quantity: Quantity, why: str, processes: tuple[int, int], cleared: bool
) -> Finding:
    """Of a quantity that cannot be compared. cleared: the forward as a whole is known not to be
    severely slower, which then covers it."""
    return Finding(
        quantity=quantity,
        verdict="INCONCLUSIVE",
        reason=f"not compared: {why}",
        processes=processes,
        cleared=cleared,
    )


def _verdict(decision: Decision, place: int) -> Verdict:
    if decision.regressed[place]:
        return "REGRESSED"
    if decision.improved[place]:
        return "IMPROVED"
    return "SAME" if decision.same[place] else "INCONCLUSIVE"


def _confirmation(judged: Judged, place: int) -> Confirmation:
    decision = judged.decision
    if decision.awaited[place]:
        return "awaited"
    if judged.rounds < 2:
        return "not needed"
    if decision.regressed[place] or decision.improved[place]:
        return "confirmed"
    return "refuted" if decision.suspected[place] else "not needed"


def _reason(judged: Judged, place: int, quantity: Quantity, verdict: Verdict) -> str:
    decision = judged.decision
    if decision.few:
        return _too_few(judged.processes, judged.policy)
    if verdict in ("REGRESSED", "IMPROVED"):
        return _changed(judged, place, quantity)
    if decision.by_pace[place]:
        return _explained(judged, place, quantity)
    if decision.by_host[place]:
        return _of_whole_host(judged, place)
    if verdict == "SAME":
        return _same(judged, place, quantity)
    if decision.awaited[place]:
        return _awaited(judged, place)
    return _open(judged, place)


def _changed(judged: Judged, place: int, quantity: Quantity) -> str:
    decision = judged.decision
    said = _by(decision.ratio[place], decision.estimate.shift_us[place])
    if decision.divided[place]:
        said += f" per {CLOCK_OF[quantity.measure]}, which differs by process"
    if judged.rounds > 1:
        said += ", and a second round of fresh processes shows it by itself"
    if not judged.rank_p[place] <= 0.05:
        said += "; by ranks alone it is not certain"
    return said


def _same(judged: Judged, place: int, quantity: Quantity) -> str:
    said = f"the same within {_percent(_plain_floor(judged, place))}"
    clock = CLOCK_OF[quantity.measure]
    if judged.decision.divided[place] and abs(judged.pace_gap[place]) > PACE_TOLERANCE:
        said += f" per {clock}; {_pace(judged, place, clock)}"
    return said


def _explained(judged: Judged, place: int, quantity: Quantity) -> str:
    """Of a change that is not the same in us and without the pace."""
    clock = CLOCK_OF[quantity.measure]
    plain, left = (
        f"{100.0 * (ratio[place] - 1.0):+.1f} %"
        for ratio in (judged.decision.ratio_plain, judged.decision.ratio_paced)
    )
    small = abs(math.log(judged.decision.ratio_paced[place])) <= math.log1p(
        _plain_floor(judged, place)
    )
    verdict = "which explains it" if small else "and the two disagree"
    return f"{plain} in us, {left} per {clock}: {_pace(judged, place, clock)}, {verdict}"


def _of_whole_host(judged: Judged, place: int) -> str:
    """Of a change of the forward that the host in every stage alike can explain."""
    plain = 100.0 * math.expm1(judged.decision.estimate.log_plain[place])
    return (
        f"{plain:+.1f} %, but {_slower_host(judged.host_gap)}, which a stored baseline cannot tell "
        "from the machine; measure both sides in turn"
    )


def _slower_host(gap: float) -> str:
    what = "slower" if gap > 0 else "faster"
    change = _percent(abs(math.expm1(gap)))
    return f"the host as a whole was {change} {what} in the candidate's processes"


def _pace(judged: Judged, place: int, clock: Clock) -> str:
    gap = float(judged.pace_gap[place])
    if clock == "host pace":
        return _slower_host(gap)
    what = "slower" if gap > 0 else "faster"
    change = _percent(abs(math.expm1(gap)))
    return f"the SM clock was {change} {what} in the candidate's processes"


def _awaited(judged: Judged, place: int) -> str:
    decision = judged.decision
    if decision.suspected[place]:
        said = _by(decision.ratio[place], decision.estimate.shift_us[place])
        return f"{SUSPECTED}: {said}; a second round of fresh processes must show it again"
    slowest = decision.slowest[place] - 1.0
    return f"a slowdown of up to {_percent(slowest)} is not excluded; a second round may exclude it"


def _open(judged: Judged, place: int) -> str:
    left = _left(judged, place)
    if judged.decision.suspected[place] and judged.rounds > 1:
        return f"the first round suspected a change, both together do not show it surely; {left}"
    floor = _plain_floor(judged, place)
    more = _processes_needed(judged, place, floor)
    advice = "too noisy" if more > MOST_PROCESSES else f"about {more} processes a side would tell"
    if more <= min(judged.processes):
        change = 100.0 * (judged.decision.ratio[place] - 1.0)
        advice = f"a change of {change:+.1f} % is too near the floor"
    return f"no change shown, but neither the same within {_percent(floor)}; {left} ({advice})"


def _left(judged: Judged, place: int) -> str:
    """Which slowdown is not excluded."""
    plain = float(judged.decision.slowest[place]) - 1.0
    hostless = float(judged.decision.slowest_hostless[place]) - 1.0
    if plain <= 0.0:
        return "a slowdown is excluded"
    said = f"up to {_percent(plain)} slower is not excluded"
    if hostless < plain:
        said += f", {_percent(max(0.0, hostless))} if the host is not slower everywhere"
    return said


def _processes_needed(judged: Judged, place: int, floor: float) -> int:
    """So many a side would show equivalence 9 times in 10, if nothing has changed."""
    sizes = judged.processes
    process = judged.decision.estimate.noise[place] / math.sqrt(1 / sizes[0] + 1 / sizes[1])
    ratio = SAME_LEVEL_AND_POWER * float(process) / math.log1p(floor)
    return math.ceil(2.0 * min(ratio, 1e3) ** 2)


def _plain_floor(judged: Judged, place: int) -> float:
    """The floor without noise in it, as a fraction: what "the same" means."""
    typical_us = math.sqrt(judged.medians_us[0][place] * judged.medians_us[1][place])
    absolute = judged.limits.floor_us[place] / typical_us
    return float(max(judged.limits.relative_floor[place], absolute))


def _too_few(processes: tuple[int, int], policy: Policy) -> str:
    return (
        f"{processes[0]} and {processes[1]} processes are too few to tell a change from luck; "
        f"{policy.processes} a side and round are needed"
    )


def _by(ratio: float, shift_us: float) -> str:
    what = "slower" if ratio > 1.0 else "faster"
    return f"{what} by {_percent(abs(ratio - 1.0))} ({shift_us:+,.{_digits(shift_us)}f} us)"


def _digits(shift_us: float) -> int:
    return 1 if abs(shift_us) >= 10 else 2 if abs(shift_us) >= 1 else 3


def _percent(fraction: float) -> str:
    return f"{100.0 * fraction:.{1 if fraction < 0.995 else 0}f} %"


def _known(value: float) -> float | None:
    """JSON holds no NaN; None says that it is not known."""
    number = float(value)
    return number if math.isfinite(number) else None
