"""The pytest plugin in a user's project: real pytest runs, real measurements on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checks import write_solution
from tests.test_bisect import ALONE, FAST, POLICY, SIZES, SLOW, SMALL
from tests.test_bisect import REST as OTHERS

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ("-p", "moeprof.pytest_plugin", "-p", "no:cacheprovider")


def entry_point_is_installed():
    from importlib.metadata import entry_points

    return any(one.value == "moeprof.pytest_plugin" for one in entry_points(group="pytest11"))


def run(path, *arguments):
    plugin = PLUGIN[2:] if entry_point_is_installed() else PLUGIN
    environment = {**os.environ, **ALONE, "TMPDIR": str(path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, "-q", "-rs", *arguments],
        cwd=path, env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert "INTERNALERROR" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done


TEST = """
import pytest

@pytest.mark.moeprof(solution="mine.py", max_regression=0.5)
def test_speed(moeprof):
    assert moeprof.check is not None
    assert moeprof.check.candidate.processes == 3
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a solution, a marked test and a baseline of this CPU."""
    path = tmp_path_factory.mktemp("project")
    import json

    write_solution(path / "mine.py", **OTHERS, gemm2=FAST)
    (path / "policy.json").write_text(json.dumps(POLICY))
    (path / "pytest.ini").write_text("[pytest]\n")
    (path / "test_speed.py").write_text(TEST)
    record = [sys.executable, "-m", "moeprof", "baseline", "record", "--solution", "./mine.py"]
    done = subprocess.run(
        [*record, *SMALL, *SIZES, "--policy", "policy.json", "--traces", "traces"],
        cwd=path, capture_output=True, text=True, timeout=500,
        env={**os.environ, **ALONE, "TMPDIR": str(path), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path


def test_the_same_code_passes_and_a_slower_stage_fails_with_the_table(project):
    done = run(project, "--junitxml", "junit.xml")
    assert done.returncode == 0, done.stdout
    assert "= moeprof =" in done.stdout
    # a machine that does something else at the same time may be too noisy to tell
    verdicts = ("SAME", "IMPROVED", "INCONCLUSIVE")
    assert any(f"test_speed.py::test_speed: {verdict}" in done.stdout for verdict in verdicts)
    assert ("1 skipped" in done.stdout) == ("INCONCLUSIVE" in done.stdout)
    assert 'name="moeprof"' in (project / "junit.xml").read_text()
    assert (project / "traces" / "history.sqlite").is_file()
    write_solution(project / "mine.py", **OTHERS, gemm2=SLOW)
    try:
        done = run(project)
    finally:
        write_solution(project / "mine.py", **OTHERS, gemm2=FAST)
    assert done.returncode == 1, done.stdout
    assert "REGRESSED gemm2" in done.stdout and "swiglu_quant" in done.stdout
    assert "Traceback" not in done.stdout and "1 failed" in done.stdout


@pytest.mark.parametrize(
    ("marker", "options", "words", "code"),
    [
        ('solution="mine.py", baseline="other"', (), "there is no other for", 0),
        ('solution="mine.py", num_tokens=56', (), "of T = 56 for", 0),
        (
            'solution="mine.py", baseline="other"',
            ("--moeprof-require-baseline",),
            "there is no other for",
            1,
        ),
        ('solution="absent.py"', (), "moeprof: ", 1),
        ("baseline=3, what=1", (), "the marker moeprof: ", 1),
    ],
)
def test_what_cannot_be_checked_is_one_reason(project, tmp_path, marker, options, words, code):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "mine.py").write_bytes((project / "mine.py").read_bytes())
    (tmp_path / "test_it.py").write_text(
        f"import pytest\n@pytest.mark.moeprof({marker})\ndef test_it():\n    pass\n"
    )
    done = run(tmp_path, "--moeprof-traces", str(project / "traces"), *options)
    assert done.returncode == code, done.stdout
    assert words in done.stdout and "Traceback" not in done.stdout
    assert ("1 skipped" in done.stdout) == (code == 0)


def test_it_costs_nothing_where_it_is_not_used(tmp_path):
    """No torch, no scipy and little else of moeprof in a run without the marker."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it(moeprof):\n"
        "    assert moeprof.check is None\n"
        "    heavy = {'torch', 'numpy', 'scipy', 'click', 'rich', 'plotly'} & set(sys.modules)\n"
        "    assert not heavy\n"
        "    assert {m for m in sys.modules if m.startswith('moeprof.')} <= {\n"
        "        'moeprof.pytest_plugin', 'moeprof.scopes'}\n"
    )
    done = run(tmp_path, "--strict-markers", "-p", "no:hypothesispytest")
    assert done.returncode == 0, done.stdout
    assert "moeprof ==" not in done.stdout


def test_workers_measure_one_after_the_other(project):
    """Two marked tests on two workers of xdist: the folders of their processes never overlap."""
    (project / "test_two.py").write_text(TEST.replace("test_speed", "test_again"))
    try:
        done = run(project, "-n", "2")
    finally:
        (project / "test_two.py").unlink()
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout and done.stdout.count("test_again: ") == 1
    from moeprof.storage import store

    checks = sorted((project / "traces" / "checks").iterdir())[-2:]
    created = [
        sorted(store.load(file).created for file in check.glob("candidate/*.json.gz"))
        for check in checks
    ]
    first, second = sorted(created)
    assert len(first) == len(second) == 3 and first[-1] <= second[0]
