"""Baselines on disk: round trips, damage, kills, a full disk, two writers at once, history."""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from moeprof.cli.main import run_command
from moeprof.errors import RecordError, ResourceExhausted, UsageError
from moeprof.regression.policy import Policy
from moeprof.regression.values import Baseline, Noise, Quantity
from moeprof.storage import baseline_files, baselines, store
from moeprof.storage.locks import is_free, locked
from tests.privacy import private_words

NOISE = (
    Noise(Quantity("gemm1", "busy"), 0.004, None, 3, 0.011),
    Noise(Quantity("routing", "host"), 0.05, 0.02, 3, 0.21),
)
CREATED = "2026-11-20T12:00:00+00:00"


def baseline_of(run, name="b", created=CREATED, **changes):
    baseline = Baseline(
        name=name,
        created=created,
        solution=run.solution.name,
        source_hash=run.solution.source_hash,
        workload=run.workload,
        routing_hash=run.routing.histogram_hash,
        device=run.environment.device,
        driver=run.environment.driver,
        policy=Policy(processes=4),
        runs=(),
        noise=NOISE,
        note="why",
    )
    return replace(baseline, **changes)


@pytest.fixture(scope="module")
def runs(make_run):
    """Three processes, told apart by when they began."""
    return [
        make_run(iterations=3, kernels=1, created=f"2026-11-20T12:00:0{second}+00:00")
        for second in range(3)
    ]


@pytest.fixture
def saved(runs, tmp_path):
    return baselines.save(tmp_path, baseline_of(runs[0]), runs)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- round trip


def test_a_baseline_survives_the_disk_and_is_readable_in_git(runs, saved, tmp_path):
    assert saved == tmp_path / "h200" / "b"
    assert names(saved) == ["001.json.gz", "002.json.gz", "003.json.gz", "baseline.json"]
    stored = baselines.open_baseline(saved)
    assert replace(stored.baseline, runs=()) == baseline_of(runs[0])
    assert stored.runs == tuple(map(baseline_files.trimmed, runs))
    assert stored.gpu == "h200"
    text = (saved / "baseline.json").read_text()
    assert list(json.loads(text))[:4] == ["format", "schema_version", "name", "created"]
    assert text.count("\n") > 60 and text.endswith("}\n")  # a line a value, as git shows it best
    again = baselines.save(tmp_path / "again", baseline_of(runs[0]), runs)
    assert (again / "baseline.json").read_bytes() == (saved / "baseline.json").read_bytes()
    assert store.leaks(text, private_words()) == ()


def test_only_what_a_check_reads_is_kept_and_that_is_small(make_run, tmp_path):
    run = make_run()
    kept = baseline_files.trimmed(run)
    assert {p.name for p in kept.passes} == {"bare", "events"}
    assert [t.name for t in kept.timelines] == ["kernels", "api"]
    assert kept.clocks == run.clocks and kept.calibration == run.calibration
    folder = baselines.save(tmp_path, baseline_of(run), [run] * 3)
    whole = store.save(run, tmp_path / "runs").stat().st_size
    assert (folder / "001.json.gz").stat().st_size <= whole


def test_ten_processes_of_a_real_record_are_a_reviewable_size(root, tmp_path):
    path = next((root / "traces/recorded/h200/triton_v2/dsv3").glob("T56-*"))
    run = store.load(path)
    folder = baselines.save(tmp_path, baseline_of(run), [run] * 10)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert 100_000 < size < 250_000, size


def test_devices_become_folders():
    assert baselines.gpu_folder("NVIDIA H200") == "h200"
    assert baselines.gpu_folder("NVIDIA H100 80GB HBM3") == "h100-80gb-hbm3"
    assert baselines.gpu_folder("Intel(R) Xeon(R) Processor") == "intel-xeon-processor"
    assert baselines.gpu_folder("..//..") == "unknown"


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../x", "a@b", "a b"])
def test_a_name_is_one_plain_path_component(runs, tmp_path, name):
    with pytest.raises(UsageError, match="cannot name a baseline"):
        baselines.save(tmp_path, baseline_of(runs[0], name), runs)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- finding


def test_a_baseline_is_found_by_name_by_gpu_and_name_and_by_path(runs, saved, tmp_path):
    other = replace(runs[0], environment=replace(runs[0].environment, device="NVIDIA B200"))
    twin = baselines.save(tmp_path, baseline_of(other), [other] * 3)
    single = baselines.save(tmp_path, baseline_of(runs[0], "single"), runs)
    assert baselines.find(tmp_path, "single") == single
    assert baselines.find(tmp_path, "h200/b") == saved
    assert baselines.find(tmp_path / "elsewhere", str(twin)) == twin
    with pytest.raises(UsageError, match="2 baselines 'b'; name one: b200/b, h200/b"):
        baselines.find(tmp_path, "b")
    with pytest.raises(UsageError, match="no baseline 'singel'; did you mean h200/single"):
        baselines.find(tmp_path, "singel")
    with pytest.raises(UsageError, match="moeprof baseline record makes one"):
        baselines.find(tmp_path / "elsewhere", "b")


