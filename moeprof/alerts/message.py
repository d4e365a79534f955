"""What a webhook is told of a check.

``text`` is what chats show (Slack and Mattermost read that key), ``check`` the whole document for
programs, ``id`` the same for every attempt to deliver it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from moeprof.regression.values import Check
from moeprof.reports.check import phrases
from moeprof.reports.check.json import DOCUMENT, check_document

ALERT = "moeprof.alert/1"


def alert_message(check: Check) -> dict[str, Any]:
    """One JSON object."""
    document = {"schema": DOCUMENT, **check_document(check)}
    told = [f"{label}: {sentence}" for label, sentence in phrases.explanations(check)]
    lines = [phrases.headline(check), phrases.subject(check), *told]
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return {"schema": ALERT, "id": digest[:32], "text": "\n".join(lines), "check": document}
