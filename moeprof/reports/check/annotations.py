"""A check as GitHub workflow commands: lines on stdout that become annotations of the run.

``::error`` for what regressed, ``::warning`` for what keeps the check from a verdict, ``::notice``
for the rest of what changed.
"""

from __future__ import annotations

from moeprof.regression.values import Check, Finding
from moeprof.reports.check import phrases
from moeprof.reports.check.places import NOWHERE, Places


def check_annotations(check: Check, places: Places = NOWHERE) -> str:
    """The lines, each ending in a newline; the headline where there is nothing to point at."""
    lines: list[str] = []
    if check.wrong_result or not check.comparable:
        lines.append(_line("error", phrases.headline(check), "", places.solution))
    else:
        lines += [_finding("error", check, one, places) for one in phrases.regressed(check)]
        lines += [_finding("notice", check, one, places) for one in phrases.improved(check)]
        if check.verdict == "INCONCLUSIVE":
            lines.append(_line("warning", phrases.headline(check), "", places.solution))
    if not lines:
        lines.append(_line("notice", phrases.headline(check), "", ""))
    return "".join(f"{line}\n" for line in lines)


def _finding(level: str, check: Check, finding: Finding, places: Places) -> str:
    stage = finding.quantity.stage
    causes = [phrases.cause_text(cause) for cause in check.causes_of(stage)]
    why = "; ".join(causes) or finding.reason
    what = phrases.quantity_label(finding)
    title = f"{finding.verdict} {what} of {phrases.subject(check)}"
    message = f"{what} {phrases.change(finding, check)}: {why}"
    return _line(level, message, title, places.of(stage))


def _line(level: str, message: str, title: str, file: str) -> str:
    properties = [
        f"{name}={_property(value)}" for name, value in (("file", file), ("title", title)) if value
    ]
    return f"::{level}{' ' * bool(properties)}{','.join(properties)}::{_data(message)}"


def _data(text: str) -> str:
    """As GitHub's own toolkit escapes a message."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
