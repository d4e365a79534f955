"""Records beside a capture as a JSON document for other programs.

``DOCUMENT`` names the layout; its number goes up when a field changes meaning or goes away, not
when one is added. Times are us; ``records`` has a figure for each record, ``capture`` the other's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from moeprof.compare.agreement import Agreement, Figure, RowAgreement, label_of
from moeprof.reports import agreement_phrases as phrases

DOCUMENT = "moeprof.verify/1"


def agreement_document(
    agreement: Agreement, records: Sequence[str], against: str
) -> dict[str, Any]:
    """records, against: the files compared."""
    capture = agreement.against.capture
    return {
        "agrees": agreement.agrees,
        "headline": phrases.headline(agreement),
        "sentences": list(phrases.sentences(agreement)),
        "doubts": list(phrases.doubts(agreement)),
        "solution": agreement.run.solution.name,
        "workload": asdict(agreement.run.workload),
        "device": agreement.run.environment.device,
        "pass": agreement.pass_name,
        "records": [
            {"record": record, "iterations": iterations}
            for record, iterations in zip(records, agreement.iterations, strict=True)
        ],
        "against": {
            "file": against,
            "label": label_of(agreement.against),
            "iterations": agreement.capture_iterations,
            "capture": None if capture is None else asdict(capture),
            "unknown_work": agreement.unknown_work,
        },
        "tolerance": asdict(agreement.tolerance),
        "stages": [_row(row) for row in agreement.rows],
        "not_judged": {
            "span_us": _figure(agreement.span),
            **{f"{cause[:-3]}_us": _figure(figure) for cause, figure in agreement.idle},
        },
    }


def _row(row: RowAgreement) -> dict[str, Any]:
    return {
        "name": row.name,
        "verdict": phrases.verdict(row),
        "agrees": row.agrees,
        "in_record": row.in_record,
        "in_capture": row.in_capture,
        "busy_us": _figure(row.busy),
        "allowed_us": row.tolerance.allowed_ns(row.busy.nearest) / 1e3,
        "kernel_sum_us": _figure(row.kernel_sum),
        "gap_us": _figure(row.gap),
        "operations": _figure(row.operations, 1.0),
        "more": [{"name": name, "count": counted} for name, counted in row.more],
        "fewer": [{"name": name, "count": counted} for name, counted in row.fewer],
    }


def _figure(figure: Figure, unit: float = 1e3) -> dict[str, Any]:
    return {
        "records": [value / unit for value in figure.records],
        "capture": figure.capture / unit,
        "difference": figure.difference / unit,
    }
