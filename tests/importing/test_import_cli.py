"""``moeprof import``: what it prints, what it writes, what it refuses; on real captures."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moeprof.cli.main import run_command
from moeprof.errors import RecordError
from moeprof.importing.open import read_trace
from moeprof.storage.store import find_runs, load, save

DATA = Path(__file__).resolve().parents[1] / "data"
TRITON, SGLANG = DATA / "nsys" / "triton_v2-T56.sqlite", DATA / "nsys" / "sglang_v2-T56.sqlite"
KINETO = DATA / "kineto" / "kineto-triton_v2-T56.json.gz"
PLAIN = DATA / "kineto" / "plain-triton_v2-T56.json.gz"
RECORDED = Path(__file__).resolve().parents[2] / "traces" / "recorded" / "h200"
LIKE = next((RECORDED / "triton_v2").rglob("T56-*.json.gz"))
LIKE_SGLANG = next((RECORDED / "sglang_v2").rglob("T56-*.json.gz"))


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """``command(*arguments)`` -> exit code, stdout, stderr; records go to the test's folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = run_command([*map(str, arguments)])
        return code, *capfd.readouterr()

    return run


def refused(outcome: tuple[int, str, str]) -> str:
    """The one line on stderr of a command that printed nothing and ended with 2."""
    code, out, err = outcome
    assert (code, out) == (2, "")
    assert err.startswith("moeprof: error: ") and err.count("\n") == 1
    return err


def test_the_stage_table_and_where_the_record_lies(command) -> None:
    code, out, err = command("import", TRITON, "--num-tokens", 56, "--traces", "kept")
    assert (code, err) == (0, "")
    assert "triton_v2-T56.sqlite of Nsight Systems 2025.3.2.0, schema 3.20.3: 20 forwards" in out
    assert "The forward under Nsight Systems: host figures are upper bounds" in out
    rows = [line.split()[0] for line in out.splitlines() if line.endswith(("  2 ", "  9 ", "  1 "))]
    assert rows == ["routing", "shuffle_rows", "gemm1", "swiglu_quant", "gemm2", "gather"]
    (found,) = find_runs(Path("kept/runs"))
    assert out.rstrip().endswith(f"record {found.path}")
    assert (found.solution, found.definition) == ("triton_v2-T56", "imported_triton_v2-T56")
    run = load(found.path)
    assert run.workload.seq_len == 56 and len(run.timelines[0].iterations) == 20
    listed = command("list", "runs", "--traces", "kept")[1]
    assert "imported_triton_v2-T56" in listed


def test_json_is_the_document_of_every_record(command) -> None:
    code, out, _ = command("import", KINETO, "--json", "--name", "layer", "--traces", "kept")
    document = json.loads(out)
    assert code == 0 and document["schema"] == "moeprof.run/1"
    (run,) = document["runs"]
    assert run["capture"]["tool"] == "PyTorch profiler" and run["capture"]["forwards"] == 3
    assert run["solution"]["name"] == "layer" and Path(run["record"]).is_file()
    assert [stage["name"] for stage in run["stages"]][:2] == ["routing", "prepare_moe_input"]


def test_two_captures_of_one_tool_are_compared_and_own_records_are_not_hidden(command) -> None:
    for path, like in ((TRITON, LIKE), (SGLANG, LIKE_SGLANG)):
        assert command("import", path, "--like", like, "--traces", "kept")[0] == 0
    definitions = {run.definition for run in find_runs(Path("kept/runs"))}
    assert definitions == {"dsv3@nsight_systems"}
    names = ("compare", "triton_v2", "sglang_v2", "--traces", "kept")
    said = refused(command(*names))
    assert "captures of other profilers alone; choose --definition: dsv3@nsight_systems" in said
    code, out, _ = command(*names, "--definition", "dsv3@nsight_systems")
    assert code == 0 and "gemm1: orchestration" in out
    for path in (LIKE, LIKE_SGLANG):  # moeprof's own records of the same work
        save(load(path), Path("kept/runs"), "dsv3")
    code, out, _ = command(*names)
    assert code == 0 and "runs/triton_v2/dsv3/T56" in out
    (capture,) = find_runs(Path("kept/runs"), "triton_v2", "dsv3@nsight_systems")
    said = refused(command("compare", capture.path, LIKE))
    assert "the timer differs: a capture of Nsight Systems for triton_v2 (A)" in said


