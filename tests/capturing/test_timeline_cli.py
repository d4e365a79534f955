"""``moeprof timeline`` from the command line to the record, with tools that play a known capture.

The fake nsys starts no forward: it puts down what the captured process would have answered, and
exports a hand-made capture of two forwards. The real process is ``test_target``'s, the real tools
are ``tests/gpu/test_timeline.py``'s.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.capturing.job import SKELETON, Answer, GraphNodes, Job, read, write
from moeprof.cli import planning
from moeprof.cli.main import run_command
from moeprof.records import Run
from moeprof.storage import store
from tests.builders import make_run, stage_info
from tests.capturing import fakes
from tests.importing.nsys_files import Export, two_iterations
from tests.privacy import private_words

DATA = Path(__file__).resolve().parents[1] / "data"
ROOT = Path(__file__).resolve().parents[2]
STAGES = ("routing", "gemm1")


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch saw a GPU: nothing here runs on it."""
    monkeypatch.setattr(planning, "choose_device", lambda asked: "cuda")


def skeleton_run() -> Run:
    """What the captured process leaves: everything of a record but times."""
    run = make_run(stages=[stage_info(name) for name in STAGES], tokens=7)
    return replace(run, passes=(), timelines=(), calibration=None, clocks=run.clocks[:1])


@pytest.fixture
def answers(tmp_path: Path) -> Callable[..., str]:
    """Shell lines by which a fake tool does what the captured process would do.

    COMMAND's last word is the job's folder.
    """

    def made(answer: Answer | None = None, run: Run | None = None) -> str:
        write(tmp_path / "answer", answer or Answer())
        text = json.dumps(store.to_json(run or skeleton_run()))
        (tmp_path / "skeleton").write_text(text)
        lines = 'JOB="${COMMAND[@]: -1}"; cp "$JOB/job.json" ' + f"{tmp_path}/job.json\n"
        lines += f'cp {tmp_path}/answer "$JOB/answer.json"\n'
        if answer is None or not answer.error:
            lines += f'cp {tmp_path}/skeleton "$JOB/{SKELETON}"\n'
        return lines

    return made


def nsys(tmp_path: Path, profile: str, export: Export | None = None) -> Path:
    """A fake that runs ``profile`` and exports the capture."""
    source = (export or two_iterations()).save(tmp_path / "source.sqlite")
    report = 'echo "a raw report" > "$OUT.nsys-rep"'
    return fakes.nsys(tmp_path / "nsys", f"{profile}\n{report}", f'cp {source} "$OUT"')


def timeline(tmp_path: Path, *arguments: object) -> int:
    """The exit code of ``moeprof timeline --solution triton_v2 ...`` into tmp_path/out."""
    command = ["timeline", "--solution", "triton_v2", "--num-tokens", "7"]
    places = ("-o", tmp_path / "out", "--traces", tmp_path / "traces")
    return run_command([*command, *map(str, (*places, *arguments))])


def the_record(tmp_path: Path) -> Run:
    (path,) = (tmp_path / "traces" / "runs").rglob("*.json.gz")
    return store.load(path)


def one_line(text: str) -> str:
    """The last line, an error; what is before it is progress."""
    *progress, last = text.splitlines()
    assert all(line.startswith("capturing ") for line in progress), text
    return last


# ---------------------------------------------------------------- nsys


