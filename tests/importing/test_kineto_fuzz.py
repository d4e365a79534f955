"""Any change to a trace file ends in a sound Trace or one RecordError line.

Files are hand-made ones, real ones cut to 60 events, and a plain Chrome trace. They are changed in
structure (keys lost, doubled, retyped, values made odd, events swapped or nested) and in bytes,
packed or not. MOEPROF_FUZZ_INPUTS=20000 makes it a long run.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.errors import RecordError
from moeprof.importing.kineto import read_kineto
from tests.importing.kineto_files import two_iterations

INPUTS = int(os.environ.get("MOEPROF_FUZZ_INPUTS", "150"))
REAL = sorted((Path(__file__).resolve().parents[1] / "data" / "kineto").glob("*.json.gz"))
ODD = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.5, -0.5, 1e300),
    *(float("nan"), float("inf"), "", "17", "NaN", "\0", "\x1b[31m", "\ud800", "<b>", "a" * 30_000),
    *("'; DROP TABLE x; --", "moeprof.gemm1", "GPU 0", "stream 7", "cudaLaunchKernel"),
    *([], [[]], {}, {"": {}}, [1, 1, 1], [0, -1, 2**40], {"ph": "X"}, {"args": {}}),
]
PHASES = ["X", "B", "E", "b", "e", "M", "i", "s", "f", "C", "S", "F", "?", "", "XX"]
CATEGORIES = [
    *("kernel", "gpu_memcpy", "gpu_memset", "cuda_runtime", "cuda_driver", "user_annotation"),
    *("gpu_user_annotation", "cpu_op", "overhead", "Kernel", "Runtime", "gpu_kernel", "x"),
]
KEYS = [
    *("ph", "cat", "name", "pid", "tid", "ts", "dur", "args", "id", "correlation", "device"),
    *("stream", "grid", "block", "bytes", "graph node id", "kernel_details", "cbid", "labels"),
]


def _real(path):
    document = json.loads(gzip.decompress(path.read_bytes()))
    events = document["traceEvents"]
    kept = [e for e in events if e.get("cat") not in ("cpu_op", "ac2g") and e["ph"] != "M"]
    return {**document, "traceEvents": kept[:20] + kept[-40:]}


def _plain():
    track = {"pid": 5, "tid": 1}
    gpu = {"pid": 1, "tid": 14, "args": {"kernel_details": "regs:32 grid:8,1,1 block:1,1,1"}}
    return [
        {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "/device:GPU:0"}},
        {"ph": "M", "name": "thread_name", **gpu, "args": {"name": "Stream #14(Compute)"}},
        {"ph": "B", "name": "outer", "ts": 1, **track},
        {"ph": "X", "name": "cudaLaunchKernel", "ts": 2, "dur": 5, **track},
        {"ph": "E", "ts": 50, **track},
        {"ph": "b", "name": "request", "cat": "r", "id": "0x1", "ts": 1, **track},
        {"ph": "e", "name": "request", "cat": "r", "id": "0x1", "ts": 90, **track},
        *({"ph": "X", "name": f"k{n}", "ts": 10 * n, "dur": 5.001, **gpu} for n in range(5)),
    ]


STARTS = [b"", b"[", b"{", b'{"traceEvents":[', b'[{"ph":"X","cat":"kernel",', b"\x1f\x8b\x08"]
DOCUMENTS = [json.dumps(_plain()), two_iterations().text(), *(json.dumps(_real(p)) for p in REAL)]


class Changer:
    """Changes a document in the ways that its random numbers say."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def odd(self):
        """A value that an event should not hold; a new one, since it may be changed too."""
        return copy.deepcopy(self.random.choice(ODD))

    def file(self):
        """The bytes of a changed file."""
        text = self.random.choice(DOCUMENTS)
        if self.random.random() < 0.7:
            text = self.structure(json.loads(text))
        content = text.encode("utf-8", "surrogatepass")
        if self.random.random() < 0.5:
            content = self.bytes_(content)
        if self.random.random() < 0.2:
            content = gzip.compress(content, compresslevel=1, mtime=0)
            if self.random.random() < 0.5:
                content = self.bytes_(content)
        return content

    def structure(self, document):
        events = document if isinstance(document, list) else document["traceEvents"]
        for _ in range(self.random.randint(1, 12)):
            self.event(events)
        if isinstance(document, dict) and self.random.random() < 0.2:
            key = self.random.choice([*document, "traceEvents", "deviceProperties"])
            document[key] = self.odd()
        text = json.dumps(document, ensure_ascii=self.random.random() < 0.5)
        if self.random.random() < 0.2:  # a key twice
            key = json.dumps(self.random.choice(KEYS))
            text = text.replace(f"{key}:", f"{key}: 3, {key}:", self.random.randint(1, 5))
        return text

    def event(self, events):
        """Change one event, or where it stands."""
        draw, at = self.random, self.random.randrange(len(events) or 1)
        if not events or not isinstance(events[at % len(events)], dict):
            events.insert(at, self.odd())
            return
        event = events[at]
        where = (
            event["args"] if isinstance(event.get("args"), dict) and draw.random() < 0.4 else event
        )
        match draw.randrange(9):
            case 0 if where:
                del where[draw.choice(list(where))]
            case 1 if where:
                where[draw.choice(list(where))] = self.odd()
            case 2:
                where[draw.choice(KEYS)] = self.odd()
            case 3:
                event["ph"] = draw.choice(PHASES)
            case 4:
                event["cat"] = draw.choice(CATEGORIES)
            case 5:
                events.insert(draw.randrange(len(events)), events.pop(at))
            case 6:
                events.insert(draw.randrange(len(events)), json.loads(json.dumps(event)))
            case 7:
                events[at] = self.odd()
            case _:
                where["ts"] = draw.choice([where.get("ts"), 0, 1e-9, 4e15, "1", -(10**18)])

    def bytes_(self, content):
        content = bytearray(content)
        for _ in range(self.random.choice([1, 1, 1, 2, 5, 50])):
            if not content:
                break
            at = self.random.randrange(len(content))
            match self.random.randrange(6):
                case 0:
                    content[at] ^= 1 << self.random.randrange(8)
                case 1:
                    content[at] = self.random.choice(b'"{}[],:\\\x00\xff\x1f0e-')
                case 2:
                    del content[at:]
                case 3:
                    del content[at : at + self.random.randint(1, 200)]
                case 4:
                    content[at:at] = self.random.randbytes(self.random.randint(1, 20))
                case 5:
                    content[at:at] = content[at : at + self.random.randint(1, 500)]
        return bytes(content)