def test_imported_records_are_reported(command) -> None:
    for path, like in ((TRITON, LIKE), (SGLANG, LIKE_SGLANG), (KINETO, LIKE)):
        command("import", path, "--like", like, "--traces", "kept")
    code, out, _ = command("report", "kept", "--format", "md")
    assert code == 0 and "Nsight Systems" in out and "PyTorch profiler" in out
    assert "host figures are those of a forward under PyTorch profiler, upper bounds" in out
    assert "CUPTI" not in out
    assert command("report", "kept", "-o", "page.html")[0] == 0
    assert "Nsight Systems" in Path("page.html").read_text()


def test_the_record_goes_where_it_is_told_and_never_over_another(command) -> None:
    arguments = ("import", PLAIN, "-o", "mine.json.gz", "--max-iterations", 2)
    code, out, _ = command(*arguments)
    assert code == 0 and out.rstrip().endswith("record mine.json.gz")
    assert len(load("mine.json.gz").timelines[0].iterations) == 2
    assert "mine.json.gz exists; --force writes over it" in refused(command(*arguments))
    assert command(*arguments, "--force")[0] == 0
    Path("folder").mkdir()
    assert "folder is a folder" in refused(command("import", PLAIN, "-o", "folder"))


def test_the_users_own_rules_and_ranges(command) -> None:
    Path("mine.toml").write_text(
        'name = "two GEMMs"\n[[rule]]\nkernel = "GroupProblemShape"\nsteps = ["gemm1", "gemm2"]\n'
    )
    code, out, _ = command("import", PLAIN, "--rules", "mine.toml", "--traces", "kept")
    assert code == 0 and "rules 'two GEMMs' name 98." in out and "unattributed" in out
    code, out, _ = command(
        *("import", TRITON, "--traces", "kept", "--iteration", "^iteration$"),
        *("--ranges", "^gemm1$=gemm1+swiglu_quant", "--ranges", "^swiglu=gemm1+swiglu_quant"),
    )
    assert code == 0 and "gemm1+swiglu_quant" in out


def test_nsyss_own_projection_of_the_ranges(command) -> None:
    code, out, _ = command("import", TRITON, "--projection")
    assert code == 0 and "moeprof:gemm1" in out and "5,162,119" in out  # nsys stats says the same
    code, out, _ = command("import", TRITON, "--projection", "--json")
    rows = {row["name"]: row for row in json.loads(out)["ranges"]}
    assert rows["moeprof:gemm1"]["total_projected_ns"] == 5_162_119
    assert not Path("kept").exists(), "no record is made"


