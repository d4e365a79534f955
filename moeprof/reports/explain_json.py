"""An explanation as a JSON document for other programs.

``DOCUMENT`` names the layout; its number goes up when a field changes meaning or goes away. A
change in us is negative where the forward gets faster; what is unknown is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from moeprof.interventions.verdicts import BarVerdict, Explanation, Outcome, tolerance_us
from moeprof.reports.compare_json import comparison_document

DOCUMENT = "moeprof.explain/1"


def explanation_document(explanation: Explanation, records: Sequence[str]) -> dict[str, Any]:
    """records: the files of the two sides."""
    return {
        "comparison": comparison_document(explanation.comparison, records, explanation.reasons),
        "interventions": [_outcome(outcome) for outcome in explanation.outcomes],
        "bars": [_bar(found) for found in explanation.bars],
        "sensitivity": [asdict(row) for row in explanation.sensitivity],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    intervention, measurement = outcome.intervention, outcome.measurement
    prediction = outcome.prediction
    predicted = prediction.change_us if prediction is not None else None
    measured = measurement.change_us
    judged = predicted is not None and measured is not None
    return {
        "kind": str(intervention.kind),
        "name": intervention.name,
        "solution": intervention.solution,
        "changes": intervention.changes,
        "stages": list(intervention.stages),
        "predicted_us": predicted,
        "predicted_from": prediction.how if prediction is not None else None,
        "measured_us": measured,
        "noise_us": measurement.noise_us if measured is not None else None,
        "base_us": measurement.base_us,
        "tolerance_us": tolerance_us(predicted or 0.0, measured or 0.0) if judged else None,
        "output": measurement.remark or None,
        "verdict": str(outcome.verdict),
        "why": outcome.why or None,
    }


def _bar(found: BarVerdict) -> dict[str, Any]:
    return {
        "part": found.bar.part,
        "cause": str(found.bar.cause),
        "delta_ns": found.bar.delta_ns,
        "verdict": str(found.verdict),
        "by": list(found.by),
    }
