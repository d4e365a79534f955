"""A history as one JSON document: every point and every change of the series asked for.

``DOCUMENT`` names the layout; its number goes up when a field changes meaning or goes away, not
when one is added. Times are us, ratios are after / before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moeprof.history.values import Change, Series, Subject
from moeprof.reports.history import phrases
from moeprof.storage.codec import encode

DOCUMENT = "moeprof.history/1"


def history_document(
    every: Sequence[Series], others: Sequence[tuple[Subject, int]]
) -> dict[str, Any]:
    """The content, without its schema. others: what else the store holds of the solution."""
    return {
        "subject": encode(every[0].subject),
        "series": [_series(one) for one in every],
        "others": [{**encode(subject), "checks": checks} for subject, checks in others],
    }


def _series(series: Series) -> dict[str, Any]:
    document: dict[str, Any] = encode(series)
    del document["subject"]
    if series.changes is not None:
        document["changes"] = [_change(series, change) for change in series.changes]
    return {"label": phrases.quantity_label(series.quantity), **document}


def _change(series: Series, change: Change) -> dict[str, Any]:
    return {
        **encode(change),
        "ratio": change.ratio,
        "key": series.points[change.at].key,
        "between": phrases.between(series, change) or None,
    }