BAD = {
    "empty.sqlite": (b"", "empty.sqlite: empty"),
    "noise.bin": (b"\x00\x01noise", "not a capture that moeprof knows"),
    "zip.zip": (b"PK\x03\x04", "not a capture that moeprof knows"),
    "cut.sqlite": (TRITON.read_bytes()[:50_000], "truncated"),
    "head.sqlite": (b"SQLite format 3\0", "cut.sqlite|head.sqlite"),
    "cut.json.gz": (PLAIN.read_bytes()[:20], "cut.json.gz"),
    "other.json": (b'{"a": 1}', "other.json"),
    "other.json.gz": (gzip.compress(b'{"traceEvents": []}'), "other.json.gz"),
    "noise.nsys-rep": (b"noise", "noise.nsys-rep|nsys"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line(command, name: str) -> None:
    content, said = BAD[name]
    Path(name).write_bytes(content)
    err = refused(command("import", name))
    assert any(part in err for part in said.split("|"))


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("nowhere.sqlite",), "there is no such file"),
        ((".",), "a folder without Parquet files"),
        ((TRITON, "--process", 7), "process 7 ran nothing in this capture; it holds process"),
        ((TRITON, "--gpu", 3), "GPU 3 ran nothing"),
        ((TRITON, "--iteration", "nothing"), "no closed range matches 'nothing'; the capture's"),
        ((TRITON, "--iteration", "(a+)+"), "--iteration repeats a repeat"),
        ((TRITON, "--iteration", ""), "--iteration is 0 characters"),
        ((TRITON, "--ranges", "gemm1"), "--ranges 'gemm1'; expected PATTERN=STAGE"),
        ((TRITON, "--ranges", "[=gemm1"), "is no regular expression"),
        ((TRITON, "--rules", "nowhere.toml"), "the rules nowhere.toml cannot be read"),
        ((TRITON, "--like", "nowhere.json.gz"), "nowhere.json.gz: cannot be read"),
        ((TRITON, "--like", PLAIN), "this is JSON but no moeprof record"),
        ((TRITON, "--like", LIKE, "--num-tokens", 7), "--num-tokens 7 with a record of T = 56"),
        ((TRITON, "--num-tokens", 0), "--num-tokens"),
        ((TRITON, "--max-iterations", 0), "--max-iterations"),
        ((DATA / "nsys" / "graphlevel-triton_v2-T56.sqlite",), "--cuda-graph-trace=node"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(command, arguments, said: str) -> None:
    assert said in refused(command("import", *arguments))
    assert not Path("traces").exists()


def test_a_report_of_nsys_is_exported_first_and_nothing_of_it_is_left(command, monkeypatch) -> None:
    """nsys itself is not here; the command's own part is shown with its export in place."""
    from moeprof.capturing import nsys

    exported: list[Path] = []

    def export(report: Path, destination: Path, tool: Path | None) -> None:
        assert report.read_bytes() == b"a report" and tool == Path("my/nsys")
        exported.append(destination)
        shutil.copy(TRITON, destination)

    monkeypatch.setattr(nsys, "export_sqlite", export)
    Path("mine.nsys-rep").write_bytes(b"a report")
    code, out, _ = command("import", "mine.nsys-rep", "--nsys", "my/nsys", "--traces", "kept")
    assert code == 0 and "mine.nsys-rep of Nsight Systems" in out
    assert not exported[0].exists() and not exported[0].parent.exists()
    (found,) = find_runs(Path("kept/runs"))
    assert found.solution == "mine"


def test_readers_are_chosen_by_content_and_not_by_name(tmp_path) -> None:
    for original, name in ((TRITON, "a.json"), (KINETO, "b.sqlite"), (PLAIN, "c")):
        shutil.copy(original, tmp_path / name)
        assert len(read_trace(tmp_path / name).operations) == len(read_trace(original).operations)
    text = tmp_path / "d.txt"
    text.write_bytes(b"\xef\xbb\xbf \n" + gzip.decompress(PLAIN.read_bytes()))
    assert len(read_trace(text).operations) == len(read_trace(PLAIN).operations)
    parquet = read_trace(DATA / "nsys" / "triton_v2-T56-parquet")
    assert len(parquet.operations) == len(read_trace(TRITON).operations)
    report = tmp_path / "x.nsys-rep"
    report.write_bytes(b"whatever")
    with pytest.raises(RecordError, match="a report of Nsight Systems that is not exported; nsys"):
        read_trace(report)


def test_the_commands_help_names_no_reader_and_starts_at_once() -> None:
    program = (
        "import sys\nfrom moeprof.cli.main import run_command\nrun_command(['import', '--help'])\n"
        "heavy = {'numpy', 'torch', 'rich', 'pyarrow', 'sqlite3'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--max-iterations" in done.stdout


def test_an_import_loads_neither_torch_nor_the_other_readers(tmp_path) -> None:
    program = (
        "import sys\nfrom moeprof.cli.main import run_command\n"
        f"code = run_command(['import', {str(TRITON)!r}, '--traces', {str(tmp_path)!r}])\n"
        "heavy = {'torch', 'triton', 'scipy', 'pyarrow', 'perfetto', 'plotly'} & set(sys.modules)\n"
        "assert not heavy and code == 0, heavy\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 5  # 0.4 s alone on a core
