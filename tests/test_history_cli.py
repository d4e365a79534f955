"""``moeprof history`` as a user meets it: checks go in as they end, are drawn and rebuilt."""

from __future__ import annotations

import base64
import gzip
import json
import math
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from moeprof.cli.keeping import keep_check
from moeprof.cli.main import run_command
from moeprof.history.series import quantities, series_of, with_changes
from moeprof.history.values import CodeLabel
from moeprof.regression.judge import judge
from moeprof.regression.policy import Policy
from moeprof.regression.values import Noise, Quantity
from moeprof.reports.history.plot import ASCII, draw
from moeprof.storage import history, store
from moeprof.storage.checks import CheckFolder, new_check_folder, save_check
from moeprof.storage.sides import SIDES_FILE, load_sides, save_sides
from tests import builders
from tests.privacy import private_words
from tests.test_history_store import damage, entry

GEMM1 = Quantity("gemm1", "busy")


def say(*arguments):
    return run_command([*map(str, arguments)])


def one_line(text):
    assert text.count("\n") == 1 and "Traceback" not in text, text
    return text


def process(number, factor=1.0, hour=10):
    """One process of triton_v2 on an H200: 0.2 % of luck; ``factor`` on what gemm1 takes."""
    luck = random.Random(f"{number} {factor} {hour}")
    script = tuple(
        (
            stage,
            tuple(
                replace(
                    launch,
                    duration_ns=round(
                        20 * launch.duration_ns * luck.gauss(1, 0.002)
                        * (factor if stage == "gemm1" else 1.0)
                    ),
                )
                for launch in members
            ),
        )
        for stage, members in builders.eager_script(2)
    )  # fmt: skip
    run = builders.make_run(script, passes=("first", "bare", "kernels", "api"))
    return replace(
        run,
        created=f"2026-11-20T{hour:02d}:{number:02d}:00+00:00",
        solution=replace(run.solution, name="triton_v2"),
    )


def make_folder(traces, factor, hour):
    """A check's folder as ``moeprof check`` leaves it, and its verdict."""
    folder = new_check_folder(traces, "triton_v2", 56)
    old = [process(n, hour=9) for n in range(6)]
    runs = [process(n, factor, hour) for n in range(6)]
    for side, own in (("baseline", old), ("candidate", runs)):
        for number, run in enumerate(own, 1):
            saved = store.save(run, folder.path / "new")
            (folder.path / side).mkdir(exist_ok=True)
            saved.rename(folder.path / side / f"{number:03d}.json.gz")
    shutil.rmtree(folder.path / "new")
    check = judge(old, runs, Policy(confirm=False), interleaved=True)
    save_sides(folder, {"candidate": CodeLabel("working tree", f"{hour:02d}ab" * 10, True)})
    save_check(folder, check)
    return folder, check


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """Ten checks, gemm1 6 % slower from the seventh on; traces with a history of them."""
    traces = tmp_path_factory.mktemp("traces")
    for number in range(10):
        folder, check = make_folder(traces, 1.06 if number >= 6 else 1.0, 10 + number)
        keep_check(traces, check, folder.path)
    return traces


def test_a_check_goes_in_as_it_ends(checked):
    entries = history.read(checked / history.HISTORY_FILE)
    assert len(entries) == 10
    first, last = entries[0], entries[-1]
    assert (first.verdict, last.verdict, last.exit_code) == ("SAME", "REGRESSED", 1)
    assert last.headline.startswith("REGRESSED gemm1: +")
    assert str(last.code) == "19ab19ab+" and str(last.against) == ""
    assert [p.side for p in last.processes] == ["baseline"] * 6 + ["candidate"] * 6
    known = {(str(q), source) for q, source, _ in last.processes[0].times_us}
    assert {("gemm1 busy", "kernels"), ("gemm1 busy", "api"), ("span", "bare")} <= known


def test_its_times_are_those_of_the_verdict(checked):
    entries = history.read(checked / history.HISTORY_FILE)
    last = entries[-1]
    series = series_of(entries, last.subject, GEMM1)
    finding = last.finding(GEMM1)
    assert series.source == finding.source == "kernels"
    own = sorted(series.points[-1].processes_us)
    assert (own[2] + own[3]) / 2 == pytest.approx(finding.candidate_us, rel=1e-9)
    logs = [math.log(us) for us in own]
    assert series.points[-1].us == pytest.approx(math.exp(sum(logs) / 6))


