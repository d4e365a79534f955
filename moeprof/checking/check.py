"""A check from its first process to its verdict: measure, judge, and measure again if it suspects.

The verdict is ``regression.judge``'s; here is only when to measure what. The first process of a
side already tells a wrong result and whether the sides can be compared at all: then the rest is not
measured.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from moeprof.checking.labels import code_labels
from moeprof.checking.request import Request
from moeprof.checking.rounds import Say, Trees, device_alone, fresh_runs, measure
from moeprof.checking.trees import Tree
from moeprof.errors import EnvironmentMissing, ResourceExhausted
from moeprof.records import Run
from moeprof.regression.policy import Policy
from moeprof.regression.values import Check, Noise
from moeprof.storage.baselines import StoredBaseline
from moeprof.storage.checks import CheckFolder, save_check
from moeprof.storage.sides import save_sides


def check_baseline(
    stored: StoredBaseline,
    tree: Tree,
    request: Request,
    policy: Policy,
    folder: CheckFolder,
    say: Say,
) -> Check:
    """``tree`` against a stored baseline; the verdict is also left in ``folder``."""
    judged = _Judged({"candidate": tree}, policy, stored.runs, stored.baseline.noise)
    return _check(judged, request, folder, say)


def check_trees(
    before: Tree, after: Tree, request: Request, policy: Policy, folder: CheckFolder, say: Say
) -> Check:
    """``after`` against ``before``, both measured now, interleaved; as ``check_baseline``."""
    judged = _Judged({"baseline": before, "candidate": after}, policy, (), ())
    return _check(judged, request, folder, say)


def require_statistics() -> None:
    """Said before minutes of measuring: a verdict needs scipy."""
    if importlib.util.find_spec("scipy") is None:
        raise EnvironmentMissing(
            "a verdict needs scipy, which is not installed",
            do="pip install scipy, or measure here with --measure-only and judge the folder "
            "elsewhere with --runs",
        )


class _Judged:
    """The sides of one check as they grow."""

    def __init__(
        self, trees: Trees, policy: Policy, stored: tuple[Run, ...], noise: Sequence[Noise]
    ) -> None:
        self.trees = trees
        self.policy = policy
        self.stored = stored
        self.noise = noise

    @property
    def interleaved(self) -> bool:
        return len(self.trees) > 1

    def judge(
        self, baseline: Sequence[Run], candidate: Sequence[Run], again: Sequence[Sequence[Run]] = ()
    ) -> Check:
        """The verdict on what was measured. again: (baseline, candidate) of the second round."""
        from moeprof.regression.judge import Confirmation, judge

        confirmation = Confirmation(baseline=again[0], candidate=again[1]) if again else None
        check: Check = judge(
            baseline=self.stored or baseline,
            candidate=candidate,
            policy=self.policy,
            confirmation=confirmation,
            noise=self.noise,
            interleaved=self.interleaved,
        )
        return check


def _check(judged: _Judged, request: Request, folder: CheckFolder, say: Say) -> Check:
    require_statistics()
    with device_alone(say):
        check = _two_rounds(judged, request, folder, say)
    try:
        save_sides(folder, code_labels(judged.trees))
        save_check(folder, check)
    except ResourceExhausted as error:  # it is told all the same, after minutes of measuring
        say(f"the verdict was not kept: {error}")
    return check


def _two_rounds(judged: _Judged, request: Request, folder: CheckFolder, say: Say) -> Check:
    processes = judged.policy.processes
    baseline: list[Run] = []
    candidate: list[Run] = []
    for side, run in fresh_runs(judged.trees, request, processes, folder, say):
        (candidate if side == "candidate" else baseline).append(run)
        decided = _decided_early(judged, baseline, candidate, run)
        if decided is not None:
            return decided
    check = judged.judge(baseline, candidate)
    if not check.awaiting:
        return check
    say(f"a second round of fresh processes decides {', '.join(map(str, check.awaiting))}")
    more = measure(judged.trees, request, processes, folder, say)
    return judged.judge(baseline, candidate, (more.get("baseline", ()), more["candidate"]))


def _decided_early(
    judged: _Judged, baseline: list[Run], candidate: list[Run], latest: Run
) -> Check | None:
    """A verdict that no more processes can change: a wrong result, or sides of different work."""
    complete = bool(candidate) and bool(judged.stored or baseline)
    first_pair = len(candidate) == 1 and len(baseline) <= 1
    if not complete or not (first_pair or not latest.correctness.passed):
        return None
    check = judged.judge(baseline, candidate)
    return check if check.wrong_result or not check.comparable else None
