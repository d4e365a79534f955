"""What must fail loudly: everything in a record that makes its timings unbelievable, by name.

Each check is a sentence or nothing. Checks of two records against each other are ``compare``'s.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from moeprof.analysis.identity import sweep
from moeprof.analysis.profiles import UNATTRIBUTED
from moeprof.records import Run
from moeprof.timelines import Iteration, Operation, TimelinePass

# NVML clock-event reasons that do not slow a busy GPU down
HARMLESS_CLOCK_REASONS = ("none", "gpu_idle", "idle", "applications_clocks_setting", "sync_boost")


def findings(run: Run) -> tuple[str, ...]:
    """Every doubt about the timelines and clocks of ``run``, one sentence each."""
    found: list[str] = []
    for timeline in run.timelines:
        found.extend(timeline_findings(timeline))
    found.extend(clock_findings(run))
    return tuple(found)


def sound(iteration: Iteration) -> bool:
    """Whether every operation of the iteration was timed and none was lost."""
    ends_ns = iteration.end_ns
    if iteration.dropped or min(ends_ns, default=1) <= 0:  # as ``identity.collected``
        return False
    return all(map(operator.le, iteration.start_ns, ends_ns))


def timeline_findings(timeline: TimelinePass) -> tuple[str, ...]:
    """Doubts about one CUPTI pass."""
    iterations = timeline.iterations
    checks: tuple[Callable[[Iteration], int], ...] = (_uncollected, _reversed, _before_launch)
    words = (
        "operation(s) without a time (start = end = 0)",
        "operation(s) that end before they start",
        "operation(s) that start before their launch call",
    )
    found = [
        _sentence(timeline.name, [check(iteration) for iteration in iterations], word)
        for check, word in zip(checks, words, strict=True)
    ]
    found.append(_dropped(timeline))
    found.append(_differing_sets(timeline))
    if timeline.name == "api":
        found.append(_outside(timeline))
        found.append(_residual(timeline))
    return tuple(sentence for sentence in found if sentence)


def clock_findings(run: Run) -> tuple[str, ...]:
    """Passes during which the GPU's clocks were held down."""
    reasons: dict[str, dict[str, None]] = {}
    for clock in run.clocks:
        for reason in clock.throttle:
            if reason.lower() not in HARMLESS_CLOCK_REASONS:
                reasons.setdefault(reason, {})[clock.pass_name] = None
    return tuple(
        f"clocks were throttled ({reason}) during {', '.join(passes)}"
        for reason, passes in reasons.items()
    )


def _uncollected(iteration: Iteration) -> int:
    return sum(end_ns <= 0 for end_ns in iteration.end_ns)  # as ``identity.collected``


def _reversed(iteration: Iteration) -> int:
    return sum(map(operator.lt, iteration.end_ns, iteration.start_ns))


def _before_launch(iteration: Iteration) -> int:
    early = map(operator.lt, iteration.start_ns, iteration.launch_begin_ns)
    return sum(
        is_early and begin_ns != -1 and end_ns > 0
        for is_early, begin_ns, end_ns in zip(
            early, iteration.launch_begin_ns, iteration.end_ns, strict=False
        )
    )


def _sentence(name: str, counts: list[int], words: str) -> str:
    hit = sum(count > 0 for count in counts)
    return f"{name}: {sum(counts)} {words} in {hit} of {len(counts)} iterations" if hit else ""


def _dropped(timeline: TimelinePass) -> str:
    dropped = max((iteration.dropped for iteration in timeline.iterations), default=0)
    return f"{timeline.name}: CUPTI dropped {dropped} record(s), so times are missing" * (
        dropped > 0
    )


def _differing_sets(timeline: TimelinePass) -> str:
    counts = Counter(iteration.operation_set for iteration in timeline.iterations)
    if len(counts) < 2:
        return ""
    (usual, often), *others = counts.most_common()
    difference = _difference(timeline.operation_sets[usual], timeline.operation_sets[others[0][0]])
    return (
        f"{timeline.name}: {len(counts)} different sets of operations in "
        f"{sum(counts.values())} iterations (the usual one in {often}); {difference}"
    )


def _difference(usual: Sequence[Operation], other: Sequence[Operation]) -> str:
    """The first thing that tells two sets apart."""
    have, seen = (Counter(o.name for o in side) for side in (usual, other))
    for sign, extra in (("more", seen - have), ("fewer", have - seen)):
        if extra:
            name, count = next(iter(extra.items()))
            return f"another has {count} {sign} of {short_name(name)}"
    return "the same names in another order, stage, stream or launch shape"


def _outside(timeline: TimelinePass) -> str:
    outside = [
        [o.name for o in operations if not o.stage] for operations in timeline.operation_sets
    ]
    names: Counter[str] = Counter()
    hit = 0
    for iteration in timeline.iterations:
        found = outside[iteration.operation_set]
        names.update(found)
        hit += bool(found)
    if not hit:
        return ""
    listed = ", ".join(short_name(name) for name in list(names)[:3])
    return (
        f"{timeline.name}: {sum(names.values())} operation(s) outside any stage in {hit} of "
        f"{len(timeline.iterations)} iterations ({listed}): see the row {UNATTRIBUTED!r}"
    )


def _residual(timeline: TimelinePass) -> str:
    worst = 0
    for which, operations in enumerate(timeline.operation_sets):
        same = [i for i in timeline.iterations if i.operation_set == which]
        residual_ns = sweep(operations, same).residual_ns() if same else np.zeros(1, np.int64)
        worst = max(worst, int(np.abs(residual_ns).max()))
    return f"{timeline.name}: the time identity leaves {worst} ns over" if worst else ""


def short_name(name: str, width: int = 48) -> str:
    """A kernel name without return type and arguments, cut to ``width`` characters."""
    bare = name.removeprefix("void ").split("<")[0].split("(")[0].strip() or name
    return bare if len(bare) <= width else bare[: width - 3] + "..."
