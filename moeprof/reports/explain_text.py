"""An explanation in a terminal: predicted beside measured, then the waterfall with its verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.compare.comparison import Comparison
from moeprof.interventions.interventions import Kind
from moeprof.interventions.sensitivity import SensitivityRow
from moeprof.interventions.verdicts import BarVerdict, Explanation, Outcome, Verdict
from moeprof.reports import compare_phrases as phrases
from moeprof.reports.compare_text import notes_grid, warning
from moeprof.reports.table import Column, FittedTable
from moeprof.reports.units import MISSING
from moeprof.reports.waterfall import Waterfall
from moeprof.reports.waterfall_lines import Line, lines

CPU_WARNING = "CPU timings: the machinery works; nothing here is judged or says a thing about a GPU"
MARKS = {Verdict.NO_EFFECT: "no effect", Verdict.NOT_JUDGED: "CPU"}


def render_explanation(explanation: Explanation) -> RenderableType:
    """What was tried and what came of it; why the rest could not be; bars; sensitivity."""
    comparison = explanation.comparison
    before, after = comparison.before.label, comparison.after.label
    parts: list[RenderableType] = [warning(reason) for reason in explanation.reasons]
    if comparison.before.run.environment.device_kind == "cpu":
        parts.append(warning(CPU_WARNING))
    parts.append(Text(phrases.headline(comparison), style="bold"))
    largest = phrases.largest_cause(comparison)
    parts += [Text(largest, style="bold")] if largest else []
    tried = [o for o in explanation.outcomes if o.verdict != Verdict.IMPOSSIBLE]
    parts.append(Text(f"\nOne thing changed at a time, us ({_samples(comparison)})", style="bold"))
    parts.append(FittedTable(outcome_columns(tried)))
    parts.append(notes_grid([note for outcome in tried for note in outcome_notes(outcome)]))
    impossible = [o for o in explanation.outcomes if o.verdict == Verdict.IMPOSSIBLE]
    if impossible:
        parts.append(Text("\nCannot be tried", style="bold"))
        parts.append(notes_grid([(o.intervention.name, o.why) for o in impossible]))
    parts.append(Text(f"\nFrom {before} to {after}, us, each bar as proven", style="bold"))
    parts.append(Waterfall(marked(lines(comparison), explanation.bars)))
    for solution in dict.fromkeys(row.solution for row in explanation.sensitivity):
        rows = [row for row in explanation.sensitivity if row.solution == solution]
        parts.append(Text(f"\n{solution}: span and busy time, us", style="bold"))
        parts.append(FittedTable(sensitivity_columns(rows)))
        problems = [(f"{r.varied} {r.routing} T={r.num_tokens}", r.problem) for r in rows]
        parts.append(notes_grid([(name, problem) for name, problem in problems if problem]))
    return Group(*parts)


def outcome_columns(outcomes: Sequence[Outcome]) -> tuple[Column, ...]:
    """A line an intervention."""
    return (
        Column("changed", tuple(o.intervention.name for o in outcomes), left=True),
        Column("in", tuple(o.intervention.solution for o in outcomes), left=True, dropped=2),
        Column("before", tuple(_plain(o.measurement.base_us) for o in outcomes), dropped=1),
        Column("predicted", tuple(_signed(predicted_us(o)) for o in outcomes)),
        Column("measured", tuple(_signed(o.measurement.change_us) for o in outcomes)),
        Column("+-", tuple(_noise(o) for o in outcomes)),
        Column("verdict", tuple(str(o.verdict) for o in outcomes), left=True),
    )


def outcome_notes(outcome: Outcome) -> list[tuple[str, str]]:
    """What was changed, what the prediction is made of, what the output was, what is in doubt."""
    intervention = outcome.intervention
    told = [intervention.changes]
    if outcome.prediction is not None and intervention.kind != Kind.FIRST_CALL:
        told.append(f"predicted from {outcome.prediction.how}")
    told += [text for text in (outcome.measurement.remark, outcome.why) if text]
    return [(intervention.name, "; ".join(told))]


def marked(shown: Sequence[Line], bars: Sequence[BarVerdict]) -> tuple[Line, ...]:
    """The waterfall's lines with each bar's verdict behind its label."""
    verdicts = {
        f"{phrases.part_label(found.bar.part)}: {found.bar.cause}": found.verdict for found in bars
    }
    return tuple(
        line
        if line.total or line.label not in verdicts
        else replace(line, label=f"{line.label} [{_mark(verdicts[line.label])}]")
        for line in shown
    )


def sensitivity_columns(rows: Sequence[SensitivityRow]) -> tuple[Column, ...]:
    """A line a variation, a column a row of the profile."""
    names = dict.fromkeys(name for row in rows for name in row.busy_us or ())
    return (
        Column("varied", tuple(row.varied for row in rows), left=True),
        Column("routing", tuple(row.routing.removeprefix("synthetic ") for row in rows), left=True),
        Column("T", tuple(f"{row.num_tokens:,}" for row in rows)),
        Column("offset", tuple(str(row.local_expert_offset) for row in rows)),
        Column("P", tuple(f"{row.local_pairs:,}" for row in rows)),
        Column("A", tuple(str(row.active_experts) for row in rows)),
        Column("busiest\nexpert", tuple(f"{row.busiest_expert:,}" for row in rows), dropped=99),
        Column("span", tuple(_plain(row.span_us) for row in rows)),
        *(
            Column(
                name.replace("_", "_\n", 1),
                tuple(_plain((row.busy_us or {}).get(name)) for row in rows),
                dropped=98 - position,
            )
            for position, name in enumerate(names)
        ),
    )


def predicted_us(outcome: Outcome) -> float | None:
    """The predicted change, if there is one."""
    return outcome.prediction.change_us if outcome.prediction is not None else None


def _mark(verdict: Verdict) -> str:
    return MARKS.get(verdict, str(verdict))


def _samples(comparison: Comparison) -> str:
    bare = comparison.before.run.samples("bare")
    return f"medians of {len(bare)} samples of the bare span, taken in turn"


def _noise(outcome: Outcome) -> str:
    if outcome.measurement.change_us is None or outcome.intervention.kind == Kind.FIRST_CALL:
        return MISSING
    return f"{outcome.measurement.noise_us:,.1f}"


def _signed(value_us: float | None) -> str:
    return MISSING if value_us is None else f"{value_us:+,.1f}"


def _plain(value_us: float | None) -> str:
    return MISSING if value_us is None else f"{value_us:,.1f}"
