"""Hand-made traces in the layout that PyTorch's profiler writes, events of which tests can damage.

Times are given in integer nanoseconds and written as Kineto does: microseconds with three digits.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST, THREAD, STREAM = 2189, 2190, 7
H200 = {
    **{"id": 0, "name": "NVIDIA H200", "totalGlobalMem": 150109880320},
    **{"computeMajor": 9, "computeMinor": 0, "numSms": 132},
}
HEADER = {
    **{"schemaVersion": 1, "deviceProperties": [H200], "host_name": "secret-host"},
    **{"cuda_runtime_version": 13000, "cuda_driver_version": 13010, "trace_id": "5EC2E7"},
    **{"displayTimeUnit": "ms", "baseTimeNanoseconds": 1790857026000000000},
}
LAUNCHED = {"grid": [132, 1, 1], "block": [128, 1, 1]} | {
    "registers per thread": 64,
    "shared memory": 3072,
}


def us(nanoseconds: int) -> str:
    """Microseconds as Kineto prints them."""
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03}"


def event_text(fields: dict[str, Any]) -> str:
    """One event; a value that is ``Raw`` stands as it is."""
    lines = ",\n    ".join(f"{json.dumps(key)}: {_text(value)}" for key, value in fields.items())
    return f"  {{\n    {lines}\n  }}"


class Raw(str):
    """Text that is put into a file as it is."""


def _text(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {_text(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


@dataclass
class KinetoFile:
    """Events in the order they are added."""

    header: dict[str, Any] = field(default_factory=lambda: dict(HEADER))
    events: list[str] = field(default_factory=list)
    trailer: dict[str, Any] = field(default_factory=lambda: {"traceName": "/home/somebody/t.json"})

    def raw(self, text: str) -> KinetoFile:
        """Anything in the place of an event."""
        self.events.append(text)
        return self

    def event(self, ph: str, cat: str | None, name: Any, **fields: Any) -> KinetoFile:
        """Any event; a field that is None is left out."""
        whole = {"ph": ph, "cat": cat, "name": name, **fields}
        return self.raw(event_text({k: v for k, v in whole.items() if v is not None}))

    def complete(
        self, cat: str, name: Any, start: int, duration: int, pid: Any, tid: Any, **fields: Any
    ) -> KinetoFile:
        """An event with begin and duration; ``fields`` replace and add."""
        times = {"ts": Raw(us(start)), "dur": Raw(us(duration))}
        return self.event("X", cat, name, **{"pid": pid, "tid": tid, **times, **fields})

    def operator(self, name: str, start: int, duration: int) -> KinetoFile:
        """An operator of PyTorch."""
        args = {"External id": 3, "Input Dims": [[56, 7168], []], "Ev Idx": 2}
        return self.complete("cpu_op", name, start, duration, HOST, THREAD, args=args)

    def range(self, name: str, start: int, duration: int, tid: Any = THREAD) -> KinetoFile:
        """A record_function range."""
        args = {"External id": 3, "Record function id": 0, "Ev Idx": 2}
        return self.complete("user_annotation", name, start, duration, HOST, tid, args=args)

    def call(
        self, name: str, start: int, duration: int, correlation: int, cbid: int = 211, **fields: Any
    ) -> KinetoFile:
        """A call of the runtime, or of the driver if its name says so."""
        args = {"External id": 3, "cbid": cbid, "correlation": correlation}
        runtime = name.startswith("cuda") or name == "INVALID"
        cat = fields.pop("cat", "cuda_runtime" if runtime else "cuda_driver")
        whole = {"pid": HOST, "tid": THREAD, "args": args, **fields}
        return self.complete(cat, name, start, duration, **whole)

    def kernel(
        self, name: Any, start: int, duration: int, correlation: int, **arguments: Any
    ) -> KinetoFile:
        """A kernel on stream 7 of GPU 0."""
        return self.on_gpu("kernel", name, start, duration, correlation, **LAUNCHED, **arguments)

    def on_gpu(
        self, cat: str, name: Any, start: int, duration: int, correlation: int, **arguments: Any
    ) -> KinetoFile:
        """A GPU operation; arguments replace and add, None leaves one out."""
        args = {
            **{"External id": 3, "device": 0, "context": 1, "stream": STREAM},
            **{"correlation": correlation, **arguments},
        }
        args = {key: value for key, value in args.items() if value is not None}
        pid, tid = args.get("device", 0), args.get("stream", STREAM)
        return self.complete(cat, name, start, duration, pid, tid, args=args)

    def text(self) -> str:
        """The whole file."""
        header = "".join(f"    {json.dumps(k)}: {_text(v)},\n" for k, v in self.header.items())
        trailer = "".join(f",{json.dumps(k)}: {_text(v)}" for k, v in self.trailer.items())
        events = ",\n".join(self.events)
        return f' {{\n{header}    "traceEvents": [\n{events}\n  ]{trailer} }}'

    def save(self, path: Path) -> Path:
        """Write it, compressed if ``path`` says so."""
        content = self.text().encode(errors="surrogatepass")
        path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
        return path


def launch(
    file: KinetoFile, name: str, at: int, start: int, duration: int, correlation: int
) -> KinetoFile:
    """A call of 5 us at ``at``, its flow, and the kernel that it launches."""
    file.call("cudaLaunchKernel", at, 5_000, correlation)
    flow = {"id": correlation, "pid": HOST, "tid": THREAD, "ts": Raw(us(at))}
    file.event("s", "ac2g", "ac2g", **flow)
    return file.kernel(name, start, duration, correlation)


def two_iterations() -> KinetoFile:
    """Two iterations, 100 us apart, of two stages with a memset, a kernel and a kernel in them."""
    file = KinetoFile()
    file.event("M", None, "process_name", pid=HOST, tid=0, args={"name": "somebody.py"})
    file.event("M", None, "process_labels", pid=0, tid=0, args={"labels": "GPU 0"})
    file.event("M", None, "thread_name", pid=0, tid=7, args={"name": "stream 7 "})
    for number in range(2):
        at, first = 1_000_000 + 100_000 * number, 10 + 10 * number
        file.range(f"ProfilerStep#{number}", at - 1_000, 95_000)
        file.range("moeprof.iteration", at, 90_001)
        file.range("moeprof.routing", at + 1_000, 18_000)
        file.operator("aten::zeros", at + 1_500, 6_000)
        file.call("cudaMemsetAsync", at + 2_000, 3_000, first, cbid=51)
        file.on_gpu("gpu_memset", "Memset (Device)", at + 6_000, 1_000, first, bytes=512)
        launch(file, "scale_kernel(float const*, int)", at + 8_000, at + 13_000, 3_007, first + 1)
        file.range("moeprof.gemm1", at + 20_000, 29_000)
        file.call("cuLaunchKernelEx", at + 21_000, 4_000, first + 2, cbid=652)
        file.kernel("gemm_kernel", at + 26_000, 50_000, first + 2)
        shadow = {"pid": 0, "tid": 7, "ts": Raw(us(at + 25_999)), "dur": Raw("50.002")}
        file.event("X", "gpu_user_annotation", "moeprof.gemm1", **shadow)
        file.call("cudaDeviceSynchronize", at + 50_000, 30_000, first + 3, cbid=165)
        file.call("cudaGetLastError", at + 81_000, 200, first + 4, cbid=10)
    at_cupti = {"pid": -1, "tid": 0}
    file.complete("overhead", "Activity Buffer Request", 1_120_500, 1_782_205, **at_cupti)
    file.complete("overhead", "Lazy Function Loading", 1_000_500, 2_205, **at_cupti)
    file.complete("Trace", "PyTorch Profiler (0)", 900_000, 400_000, "Spans", "PyTorch Profiler")
    file.event("i", None, "Record Window End", s="g", pid="", tid="", ts=Raw("1400.000"))
    return file
