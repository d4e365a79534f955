"""A scrubbed trace: nothing private, and the same Trace as far as it goes."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from moeprof.errors import RecordError, UsageError
from moeprof.importing.kineto import read_kineto
from moeprof.importing.scrub_kineto import scrub_kineto
from moeprof.storage import store
from tests.importing.kineto_files import HOST, Raw, launch, two_iterations
from tests.privacy import private_words

REAL = sorted((Path(__file__).resolve().parents[1] / "data" / "kineto").glob("*.json.gz"))


def secretive():
    """Two iterations with something private in every place that has a name."""
    file = two_iterations()
    file.header["distributedInfo"] = {"pg_config": ["secret-group"]}
    file.header["PT_PROFILER_JOB_NAME"] = "secret-job"
    file.header["deviceProperties"][0] |= {"serial": "secret-serial"}
    file.event("M", None, "process_name", pid=HOST, tid=0, args={"name": "secret.py"})
    file.event("M", None, "thread_name", pid=HOST, tid=1, args={"name": "thread 1 (secret)"})
    file.complete("python_function", "/home/secret/a.py(3): f", 1_001_000, 10, HOST, HOST)
    args = {"Call stack": "/home/secret/a.py", "Concrete Inputs": ["secret"], "External id": 4}
    file.complete("cpu_op", "aten::mm", 1_001_000, 10, HOST, HOST, args=args)
    file.range("load /home/secret/w.pt for secret@host.org", 1_001_500, 10)
    file.event("i", None, "secret marker", ts=Raw("1001.000"), pid=HOST, tid=HOST, s="g")
    return file


def test_only_what_is_allowed_is_written_and_it_reads_the_same(tmp_path):
    source = secretive().save(tmp_path / "capture.json")
    destination = tmp_path / "scrubbed.json.gz"
    scrub_kineto(source, destination, iterations=2)
    text = gzip.decompress(destination.read_bytes()).decode()
    assert "secret" not in text and "somebody" not in text and "host_name" not in text
    before, after = read_kineto(source), read_kineto(destination)
    assert after.gpus == before.gpus and after.cuda == before.cuda and after.notes == ()
    assert after.operations.descriptions == before.operations.descriptions
    assert after.threads == before.threads
    for table in ("operations", "calls"):
        for column in ("start_ns", "end_ns", "correlation"):
            kept, whole = (getattr(getattr(t, table), column) for t in (after, before))
            assert kept.tolist() == whole.tolist()
    assert ("", "load ... for ...") in after.ranges.names
    events = json.loads(text)["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "s"}
    assert [event["args"] for event in events if event.get("name") == "aten::mm"] == [
        {"External id": 4}
    ]
    assert [event["args"] for event in events if event["ph"] == "M"] == [
        {"labels": "GPU 0"},
        {"name": "stream 7 "},
    ]


def test_the_cut_keeps_what_was_launched_before_it_and_all_of_that(tmp_path):
    file = two_iterations()
    launch(file, "runs late", at=1_085_000, start=5_000_000, duration=10, correlation=17)
    source = file.save(tmp_path / "capture.json.gz")
    destination = tmp_path / "scrubbed.json"
    scrub_kineto(source, destination, iterations=1)
    trace = read_kineto(destination)
    assert trace.operations.correlation.tolist() == [10, 11, 12, 17]
    assert sorted(trace.calls.correlation.tolist()) == [10, 11, 12, 13, 17]
    assert ("moeprof", "iteration") in trace.ranges.names and len(trace.ranges) == 4
    events = json.loads(destination.read_text())["traceEvents"]
    assert [event["id"] for event in events if event.get("cat") == "ac2g"] == [11, 17]
    scrub_kineto(source, tmp_path / "by call.json", 1, mark="cudaDeviceSynchronize")
    assert len(read_kineto(tmp_path / "by call.json").operations) == 3


@pytest.mark.parametrize(("iterations", "mark"), [(3, "moeprof.iteration"), (1, "x"), (0, "k")])
def test_a_trace_with_fewer_iterations_is_refused(tmp_path, iterations, mark):
    source = two_iterations().save(tmp_path / "capture.json")
    with pytest.raises(RecordError, match=rf"capture.json: \d of '{mark}'; expected at least"):
        scrub_kineto(source, tmp_path / "scrubbed.json", iterations, mark)
    assert not (tmp_path / "scrubbed.json").exists()


def test_nothing_is_written_over(tmp_path):
    source = two_iterations().save(tmp_path / "capture.json")
    with pytest.raises(UsageError, match="capture.json exists"):
        scrub_kineto(source, source, 1)
    assert len(read_kineto(source).operations) == 6


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_the_real_traces_kept_here_hold_nothing_private(path):
    text = gzip.decompress(path.read_bytes()).decode()
    assert path.stat().st_size < 200_000
    assert not store.leaks(text, private_words())
    assert not re.search(r"/(?:home|root|tmp|opt|work|usr)/|[\w.]+@\w+\.\w+|host|python", text)
    document = json.loads(text)
    assert set(document) == {
        *("schemaVersion", "cuda_runtime_version", "cuda_driver_version", "cupti_version"),
        *("deviceProperties", "traceEvents"),
    }
    assert {event["ph"] for event in document["traceEvents"]} == {"M", "X", "s", "f"}
    written = {event.get("cat") for event in document["traceEvents"]}
    assert {"cpu_op", "cuda_runtime", "kernel", "overhead"} <= written


def test_scrubbing_a_scrubbed_trace_changes_nothing(tmp_path):
    for path in REAL:
        mark = "moeprof.iteration" if path.name.startswith("kineto") else "cudaDeviceSynchronize"
        calls = read_kineto(path).calls
        syncs = np.array(calls.names)[calls.name] == "cudaDeviceSynchronize"
        scrub_kineto(path, tmp_path / path.name, 3 if "kineto" in path.name else syncs.sum(), mark)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