# ---------------------------------------------------------------- damage


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def claim_another_hash(document):
    document["runs"][0]["sha256"] = "0" * 64


DAMAGE = {
    "cut": (lambda d: (d / "002.json.gz").write_bytes(b"\x1f\x8b"), "002.json.gz was changed"),
    "flipped": (
        lambda d: (d / "003.json.gz").write_bytes(
            (d / "003.json.gz").read_bytes()[:-9] + b"x" + (d / "003.json.gz").read_bytes()[-8:]
        ),
        "003.json.gz was changed since it was recorded",
    ),
    "missing": (lambda d: (d / "001.json.gz").unlink(), "001.json.gz is missing"),
    "folder": (
        lambda d: ((d / "001.json.gz").unlink(), (d / "001.json.gz").mkdir()),
        "001.json.gz cannot be read",
    ),
    "no index": (lambda d: (d / "baseline.json").unlink(), "baseline.json cannot be read"),
    "not JSON": (lambda d: (d / "baseline.json").write_text("{"), "baseline.json: not JSON"),
    "foreign": (lambda d: (d / "baseline.json").write_text("[]"), "no baseline"),
    "newer": (
        lambda d: edit(d / "baseline.json", lambda doc: doc.update(schema_version=2)),
        "update moeprof",
    ),
    "no runs": (lambda d: edit(d / "baseline.json", lambda doc: doc.update(runs=[])), "runs is"),
    "edited": (
        lambda d: edit(d / "baseline.json", lambda doc: doc["policy"].update(processes="5")),
        "policy.processes is text",
    ),
    "hash": (lambda d: edit(d / "baseline.json", claim_another_hash), "001.json.gz was changed"),
    "climbs": (
        lambda d: edit(d / "baseline.json", lambda doc: doc["runs"][0].update(file="../x")),
        "runs names '../x'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_line_that_names_the_file_and_the_rest_stays_usable(
    damage, runs, saved, tmp_path
):
    good = baselines.save(tmp_path, baseline_of(runs[0], "good"), runs)
    do, words = DAMAGE[damage]
    do(saved)
    with pytest.raises(RecordError) as caught:
        baselines.open_baseline(saved)
    assert words in str(caught.value) and str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)
    by_name = {entry.name: entry for entry in baselines.entries(tmp_path)}
    assert by_name["b"].baseline is None and words in by_name["b"].problem
    assert by_name["good"].problem == ""
    assert len(baselines.open_baseline(good).runs) == 3


def test_an_index_that_claims_other_runs_than_it_has_is_refused(saved):
    edit(saved / "baseline.json", lambda document: document.update(source_hash="00" * 32))
    assert baseline_files.verify(saved)  # the bytes are right
    with pytest.raises(RecordError, match="names another source than 001.json.gz holds"):
        baselines.open_baseline(saved)


# ---------------------------------------------------------------- never over another


def test_a_taken_name_is_refused_and_with_force_the_old_one_is_history(runs, saved, tmp_path):
    before = (saved / "baseline.json").read_bytes()
    later = baseline_of(runs[0], created="2026-11-21T09:30:00+00:00", note="faster now")
    with pytest.raises(UsageError, match="there is a baseline h200/b; --force"):
        baselines.save(tmp_path, later, runs)
    assert (saved / "baseline.json").read_bytes() == before
    baselines.save(tmp_path, later, runs[:2], replace=True)
    history = tmp_path / "h200" / "b@20261120T120000Z"
    assert names(tmp_path / "h200") == ["b", history.name]
    assert (history / "baseline.json").read_bytes() == before
    assert len(baselines.open_baseline(saved).runs) == 2
    assert len(baselines.open_baseline(history).runs) == 3
    entries = {entry.name: entry.is_history for entry in baselines.entries(tmp_path)}
    assert entries == {"b": False, history.name: True}
    assert baselines.find(tmp_path, history.name) == history
    baselines.save(tmp_path, baseline_of(runs[0]), runs, replace=True)
    baselines.save(tmp_path, later, runs, replace=True)  # of the same moment as another
    assert names(tmp_path / "h200") == [
        "b", history.name, f"{history.name}-2", "b@20261121T093000Z"
    ]  # fmt: skip


