"""The first bad commit: the search on real histories, then real processes of real revisions."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from moeprof.checking import bisect, revisions
from moeprof.errors import MoeprofError
from moeprof.regression.bisection import Step
from moeprof.regression.values import Quantity
from tests.checks import finding, inconclusive, make_check, regressed, write_solution
from tests.test_check_measuring import git

GEMM2 = Quantity("gemm2", "busy")


def commit(path, message):
    git(path, "commit", "-q", "--allow-empty", "-m", message)
    return git(path, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path):
    path = tmp_path / "kernels"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    return path


# ---------------------------------------------------------------- the search, on real histories


def search(repository, good, bad, is_bad, skipped=()):
    """What is found, and which revisions were asked about. Their answers are given here."""
    asked = []

    class Given(bisect._Search):
        def _step(self, one):
            asked.append(one.hash)
            answer = "skipped" if one.hash in skipped else "bad" if is_bad(one.hash) else "good"
            return Step(one, answer, "as the test says")

    made = Given(None, None, repository, lambda text: None)
    made.good, made.bad = (revisions.commit_of(repository, one) for one in (good, bad))
    made.goods, made.first_bad, made.quantity = [good], bad, GEMM2
    return made.run(), asked


def test_a_straight_history_is_halved(repository):
    commits = [commit(repository, f"number {n}") for n in range(40)]
    for first in (1, 2, 17, 38, 39):
        slow = set(commits[first:])
        found, asked = search(repository, commits[0], commits[-1], slow.__contains__)
        assert found.first.hash == commits[first] and found.first.subject == f"number {first}"
        assert len(asked) <= 6, "log2 of 39"


def test_skipped_ones_in_between_leave_a_range(repository):
    commits = [commit(repository, f"number {n}") for n in range(12)]
    slow = set(commits[7:])
    found, _ = search(repository, commits[0], commits[-1], slow.__contains__, commits[5:7])
    assert found.first is None
    assert [one.hash for one in found.suspects] == commits[5:8], "oldest first"
    found, _ = search(repository, commits[0], commits[-1], slow.__contains__, commits[2:5])
    assert found.first.hash == commits[7], "those elsewhere do not matter"
    found, asked = search(repository, commits[0], commits[-1], slow.__contains__, commits[1:-1])
    assert [one.hash for one in found.suspects] == commits[1:] and len(asked) == 10


def test_a_history_with_merges_gives_the_commit_that_brought_it(repository):
    """Against the definition: bad itself, its parents that are not before good all good."""
    luck = random.Random(3)
    good = commit(repository, "good")
    for number in range(6):
        git(repository, "checkout", "-q", "-b", f"side{number}")
        for step in range(luck.randint(1, 3)):
            commit(repository, f"side {number} step {step}")
        git(repository, "checkout", "-q", "main")
        commit(repository, f"main {number}")
        git(repository, "merge", "-q", "--no-ff", "-m", f"merge {number}", f"side{number}")
    bad = git(repository, "rev-parse", "HEAD")
    all_ = git(repository, "rev-list", f"{good}..{bad}").split()
    for culprit in all_:
        slow = set(git(repository, "rev-list", "--ancestry-path", f"{culprit}..{bad}").split())
        slow |= {culprit, bad}
        if culprit == bad:
            slow = {bad}
        found, _ = search(repository, good, bad, slow.__contains__)
        assert found.first.hash == culprit


def test_good_must_be_before_bad(repository):
    first, second = commit(repository, "first"), commit(repository, "second")
    ends = [revisions.commit_of(repository, one) for one in (first, second)]
    revisions.require_ancestor(repository, *ends)
    with pytest.raises(MoeprofError, match="is no ancestor of"):
        revisions.require_ancestor(repository, *reversed(ends))
    with pytest.raises(MoeprofError, match="good and bad are both"):
        revisions.require_ancestor(repository, ends[0], ends[0])


# ---------------------------------------------------------------- what a check answers


def answer(check, lost=1.5):
    """What a step says of a check, measured to its end."""
    made = bisect._Search(None, None, None, lambda text: None)
    made.quantity, made.lost = GEMM2, lost
    made._measured = lambda commit, decides: check
    return made._step(revisions.Commit("ab" * 20, "a subject"))


@pytest.mark.parametrize(
    ("check", "expected", "why"),
    [
        (make_check(regressed("gemm2")), "bad", "gemm2 busy REGRESSED, +4.9 %"),
        (make_check(regressed("gemm1")), "good", "gemm2 busy SAME, +0.1 %"),
        (make_check(inconclusive("gemm2", "busy", slowest=1.1)), "good", "INCONCLUSIVE, +3.1 %"),
        (make_check(inconclusive("gemm2", "busy", slowest=1.3)), "skipped", "inconclusive after 5"),
        (make_check(inconclusive("gemm2", "busy", slowest=None)), "skipped", "inconclusive after"),
        (make_check(wrong_result="NaN", findings=()), "skipped", "wrong result: NaN"),
        (make_check(comparable=False, against=("the driver differs",)), "skipped", "the driver"),
        (make_check(findings=(finding("gemm1", "busy"),)), "skipped", "it has no gemm2 busy"),
    ],
)
def test_what_a_check_answers(check, expected, why):
    step = answer(check)
    assert step.answer == expected and why in step.why


def test_bad_that_is_not_slower_is_one_line():
    ends = [revisions.Commit(one * 40, one) for one in "ab"]
    same = bisect._nothing(make_check(), "gemm2", *ends)
    assert same.exit_code == 2 and "gemm2 is SAME in bbbbbbbb against aaaaaaaa" in str(same)
    unsure = bisect._nothing(make_check(inconclusive("gemm2", "busy")), "gemm2", *ends)
    assert unsure.exit_code == 3 and "--most-processes" in str(unsure)
    absent = bisect._nothing(make_check(), "gemm9", *ends)
    assert absent.exit_code == 2 and "no stage 'gemm9'; expected one of routing" in str(absent)


# ---------------------------------------------------------------- real processes


POLICY = {
    **{"processes": 3, "baseline_processes": 3, "relative_floor": 0.5, "span_floor": 0.2},
    **{"severe": 2.0, "host_relative_floor": 0.5, "confirm": False, "noise_factor": 1.0},
}
SMALL = ("--definition", "tiny", "--device", "cpu", "--num-tokens", "7")
SIZES = ("--warmup", "0", "--iterations", "3", "--trials", "1", "--preset", "quick")
REST = dict.fromkeys("routing prepare_moe_input gemm1 swiglu_quant gather".split(), 0.05)
FAST, SLOW = 0.05, 0.6  # of gemm2, s: what even a busy machine tells apart
ALONE = {"OMP_NUM_THREADS": "1"}  # threads that wait for each other on a busy machine are its noise


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Six commits: the third is no Python, the fifth rests longer in gemm2."""
    path = tmp_path_factory.mktemp("bisected") / "kernels"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    commits = []
    for number in range(6):
        slow = {"gemm2": SLOW if number >= 4 else FAST}
        write_solution(path / "mine.py", f"number {number}", **REST, **slow)
        if number == 2:
            (path / "mine.py").write_text("def broken(:\n")
        (path / "policy.json").write_text(json.dumps(POLICY))
        git(path, "add", ".")
        git(path, "commit", "-qm", f"number {number}")
        commits.append(git(path, "rev-parse", "HEAD"))
    return path, commits


