"""One JSON POST to a webhook: bounded in time, tried again where that can help, discreet.

The URL is a secret (whoever knows a chat's webhook can write there), so no message ever holds it,
its host or what the server said. Redirects are not followed: they would carry the document to a
place that nobody configured. A device-layer module: it talks to the network.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from moeprof import __version__
from moeprof.errors import EnvironmentMissing, MoeprofError, UsageError

SECONDS = 10.0  # of one attempt, name look-up to status line
WAITS = (1.0, 2.0, 4.0)  # before the second, third, fourth attempt
LONGEST_WAIT = 30.0  # whatever Retry-After asks for
_AGAIN = (408, 425, 429)


class WebhookFailed(MoeprofError):
    """The document was not delivered; the line says why and never where to."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """url: http or https. variable: the environment variable that it came from, for messages."""

    url: str
    variable: str
    seconds: float = SECONDS
    waits: tuple[float, ...] = WAITS

    def __repr__(self) -> str:
        return f"Webhook({self.variable})"


def webhook(variable: str, environ: Mapping[str, str]) -> Webhook:
    """The webhook whose URL ``variable`` holds; EnvironmentMissing, UsageError if none."""
    url = environ.get(variable, "").strip()
    if not url:
        raise EnvironmentMissing(
            f"{variable} is not set", "the URL of a webhook", "set it, or leave the webhook out"
        )
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        usable = usable and parts.username is None and parts.port != 0
        usable = usable and url.isascii() and url.isprintable() and " " not in url
    except ValueError:  # the port or a bracket
        usable = False
    if not usable:
        raise UsageError(
            f"{variable} holds no usable URL", "http://... or https://..., without user@"
        )
    return Webhook(url, variable)


def post(
    hook: Webhook,
    document: Mapping[str, Any],
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Deliver ``document``; how many attempts it took.

    Tried again after a broken connection, a timeout, 408, 425, 429 and 5xx. Raises WebhookFailed.
    """
    body = json.dumps(document, allow_nan=False).encode()
    reason = ""
    for attempt, wait in enumerate((*hook.waits, None), start=1):
        answer = _attempt(hook, body)
        if answer.delivered:
            return attempt
        reason = answer.reason
        if not answer.again:
            raise _failed(hook, reason, attempt)
        if wait is not None:
            sleep(max(wait, min(answer.after_seconds, LONGEST_WAIT)))
    raise _failed(hook, reason, len(hook.waits) + 1)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What became of one attempt. reason: without a host, a path or the server's words."""

    delivered: bool
    reason: str = ""
    again: bool = False
    after_seconds: float = 0.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _attempt(hook: Webhook, body: bytes) -> _Answer:
    """One POST, given up after ``hook.seconds`` even if the server drips a byte now and then."""
    answers: list[_Answer] = []
    sending = threading.Thread(target=lambda: answers.append(_send(hook, body)), daemon=True)
    sending.start()
    sending.join(hook.seconds)
    if answers:
        return answers[0]
    return _Answer(False, f"no answer within {hook.seconds:g} s", again=True)


def _send(hook: Webhook, body: bytes) -> _Answer:
    request = urllib.request.Request(
        hook.url,
        data=body,
        headers={"Content-Type": "application/json", "User-Agent": f"moeprof/{__version__}"},
        method="POST",
    )
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=hook.seconds):
            return _Answer(True)
    except urllib.error.HTTPError as error:
        with error:
            return _refused(error.code, error.headers.get("Retry-After", ""))
    except urllib.error.URLError as error:
        return _broken(error.reason)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _broken(error)


def _refused(status: int, retry_after: str) -> _Answer:
    if 300 <= status < 400:
        return _Answer(False, f"it redirects (HTTP {status}), which is not followed")
    again = status >= 500 or status in _AGAIN
    after = float(retry_after) if retry_after.isdecimal() else 0.0
    return _Answer(False, f"it answered HTTP {status}", again, after)


def _broken(error: object) -> _Answer:
    if isinstance(error, TimeoutError):
        return _Answer(False, "no answer in time", again=True)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _Answer(False, "its certificate is not valid")
    if isinstance(error, OSError) and error.strerror:
        return _Answer(False, f"the connection failed ({error.strerror})", again=True)
    return _Answer(False, f"the connection failed ({type(error).__name__})", again=True)


def _failed(hook: Webhook, reason: str, attempts: int) -> WebhookFailed:
    tries = f"{attempts} attempt{'s' * (attempts != 1)}"
    return WebhookFailed(f"the webhook of {hook.variable} was not told after {tries}: {reason}")