def test_a_capture_becomes_a_record_and_a_table(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert timeline(tmp_path, "--nsys", nsys(tmp_path, answers())) == 0
    printed = capsys.readouterr()
    run = the_record(tmp_path)
    (api,) = run.timelines
    assert len(api.iterations) == 2
    assert [operation.stage for operation in api.operation_sets[0]] == ["routing"] * 2 + ["gemm1"]
    assert run.capture is not None and run.capture.stages_by == "ranges"
    assert run.capture.file == "triton_v2-T7.sqlite"
    known = skeleton_run()
    assert run.solution == known.solution and run.correctness == known.correctness
    assert run.clocks == known.clocks and run.ceilings == known.ceilings
    gemm1 = next(line for line in printed.out.splitlines() if line.strip().startswith("gemm1"))
    assert gemm1.split()[1] == "50.0"  # us
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    names = ("nsys-rep", "skeleton.json.gz", "sqlite")
    assert files == [f"triton_v2-T7.{name}" for name in names]
    assert "the report is raw: names of host and user, paths; do not share or" in printed.out
    for name in ("out/triton_v2-T7.nsys-rep", "out/triton_v2-T7.sqlite", "traces/runs"):
        assert name in printed.out
    job = read(Job, tmp_path / "job.json")
    assert (job.tool, job.mode, job.workload.seq_len) == ("nsys", "eager", 7)
    assert job.settings.iterations == 20 and job.settings.passes == ("api",)


def test_the_export_that_is_kept_is_imported_again_to_the_same_record(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert timeline(tmp_path, "--nsys", nsys(tmp_path, answers())) == 0
    out = tmp_path / "out"
    arguments = [
        "import",
        out / "triton_v2-T7.sqlite",
        "--like",
        out / "triton_v2-T7.skeleton.json.gz",
    ]
    assert run_command([*map(str, arguments), "-o", str(tmp_path / "again.json.gz")]) == 0
    first, again = the_record(tmp_path), store.load(tmp_path / "again.json.gz")
    assert again.timelines == first.timelines and again.solution == first.solution


def test_nothing_that_is_kept_names_anybody(
    tmp_path: Path,
    on_gpu: None,
    answers: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tool is given allow-listed variables alone: a raw report holds whatever it was given."""
    secrets = {"SECRET_TOKEN": "hunter2hunter2", "USER": "jane.doe", "HOSTNAME": "build-7.example"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    export = two_iterations()
    for name, value in {**secrets, "HOME": "/home/jane.doe"}.items():
        export.add("TARGET_INFO_SYSTEM_ENV", name=name, value=value)
    dump = f"env > {tmp_path}/environment\n"
    assert timeline(tmp_path, "--nsys", nsys(tmp_path, dump + answers(), export)) == 0
    given = (tmp_path / "environment").read_text()
    assert not any(secret in given for secret in secrets.values())
    job_and_answer = {"job.json", "answer", "skeleton", "environment", "nsys", "source.sqlite"}
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    kept = [p for p in kept if p.suffix != ".nsys-rep" and p.name not in job_and_answer]
    assert len(kept) == 3
    for path in kept:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("latin-1")
        assert store.leaks(text, {*secrets.values(), "/home/jane.doe"}) == (), path
        if path.suffix == ".gz":
            assert store.leaks(text, private_words()) == (), path


def test_json_is_one_document(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert timeline(tmp_path, "--nsys", nsys(tmp_path, answers()), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "moeprof.timeline/1"
    assert (document["tool"], document["version"]) == ("nsys", "2025.3.1.90")
    assert set(document["files"]) == {"report", "export", "skeleton"}
    assert Path(document["files"]["report"]).resolve() == tmp_path / "out/triton_v2-T7.nsys-rep"
    assert [stage["name"] for stage in document["run"]["stages"]] == list(STAGES)
    assert store.load(document["record"]).solution.name == "hand_made"


def replays(count: int = 2) -> Export:
    """Replays of a graph with three nodes, launched by one call in no stage."""
    export = Export()
    for number in range(count):
        at = 1_000_000 + 100_000 * number
        export.range("iteration", at, at + 90_000)
        export.call("cudaGraphLaunch_v10000", at + 1_000, at + 6_000, correlation=500 + number)
        for node, (name, length) in enumerate((("a_kernel", 2), ("b_kernel", 3), ("c_kernel", 40))):
            begin = at + 10_000 + node * 10_000
            export.kernel(
                name, begin, begin + length * 1_000,
                correlationId=500 + number, graphNodeId=(2 << 32) + node,
            )  # fmt: skip
    return export


def test_graph_mode_tells_stages_by_the_numbers_of_nodes(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = answers(Answer(nodes=GraphNodes(STAGES, (2, 3))))
    assert timeline(tmp_path, "--nsys", nsys(tmp_path, told, replays()), "--mode", "graph") == 0
    run = the_record(tmp_path)
    (api,) = run.timelines
    assert [(o.name, o.stage) for o in api.operation_sets[0]] == [
        ("a_kernel", "routing"), ("b_kernel", "routing"), ("c_kernel", "gemm1"),
    ]  # fmt: skip
    assert run.capture is not None and run.capture.stages_by == "graph nodes"
    assert not any("rules" in note for note in run.capture.notes)
    assert read(Job, tmp_path / "job.json").mode == "graph"
    out = tmp_path / "out"
    stem = "triton_v2-T7-graph"
    arguments = ["import", out / f"{stem}.sqlite", "--like", out / f"{stem}.skeleton.json.gz"]
    assert run_command([*map(str, arguments), "-o", str(tmp_path / "again.json.gz")]) == 0
    assert store.load(tmp_path / "again.json.gz").timelines == run.timelines


# ---------------------------------------------------------------- what goes wrong


def test_a_wrong_result_is_exit_code_1_and_leaves_nothing(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = answers(Answer("wrong result: mine on T=7: all zeros", 1))
    assert timeline(tmp_path, "--nsys", nsys(tmp_path, told)) == 1
    assert one_line(capsys.readouterr().err) == (
        "moeprof: error: wrong result: mine on T=7: all zeros"
    )
    assert not list((tmp_path / "out").iterdir()) and not list((tmp_path / "traces").rglob("*.gz"))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            "echo starting; kill -SEGV $$",
            "ended without an answer: killed by signal 11 after 'star",
        ),
        (
            "echo 'ImportError: no such thing'; exit 1",
            "an answer: ImportError: no such thing; moep",
        ),
        ("exit 0", "ended without an answer: it printed nothing"),
        ("echo 'No space left on device'; exit 1", "the disk is full"),
    ],
    ids=["crash", "fails", "silent", "full"],
)
def test_a_process_without_an_answer_is_one_line(
    lines: str, words: str, tmp_path: Path, on_gpu: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fakes.nsys(tmp_path / "nsys", f'echo half > "$OUT.nsys-rep"; {lines}')
    assert timeline(tmp_path, "--nsys", path) == 2
    assert words in one_line(capsys.readouterr().err)
    assert not list((tmp_path / "out").iterdir())


def test_a_bug_in_the_process_keeps_its_traceback(tmp_path: Path, on_gpu: None) -> None:
    lines = "echo 'Traceback (most recent call last):'; echo 'KeyError: 3'; exit 1"
    path = fakes.nsys(tmp_path / "nsys", lines)
    with pytest.raises(RuntimeError, match="(?s)captured process failed:.*KeyError: 3"):
        timeline(tmp_path, "--nsys", path)


def test_a_failed_import_is_one_line(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = answers()
    path = fakes.nsys(tmp_path / "nsys", f'{told}\n echo raw > "$OUT.nsys-rep"', 'echo x > "$OUT"')
    assert timeline(tmp_path, "--nsys", path) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_what_is_there_is_kept_unless_forced(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / "triton_v2-T7.nsys-rep"
    mine.write_text("mine")
    path = nsys(tmp_path, answers())
    assert timeline(tmp_path, "--nsys", path) == 2
    assert "triton_v2-T7.nsys-rep exists; --force writes over it" in capsys.readouterr().err
    assert mine.read_text() == "mine"
    assert timeline(tmp_path, "--nsys", path, "--force") == 0
    assert mine.read_text() == "a raw report\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tool", "ncu"], "--tool ncu without --stage; expected the stage whose"),
        (["--stage", "gemm1"], "--stage with --tool nsys; it is ncu's"),
        (["--tool", "torch", "--mode", "graph"], "--mode graph with --tool torch; expected nsys"),
        (["--tool", "ncu", "--stage", "x", "--iterations", "3"], "--iterations with --tool ncu"),
        (["--nsys", "/nowhere/nsys"], "/nowhere/nsys is no program; expected the path of nsys"),
        (["--routing", "zipf:x"], "zipf:S with S from"),
        (["--iterations", "0"], "0 is not in the range"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    on_gpu: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = (
        arguments if "--nsys" in arguments else [*arguments, "--nsys", fakes.nsys(tmp_path / "n")]
    )
    assert timeline(tmp_path, *given) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_neither_or_both_of_record_and_solution_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["timeline", "-o", str(tmp_path / "x")]) == 2
    assert "neither RUN nor --solution" in capsys.readouterr().err
    assert timeline(tmp_path, "x.json.gz") == 2
    assert "both RUN and --solution" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["given", "checkout"])
def test_raw_reports_are_never_put_where_records_are_committed(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = tmp_path / "traces"
    inside = (traces if where == "given" else ROOT / "traces") / "recorded" / "new"
    command = ["timeline", "--solution", "triton_v2", "-o", str(inside), "--traces", str(traces)]
    assert run_command(command) == 2
    assert "which may be committed; expected a folder for raw" in capsys.readouterr().err
    assert not inside.exists()


def test_a_file_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("mine")
    assert timeline(tmp_path) == 2
    assert "out is a file; expected a folder for the capture's files" in capsys.readouterr().err


def test_without_a_gpu_there_is_nothing_to_capture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tool in ("torch", "nsys"):
        given = ["--tool", tool, "--device", "cpu", "--nsys", fakes.nsys(tmp_path / "nsys")]
        assert timeline(tmp_path, *given) == 2
        assert "there is no GPU to run on; moeprof doctor" in one_line(capsys.readouterr().err)


def running(program: Path) -> list[str]:
    """Command lines of processes that run it; by /proc, as its pid is one of a namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and str(program).encode() in (entry / "cmdline").read_bytes():
                found.append((entry / "cmdline").read_text())
    return found


def test_ctrl_c_ends_the_tool_and_leaves_nothing(tmp_path: Path) -> None:
    body = f'echo half > "$OUT.nsys-rep"; echo $$ > {tmp_path}/pid; sleep 60'
    path = fakes.nsys(tmp_path / "nsys", body)
    program = (
        "import signal, sys\nfrom moeprof.cli import planning\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "planning.choose_device = lambda asked: 'cuda'\n"
        "from moeprof.cli.main import main\nmain(sys.argv[1:])\n"
    )
    arguments = ("timeline", "--solution", "triton_v2", "-o", tmp_path / "out", "--nsys", path)
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments), "--traces", str(tmp_path / "traces")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    assert len(running(path)) >= 1
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and output == ""
    assert (
        one_line(errors.replace("\n\n", "\n"))
        == "moeprof: error: interrupted; finished records were kept"
    )
    assert not list((tmp_path / "out").iterdir())
    assert not running(path)


# ---------------------------------------------------------------- ncu


def ncu(tmp_path: Path, profile: str, page: Path) -> Path:
    report = 'echo "a raw report" > "$OUT.ncu-rep"'
    return fakes.ncu(tmp_path / "ncu", f"{profile}\n{report}", f"cat {page}")


def gemm1(tmp_path: Path, path: Path, *more: object) -> int:
    return timeline(tmp_path, "--tool", "ncu", "--stage", "gemm1", "--ncu", path, *more)


PAGE = DATA / "ncu" / "h200_gemm1_two_kernels.csv"


def test_counters_of_one_stage_join_the_newest_record(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    measured = make_run(stages=[stage_info(name) for name in STAGES], tokens=7)
    path = store.save(measured, tmp_path / "traces" / "runs", "dsv3")
    before = path.read_bytes()
    given = f'printf "%s\\n" "${{ARGUMENTS[@]}}" > {tmp_path}/given\n'
    assert gemm1(tmp_path, ncu(tmp_path, given + answers(), PAGE)) == 0
    printed = capsys.readouterr().out
    assert path.read_bytes() == before
    (new,) = (p for p in path.parent.glob("*.json.gz") if p != path)
    run = store.load(new)
    assert run.timelines == measured.timelines
    assert [k.duration_ns for k in run.kernel_metrics] == [3200.0, 241984.0]
    assert "get_group_gemm_starts" in printed and "3,593" in printed
    assert "out/triton_v2-T7-gemm1.ncu-rep\n" in printed
    flags = (tmp_path / "given").read_text().splitlines()
    at = flags.index("--nvtx-include")
    assert flags[at + 1] == "moeprof@iteration/gemm1/"
    assert flags[flags.index("--clock-control") + 1] == "none"
    assert read(Job, tmp_path / "job.json").settings.iterations == 1


def test_counters_without_a_record_are_a_record_of_their_own(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert gemm1(tmp_path, ncu(tmp_path, answers(), PAGE)) == 0
    run = the_record(tmp_path)
    assert run.timelines == () and len(run.kernel_metrics) == 2


def test_a_named_record_must_be_of_the_same_work(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    measured = make_run(stages=[stage_info(name) for name in STAGES], tokens=7)
    named = store.save(measured, tmp_path / "mine")
    assert gemm1(tmp_path, ncu(tmp_path, answers(), PAGE), "--record", named) == 0
    assert the_record(tmp_path).timelines == measured.timelines
    other = store.save(make_run(tokens=8, pairs=9), tmp_path / "mine")
    path = ncu(tmp_path, answers(), PAGE)
    assert gemm1(tmp_path, path, "--record", other, "--force") == 2
    assert "is of another workload; expected the record of" in capsys.readouterr().err


def test_what_ncu_complains_of_is_one_line(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    complaints = {
        "echo '==ERROR== ERR_NVGPUCTRPERM - The user does not have permission'; exit 1": (
            "keeps GPU counters from this user (ERR_NVGPUCTRPERM); run as root"
        ),
        "echo '==WARNING== No kernels were profiled.'": "stage gemm1 launches no kernel that ncu",
        "echo '==ERROR== a driver resource was unavailable'; exit 9": (
            "ncu measured nothing: ==ERROR== a driver resource was unavailable"
        ),
    }
    for said, words in complaints.items():
        path = fakes.ncu(tmp_path / "ncu", f"{answers()}\n{said}")
        assert gemm1(tmp_path, path) == 2
        assert words in one_line(capsys.readouterr().err)
        assert not list((tmp_path / "out").iterdir())


def test_a_chip_without_one_of_the_metrics_is_asked_by_section(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str]
) -> None:
    refuse = (
        f'printf "%s\\n" "${{ARGUMENTS[@]}}" >> {tmp_path}/given\n'
        'case " ${ARGUMENTS[*]} " in *" --metrics "*) '
        "echo '==ERROR== Failed to find metric gpc__cycles_elapsed.avg.per_second'; exit 1;; esac\n"
    )
    assert gemm1(tmp_path, ncu(tmp_path, refuse + answers(), PAGE)) == 0
    given = (tmp_path / "given").read_text().splitlines()
    assert given.count("--metrics") == 1 and "MemoryWorkloadAnalysis" in given


def test_a_page_without_a_table_is_one_line(
    tmp_path: Path, on_gpu: None, answers: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page"
    page.write_text("==ERROR== cannot open report\n")
    assert gemm1(tmp_path, ncu(tmp_path, answers(), page)) == 2
    error = one_line(capsys.readouterr().err)
    assert "printed no table" in error and "cannot open report" in error


# ---------------------------------------------------------------- a record as a timeline


def test_a_record_is_written_for_a_viewer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store.save(make_run(), tmp_path / "traces" / "runs", "dsv3")
    target = tmp_path / "trace.json"
    arguments = ["-o", str(target), "--traces", str(tmp_path / "traces")]
    assert run_command(["timeline", str(path), *arguments]) == 0
    assert "trace.json" in capsys.readouterr().out
    one = json.loads(target.read_text())["traceEvents"]
    assert run_command(["timeline", "hand_made", *arguments]) == 2
    assert "exists; --force writes over it" in capsys.readouterr().err
    assert run_command(["timeline", "hand_made", "--which", "all", "--force", *arguments]) == 0
    every = json.loads(target.read_text())["traceEvents"]
    assert len(every) > 5 * len(one)
    capsys.readouterr()
    assert run_command(["timeline", str(path), "--force", "--json", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "moeprof.timeline/1"
    assert Path(document["files"]["timeline"]).resolve() == target


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--which", "best"], "--which best; expected median, all or the number"),
        (["--which", "999"], "999"),
        (["-o", "x.svg"], "x.svg does not say which format"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store.save(make_run(), tmp_path)
    given = ["-o", str(tmp_path / "trace.json"), *arguments]
    assert run_command(["timeline", str(path), *given]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_record_that_is_none_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "trace.json")
    assert run_command(["timeline", str(tmp_path / "no.json.gz"), "-o", target]) == 2
    traces = ["--traces", str(tmp_path)]
    assert run_command(["timeline", "nobody", "-o", target, *traces]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert os.listdir(tmp_path) == []
