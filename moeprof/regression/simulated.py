"""The table of simulated checks: which scenarios, and whether a policy keeps its promises in them.

The promises: at most 1 % of checks without a change alert on anything; at least 80 % of slowdowns
of one stage by 3 % and 99 % of those by 5 % are told, of that stage and no other. They are made for
the scenarios of ``SCENARIOS``. Those of ``LIMITS`` show where they end: kernels twice as noisy,
kernels with two forms, a baseline of another day.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from moeprof.errors import UsageError, nearest
from moeprof.regression.noise_models import LARGE, LIMITS, SCENARIOS, SMALL, Scenario, Shape
from moeprof.regression.policy import Policy
from moeprof.regression.simulate import ALL, Rates, ScenarioRates, simulate

MOST_ALARMS = 0.01
LEAST_NAMED = ((0.03, 0.80), (0.05, 0.99))


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table. promised: whether the promises are made for it."""

    name: str
    scenario: Scenario
    shape: Shape = LARGE
    stored: bool = False
    known: bool = False
    promised: bool = True


def _cases() -> tuple[Case, ...]:
    independent, *_, all_at_once = SCENARIOS
    noisy, two_forms, another_day = LIMITS
    return (
        *(Case(scenario.name, scenario) for scenario in SCENARIOS),
        Case("host-bound forward", independent, shape=SMALL),
        Case("stored baseline", independent, stored=True),
        Case("stored, all at once", all_at_once, stored=True),
        Case(noisy.name, noisy, promised=False),
        Case(two_forms.name, two_forms, promised=False),
        Case(another_day.name, another_day, stored=True, promised=False),
        Case("another day, known", another_day, stored=True, known=True, promised=False),
    )


CASES = _cases()


@dataclass(frozen=True, slots=True)
class Simulated:
    """One line with its counts."""

    case: Case
    found: ScenarioRates

    @property
    def own(self) -> Rates:
        return self.found.rates[0]

    @property
    def kept(self) -> bool:
        """Whether the counts speak for the promises: none is missed by more than chance explains,
        alarms and the mean over stages, 2.6 standard deviations."""
        own = self.own
        if own.alarms / own.checks > MOST_ALARMS + _chance(MOST_ALARMS, own.checks):
            return False
        checks = own.checks * len(ALL)
        return all(
            own.named_at(slowdown) >= least - _chance(least, checks)
            for slowdown, least in LEAST_NAMED
        )


def _chance(rate: float, checks: int) -> float:
    return 2.6 * math.sqrt(rate * (1.0 - rate) / checks)


def chosen_cases(names: Sequence[str]) -> tuple[Case, ...]:
    """The cases of ``names``, all of them if there are none; UsageError for an unknown one."""
    known = {case.name: case for case in CASES}
    for name in names:
        if name not in known:
            raise UsageError(f"there is no scenario {name!r}", do=nearest(name, known))
    return tuple(known[name] for name in dict.fromkeys(names)) or CASES


def run_cases(
    cases: Sequence[Case],
    policy: Policy,
    checks: int,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Simulated]:
    """Each case, one after the other; the same seed gives the same counts."""
    for case in cases:
        found = simulate(
            case.scenario,
            policy,
            checks,
            seed,
            shape=case.shape,
            stored=case.stored,
            known=case.known,
            rivals=not case.stored,
            progress=progress,
        )
        yield Simulated(case, found)