# ---------------------------------------------------------------- kills, full disks, two at once

WRITER = """
import itertools, sys, time
from pathlib import Path
from moeprof.storage import baseline_files, baselines, store
from tests.test_baselines import baseline_of
root, prefix = Path(sys.argv[1]), sys.argv[2]
run = store.load(sys.argv[3])
print("ready", flush=True)
for n in itertools.count():
    created = f"2026-11-20T12:{n // 60:02d}:{n % 60:02d}+00:00"
    note = f"{prefix}{n}"
    baselines.save(root, baseline_of(run, "b", created, note=note), [run] * 4, True)
    time.sleep(float(sys.argv[4]))
"""


def writer(root, prefix, record, pause=0.0):
    program = [sys.executable, "-c", WRITER, str(root), prefix, str(record), str(pause)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_kill_at_any_moment_leaves_whole_baselines_only(runs, tmp_path):
    """A real process replaces one baseline without pause and is killed, again and again."""
    record = store.save(runs[0], tmp_path / "runs")
    root = tmp_path / "baselines"
    baselines.save(root, baseline_of(runs[0], note="first"), [runs[0]] * 4)
    luck, unfinished, notes = random.Random(0), 0, []
    for attempt in range(40):
        process = writer(root, f"{attempt}-", record)
        time.sleep(luck.uniform(0.01, 0.25))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        unfinished += len(list((root / "h200").glob(".*")))
        assert is_free(root / "h200")
        found = baselines.entries(root)
        assert [entry.problem for entry in found if entry.problem] == []
        assert len(baselines.open_baseline(baselines.find(root, "b")).runs) == 4
        assert list((root / "h200").glob(".*")) == []
        earlier, notes = notes, [entry.baseline.note for entry in found]
        assert len(notes) == len(set(notes)) and set(earlier) <= set(notes), "one was lost"
        if attempt > 5 and unfinished > 1 and len(notes) > 4:
            return
    raise AssertionError(f"{unfinished} kills hit a write, {len(notes)} were kept: shows nothing")


def test_what_a_kill_left_whole_is_put_in_place_and_what_it_left_half_is_removed(
    runs, saved, tmp_path
):
    place = tmp_path / "h200"
    later = baselines.save(tmp_path, baseline_of(runs[0], "later"), runs)
    later.rename(place / ".b.123.new")
    half = place / ".half.124.new"
    shutil.copytree(saved, half)
    (half / "003.json.gz").unlink()
    gone = place / ".gone.125.old"
    gone.mkdir()
    assert baselines.find(tmp_path, "b") == saved
    assert names(place) == ["b", "b@20261120T120000Z"]
    assert baselines.open_baseline(saved).baseline.name == "later"  # what was being put there


def test_a_writer_finishes_what_was_left_before_it_replaces_it(runs, saved, tmp_path):
    saved.rename(tmp_path / "h200" / ".b.123.new")
    with pytest.raises(UsageError, match="there is a baseline h200/b"):
        baselines.save(tmp_path, baseline_of(runs[0]), runs)
    saved.rename(tmp_path / "h200" / ".b.123.new")
    baselines.save(tmp_path, baseline_of(runs[0]), runs, replace=True)
    assert names(tmp_path / "h200") == ["b", "b@20261120T120000Z"]


def test_two_writers_at_once_lose_nothing(runs, tmp_path):
    record = store.save(runs[0], tmp_path / "runs")
    root = tmp_path / "baselines"
    processes = [writer(root, name, record, pause=0.015) for name in ("x", "y")]
    time.sleep(1.5)
    for process in processes:
        process.terminate()
        process.communicate()
    found = baselines.entries(root)
    assert [entry.problem for entry in found if entry.problem] == []
    notes = [entry.baseline.note for entry in found]
    assert len(notes) == len(set(notes))
    for name in ("x", "y"):
        numbers = sorted(int(note[1:]) for note in notes if note.startswith(name))
        assert len(numbers) > 3 and numbers == list(range(len(numbers))), f"{name} lost one"


def test_a_second_writer_waits_and_then_says_who_holds_it(saved, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "LOCK_SECONDS", 0.3)
    with locked(tmp_path / "h200", None):
        assert not is_free(tmp_path / "h200")
        with pytest.raises(ResourceExhausted, match="is being written by another process"):
            baselines.save(tmp_path, baseline_of(runs[0], "c"), runs)
        with pytest.raises(ResourceExhausted, match="is being written"):
            baselines.open_baseline(saved)
    assert len(baselines.open_baseline(saved).runs) == 3


@pytest.mark.parametrize("limit", [1_000, 50_000], ids=["first record", "index"])
def test_a_full_disk_leaves_everything_as_it_was(limit, runs, saved, tmp_path):
    """The kernel's own refusal (a file size limit gives EFBIG), in a process of its own."""
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    assert 1_000 < min(map(len, before.values())) and max(map(len, before.values())) < 50_000
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            long = baseline_of(runs[0], note="x" * 60_000)
            baselines.save(tmp_path, long, runs, replace=True)
        except ResourceExhausted as error:
            status = 0 if "free disk space" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert names(tmp_path / "h200") == ["b"]
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_store_that_cannot_be_made_is_one_line(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceExhausted, match="Not a directory"):
        baselines.save(tmp_path / "file", baseline_of(runs[0]), runs)


def test_a_rename_that_fails_gives_the_old_name_back(runs, saved, tmp_path, monkeypatch):
    real = os.rename

    def fails_for_drafts(source, target):
        if str(source).endswith(".new"):
            raise PermissionError(13, "Permission denied", str(source))
        real(source, target)

    monkeypatch.setattr(os, "rename", fails_for_drafts)
    with pytest.raises(ResourceExhausted, match="Permission denied"):
        baselines.save(tmp_path, baseline_of(runs[0]), runs, replace=True)
    assert names(tmp_path / "h200") == ["b"]
    assert len(baselines.open_baseline(saved).runs) == 3


# ---------------------------------------------------------------- the commands that read


def say(*arguments):
    return run_command(["baseline", *map(str, arguments)])


@pytest.fixture
def traces(runs, tmp_path):
    root = tmp_path / "baselines"
    baselines.save(root, baseline_of(runs[0], "good"), runs)
    baselines.save(root, baseline_of(runs[0], "bad"), runs)
    (root / "h200" / "bad" / "002.json.gz").unlink()
    return tmp_path


def test_list_shows_the_whole_ones_and_names_the_damaged(traces, capsys):
    assert say("list", "--traces", traces) == 0
    shown = capsys.readouterr().out
    assert "good" in shown and "1.10 %" in shown and "why" in shown
    assert "! " in shown and "002.json.gz is missing" in shown
    assert say("list", "--traces", traces, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "moeprof.baselines/1"
    problems = {entry["name"]: entry["problem"] for entry in document["baselines"]}
    assert problems["good"] is None and "002.json.gz" in problems["bad"]
    assert say("list", "--traces", traces / "none") == 0
    assert capsys.readouterr().out == "no baselines\n"


def test_show_says_what_a_check_can_see(traces, capsys):
    assert say("show", "good", "--traces", traces) == 0
    shown = capsys.readouterr().out
    for words in (
        "h200/good",
        "processes 4",
        "3 processes on NVIDIA H200",
        "gemm1 busy",
        "21.00 %",
    ):
        assert words in shown
    assert say("show", "good", "--traces", traces, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "moeprof.baseline/1"
    assert document["noise"][0]["detectable"] == 0.011
    assert say("show", "bad", "--traces", traces) == 2
    assert "002.json.gz is missing" in capsys.readouterr().err


def test_prune_names_first_and_removes_only_history(runs, traces, capsys):
    root = traces / "baselines"
    for minute in range(3):
        created = f"2026-11-20T13:0{minute}:00+00:00"
        baselines.save(root, baseline_of(runs[0], "good", created), runs, replace=True)
    before = names(root / "h200")
    assert len(before) == 5
    assert say("prune", "--keep", 1, "--traces", traces) == 0
    shown = capsys.readouterr().out
    assert shown.count("would remove") == 2 and "--yes does it" in shown
    assert names(root / "h200") == before
    assert say("prune", "--keep", 1, "--yes", "--traces", traces) == 0
    assert names(root / "h200") == ["bad", "good", "good@20261120T130100Z"]
    assert say("prune", "--keep", 1, "--yes", "--traces", traces) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_reading_commands_need_no_torch_and_no_scipy(traces):
    program = (
        "import sys\n"
        "for name in ('torch', 'triton', 'scipy', 'pynvml'): sys.modules[name] = None\n"
        "from moeprof.cli.main import run_command\n"
        f"sys.exit(run_command(['baseline', 'show', 'good', '--traces', {str(traces)!r}]))\n"
    )
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - begin < 5
    assert "gemm1 busy" in done.stdout


def test_a_record_is_compressed_the_same_every_time(runs, saved):
    content = (saved / "001.json.gz").read_bytes()
    assert content[4:8] == b"\0\0\0\0", "a time stamp would change the hash"
    assert json.loads(gzip.decompress(content))["format"] == "moeprof run"
