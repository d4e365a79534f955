"""A real Chromium without a window, driven through its DevTools protocol; only what the tests ask.

Every page is opened in a tab of its own with a width of its own. What the page said on the console,
threw or asked the network for is kept with it.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
SECONDS = 60.0


def executable() -> str | None:
    """Where a Chromium is installed; None if there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Tab:
    """One page. problems: console errors and exceptions; requests: addresses it asked for."""

    connection: ClientConnection
    width: int = 0
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _sent: int = 0

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events on the way are kept."""
        self._sent += 1
        self.connection.send(json.dumps({"id": self._sent, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.connection.recv(timeout=SECONDS))
            if message.get("id") == self._sent:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._keep(message)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Until the expression holds in the page."""
        deadline = time.monotonic() + SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, f"never came true: {expression}; {self.problems}"
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG, not only what a window would show."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _keep(self, message: dict[str, Any]) -> None:
        method, found = message.get("method", ""), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = found["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", str(details)))
        elif method == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning"):
            self.problems.append(" ".join(str(a.get("value", a)) for a in found["args"]))
        elif method == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.problems.append(found["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])


@dataclass(frozen=True)
class Chromium:
    """A running browser."""

    port: int

    @contextmanager
    def open(self, address: str, width: int, dark: bool = False) -> Iterator[Tab]:
        """The page at ``address`` in a window of ``width`` CSS pixels."""
        with urlopen(f"http://127.0.0.1:{self.port}/json/version") as answer:
            browser = json.load(answer)["webSocketDebuggerUrl"]
        with connect(browser, max_size=None) as control:
            first = Tab(control)
            target = first.send("Target.createTarget", url="about:blank")["targetId"]
            page = f"ws://127.0.0.1:{self.port}/devtools/page/{target}"
            with connect(page, max_size=None) as connection:
                tab = Tab(connection, width)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    tab.send(f"{domain}.enable")
                tab.send(
                    "Emulation.setDeviceMetricsOverride",
                    width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
                )  # fmt: skip
                scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                tab.send("Emulation.setEmulatedMedia", features=[scheme])
                tab.send("Page.navigate", url=address)
                yield tab
            first.send("Target.closeTarget", targetId=target)


@contextmanager
def chromium() -> Iterator[Chromium]:
    """A browser with a new, empty profile; ended with the block."""
    program = executable()
    assert program is not None, "no Chromium is installed"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
        )
        try:
            yield Chromium(_port(process, Path(profile) / "DevToolsActivePort"))
        finally:
            process.terminate()
            process.wait(timeout=SECONDS)


def _port(process: subprocess.Popen[bytes], announced: Path) -> int:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"Chromium ended with {process.returncode} at start"
        if announced.exists() and (lines := announced.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.05)
    raise AssertionError("Chromium did not open its DevTools port")
