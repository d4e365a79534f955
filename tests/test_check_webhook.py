"""The webhook against a real HTTP server on this machine: what arrives, what is tried again, what
is said and what is never said."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from moeprof.alerts.message import alert_message
from moeprof.alerts.webhook import LONGEST_WAIT, Webhook, WebhookFailed, post, webhook
from moeprof.errors import EnvironmentMissing, UsageError
from tests.checks import GRID, make_check, regressed

SECRET = "T0K3N-in-the-path"
DOCUMENT = {"text": "gemm1 +4.9 %", "n": 1}


@dataclass
class Received:
    """What a server got, and how it is to answer: status codes in turn, the last for ever."""

    answers: tuple[object, ...]
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/{SECRET}?key=also-{SECRET}"


@contextmanager
def server(*answers: object, headers: dict[str, str] | None = None) -> Iterator[Received]:
    """answers: status codes; 'hang': none at all; 'drip': a byte a while; 'cut': hang up."""
    received = Received(answers)
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.requests.append((self.command, self.path, dict(self.headers), body))
            position = min(len(received.requests), len(received.answers)) - 1
            answer = received.answers[position]
            if answer == "hang":
                stop.wait(20)
            elif answer == "drip":
                for letter in b"HTTP/1.1 200 OK, quite slowly\r\n":
                    if stop.wait(0.1):
                        return
                    self.wfile.write(bytes([letter]))
                    self.wfile.flush()
            elif answer == "cut":
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.send_response(int(str(answer)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client gave up, as it should

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.port = listening.server_port
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield received
    finally:
        stop.set()
        listening.shutdown()
        listening.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def hook(url, seconds=5.0, waits=(0.01, 0.02)):
    return Webhook(url, "MY_HOOK", seconds, waits)


def silent(text):
    """The text, which must name neither the secret nor where it goes."""
    for word in (SECRET, "127.0.0.1", "hooks", "http"):
        assert word not in text.replace("HTTP", ""), text
    assert "\n" not in text
    return text


# ---------------------------------------------------------------- delivery


def test_a_document_arrives_as_json():
    with server(200) as received:
        assert post(hook(received.url), DOCUMENT) == 1
    ((method, path, headers, body),) = received.requests
    assert (method, path) == ("POST", f"/hooks/{SECRET}?key=also-{SECRET}")
    assert json.loads(body) == DOCUMENT
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("moeprof/")


@pytest.mark.parametrize("trouble", [500, 503, 429, 408, "cut"])
def test_what_may_pass_is_tried_again(trouble):
    waited: list[float] = []
    with server(trouble, 204) as received:
        assert post(hook(received.url), DOCUMENT, sleep=waited.append) == 2
    bodies = {body for *_, body in received.requests}
    assert len(received.requests) == 2 and len(bodies) == 1
    assert waited == [0.01]


def test_a_server_that_stays_down_is_one_line_after_every_attempt():
    waited: list[float] = []
    with server(500) as received, pytest.raises(WebhookFailed) as caught:
        post(hook(received.url), DOCUMENT, sleep=waited.append)
    assert len(received.requests) == 3 and waited == [0.01, 0.02]
    told = silent(str(caught.value))
    assert told == "the webhook of MY_HOOK was not told after 3 attempts: it answered HTTP 500"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_will_not_pass_is_not_tried_again(status):
    with server(status) as received, pytest.raises(WebhookFailed, match=f"HTTP {status}") as caught:
        post(hook(received.url), DOCUMENT)
    assert len(received.requests) == 1
    silent(str(caught.value))


@pytest.mark.parametrize("answer", ["hang", "drip"])
def test_a_server_that_never_answers_is_given_up_in_time(answer):
    begin = time.monotonic()
    with server(answer) as received:
        with pytest.raises(WebhookFailed, match="no answer within 0.3 s|in time") as caught:
            post(hook(received.url, seconds=0.3), DOCUMENT)
        took = time.monotonic() - begin
    assert took < 3 * 0.3 + 2.0
    assert len(received.requests) == 3
    silent(str(caught.value))


def test_nobody_listening_is_one_line():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{SECRET}"
        with pytest.raises(WebhookFailed, match="Connection refused") as caught:
            post(hook(url), DOCUMENT)
    silent(str(caught.value))


def test_a_host_that_does_not_exist_is_one_line():
    with pytest.raises(WebhookFailed, match="the connection failed") as caught:
        post(hook(f"http://{SECRET}.invalid/", seconds=20.0, waits=()), DOCUMENT)
    silent(str(caught.value))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status):
    with server(200) as elsewhere:
        with server(status, headers={"Location": elsewhere.url}) as received:
            with pytest.raises(WebhookFailed, match=f"redirects .HTTP {status}.") as caught:
                post(hook(received.url), DOCUMENT)
    assert len(received.requests) == 1
    assert elsewhere.requests == [], "the document went where nobody configured"
    silent(str(caught.value))


@pytest.mark.parametrize(
    ("asked", "waited"), [("7", 7.0), ("86400", LONGEST_WAIT), ("soon", 0.01), ("-5", 0.01)]
)
def test_retry_after_is_heeded_within_reason(asked, waited):
    waits: list[float] = []
    with server(503, 200, headers={"Retry-After": asked}) as received:
        post(hook(received.url), DOCUMENT, sleep=waits.append)
    assert waits == [waited]


# ---------------------------------------------------------------- the URL


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://host/x", "file:///etc/passwd", "host/x", "http://", "https:///x", "javascript:1"),
        *(f"https://user:{SECRET}@host/x", "http://[::1", "http://host:99999/", "http://a b/"),
        "http://host/\nHeader: x",
    ],
)
def test_a_url_that_is_none_is_refused_without_showing_it(url):
    with pytest.raises(UsageError) as caught:
        webhook("MY_HOOK", {"MY_HOOK": url})
    assert "MY_HOOK holds no usable URL" in silent(str(caught.value).split(";")[0])
    assert SECRET not in str(caught.value)


def test_an_unset_variable_is_said_by_name():
    with pytest.raises(EnvironmentMissing, match="MY_HOOK is not set"):
        webhook("MY_HOOK", {"MY_HOOK": "  "})


def test_the_secret_is_in_no_repr():
    found = webhook("MY_HOOK", {"MY_HOOK": f" https://host/{SECRET}\n"})
    assert found.url == f"https://host/{SECRET}"
    assert SECRET not in repr(found) and SECRET not in str(found)


# ---------------------------------------------------------------- the message


def test_the_message_has_a_text_for_chats_and_the_document_for_programs():
    check = make_check(regressed(), causes=(GRID,))
    message = alert_message(check)
    lines = message["text"].splitlines()
    assert lines[0].startswith("REGRESSED gemm1: +4.9 % (+12.1 us, 95 % CI 4.2 to 5.6 %): the grid")
    assert lines[1] == "triton_v2, T = 56, NVIDIA H200"
    assert message["schema"] == "moeprof.alert/1"
    assert message["check"]["schema"] == "moeprof.check/1"
    assert message["check"]["alerts"][0]["stage"] == "gemm1"
    assert message == alert_message(check), "its id would differ between attempts"
    assert message["id"] != alert_message(make_check())["id"]
    with server(500, 200) as received:
        post(hook(received.url), message)
    assert [json.loads(body)["id"] for *_, body in received.requests] == [message["id"]] * 2


def test_nothing_of_the_environment_is_told(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "swordfish-1234")
    text = json.dumps(alert_message(make_check(regressed())))
    assert "swordfish" not in text and os.getcwd() not in text
