"""``moeprof check`` and ``moeprof baseline`` as a user meets them: records judged into every
output, then real processes of real solutions on this machine."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest

from moeprof.cli.check_outputs import exit_code
from moeprof.cli.main import run_command
from moeprof.regression.policy import Policy
from moeprof.regression.values import Baseline
from moeprof.storage import baselines, store
from moeprof.storage.checks import load_check, runs_in
from tests import builders
from tests.checks import STAGES, inconclusive, make_check, regressed, write_solution
from tests.privacy import private_words
from tests.test_check_webhook import server


def one_line(text):
    assert text.count("\n") == 1 and "Traceback" not in text, text
    return text


def say(*arguments):
    return run_command([*map(str, arguments)])


# ---------------------------------------------------------------- records of a GPU, made by hand


def process(number, factor=1.0, source="3f", launches=2, **changes):
    """One process of triton_v2 on an H200: 0.2 % of luck; ``factor`` on what gemm1 takes."""
    luck = random.Random(f"{number} {factor} {source}")
    script = tuple(
        (
            stage,
            tuple(
                replace(
                    launch,
                    duration_ns=round(
                        20 * launch.duration_ns
                        * luck.gauss(1.0, 0.002)
                        * (factor if stage == "gemm1" else 1.0)
                    ),
                )
                for launch in members
            ),
        )
        for stage, members in builders.eager_script(launches)
    )  # fmt: skip
    run = builders.make_run(script, passes=("first", "bare", "kernels", "api"), **changes)
    return replace(
        run,
        created=f"2026-11-20T12:{number:02d}:00+00:00",
        solution=replace(run.solution, name="triton_v2", source_hash=source * 32),
    )


def save_runs(folder, runs):
    for run in runs:
        store.save(run, folder)
    return folder


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """A baseline 'b' of ten processes; runs of the same code, of a slower one, of a wrong one."""
    root = tmp_path_factory.mktemp("traces")
    old = [process(number) for number in range(10)]
    first = old[0]
    baseline = Baseline(
        *("b", first.created, "triton_v2", first.solution.source_hash, first.workload),
        *(first.routing.histogram_hash, first.environment.device, first.environment.driver),
        policy=Policy(),
        runs=(),
    )
    baselines.save(root / "baselines", baseline, old)
    size = Policy().processes
    save_runs(root / "same", [process(20 + n, source="4a") for n in range(2 * size)])
    save_runs(root / "slow", [process(20 + n, 1.1, source="4a") for n in range(2 * size)])
    save_runs(root / "slow once", [process(20 + n, 1.1, source="4a") for n in range(size)])
    save_runs(root / "few", [process(20, source="4a")])
    other = [replace(process(20 + n), environment=replace(first.environment, device="H100"))
             for n in range(5)]  # fmt: skip
    save_runs(root / "other", other)
    wrong = builders.make_run(passes=())
    wrong = replace(
        first,
        correctness=replace(wrong.correctness, passed=False, problem="row 3 holds NaN"),
        passes=(),
        timelines=(),
    )
    save_runs(root / "wrong", [wrong])
    return root


def check(traces, runs, *options):
    return say("check", "--runs", traces / runs, "--baseline", "b", "--traces", traces, *options)


def test_the_same_code_is_the_same(traces, capsys):
    assert check(traces, "same") == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("SAME: 7 stages and the forward are within their floors")
    assert "REGRESSED" not in shown.out and shown.err == ""


def test_a_slower_stage_is_named_with_its_figures(traces, capsys):
    assert check(traces, "slow") == 1
    shown = capsys.readouterr().out
    first = shown.splitlines()[0]
    assert first.startswith("REGRESSED gemm1: +10.") or first.startswith("REGRESSED gemm1: +9.")
    assert "95 % CI 9." in first or "95 % CI 10." in first
    assert "with a second round to confirm" in shown
    assert not any(line.split()[:2] == ["REGRESSED", "gemm2"] for line in shown.splitlines())


def test_a_suspicion_without_a_second_round_is_inconclusive_unless_none_is_asked_for(
    traces, capsys
):
    assert check(traces, "slow once") == 3
    assert "a second round of fresh processes has to decide gemm1" in capsys.readouterr().out
    assert check(traces, "slow once", "--no-confirm") == 1
    assert capsys.readouterr().out.startswith("REGRESSED gemm1: ")


def test_few_runs_are_inconclusive_wrong_ones_wrong_and_others_not_comparable(traces, capsys):
    assert check(traces, "few") == 3
    assert capsys.readouterr().out.startswith("INCONCLUSIVE")
    assert check(traces, "wrong") == 1
    assert capsys.readouterr().out.startswith("WRONG RESULT triton_v2: row 3 holds NaN")
    assert check(traces, "other") == 2
    assert capsys.readouterr().out.startswith("NOT COMPARABLE: the device differs")


@pytest.mark.parametrize(
    ("fail_on", "codes"),
    [
        ("inconclusive", (1, 1, 3, 0, 1, 2)),
        ("regression", (1, 1, 0, 0, 1, 2)),
        ("severe", (1, 0, 0, 0, 1, 2)),
        ("never", (0, 0, 0, 0, 0, 2)),
    ],
)
def test_fail_on_decides_what_fails_a_job(fail_on, codes):
    checks = (
        make_check(regressed(severe=True)),
        make_check(regressed()),
        make_check(inconclusive()),
        make_check(),
        make_check(wrong_result="NaN", findings=()),
        make_check(comparable=False, against=("x",)),
    )
    assert tuple(exit_code(one, fail_on) for one in checks) == codes


# ---------------------------------------------------------------- outputs


def test_every_format_goes_to_its_file_and_one_to_stdout(traces, tmp_path, capsys):
    files = [tmp_path / name for name in ("a.txt", "b.md", "c.json", "d.xml", "e.sarif")]
    files[0].write_text("an older report")
    options = [part for path in files for part in ("-o", path)]
    assert check(traces, "slow", *options, "--format", "json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "moeprof.check/1" and document["exit_code"] == 1
    text, markdown, same, junit, sarif = (path.read_text() for path in files)
    assert text.startswith("REGRESSED gemm1: ") and "\x1b" not in text
    assert "### REGRESSED gemm1" in markdown
    assert json.loads(same) == document
    assert int(xml.fromstring(junit).get("failures")) >= 1
    results = json.loads(sarif)["runs"][0]["results"]
    assert results[0]["message"]["text"].startswith("REGRESSED gemm1 of triton_v2")
    for content in (text, markdown, same, junit, sarif):
        assert store.leaks(content, private_words()) == ()


@pytest.mark.parametrize("form", ["text", "md", "json", "junit", "sarif", "github"])
def test_every_format_on_stdout(form, traces, capsys):
    assert check(traces, "slow", "--format", form) == 1
    shown = capsys.readouterr()
    assert "gemm1" in shown.out and shown.err == ""
    if form == "github":
        first = shown.out.splitlines()[0]
        assert first.startswith("::error ") and "gemm1 +" in first
        assert "\nREGRESSED gemm1: " in shown.out, "and the report for people"


def test_sarif_and_annotations_point_into_the_repository(traces, capsys):
    if not (Path(__file__).resolve().parents[1] / ".git").exists():
        pytest.skip("this checkout is no git repository")
    assert check(traces, "slow", "--format", "github") == 1
    assert "::error file=stages/" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("report.html", "names no format"),
        ("absent/report.md", "lies in no folder"),
        ("folder.md", "is a folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_said_before_anything_is_measured(
    name, words, tmp_path, capsys
):
    (tmp_path / "folder.md").mkdir()
    arguments = ["--solution", "reference", "--baseline", "none", "-o", tmp_path / name]
    assert say("check", *arguments) == 2
    assert words in one_line(capsys.readouterr().err)


def test_the_summary_is_appended(traces, tmp_path, monkeypatch, capsys):
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    assert check(traces, "slow", "--summary") == 1
    assert check(traces, "same", "--summary") == 0
    written = path.read_text()
    assert written.startswith("before\n<!-- moeprof check") and written.count("### ") == 2
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "absent" / "x"))
    capsys.readouterr()
    assert check(traces, "slow", "--summary") == 1
    assert "cannot be written" in one_line(capsys.readouterr().err)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    assert check(traces, "same", "--summary") == 0
    assert "GITHUB_STEP_SUMMARY is not set" in one_line(capsys.readouterr().err)


def test_the_webhook_is_told_of_alerts_alone_unless_asked_for_all(traces, monkeypatch, capsys):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with server(200) as received:
        monkeypatch.setenv("MOEPROF_WEBHOOK_URL", received.url)
        assert check(traces, "same") == 0
        assert received.requests == []
        assert check(traces, "slow") == 1
        assert check(traces, "same", "--webhook-on", "always") == 0
    texts = [json.loads(body)["text"].splitlines()[0] for *_, body in received.requests]
    assert [text.split()[0].rstrip(":") for text in texts] == ["REGRESSED", "SAME"]
    assert capsys.readouterr().err == ""


def test_a_webhook_that_fails_is_one_line_and_the_verdict_stands(traces, monkeypatch, capsys):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with server(404) as received:
        monkeypatch.setenv("OURS", received.url)
        assert check(traces, "slow", "--webhook-env", "OURS") == 1
    shown = capsys.readouterr()
    assert one_line(shown.err) == (
        "moeprof: warning: the webhook of OURS was not told after 1 attempt: it answered HTTP 404\n"
    )
    assert shown.out.startswith("REGRESSED gemm1")
    monkeypatch.setenv("OURS", "not a url")
    assert check(traces, "slow", "--webhook-env", "OURS") == 2
    assert "OURS holds no usable URL" in one_line(capsys.readouterr().err)
    assert check(traces, "slow", "--webhook-env", "THEIRS") == 2
    assert "THEIRS is not set" in one_line(capsys.readouterr().err)


def without(modules, traces):
    """The slow runs judged by a process in which ``modules`` cannot be imported."""
    arguments = ["check", "--runs", str(traces / "slow"), "--baseline", "b"]
    program = (
        "import sys, importlib.abc\n"
        "class Blocked(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name in {modules}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "from moeprof.cli.main import run_command\n"
        f"sys.exit(run_command({[*arguments, '--traces', str(traces)]!r}))\n"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_judging_records_needs_no_torch(traces):
    done = without(["torch", "triton", "pynvml", "cupti"], traces)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("REGRESSED gemm1: ")


def test_without_scipy_it_is_one_line(traces):
    done = without(["scipy"], traces)
    assert done.returncode == 2
    assert "scipy" in one_line(done.stderr)


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--solution", "reference"], "nothing to check against; choose one of --baseline"),
        (["--solution", "reference", "--baseline", "b", "--against", "HEAD"], "given together"),
        (["--baseline", "b"], "--runs and --solution; expected one of them"),
        (["--runs", ".", "--against", "HEAD"], "--runs without --baseline"),
        (["--runs", ".", "--solution", "reference", "--baseline", "b"], "expected one of them"),
        (
            ["--runs", ".", "--baseline", "b", "--seed", "1"],
            "--seed was given, but nothing is meas",
        ),
        (
            ["--solution", "x", "--baseline", "b", "--num-tokens", "7"],
            "the baseline fixes its work",
        ),
        (["--solution", "triton_v9", "--baseline", "b"], "no solution 'triton_v9'; did you mean"),
        (["--solution", "reference", "--baseline", "zz"], "there is no baseline 'zz'"),
        (["--runs", "absent", "--baseline", "b"], "there is no baseline 'b'"),
        (["--solution", "reference", "--against", "no-such"], "git knows no revision 'no-such'"),
        (["--solution", "reference", "--measure-only", "--processes", "2"], "processes of the pol"),
        (["--solution", "reference", "--measure-only", "--policy", "no.json"], "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_one_line(arguments, words, tmp_path, capsys):
    if "no-such" in arguments and not (Path(__file__).resolve().parents[1] / ".git").exists():
        pytest.skip("this checkout is no git repository")
    assert say("check", *arguments, "--traces", tmp_path) == 2
    shown = capsys.readouterr()
    assert words in one_line(shown.err) and shown.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "no JSON object"),
        ('{"procceses": 5}', "procceses is an unknown key"),
        ('{"processes": "5"}', "processes is text"),
        ('{"processes": 1}', "processes of the policy is 1; expected 3 to 1000"),
    ],
)
def test_a_policy_file_that_is_none_is_one_line(text, words, tmp_path, capsys):
    path = tmp_path / "policy.json"
    path.write_text(text)
    arguments = ("--solution", "reference", "--measure-only", "--policy", path)
    assert say("check", *arguments, "--traces", tmp_path) == 2
    assert words in one_line(capsys.readouterr().err)


# ---------------------------------------------------------------- real processes


# stages that rest longer than they compute, on a machine that may be busy with other tests
REST = dict.fromkeys(STAGES, 0.02)
SLOW = 0.08
POLICY = {
    **{"processes": 3, "baseline_processes": 3, "relative_floor": 0.4, "span_floor": 0.02},
    **{"severe": 1.0, "host_relative_floor": 0.4, "alert_alpha": 0.05},
}
SMALL = ("--device", "cpu", "--num-tokens", "7", "--warmup", "0", "--iterations", "3")


def moeprof(folder, *arguments):
    """A process of its own in ``folder``, as from a shell. One thread: two would wait for cores."""
    command = [sys.executable, "-m", "moeprof", *map(str, arguments)]
    own = {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env={**os.environ, **own}
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder with a solution that rests in every stage, and its baseline 'rests'."""
    path = tmp_path_factory.mktemp("measured")
    write_solution(path / "mine.py", **REST)
    (path / "policy.json").write_text(json.dumps(POLICY))
    done = moeprof(
        path,
        *("baseline", "record", "--solution", "./mine.py", "--name", "rests", *SMALL),
        *("--policy", "policy.json", "--note", "as bought", "--traces", "traces"),
    )
    assert done.returncode == 0, done.stderr
    return path, done


