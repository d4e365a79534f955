"""Simulated checks as columns, for the terminal and for Markdown, and as a JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.regression.noise_models import STAGES
from moeprof.regression.policy import Policy, changed_fields
from moeprof.regression.simulate import ALL, HOST_US, SLOWDOWNS, Rates
from moeprof.regression.simulated import Simulated
from moeprof.reports.table import Column, FittedTable
from moeprof.reports.units import MISSING
from moeprof.storage.codec import encode

DOCUMENT = "moeprof.simulation/1"
OWN_TITLE = "moeprof, by scenario (part of the checks; of slowdowns the mean and the worst stage)"
RIVALS_TITLE = "Other rules on the same data, over the promised scenarios (lowest to highest)"


def render_simulation(lines: Sequence[Simulated], policy: Policy) -> RenderableType:
    """Both tables, and what was simulated."""
    parts: list[RenderableType] = [Text(OWN_TITLE, style="bold"), FittedTable(own_columns(lines))]
    rivals = rival_columns(lines)
    if rivals:
        parts += [Text(RIVALS_TITLE, style="bold"), FittedTable(rivals)]
    parts.append(Text(_summary(lines, policy), style="dim"))
    return Group(*parts)


def simulation_markdown(lines: Sequence[Simulated], policy: Policy) -> str:
    """The same as Markdown."""
    parts = [f"{OWN_TITLE}:", columns_markdown(own_columns(lines))]
    rivals = rival_columns(lines)
    if rivals:
        parts += [f"{RIVALS_TITLE}:", columns_markdown(rivals)]
    parts.append(_summary(lines, policy))
    return "\n\n".join(parts) + "\n"


def simulation_document(
    lines: Sequence[Simulated], policy: Policy, checks: int, seed: int
) -> dict[str, Any]:
    """Every count. named: for each slowdown, by stage in the order of ``stages``."""
    return {
        "policy": encode(policy),
        "checks": checks,
        "seed": seed,
        "stages": list(STAGES),
        "host_us": HOST_US,
        "scenarios": [
            {
                "name": line.case.name,
                "promised": line.case.promised,
                "kept": line.kept,
                "stored": line.case.stored,
                "shape": encode(line.case.shape),
                "noise": encode(line.case.scenario),
                "rules": [_rates_document(rates) for rates in line.found.rates],
            }
            for line in lines
        ],
    }


def _rates_document(rates: Rates) -> dict[str, Any]:
    return {
        "rule": rates.rule,
        "checks": rates.checks,
        "alarms": rates.alarms,
        "named": {f"{slowdown:g}": list(counts) for slowdown, counts in rates.named},
        "host_named": None if rates.host_named is None else list(rates.host_named),
        "second_rounds": rates.second,
        "undecided": rates.undecided,
    }


def own_columns(lines: Sequence[Simulated]) -> tuple[Column, ...]:
    """A line a scenario."""
    own = [line.own for line in lines]
    return (
        Column("noise", tuple(line.case.name for line in lines), left=True),
        Column("false\nalarms", tuple(_percent(r.alarms / r.checks, 1) for r in own)),
        *(
            Column(f"+{100 * slowdown:g} %\nnamed", tuple(_named(r, slowdown) for r in own))
            for slowdown in SLOWDOWNS
        ),
        Column(f"+{HOST_US:g} us of\nhost named", tuple(_host_named(r) for r in own), dropped=2),
        Column("second\nround", tuple(_part(r.second, r) for r in own), dropped=3),
        Column("incon-\nclusive", tuple(_part(r.undecided, r) for r in own), dropped=4),
        Column("promises", tuple(_promises(line) for line in lines), left=True),
    )


def rival_columns(lines: Sequence[Simulated]) -> tuple[Column, ...]:
    """A line a rule; empty where no line has any."""
    by_rule: dict[str, list[Rates]] = {}
    for line in lines:
        if line.case.promised:
            for rates in line.found.rates[1:]:
                by_rule.setdefault(rates.rule, []).append(rates)
    if not by_rule:
        return ()
    found = list(by_rule.values())
    return (
        Column("rule", tuple(by_rule), left=True),
        Column("false\nalarms", tuple(_range([r.alarms / r.checks for r in rs]) for rs in found)),
        *(
            Column(
                f"+{100 * slowdown:g} %\nnamed",
                tuple(_range([r.named_at(slowdown) for r in rates]) for rates in found),
            )
            for slowdown in SLOWDOWNS
        ),
    )


def _promises(line: Simulated) -> str:
    if not line.case.promised:
        return "none made"
    return "kept" if line.kept else "NOT KEPT"


def _named(rates: Rates, slowdown: float) -> str:
    worst = min(rates.named_at(slowdown, [stage]) for stage in ALL)
    return f"{_percent(rates.named_at(slowdown), 1)} ({_percent(worst, 1)})"


def _host_named(rates: Rates) -> str:
    if rates.host_named is None:
        return MISSING
    return _percent(sum(rates.host_named) / (rates.checks * len(ALL)), 1)


def _part(count: int | None, rates: Rates) -> str:
    return MISSING if count is None else _percent(count / rates.checks, 0)


def _range(fractions: Sequence[float]) -> str:
    low, high = (f"{100 * fraction:.0f}" for fraction in (min(fractions), max(fractions)))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _percent(fraction: float, digits: int) -> str:
    return f"{100 * fraction:.{digits}f} %"


def _summary(lines: Sequence[Simulated], policy: Policy) -> str:
    checks = lines[0].own.checks
    changed = ", ".join(f"{name} {value:g}" for name, value in changed_fields(policy).items())
    return (
        f"{checks:,} checks a scenario and change; {policy.processes} processes a side and round; "
        f"policy {changed or 'as by default'}"
    )


def columns_markdown(columns: Sequence[Column]) -> str:
    """A table of Markdown."""
    header = " | ".join(column.header.replace("-\n", "").replace("\n", " ") for column in columns)
    rule = "|".join("---" if column.left else "--:" for column in columns)
    rows = zip(*(column.cells for column in columns), strict=True)
    return "\n".join([f"| {header} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)])
