"""The workflows in examples/github, run command by command in a scratch repository on this machine.

Their ``run:`` lines are executed by bash as GitHub does (-eo pipefail), with the environment they
ask for; what only GitHub has (its actions, ``gh``) is left out or, for ``gh``, stood in for by a
script that keeps what it was given.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest
import yaml

from tests.checks import write_solution
from tests.test_bisect import ALONE, FAST, POLICY, SIZES, SLOW, SMALL
from tests.test_bisect import REST as OTHERS
from tests.test_check_measuring import git

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "github"
STEPS = {"check": "Check every stage", "comment": "Comment on the pull request"}


def workflow(name):
    return yaml.safe_load((EXAMPLES / name).read_text())


def step(document, title):
    (job,) = document["jobs"].values()
    (found,) = [one for one in job["steps"] if one.get("name", "").startswith(title)]
    return found


def run(document, title, path, **values):
    """One step's own commands. values: what GitHub would put in place of ``${{ ... }}``."""
    one = step(document, title)
    asked = {**document.get("env", {}), **one.get("env", {})}
    environment = {**os.environ, **ALONE, "TMPDIR": str(path.parent), "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{path.parent / 'bin'}:{os.environ['PATH']}"
    environment["GITHUB_STEP_SUMMARY"] = str(path.parent / "summary.md")
    for name, value in asked.items():
        inside = re.fullmatch(r"\$\{\{ (.*) \}\}", str(value))
        environment[name] = values[inside[1]] if inside else str(value)
    assert "${{" not in one["run"], "expressions in a script are an injection"
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", one["run"]]
    return subprocess.run(
        command, cwd=path, env=environment, capture_output=True, text=True, timeout=500
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A user's repository with the two workflows, a solution and its baseline of this CPU."""
    path = tmp_path_factory.mktemp("scratch") / "kernels"
    shutil.copytree(EXAMPLES, path / ".github" / "workflows")
    shutil.copy(EXAMPLES / "moeprof-cpu-policy.json", path)
    programs = path.parent / "bin"
    programs.mkdir()
    (programs / "moeprof").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m moeprof "$@"\n')
    (programs / "gh").write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" > "$TMPDIR/gh.txt"\n'
        'while [ "$1" != --body-file ]; do shift; done\ncp "$2" "$TMPDIR/comment.md"\n'
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    git(path, "init", "-q", "-b", "main")
    write_solution(path / "mine.py", **OTHERS, gemm2=FAST)
    (path / ".gitignore").write_text("traces/checks/\ntraces/history.sqlite*\nreport/\n")
    (path.parent / "policy.json").write_text(json.dumps(POLICY))
    done = subprocess.run(
        [sys.executable, "-m", "moeprof", "baseline", "record", "--solution", "./mine.py", *SMALL,
         *SIZES, "--name", "mine-T56", "--policy", "../policy.json", "--traces", "traces"],
        cwd=path, capture_output=True, text=True, timeout=500,
        env={**os.environ, **ALONE, "TMPDIR": str(path.parent), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    git(path, "add", ".")
    git(path, "commit", "-qm", "fast")
    git(path, "tag", "fast")
    assert "traces/baselines" in git(path, "ls-files")
    return path


@pytest.fixture
def slowed(repository):
    """The next commit: gemm2 rests 0.55 s longer; taken back at the end."""
    write_solution(repository / "mine.py", **OTHERS, gemm2=SLOW)
    git(repository, "commit", "-qam", "slow")
    yield repository
    git(repository, "reset", "-q", "--hard", "fast")


def test_every_workflow_is_one_job_with_least_rights():
    for path in EXAMPLES.glob("*.yml"):
        document = workflow(path.name)
        assert document["permissions"]["contents"] == "read"
        (job,) = document["jobs"].values()
        assert job["timeout-minutes"] <= 60
        assert all("@" in one["uses"] for one in job["steps"] if "uses" in one)
        upload = job["steps"][-1]
        assert "!cancelled()" in upload["if"] and "report/" in upload["with"]["path"]


def test_the_gpu_workflow_passes_the_same_code(repository):
    done = run(workflow("moeprof-gpu.yml"), STEPS["check"], repository)
    # 3: a machine that does something else at the same time may be too noisy to tell
    assert done.returncode in (0, 3), done.stdout + done.stderr
    found = json.loads((repository / "report" / "check.json").read_text())
    assert found["exit_code"] == done.returncode and found["alerts"] == []
    assert int(xml.parse(repository / "report" / "junit.xml").getroot().get("failures")) == 0
    assert git(repository, "status", "--porcelain") == "", "what it wrote is ignored by git"


def test_the_gpu_workflow_fails_on_a_slower_stage_and_comments(slowed):
    document = workflow("moeprof-gpu.yml")
    done = run(document, STEPS["check"], slowed)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "::error file=mine.py" in done.stdout and "REGRESSED gemm2" in done.stdout
    assert "### REGRESSED gemm2" in (slowed.parent / "summary.md").read_text()
    assert json.loads((slowed / "report" / "check.json").read_text())["exit_code"] == 1
    assert int(xml.parse(slowed / "report" / "junit.xml").getroot().get("failures")) >= 1
    given = {"github.token": "x", "github.event.pull_request.number": "17"}
    done = run(document, STEPS["comment"], slowed, **given)
    assert done.returncode == 0, done.stderr
    assert (slowed.parent / "gh.txt").read_text().split()[:3] == ["pr", "comment", "17"]
    assert "### REGRESSED gemm2" in (slowed.parent / "comment.md").read_text()


def test_the_cpu_workflow_measures_both_revisions_here(slowed):
    document = workflow("moeprof-cpu.yml")
    base = {"github.event.pull_request.base.sha": git(slowed, "rev-parse", "fast")}
    done = run(document, STEPS["check"], slowed, **base)
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads((slowed / "report" / "check.json").read_text())
    assert found["interleaved"] and found["verdict"] == "REGRESSED"
    assert "gemm2" in {alert["stage"] for alert in found["alerts"]}
    assert git(slowed, "worktree", "list").count("\n") == 0