def recheck(path, *options):
    return moeprof(path, "check", "--baseline", "rests", "--traces", "traces", *options)


def test_a_baseline_is_recorded_from_fresh_processes(measured):
    path, done = measured
    assert "process 3 of 3" in done.stderr
    assert "3 processes on" in done.stdout and "as bought" in done.stdout
    folder = baselines.find(path / "traces" / "baselines", "rests")
    stored = baselines.open_baseline(folder)
    assert len(stored.runs) == 3 and stored.baseline.policy == Policy(**POLICY)
    assert {str(noise.quantity) for noise in stored.baseline.noise} >= {"gemm1 busy", "span"}
    assert not list((path / "traces" / "checks").iterdir()), "its records are in the baseline"
    for file in folder.iterdir():
        content = file.read_bytes()
        text = content.decode() if file.suffix == ".json" else json.dumps(
            store.to_json(store.load(file))
        )  # fmt: skip
        assert store.leaks(text, private_words()) == ()
    again = moeprof(
        path,
        *("baseline", "record", "--solution", "./mine.py", "--name", "rests", *SMALL),
        *("--processes", "3", "--traces", "traces"),
    )
    assert again.returncode == 2
    assert "there is a baseline" in again.stderr.splitlines()[-1]
    assert "process 2" not in again.stderr, "it was told after one process, not after all"


