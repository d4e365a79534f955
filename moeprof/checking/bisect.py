"""The search: bad is held against good first, then every revision git proposes, by one test.

Each revision is checked against good as ``moeprof check --against`` would: fresh processes of both
in turn, judged by the same rule. Good's worktree stays for the whole search, a revision's only
while it is measured. One that is inconclusive is measured further, both sides, up to a limit; one
that cannot be measured, or stays inconclusive, is skipped. Inconclusive, but surely by less than
half of what bad lost, is good: the question is where that loss came from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moeprof.checking import revisions
from moeprof.checking.check import check_trees, require_statistics
from moeprof.checking.request import Request
from moeprof.checking.rounds import Say, device_alone, measure
from moeprof.checking.trees import Tree, require_repository
from moeprof.checking.worktree import revision_tree
from moeprof.errors import MoeprofError, UsageError
from moeprof.regression.bisection import Commit, Found, Step
from moeprof.regression.policy import Policy
from moeprof.regression.values import EXIT_INCONCLUSIVE, Check, Finding, Measure, Quantity
from moeprof.storage.checks import CheckFolder, SideName, new_check_folder, save_check
from moeprof.storage.store import load


class NothingToFind(MoeprofError):
    """Bad is not surely slower than good, so there is no first bad commit."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to search for. stage: '' for the whole forward. most: processes a side and revision."""

    solution: str
    good: str
    bad: str
    stage: str
    request: Request
    policy: Policy
    most: int
    traces: Path


def bisect(asked: Asked, say: Say) -> Found:
    """The first bad commit, or the suspects where skipped ones are in between.

    NothingToFind (exit code 2, or 3 where it is inconclusive) if bad is not slower than good.
    """
    require_statistics()
    repository = require_repository(asked.solution)
    good = revisions.commit_of(repository, asked.good)
    bad = revisions.commit_of(repository, asked.bad)
    revisions.require_ancestor(repository, good, bad)
    with revision_tree(asked.solution, good.hash) as before:
        search = _Search(asked, before, repository, say)
        search.start(good, bad)
        return search.run()


