"""A check as one JSON document: everything ``values.Check`` holds, and what follows from it.

``DOCUMENT`` names the layout; its number goes up when a field changes meaning or goes away, not
when one is added. Unknown figures are null; times are us, ratios are now / baseline.
"""

from __future__ import annotations

from typing import Any

from moeprof.regression.values import Check, Finding
from moeprof.reports.check import phrases
from moeprof.storage.codec import encode

DOCUMENT = "moeprof.check/1"


def check_document(check: Check) -> dict[str, Any]:
    """The content, without its schema."""
    return {
        "verdict": check.verdict,
        "exit_code": check.exit_code,
        "headline": phrases.headline(check),
        "alerts": [_alert(check, finding) for finding in phrases.regressed(check)],
        **encode(check),
    }


def _alert(check: Check, finding: Finding) -> dict[str, Any]:
    return {
        "stage": finding.quantity.stage,
        "measure": finding.quantity.measure,
        "severe": finding.severe,
        "change": phrases.change(finding, check),
        "causes": [cause.sentence for cause in check.causes_of(finding.quantity.stage)],
    }