def test_without_a_change_nothing_alerts(measured):
    path, _ = measured
    done = recheck(path, "--solution", "./mine.py", "--no-confirm")
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert "REGRESSED" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("records traces/checks/mine-T7-")


def test_an_injected_slowdown_is_named_confirmed_and_can_be_accepted(measured):
    path, _ = measured
    write_solution(path / "slower.py", **{**REST, "swiglu_quant": SLOW})
    done = recheck(path, "--solution", "./slower.py", "-o", "check.json", "-o", "check.xml")
    assert done.returncode == 1, done.stdout + done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("REGRESSED swiglu_quant: +"), first
    assert "a second round of fresh processes" in done.stderr
    folder = path / done.stdout.splitlines()[-1].removeprefix("records ")
    assert len(runs_in(folder)) == 6
    verdict = load_check(folder)
    assert verdict.regressed_stages == ("swiglu_quant",)
    assert json.loads((path / "check.json").read_text())["verdict"] == "REGRESSED"
    again = recheck(path, "--runs", folder)  # the same records, judged again
    assert again.returncode == 1 and again.stdout.splitlines()[0] == first
    accepted = moeprof(
        path,
        *("baseline", "accept", folder, "--name", "rests", "--note", "slower on purpose"),
        *("--traces", "traces"),
    )
    assert accepted.returncode == 0, accepted.stderr
    kept = [entry.name for entry in baselines.entries(path / "traces" / "baselines")]
    assert kept[0] == "rests" and kept[1].startswith("rests@")
    stored = baselines.open_baseline(baselines.find(path / "traces" / "baselines", "rests"))
    assert stored.baseline.note == "slower on purpose" and len(stored.runs) == 6
    back = moeprof(
        path,
        *("baseline", "accept", folder.parents[1] / "baselines" / stored.gpu / kept[1]),
        *("--name", "rests", "--note", "back again", "--traces", "traces"),
    )
    assert back.returncode == 0, back.stderr


