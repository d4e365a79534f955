"""A check as SARIF 2.1.0, which code scanning reads: a result a regression, at its stage's file.

What regressed is an error if severe, else a warning; a wrong result is an error; what was not
decided is a note. Fingerprints name the work and the stage and no figures, so that one regression
seen by many runs is one alert. Sides that cannot be compared are a failed invocation.
"""

from __future__ import annotations

import hashlib
from typing import Any

from moeprof import __version__
from moeprof.regression.values import Check, Finding
from moeprof.reports.check import phrases
from moeprof.reports.check.places import NOWHERE, Places

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
RULES = (
    ("stage-time", "A stage takes longer on the device"),
    ("stage-host", "The host takes longer in a stage"),
    ("forward-time", "The whole forward takes longer"),
    ("wrong-result", "The result is not the definition's"),
)
WRONG_RESULT = "wrong-result"


def check_sarif(check: Check, places: Places = NOWHERE) -> dict[str, Any]:
    """The log as a JSON object."""
    results = [_finding_result(check, finding, places) for finding in phrases.regressed(check)]
    if check.wrong_result:
        headline = phrases.headline(check)
        results = [_result(check, WRONG_RESULT, "error", headline, "", places)]
    elif check.verdict == "INCONCLUSIVE" and check.comparable:
        open_ = phrases.undecided(check)
        results += [_finding_result(check, finding, places) for finding in open_]
    driver = {
        "name": "moeprof",
        "semanticVersion": __version__,
        "rules": [
            {
                "id": name,
                "shortDescription": {"text": f"{text}."},
                "defaultConfiguration": {"level": "error" if name == WRONG_RESULT else "warning"},
            }
            for name, text in RULES
        ],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [_invocation(check)],
        "automationDetails": {"id": f"moeprof/{check.candidate.solution}/T{_tokens(check)}/"},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _invocation(check: Check) -> dict[str, Any]:
    found: dict[str, Any] = {
        "executionSuccessful": check.comparable,
        "exitCode": check.exit_code,
    }
    if not check.comparable:
        found["toolExecutionNotifications"] = [
            {"level": "error", "message": {"text": sentence}} for sentence in check.against
        ]
    return found


def _finding_result(check: Check, finding: Finding, places: Places) -> dict[str, Any]:
    quantity = finding.quantity
    rule = "forward-time"
    if quantity.stage:
        rule = "stage-host" if quantity.measure == "host" else "stage-time"
    level = "note"
    if finding.verdict == "REGRESSED":
        level = "error" if finding.severe else "warning"
    causes = [phrases.cause_text(cause) for cause in check.causes_of(quantity.stage)]
    why = "; ".join(causes) if causes and level != "note" else finding.reason
    what = f"{finding.verdict} {phrases.quantity_label(finding)} of {phrases.subject(check)}"
    text = f"{what}: {phrases.change(finding, check)}: {why}"
    result = _result(check, rule, level, text, quantity.stage, places)
    result["properties"] = {
        "measure": quantity.measure,
        "baselineUs": finding.baseline_us,
        "nowUs": finding.candidate_us,
        "ratio": finding.ratio,
        "ratioLow": finding.ratio_low,
        "ratioHigh": finding.ratio_high,
        "shiftUs": finding.shift_us,
        "pAfterHolm": finding.p_holm,
    }
    return result


def _result(
    check: Check, rule: str, level: str, text: str, stage: str, places: Places
) -> dict[str, Any]:
    location: dict[str, Any] = {}
    file = places.of(stage)
    if file:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": file, "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": 1},
        }
    if stage:
        location["logicalLocations"] = [{"name": stage, "kind": "function"}]
    result: dict[str, Any] = {
        "ruleId": rule,
        "ruleIndex": [name for name, _ in RULES].index(rule),
        "level": level,
        "message": {"text": text},
        "partialFingerprints": {"moeprof/v1": _fingerprint(check, rule, stage)},
    }
    return {**result, "locations": [location]} if location else result


def _fingerprint(check: Check, rule: str, stage: str) -> str:
    workload = check.workload
    words = (
        check.candidate.solution,
        workload.definition,
        workload.uuid,
        check.device,
        rule,
        stage,
    )
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]


def _tokens(check: Check) -> int:
    return check.workload.seq_len
