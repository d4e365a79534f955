"""Records on disk: exact round trips, damaged files, writes that are killed or find a full disk."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.errors import RecordError, ResourceExhausted
from moeprof.records import Correctness, PassResult, Sample, Settings, StageInfo
from moeprof.storage import store
from moeprof.storage.atomic import write_atomically
from moeprof.timelines import Operation, TimelinePass

TIME = st.floats(min_value=0, max_value=1e9)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
CHANGES = st.fixed_dictionaries(
    {
        "passes": st.lists(
            st.builds(
                PassResult,
                name=st.text(),
                samples=st.lists(
                    st.builds(
                        Sample,
                        span_us=TIME,
                        wall_us=TIME,
                        trial=st.integers(0, 9),
                        stamps_us=st.lists(TIME).map(tuple),
                        stage_us=st.lists(TIME).map(tuple),
                    ),
                    max_size=3,
                ).map(tuple),
                unavailable=st.none() | st.text(),
            ),
            max_size=3,
        ).map(tuple),
        "warnings": st.lists(st.text()).map(tuple),
        "position": st.integers(),
        "settings": st.builds(
            Settings,
            preset=st.text(),
            warmup=st.integers(),
            iterations=st.integers(),
            trials=st.integers(),
            seed=st.integers(),
            l2=st.sampled_from(["flush", "warm"]),
            passes=st.lists(st.text()).map(tuple),
            rtol=FINITE,
            atol=FINITE,
            required_matched_ratio=FINITE,
            max_relative_l2=FINITE,
        ),
    }
)
OPTIONS = st.dictionaries(st.text(), JSON_VALUE, max_size=4)


# ---------------------------------------------------------------- round trip


def test_a_rich_record_survives_the_disk_exactly_and_stays_small(make_run, tmp_path):
    run = make_run()
    path = store.save(run, tmp_path, "tiny")
    assert store.load(path) == run
    assert path.relative_to(tmp_path) == Path("triton_v2/tiny/T7-b8f4f012-20260131T125959Z.json.gz")
    assert 15_000 < path.stat().st_size < 40_000  # 114 of these are committed


@settings(max_examples=60, deadline=None)
@given(changes=CHANGES, options=OPTIONS)
def test_any_record_survives_its_json(make_run, changes, options):
    run = make_run(iterations=1, kernels=1, **changes)
    stage = StageInfo("s", ("gemm1",), "sgl", (), ("output",), options=options)
    solution = dataclasses.replace(run.solution, stages=(stage,))
    run = dataclasses.replace(run, solution=solution)
    text = json.dumps(store.to_json(run), allow_nan=False)
    assert store.from_json(json.loads(text)) == run


def test_a_plain_json_file_is_read_too(make_run, tmp_path):
    path = tmp_path / "by_hand.json"
    path.write_text(json.dumps(store.to_json(make_run())))
    assert store.load(path) == make_run()


def test_saving_twice_in_one_second_keeps_both(make_run, tmp_path):
    first, second = (store.save(make_run(), tmp_path) for _ in range(2))
    assert second.name == "T7-b8f4f012-20260131T125959Z-2.json.gz"
    assert store.load(first) == store.load(second)
    found = store.find_runs(tmp_path)
    assert [run.path for run in found] == sorted([first, second])
    assert {run.created for run in found} == {"20260131T125959Z"}


def test_finding_filters_by_name_alone(make_run, tmp_path):
    run = make_run(iterations=1, kernels=1)
    other = dataclasses.replace(
        run,
        created="2025-12-31T00:00:00.123456+00:00",
        workload=dataclasses.replace(run.workload, seq_len=901, uuid="deadbeef-0000"),
    )
    strange = dataclasses.replace(
        run, solution=dataclasses.replace(run.solution, name="../../my sol/v1")
    )
    kept, older, odd = (
        store.save(run, tmp_path, "tiny"),
        store.save(other, tmp_path, "tiny"),
        store.save(strange, tmp_path, "tiny"),
    )
    (tmp_path / "triton_v2" / "tiny" / "notes.txt").write_text("not a record")
    assert odd.is_relative_to(tmp_path)
    assert [r.path for r in store.find_runs(tmp_path, "triton_v2")] == [older, kept]
    assert [r.path for r in store.find_runs(tmp_path, seq_len=901)] == [older]
    assert [r.path for r in store.find_runs(tmp_path, uuid_prefix="b8f4f012-a3")] == [odd, kept]
    assert store.find_runs(tmp_path, definition="dsv3") == ()
    assert store.find_runs(tmp_path / "absent") == ()


# ---------------------------------------------------------------- damage


def test_every_truncation_is_refused_in_one_line(make_run, tmp_path):
    whole = store.save(make_run(iterations=1, kernels=1), tmp_path).read_bytes()
    cut = tmp_path / "cut.json.gz"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(RecordError) as caught:
            store.load(cut)
        assert str(caught.value).startswith(f"{cut}: ")
        assert "\n" not in str(caught.value)


def test_every_flipped_byte_is_refused_or_harmless(make_run, tmp_path):
    run = make_run(iterations=1, kernels=1)
    whole = bytearray(store.save(run, tmp_path).read_bytes())
    path = tmp_path / "flipped.json.gz"
    for position in range(0, len(whole), 3):
        whole[position] ^= 0x55
        path.write_bytes(whole)
        try:
            assert store.load(path) == run  # gzip's time stamp and OS byte carry no data
        except RecordError:
            pass
        whole[position] ^= 0x55


def _edited(document, path, value):
    target = document
    for key in path[:-1]:
        target = target[key]
    if value is KeyError:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("passes", 1, "samples", 3, "span_us"), "7", "passes[1].samples[3].span_us is text"),
        (("passes", 1, "samples", 3, "span_us"), float("nan"), "NaN"),
        (("passes", 1, "samples", 3, "span_us"), float("-inf"), "-Infinity"),
        (("passes", 1, "samples", 3, "span_us"), 10**400, "passes[1].samples[3].span_us"),
        (("passes", 1, "samples", 3, "span_us"), -1.0, "passes[1].samples[3]: a sample of -1.0"),
        (("passes", 1, "samples", 3, "trial"), True, "passes[1].samples[3].trial is a bool"),
        (("passes", 1, "samples", 3, "trial"), 1.0, "passes[1].samples[3].trial is a float"),
        (("timelines", 1, "iterations", 0, "end_ns", 4), 1.5, "iterations[0].end_ns[4] is a float"),
        (("timelines", 1, "iterations", 0, "operation_set"), 9, "timelines[1]: an iteration of"),
        (("timelines", 0, "operation_sets", 0, 0, "kind"), "fish", "kind is 'fish'"),
        (("timelines", 0, "operation_sets", 0, 0, "grid"), [1, 2], "grid is a list of 2"),
        (("environment", "versions"), [], "environment.versions is a list"),
        (("environment", "versions", "torch"), None, "environment.versions.torch is null"),
        (("environment", "host"), "box", "environment.host is an unknown key"),
        (("settings", "seed"), KeyError, "settings.seed is missing"),
        (("routing", "local_pairs"), 17, "routing: histogram sums to 9"),
        (("schema_version",), 2, "schema_version 2 is newer than this moeprof"),
        (("schema_version",), "1", "schema_version is '1'"),
        (("format",), "other", "no moeprof record"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_edited_record_is_refused_by_key_path(make_run, tmp_path, path, value, message):
    file = tmp_path / "edited.json"
    file.write_text(json.dumps(_edited(store.to_json(make_run()), path, value)))
    with pytest.raises(RecordError) as caught:
        store.load(file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x1f\x8b", b"[1,2]", b"{}", b"null", b"\xff\xfe", b"{'a': 1}", b"[" * 200_000,
     b"9" * 9000, b"torch" * 99, gzip.compress(b'{"traceEvents": []}', mtime=0)],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
def test_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "foreign.json.gz"
    path.write_bytes(content)
    with pytest.raises(RecordError, match="foreign.json.gz"):
        store.load(path)


def test_folders_devices_and_absent_files_are_refused(tmp_path):
    for path, words in [
        (tmp_path, "a folder"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / "absent", "No such file"),
    ]:
        with pytest.raises(RecordError, match=words):
            store.load(path)


def test_huge_files_and_zip_bombs_are_refused_before_they_fill_the_memory(tmp_path, monkeypatch):
    sparse = tmp_path / "sparse.json"
    with sparse.open("wb") as file:
        file.truncate(store.MAX_FILE_BYTES + 1)
    with pytest.raises(RecordError, match="at most 67108864"):
        store.load(sparse)
    bomb = tmp_path / "bomb.json.gz"
    bomb.write_bytes(gzip.compress(b" " * 3_000_000))
    monkeypatch.setattr(store, "MAX_JSON_BYTES", 1_000_000)
    with pytest.raises(RecordError, match="inflates without end"):
        store.load(bomb)


def test_what_json_cannot_hold_is_never_written(make_run):
    run = make_run()
    broken = Correctness(False, 0.0, float("nan"), 0.0, 0.0, problem="NaN")
    with pytest.raises(RecordError, match="correctness.relative_l2 is nan"):
        store.to_json(make_run(passes=(), timelines=(), correctness=broken))
    stage = StageInfo("s", (), "sgl", (), (), options={"dtype": object()})
    bad = dataclasses.replace(run, solution=dataclasses.replace(run.solution, stages=(stage,)))
    with pytest.raises(RecordError, match=r"solution.stages\[0\].options.dtype is a object"):
        store.to_json(bad)


# ---------------------------------------------------------------- writing


def test_a_kill_at_any_moment_leaves_whole_files_only(tmp_path):
    """A real process writes without pause and is killed 12 times."""
    target = tmp_path / "state.bin"
    old = b"old" * 1000
    write_atomically(target, old)
    program = (
        "import sys, itertools, pathlib\n"
        "from moeprof.storage.atomic import write_atomically\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "for n in itertools.count():\n"
        "    write_atomically(folder / f'{sys.argv[2]}-{n}.bin', b'x' * 3_000_000, replace=False)\n"
    )
    for attempt in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), str(attempt)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(0.003 + 0.004 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    written = [path for path in tmp_path.iterdir() if path != target]
    assert written, "no write finished before any kill: the test shows nothing"
    assert all(not path.name.startswith(".") for path in written)
    assert {path.stat().st_size for path in written} == {3_000_000}
    assert target.read_bytes() == old


def test_a_full_disk_leaves_the_old_state(tmp_path):
    """The kernel's own refusal (a file size limit gives EFBIG), in a process of its own."""
    (tmp_path / "state.bin").write_bytes(b"old")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            write_atomically(tmp_path / "state.bin", b"x" * 100_000)
        except ResourceExhausted as error:
            status = 0 if "free disk space" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["state.bin"]
    assert (tmp_path / "state.bin").read_bytes() == b"old"