def test_a_wrong_result_is_told_after_one_process(measured):
    path, _ = measured
    lies = "import torch\nfrom moeprof.contract import Step\n"
    text = write_solution(path / "wrong.py", extra=lies, **REST).read_text()
    spoilt = "return stage.function(*given, **options) * 0"
    text = text.replace("return stage.function(*given, **options)", spoilt)
    (path / "wrong.py").write_text(text.replace("if s.name in SLOW", "if s.name == 'swiglu_quant'"))
    done = recheck(path, "--solution", "./wrong.py", "--fail-on", "severe")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("WRONG RESULT mine: ")
    assert "process 2" not in done.stderr


def test_a_reader_that_leaves_changes_no_exit_code(traces):
    command = [sys.executable, "-m", "moeprof", "check", "--runs", str(traces / "slow")]
    command += ["--baseline", "b", "--traces", str(traces), "--format", "json"]
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    done.stdout.close()
    assert done.wait() == 1
    assert done.stderr.read() == b""
    done.stderr.close()


def test_a_disk_that_fills_up_at_the_end_leaves_the_verdict_on_the_screen(traces, tmp_path):
    """The kernel's own refusal of files above 1000 bytes, in a process of its own."""
    command = [sys.executable, "-m", "moeprof", "check", "--runs", str(traces / "slow")]
    command += ["--baseline", "b", "--traces", str(traces), "-o", str(tmp_path / "report.md")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000)),
    )
    assert done.stdout.startswith("REGRESSED gemm1")
    assert done.returncode == 2
    assert "report.md could not be written: File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_two_revisions_are_measured_in_turn(tmp_path):
    def git(*arguments):
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@y.invalid", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    write_solution(tmp_path / "mine.py", **REST)
    (tmp_path / "policy.json").write_text(json.dumps({**POLICY, "confirm": False}))
    (tmp_path / ".gitignore").write_text("traces/\n*.lock\n__pycache__/\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "old")
    write_solution(tmp_path / "mine.py", **{**REST, "shuffle_rows": SLOW})
    done = moeprof(
        tmp_path,
        *("check", "--against", "HEAD", "--solution", "./mine.py", *SMALL),
        *("--policy", "policy.json", "--traces", "traces", "--format", "github"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert "changes that are in no commit" in lines[0]
    sides = ["working" if "working tree" in line else "old" for line in lines[1:7]]
    assert sides == ["old", "working", "working", "old", "old", "working"]
    assert done.stdout.startswith("::error file=mine.py,title=REGRESSED shuffle_rows of mine")
    assert "interleaved on one device" in done.stdout
    (folder,) = (tmp_path / "traces" / "checks").iterdir()
    assert [len(list((folder / side).iterdir())) for side in ("baseline", "candidate")] == [3, 3]
    assert not list(tmp_path.glob("moeprof-worktree-*"))