class _Search:
    """What is known so far."""

    def __init__(self, asked: Asked, before: Tree, repository: Path, say: Say) -> None:
        self.asked, self.before, self.repository, self.say = asked, before, repository, say
        self.steps: list[Step] = []
        self.skipped: set[str] = set()
        self.lost: float | None = None  # the ratio of bad to good

    def start(self, good: Commit, bad: Commit) -> None:
        """Hold bad against good: what is slower there is what is searched for."""
        self.good, self.bad = good, bad
        self.goods = [good.hash]
        self.first_bad = bad.hash
        count = len(revisions.left_over(self.repository, bad.hash, self.goods))
        self.say(
            f"{count} commit{'s' * (count != 1)} after {good.short}; about "
            f"{math.ceil(math.log2(count)) if count > 1 else 0} to measure besides bad"
        )
        self.say(f"bad {bad.short} {bad.subject}")
        check = self._measured(bad, lambda check: self._of_stage(check))
        quantity = _regressed(check, self.asked.stage)
        if quantity is None:
            raise _nothing(check, self.asked.stage, good, bad)
        finding = check.finding(quantity.stage, quantity.measure)
        assert finding is not None
        self.quantity, self.lost = quantity, finding.ratio or 1.0
        self.steps.append(Step(bad, "bad", _figures(finding), check, check.candidate.processes))

    def run(self) -> Found:
        """Halve until one is left, or only skipped ones."""
        while True:
            left = revisions.left_over(self.repository, self.first_bad, self.goods)
            open_ = [name for name in left if name != self.first_bad]
            untried = [name for name in open_ if name not in self.skipped]
            if not untried:
                return self._found(left if open_ else (self.first_bad,))
            commit = revisions.commit_of(self.repository, untried[0])
            self.say(f"{len(open_)} left to tell apart; {commit.short} {commit.subject}")
            step = self._step(commit)
            self.say(f"{commit.short} is {step.answer}: {step.why}")
            self.steps.append(step)
            if step.answer == "bad":
                self.first_bad = commit.hash
            elif step.answer == "good":
                self.goods.append(commit.hash)
            else:
                self.skipped.add(commit.hash)

    def _found(self, hashes: tuple[str, ...]) -> Found:
        suspects = revisions.in_order(self.repository, hashes)
        first = suspects[0] if len(suspects) == 1 else None
        return Found(self.good, self.bad, self.quantity, first, suspects, tuple(self.steps))

    def _step(self, commit: Commit) -> Step:
        try:
            check = self._measured(commit, lambda check: check.finding(*_pair(self.quantity)))
        except MoeprofError as error:
            return Step(commit, "skipped", str(error))
        processes = check.candidate.processes
        if check.wrong_result:
            return Step(commit, "skipped", f"wrong result: {check.wrong_result}", check, processes)
        if not check.comparable:
            why = check.against[0] if check.against else "it cannot be compared"
            return Step(commit, "skipped", why, check, processes)
        finding = check.finding(*_pair(self.quantity))
        if finding is None:
            return Step(commit, "skipped", f"it has no {self.quantity}", check, processes)
        if finding.verdict == "REGRESSED":
            return Step(commit, "bad", _figures(finding), check, processes)
        if finding.verdict != "INCONCLUSIVE" or self._surely_less(finding):
            return Step(commit, "good", _figures(finding), check, processes)
        why = f"inconclusive after {processes} processes a side: {finding.reason}"
        return Step(commit, "skipped", why, check, processes)

    def _surely_less(self, finding: Finding) -> bool:
        """Whether it lost less than half of what bad lost, whatever it lost."""
        if self.lost is None or finding.slowest is None:
            return False
        return finding.slowest < math.sqrt(self.lost)

    def _of_stage(self, check: Check) -> Finding | None:
        return check.decisive(self.asked.stage)

    def _measured(self, commit: Commit, decides: Callable[[Check], Finding | None]) -> Check:
        """The check of ``commit``, measured further while what ``decides`` is inconclusive."""
        asked = self.asked
        with revision_tree(asked.solution, commit.hash) as after:
            folder = new_check_folder(
                asked.traces / "bisect", asked.solution, asked.request.seq_len
            )
            check = check_trees(self.before, after, asked.request, asked.policy, folder, self.say)
            trees: dict[SideName, Tree] = {"baseline": self.before, "candidate": after}
            while self._wants_more(check, decides(check)):
                self.say("inconclusive; more processes of both")
                with device_alone(self.say):
                    check = self._further(trees, folder)
                save_check(folder, check)
        return check

    def _wants_more(self, check: Check, finding: Finding | None) -> bool:
        if check.wrong_result or not check.comparable or finding is None:
            return False
        if finding.verdict != "INCONCLUSIVE" or self._surely_less(finding):
            return False
        return check.candidate.processes + self.asked.policy.processes <= self.asked.most

    def _further(self, trees: dict[SideName, Tree], folder: CheckFolder) -> Check:
        """Judge all that was measured and a new round; it confirms what the others suspect."""
        from moeprof.regression.judge import Confirmation, judge

        kept = [[load(path) for path in folder.records(side)] for side in ("baseline", "candidate")]
        more = measure(trees, self.asked.request, self.asked.policy.processes, folder, self.say)
        again = Confirmation(candidate=more["candidate"], baseline=more["baseline"])
        check: Check = judge(
            baseline=kept[0],
            candidate=kept[1],
            policy=self.asked.policy,
            confirmation=again,
            interleaved=True,
        )
        return check


def _pair(quantity: Quantity) -> tuple[str, Measure]:
    return quantity.stage, quantity.measure


def _regressed(check: Check, stage: str) -> Quantity | None:
    """What regressed of the stage; of several the severest, then the largest."""
    own = [f for f in check.alerts if f.quantity.stage == stage]
    worst = max(own, key=lambda f: (f.severe, f.shift_us or 0.0), default=None)
    return worst.quantity if worst else None


def _nothing(check: Check, stage: str, good: Commit, bad: Commit) -> MoeprofError:
    what = stage or "the forward"
    pair = f"{bad.short} against {good.short}"
    if check.wrong_result:
        return NothingToFind(f"bad {bad.short} gives a wrong result: {check.wrong_result}")
    if not check.comparable:
        return NothingToFind(f"{pair} cannot be compared: {'; '.join(check.against)}")
    finding = check.decisive(stage)
    if finding is None:
        rows = ", ".join(check.stages)
        return UsageError(f"the solution has no stage {stage!r}", f"one of {rows}")
    told = f"{what} is {finding.verdict} in {pair} ({_figures(finding)})"
    error = NothingToFind(told, "REGRESSED", "there is no first bad commit to find")
    if finding.verdict == "INCONCLUSIVE":
        error = NothingToFind(told, "REGRESSED", "allow more with --most-processes")
        error.exit_code = EXIT_INCONCLUSIVE
    return error


def _figures(finding: Finding) -> str:
    if finding.ratio is None:
        return f"{finding.quantity} {finding.verdict}"
    return f"{finding.quantity} {finding.verdict}, {100 * (finding.ratio - 1):+.1f} %"