def test_dev_full_is_named_as_a_full_disk():
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError) as caught:
        full.write(b"x")
    from moeprof.storage.atomic import _explained

    explained = str(_explained(Path("a/b"), caught.value, "--traces DIR"))
    assert "No space left on device" in explained and "--traces DIR" in explained


def test_replacing_and_not_replacing(tmp_path):
    path = tmp_path / "new" / "file.bin"
    write_atomically(path, b"one")
    with pytest.raises(FileExistsError):
        write_atomically(path, b"two", replace=False)
    assert path.read_bytes() == b"one"
    write_atomically(path, b"three")
    assert path.read_bytes() == b"three"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]
    with pytest.raises(ResourceExhausted, match="Not a directory"):
        write_atomically(path / "below" / "a_file", b"x")


def test_without_unnamed_files_a_named_one_is_used_and_removed(tmp_path):
    from moeprof.storage.atomic import _write_named

    path = tmp_path / "file.bin"
    _write_named(path, b"one", replace=False)
    with pytest.raises(FileExistsError):
        _write_named(path, b"two", replace=False)
    _write_named(path, b"three", replace=True)
    assert path.read_bytes() == b"three"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


# ---------------------------------------------------------------- scrubbing


def test_leaks_finds_whole_words_only(make_run):
    text = json.dumps(store.to_json(make_run()))
    assert store.leaks(text, ["rooty", "/home/someone", "ab", ""]) == ()
    assert store.leaks(text + " /home/someone/x", ["/home/someone"]) == ("/home/someone",)
    assert store.leaks("the hostname here", ["host"]) == ()
    assert store.leaks("the host here", ["host"]) == ("host",)


def test_operations_and_timelines_reject_what_cannot_be(make_run):
    with pytest.raises(RecordError):
        TimelinePass(
            "api", ((Operation("k", "kernel", "", 7),),), make_run().timelines[0].iterations
        )