def test_the_stage_that_stepped_is_named_with_its_commit(checked, capsys):
    assert say("history", "--solution", "triton_v2", "--traces", checked) == 0
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if line.split()[:1] == ["gemm1"])
    assert " 1 " in line and "+6." in line or "+5." in line
    assert "with check 7, 2026-11-20 16:05, 16ab16ab+" in line
    gemm2 = next(line for line in shown.splitlines() if line.split()[:1] == ["gemm2"])
    assert " with check " not in gemm2


def test_one_stage_is_drawn(checked, capsys):
    arguments = ("--solution", "triton_v2", "--stage", "gemm1", "--traces", checked)
    assert say("history", *arguments) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].startswith("gemm1 of triton_v2, T = 7")
    assert "in the last of 10 checks; 1 change, the last +" in shown.splitlines()[0]
    assert shown.count("●") == 10 and "15ab15ab..16ab16ab" in shown
    assert "between processes of a check" in shown


def test_the_plot_shows_levels_and_steps():
    rows = [(100.0, 100.1, 99.9)] * 5 + [(150.0, 150.1, 149.9)] * 5
    entries = [at(number, row) for number, row in enumerate(rows)]
    series = with_changes(series_of(entries, entries[0].subject, GEMM1))
    lines = [line.plain for line in draw(series, 60, ASCII, height=6)]
    assert all(line[12 + 15] == "|" for line in lines[:6]), "the step, between check 5 and 6"
    assert lines[0].count("o") + lines[1].count("o") == 5
    assert lines[-2].count("o") + lines[-3].count("o") == 5
    assert "checks 1 to 10" in lines[-1]
    narrow = draw(series, 17, ASCII)
    assert max(len(line.plain) for line in narrow[:-1]) <= 17
    assert "checks 6 to 10" in narrow[-1].plain


def at(number, processes_us, **changes):
    """An entry whose candidate took these times in gemm1."""
    made = entry(number, **changes)
    own = [p for p in made.processes if p.side == "candidate"]
    processes = [
        replace(p, times_us=((GEMM1, "kernels", us), (GEMM1, "api", 2 * us)))
        for p, us in zip(own, processes_us, strict=True)
    ]
    return replace(made, processes=tuple(processes))


def test_a_series_is_of_one_source_and_one_subject():
    kernels = [at(number, (100.0, 101.0, 99.0)) for number in range(5)]
    without = at(5, (100.0, 101.0, 99.0))
    without = replace(
        without,
        processes=tuple(
            replace(p, times_us=tuple(t for t in p.times_us if t[1] == "api"))
            for p in without.processes
        ),
    )
    other = at(6, (900.0,) * 3, device="NVIDIA B200")
    entries = [*kernels, without, other]
    series = series_of(entries, kernels[0].subject, GEMM1)
    assert series.source == "api" and len(series.points) == 6
    assert all(point.us == pytest.approx(200.0, rel=1e-3) for point in series.points)
    assert series_of(entries, other.subject, Quantity("gemm2", "busy")) is None
    assert quantities(entries) == (GEMM1,)


def test_what_a_baseline_knows_of_the_noise_counts():
    rows = [(100.0, 100.1, 99.9)] * 6 + [(103.0, 103.1, 102.9)] * 6
    entries = [at(number, row) for number, row in enumerate(rows)]
    subject = entries[0].subject
    quiet = series_of(entries, subject, GEMM1)
    assert len(with_changes(quiet).changes) == 1
    noise = Noise(GEMM1, 0.01, 0.05, 20, 0.1)
    assert with_changes(series_of(entries, subject, GEMM1, noise), noise).changes == ()


