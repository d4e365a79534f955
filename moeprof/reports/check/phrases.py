"""What a check says in words, the same in every format: the headline, rows, causes, notes.

The headline alone must do for whoever reads one line of a log: the verdict, where, by how much, how
surely and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.regression.policy import changed_fields
from moeprof.regression.values import FORWARD_MEASURES, SEVERITY, Cause, Check, Finding, Side
from moeprof.reports.units import MISSING, duration

MOST_OTHERS = 4  # further quantities that a headline names
SHORT_HASH = 8

TITLES = {"span": "span", "wall": "wall clock", "orchestration": "orchestration"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. stage: '' for the whole forward."""

    stage: str
    label: str
    finding: Finding


def rows(check: Check) -> tuple[Row, ...]:
    """A line a stage, by what makes its verdict, and one for each time of the forward.

    A stage's other deciding time gets a line of its own where it is not the same.
    """
    found = []
    for stage in check.stages:
        first = check.decisive(stage)
        for finding in check.findings:
            if finding.quantity.stage == stage:
                if finding is first or finding.verdict != "SAME":
                    found.append(Row(stage, quantity_label(finding), finding))
    for measure in FORWARD_MEASURES:
        finding_or_none = check.finding("", measure)
        if finding_or_none is not None:
            found.append(Row("", quantity_label(finding_or_none), finding_or_none))
    return tuple(found)


def verdict_label(finding: Finding) -> str:
    """The verdict, and whether it is a severe one."""
    return f"{finding.verdict} (severe)" if finding.severe else finding.verdict


def quantity_label(finding: Finding) -> str:
    """'gemm1' for what its operations take on the GPU, 'routing host', 'span', 'wall clock'."""
    quantity = finding.quantity
    if not quantity.stage:
        return TITLES.get(quantity.measure, quantity.measure)
    return quantity.stage if quantity.measure == "busy" else str(quantity)


KEY = "a stage by its name: its time on the device; host: the host's own time in it"

# ---------------------------------------------------------------- the headline


def headline(check: Check) -> str:
    """The check in one line without a full stop."""
    if check.wrong_result:
        return f"WRONG RESULT {check.candidate.solution}: {check.wrong_result}"
    if not check.comparable:
        return f"NOT COMPARABLE: {check.against[0] if check.against else 'no reason given'}"
    if check.verdict == "REGRESSED":
        return _changed("REGRESSED", check, regressed(check))
    if check.verdict == "IMPROVED":
        return _changed("IMPROVED", check, improved(check))
    if check.verdict == "SAME":
        return f"SAME: {_all_within(check)}"
    return _inconclusive(check)


def regressed(check: Check) -> tuple[Finding, ...]:
    """What regressed, stages before the forward, severe ones and large shifts first."""
    return _largest_first([f for f in check.findings if f.verdict == "REGRESSED"])


def improved(check: Check) -> tuple[Finding, ...]:
    """What improved, as ``regressed``."""
    return _largest_first([f for f in check.findings if f.verdict == "IMPROVED"])


def undecided(check: Check) -> tuple[Finding, ...]:
    """What keeps the check from a verdict, as ``regressed``."""
    found = [f for f in check.findings if f.verdict == "INCONCLUSIVE"]
    grave = [f for f in found if f.confirmation == "awaited" or not f.cleared]
    return _largest_first(grave or found)


def _largest_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    def key(finding: Finding) -> tuple[bool, bool, float]:
        return not finding.quantity.stage, not finding.severe, -abs(finding.shift_us or 0.0)

    return tuple(sorted(findings, key=key))


def _changed(verdict: str, check: Check, findings: Sequence[Finding]) -> str:
    first, *others = findings
    said = f"{verdict} {quantity_label(first)}: {change(first, check)}"
    said += ", severe" * first.severe
    causes = check.causes_of(first.quantity.stage)
    said += f": {causes[0].sentence}" if causes else ""
    if others:
        named = [f"{quantity_label(f)} {percent(f.ratio)}" for f in others[:MOST_OTHERS]]
        rest = len(others) - len(named)
        said += f"; also {', '.join(named)}" + f" and {rest} more" * bool(rest)
    return said


def _all_within(check: Check) -> str:
    stages = len(check.stages)
    said = f"{stages} stage{'s' * (stages != 1)} and the forward are within their floors"
    span = check.finding("", "span") or check.finding("", "wall")
    return f"{said}; {quantity_label(span)} {change(span, check)}" if span else said


def _inconclusive(check: Check) -> str:
    awaited = [f for f in undecided(check) if f.confirmation == "awaited"]
    if awaited:
        named = ", ".join(f"{quantity_label(f)} {percent(f.ratio)}" for f in awaited[:MOST_OTHERS])
        rest = len(awaited) - MOST_OTHERS
        more = f" and {rest} more" if rest > 0 else ""
        return f"INCONCLUSIVE: a second round of fresh processes has to decide {named}{more}"
    open_ = undecided(check)
    if not open_:
        return "INCONCLUSIVE: there was nothing to judge"
    first, *others = open_
    said = f"INCONCLUSIVE {quantity_label(first)}: {first.reason}"
    return said + (f"; also {', '.join(map(quantity_label, others[:MOST_OTHERS]))}" * bool(others))


