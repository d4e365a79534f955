"""``moeprof report`` as a user meets it: what it reads, refuses, writes, and how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moeprof.cli.main import run_command
from moeprof.cli.report import record_files
from moeprof.storage.store import save
from tests.comparisons import fused, pipeline

RECORDED = Path(__file__).resolve().parents[1] / "traces" / "recorded" / "h200"


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two records, as ``run`` leaves them."""
    traces = tmp_path_factory.mktemp("traces")
    for run in (pipeline(), fused()):
        save(run, traces / "runs", "dsv3")
    return traces


def test_the_committed_records_without_torch(tmp_path: Path) -> None:
    """19 workloads, 6 solutions: under 6 MB; 2 s on an idle machine, three times that allowed."""
    output = tmp_path / "report.html"
    program = (
        "import sys\n"
        "for name in ('torch', 'triton'): sys.modules[name] = None\n"
        "from moeprof.cli.main import run_command\n"
        f"code = run_command(['report', {str(RECORDED)!r}, '-o', {str(output)!r}])\n"
        "sys.exit(code or 'plotly' in sys.modules)"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    took_s = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("114 records in ") and done.stderr == ""
    assert output.stat().st_size < 6_000_000
    assert took_s < 6, f"{took_s:.1f} s"


def test_the_format_follows_the_file_name_unless_given(folder, tmp_path, capfd) -> None:
    for name, start in (("a.html", "<!doctype html>"), ("a.md", "# Where"), ("a.json", "{")):
        assert run_command(["report", str(folder), "-o", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text().startswith(start)
    given = ["report", str(folder), "-o", str(tmp_path / "b.txt"), "--format", "md"]
    assert run_command(given) == 0
    assert (tmp_path / "b.txt").read_text() == (tmp_path / "a.md").read_text()
    assert capfd.readouterr().out.count("2 records in ") == 4


def test_markdown_and_json_go_to_stdout(folder, capfd) -> None:
    assert run_command(["report", str(folder), "--format", "md"]) == 0
    assert capfd.readouterr().out.startswith("# Where the time goes\n")
    assert run_command(["report", str(folder), "--format", "json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "moeprof.report/1"
    assert document["summary"][1].startswith("Work amplification is the largest cause")


def test_html_without_a_name_is_report_html_here(folder, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["report", str(folder)]) == 0
    assert (tmp_path / "report.html").is_file()
    assert capfd.readouterr().out.startswith("2 records in report.html (")


def test_nothing_is_written_over_unless_forced(folder, tmp_path, capfd) -> None:
    output = tmp_path / "report.html"
    output.write_text("mine")
    assert run_command(["report", str(folder), "-o", str(output)]) == 2
    assert f"{output} exists; --force writes over it" in one_line(capfd.readouterr().err)
    assert output.read_text() == "mine"
    assert run_command(["report", str(folder), "-o", str(output), "--force"]) == 0
    assert output.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x1f\x8b\x08\x00half", "damaged or cut short"),
        (b'{"format": "moeprof run", "schema_version": 99}', "newer than this moeprof"),
        (b'{"a": 1}', "no moeprof record"),
        (b"not json", "not JSON"),
    ],
)
def test_one_bad_file_ends_it_before_anything_is_written(
    folder, tmp_path, capfd, content: bytes, message: str
) -> None:
    bad = tmp_path / "T7-b8f4f012-20260131T125959Z.json.gz"
    bad.write_bytes(content)
    output = tmp_path / "report.html"
    assert run_command(["report", str(folder), str(bad), "-o", str(output)]) == 2
    error = one_line(capfd.readouterr().err)
    assert str(bad) in error and message in error
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'RUN...'"),
        (["nowhere"], "there is no file or folder nowhere"),
        (["{empty}"], "there is no record in"),
        (["{folder}", "-o", "{empty}"], "is a directory"),
        (["{folder}", "--format", "pdf"], "'pdf' is not one of"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_exit_code_2(
    folder, tmp_path, capfd, arguments: list[str], message: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    given = [text.format(folder=folder, empty=empty) for text in arguments]
    assert run_command(["report", *given]) == 2
    assert message in one_line(capfd.readouterr().err)


def test_files_and_folders_are_read_once(folder) -> None:
    every = record_files([folder])
    assert len(every) == 2
    assert record_files([every[0], folder, folder / "runs"]) == every