def test_json_and_html_hold_the_same(checked, tmp_path, capsys):
    page = tmp_path / "history.html"
    arguments = ("--solution", "triton_v2", "--traces", checked, "-o", page)
    assert say("history", *arguments, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "moeprof.history/1"
    by_label = {one["label"]: one for one in document["series"]}
    (change,) = by_label["gemm1"]["changes"]
    assert change["at"] == 6 and change["ratio"] == pytest.approx(1.06, abs=0.01)
    assert by_label["gemm2"]["changes"] == []
    text = page.read_text()
    packed = re.search(r'id="data">([^<]+)<', text)[1]
    figures = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert len(figures) == len(document["series"])
    (gemm1,) = [one for one in figures if one["title"].startswith("gemm1 of")]
    points = by_label["gemm1"]["points"]
    assert gemm1["data"][1]["y"] == [round(point["us"], 2) for point in points]
    assert gemm1["layout"]["shapes"][0]["x0"] == 6.5
    assert "://" not in text.split("<script>")[0], "nothing is fetched"
    assert store.leaks(json.dumps(figures), private_words()) == ()
    assert say("history", *arguments) == 2
    assert "--force writes over it" in one_line(capsys.readouterr().err)


def test_a_rebuilt_history_is_the_same(checked, capsys):
    path = checked / history.HISTORY_FILE
    before = history.read(path)
    path.unlink()
    assert say("history", "--rebuild", "--traces", checked) == 0
    assert "10 checks in the history" in capsys.readouterr().out
    assert history.read(path) == before
    damage(path, "cut")
    assert say("history", "--solution", "triton_v2", "--traces", checked) == 2
    assert "--rebuild" in one_line(capsys.readouterr().err)
    assert say("history", "--rebuild", "--traces", checked) == 0
    shown = capsys.readouterr()
    assert "the old file could not be read; it is history.sqlite.replaced-" in shown.err
    assert history.read(path) == before


def test_a_damaged_check_is_named_and_the_others_are_read(checked, tmp_path, capsys):
    shutil.copytree(checked / "checks", tmp_path / "checks")
    first, second = sorted((tmp_path / "checks").iterdir())[:2]
    (first / "check.json").write_text("{")
    (second / SIDES_FILE).write_text('{"candidate": 3}')
    assert say("history", "--rebuild", "--traces", tmp_path) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("8 checks") and shown.err.count("left out: ") == 2
    assert first.name in shown.err and SIDES_FILE in shown.err


def test_a_store_that_cannot_be_written_is_a_warning(tmp_path, capsys):
    folder, check = make_folder(tmp_path, 1.0, 10)
    (tmp_path / history.HISTORY_FILE).write_bytes(b"")
    keep_check(tmp_path, check, folder.path)
    told = one_line(capsys.readouterr().err)
    assert told.startswith("moeprof: warning: not in the history: ") and "is empty" in told
    assert (tmp_path / history.HISTORY_FILE).read_bytes() == b""


def test_records_judged_elsewhere_are_one_entry_however_often(tmp_path):
    folder, check = make_folder(tmp_path / "there", 1.0, 10)
    for _ in range(2):
        keep_check(tmp_path, check, folder.path)
    (found,) = history.read(tmp_path / history.HISTORY_FILE)
    assert not found.in_checks and found.key.startswith("records-")


def test_records_measured_first_and_judged_later_get_their_verdict(tmp_path):
    folder, check = make_folder(tmp_path, 1.0, 10)
    (folder.path / "check.json").unlink()
    keep_check(tmp_path, check, folder.path)
    assert (folder.path / "check.json").is_file()
    keep_check(tmp_path, replace(check, interleaved=False), folder.path)
    (found,) = history.read(tmp_path / history.HISTORY_FILE)
    assert found.key == folder.path.name and found.in_checks


def test_labels_that_were_not_kept_are_none(tmp_path):
    assert load_sides(CheckFolder(tmp_path)) == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no --solution was given; it holds triton_v2"),
        (("--solution", "triton_v3"), "no check of 'triton_v3' is in the history; did you mean"),
        (("--solution", "triton_v2", "--stage", "gemm9"), "has gemm9 busy; did you mean gemm"),
        (
            ("--solution", "triton_v2", "--stage", "gemm1", "--measure", "span"),
            "no time of a stage",
        ),
        (
            ("--solution", "triton_v2", "--num-tokens", "901"),
            "there are triton_v2, T = 7, NVIDIA H200",
        ),
        (("--solution", "triton_v2", "-o", "x.pdf"), "the ending of x.pdf names no format"),
    ],
)
def test_what_cannot_be_meant_is_one_line(arguments, words, checked, capsys):
    assert say("history", *arguments, "--traces", checked) == 2
    assert words in one_line(capsys.readouterr().err)


def test_without_ruptures_it_is_one_line_and_still_drawn(checked):
    program = (
        "import sys\n"
        "sys.modules['ruptures'] = None\n"
        "from moeprof.cli.main import run_command\n"
        f"sys.exit(run_command(['history', '--solution', 'triton_v2', '--stage', 'gemm1',\n"
        f"  '--traces', {str(checked)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert one_line(done.stderr).startswith("moeprof: warning: change points need ruptures")
    assert done.stdout.count("●") == 10 and "change," not in done.stdout.splitlines()[0]