def check_sound(trace):
    """What every reader of a Trace may rely on."""
    operations, calls, ranges = trace.operations, trace.calls, trace.ranges
    for table, columns in (
        (operations, ("correlation", "description", "place")),
        (calls, ("correlation", "thread", "name")),
        (ranges, ("thread", "name", "style")),
    ):
        start, end = table.start_ns, table.end_ns
        assert start.dtype == end.dtype == np.int64
        assert (start >= 0).all() and (np.diff(start) >= 0).all()
        assert ((end >= start) | ((end == -1) & (table is ranges))).all()
        assert {len(getattr(table, column)) for column in columns} == {len(start)} == {len(end)}
    assert len(operations) and (end <= 2**61).all()
    assert (operations.correlation >= -1).all() and (calls.correlation >= -1).all()
    for numbers, values in (
        (operations.description, operations.descriptions),
        (operations.place, operations.places),
        (calls.name, calls.names),
        (ranges.name, ranges.names),
    ):
        assert not len(numbers) or (0 <= numbers.min() and numbers.max() < len(values))
    assert {*calls.thread.tolist(), *ranges.thread.tolist()} == trace.threads.keys()
    names = [one.name for one in operations.descriptions] + [*calls.names]
    names += [part for pair in ranges.names for part in pair] + [*trace.notes]
    assert all(name.isprintable() and len(name) <= 20_000 for name in names)
    assert all(one.stream >= 0 and one.stage == one.launch == "" for one in operations.descriptions)
    assert trace.overhead_ns.shape[1] == 2


@settings(max_examples=INPUTS, deadline=None)
@given(seed=st.integers(0, 2**64))
def test_a_changed_file_gives_a_sound_trace_or_one_line(seed, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "changed.json"
    path.write_bytes(Changer(seed).file())
    began = time.process_time()
    try:
        check_sound(read_kineto(path))
    except RecordError as error:
        assert str(error).startswith(f"{path}: ") and str(error).isprintable()
        assert len(str(error)) < 1_000
    assert time.process_time() - began < 5


@settings(max_examples=INPUTS, deadline=None)
@given(
    content=st.binary(max_size=300), start=st.sampled_from([b"", b"[", b"{", b'{"traceEvents":['])
)
def test_any_bytes_give_a_sound_trace_or_one_line(content, start, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(start + content)
    with pytest.raises(RecordError) as caught:
        read_kineto(path)
    assert str(caught.value).isprintable()


def test_the_changes_reach_both_outcomes(tmp_path):
    """Else the fuzzing would show nothing."""
    outcomes = {"read": 0, "notes": 0, "refused": 0}
    path = tmp_path / "changed.json"
    for seed in range(60):
        path.write_bytes(Changer(seed).file())
        try:
            outcomes["notes" if read_kineto(path).notes else "read"] += 1
        except RecordError:
            outcomes["refused"] += 1
    assert all(count >= 5 for count in outcomes.values()), outcomes