def start(path, *arguments, **options):
    command = [sys.executable, "-m", "moeprof", "bisect", "--solution", "./mine.py"]
    command += ["--policy", "policy.json", *SMALL, *SIZES, "--traces", "../traces", *arguments]
    environment = {**os.environ, **ALONE, "TMPDIR": str(path.parent)}
    return subprocess.Popen(
        command, cwd=path, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def state(path):
    """Everything that a bisection must leave as it was."""
    return (
        git(path, "status", "--porcelain"),
        git(path, "for-each-ref"),
        git(path, "worktree", "list"),
        git(path, "stash", "list"),
        (path / ".git" / "HEAD").read_text(),
        sorted(file.name for file in (path / ".git").iterdir() if file.name != "worktrees"),
        (path / "mine.py").read_bytes(),
        [file.name for file in path.parent.glob("moeprof-worktree-*")],
    )


def test_the_slow_commit_is_named_and_git_is_left_alone(history):
    path, commits = history
    (path / "notes.txt").write_text("not in git")
    before = state(path)
    process = start(path, "--good", commits[0], "--stage", "gemm2", "--json")
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert found["schema"] == "moeprof.bisect/1"
    assert found["first_bad"]["hash"] == commits[4]
    assert found["quantity"] == {"stage": "gemm2", "measure": "busy"}
    assert found["ratio"] > 2 and found["causes"]
    answers = {step["commit"]["hash"]: step["answer"] for step in found["steps"]}
    assert answers[commits[5]] == answers[commits[4]] == "bad" and answers[commits[3]] == "good"
    assert answers.get(commits[2], "skipped") == "skipped"
    assert state(path) == before
    assert list((path.parent / "traces").iterdir()) == [path.parent / "traces" / "bisect"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_worktree_and_no_process(number, history):
    path, commits = history
    before = state(path)
    process = start(path, "--good", commits[0], "--stage", "gemm2", start_new_session=True)
    while "process 1" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert state(path) == before


def test_what_cannot_be_searched_is_one_line(history):
    path, commits = history
    for arguments, words in (
        (("--good", "no-such", "--stage", "gemm2"), "git knows no revision 'no-such'"),
        (("--good", commits[3], "--bad", commits[1], "--stage", "gemm2"), "is no ancestor of"),
    ):
        process = start(path, *arguments)
        out, err = process.communicate(timeout=100)
        assert process.returncode == 2 and out == ""
        assert words in err and err.count("\n") == 1