# ---------------------------------------------------------------- figures


def change(finding: Finding, check: Check) -> str:
    """'+4.9 % (+12.1 us, 95 % CI 4.2 to 5.6 %)'."""
    parts = [signed_duration(finding.shift_us)] if finding.shift_us is not None else []
    interval = interval_text(finding)
    if interval != MISSING:
        parts.append(f"{100 * check.policy.confidence:g} % CI {interval}")
    return percent(finding.ratio) + (f" ({', '.join(parts)})" if parts else "")


def percent(ratio: float | None) -> str:
    """A ratio as a signed change."""
    return MISSING if ratio is None else f"{_percent(ratio):+.1f} %"


def interval_text(finding: Finding) -> str:
    """The interval of the ratio as changes; signs where it is not all above zero."""
    if finding.ratio_low is None or finding.ratio_high is None:
        return MISSING
    low, high = _percent(finding.ratio_low), _percent(finding.ratio_high)
    return f"{low:.1f} to {high:.1f} %" if low >= 0 else f"{low:+.1f} to {high:+.1f} %"


def floor_text(finding: Finding) -> str:
    """Both floors that a change must exceed."""
    return f"{100 * finding.relative_floor:.1f} % and {small_us(finding.absolute_floor_us)} us"


def p_text(value: float | None) -> str:
    """A probability short enough for a table."""
    if value is None:
        return MISSING
    return "<0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def small_us(value_us: float | None) -> str:
    """Microseconds with the digits that matter: two below 10, one above."""
    if value_us is None:
        return MISSING
    return f"{value_us:,.2f}" if abs(value_us) < 10 else f"{value_us:,.1f}"


def signed_us(value_us: float | None) -> str:
    """As ``small_us``, with a sign."""
    return MISSING if value_us is None else f"{'+' * (value_us >= 0)}{small_us(value_us)}"


def signed_duration(value_us: float) -> str:
    """A signed time in the unit a person would choose."""
    small = abs(value_us) < 10
    text = f"{value_us:,.2f} us" if small else duration(value_us)
    return f"{'+' * (value_us >= 0)}{text}"


def _percent(ratio: float) -> float:
    return round(100 * (ratio - 1), 1) + 0.0  # no negative zero


# ---------------------------------------------------------------- sentences below the table


def explanations(check: Check) -> tuple[tuple[str, str], ...]:
    """(label, sentence) of what is not the same, gravest first: its causes, else its reason."""
    found: list[tuple[str, str]] = []
    for row in sorted(rows(check), key=lambda row: -SEVERITY[row.finding.verdict]):
        verdict = row.finding.verdict
        if verdict == "SAME":
            continue
        causes = check.causes_of(row.stage)
        told = any(label == (row.stage or "forward") for label, _ in found)
        if verdict == "INCONCLUSIVE" or not causes:
            found.append((row.label, row.finding.reason))
        if causes and not told:
            found += [(row.stage or "forward", cause_text(cause)) for cause in causes]
    return tuple(found)


def cause_text(cause: Cause) -> str:
    """One cause, with its part of the change where that is known and not said."""
    if cause.shift_us is None or " us" in cause.sentence:
        return cause.sentence
    return f"{cause.sentence} ({signed_duration(cause.shift_us)} of it)"


def notes(check: Check) -> tuple[tuple[str, str], ...]:
    """(label, sentence): what was compared, how, and under which policy."""
    workload = check.workload
    changed = changed_fields(check.policy)
    policy = ", ".join(f"{name} {value:g}" for name, value in changed.items()) or "as by default"
    second = any(f.confirmation in ("confirmed", "refuted") for f in check.findings)
    how = "interleaved on one device" if check.interleaved else "against stored records"
    return (
        ("baseline", _side(check.baseline)),
        ("now", _side(check.candidate)),
        (
            "workload",
            f"T = {workload.seq_len:,} ({workload.uuid[:SHORT_HASH]}) of {workload.definition} "
            f"on {check.device}",
        ),
        ("measured", how + (", with a second round to confirm" if second else "")),
        ("policy", policy),
    )


def subject(check: Check) -> str:
    """'triton_v2, T = 56, NVIDIA H200'."""
    tokens = check.workload.seq_len
    return f"{check.candidate.solution}, T = {tokens:,}, {check.device}"


def _side(side: Side) -> str:
    sources = ", ".join(source[:SHORT_HASH] for source in side.source_hashes)
    first, last = (moment[:16].replace("T", " ") for moment in side.created)
    same_day = first[:10] == last[:10]
    when = first if first == last else f"{first} to {last[11:] if same_day else last}"
    return f"{side.solution} (source {sources}), {side.processes} processes, {when} UTC"
