"""The command line as a user meets it: real processes, exit codes, one line per error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moeprof.cli.main import COMMANDS, run_command
from moeprof.storage import store
from tests.privacy import private_words

QUICK = ("--device", "cpu", "--definition", "tiny", "--num-tokens", "7", "--preset", "quick")
RUN = "def run(logits, bias, x, x_scale, w1, w1_scale, w2, w2_scale, offset, factor{}):\n"


def moeprof(*arguments, **options):
    """A process of its own, as from a shell."""
    command = [sys.executable, "-m", "moeprof", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def solution_file(tmp_path, body, destination=False):
    path = tmp_path / "mine.py"
    head = RUN.format(", output" if destination else "")
    path.write_text("import torch, time\n" + head + "".join(f"    {line}\n" for line in body))
    return path


def one_line(text):
    """The text, which must be one error line and no traceback."""
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text


# ---------------------------------------------------------------- help and usage


def test_help_is_fast_and_lists_the_commands_in_order():
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        done = moeprof("--help")
        seconds.append(time.perf_counter() - begin)
        assert done.returncode == 0
    positions = [done.stdout.index(f"\n  {name}") for name, _ in COMMANDS]
    assert positions == sorted(positions)
    assert min(seconds) < 0.3


def test_every_command_explains_itself_without_torch():
    for name, _ in COMMANDS:
        program = (
            "import sys; sys.modules['torch'] = None\n"
            "from moeprof.cli.main import run_command\n"
            f"sys.exit(run_command([{name!r}, '--help']))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"Usage: moeprof {name} ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runn"], "there is no command 'runn'; did you mean run?"),
        (["run"], "Missing option '--solution'"),
        (["run", "--solution", "triton_v9"], "no solution 'triton_v9'; did you mean triton_v"),
        (["run", "--solution", "a/b.py"], "there is no solution file a/b.py"),
        (["run", "--solution", "reference", "--num-tokens", "0", *QUICK[:4]], "0 tokens; expected"),
        (["run", "--solution", "reference", "--num-tokens", "-3", *QUICK[:4]], "-3 tokens"),
        (
            ["run", "--solution", "reference", "--num-tokens", "9" * 12, *QUICK[:4]],
            "1 to 1,000,000",
        ),
        (
            ["run", "--solution", "reference", "--num-tokens", "many"],
            "'many' is not a valid integer",
        ),
        (
            ["run", "--solution", "reference", "--workload", "zz", *QUICK[:4]],
            "unknown workload 'zz'",
        ),
        (["run", "--solution", "reference", "--definition", "huge"], "unknown definition 'huge'"),
        (["run", "--solution", "reference", "--routing", "zipf:x"], "zipf:S with S from"),
        (["run", "--solution", "reference", "--passes", "bare,grph"], "did you mean graph?"),
        (["run", "--solution", "reference", "--iterations", "0"], "0 is not in the range"),
        (["run", "--solution", "reference", "--preset", "slow"], "'slow' is not one of"),
        (["run", "--solution", "reference", "--dataset", "/nowhere"], "/nowhere holds no definit"),
        (
            ["run", "--solution", "reference", "--all-workloads", "--num-tokens", "7"],
            "--num-tokens and --all-workloads were given together; choose one",
        ),
        (["list", "solutoins"], "solutoins"),
        (["list", "workloads", "--definition", "huge"], "unknown definition 'huge'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_one_line_and_exit_code_2(arguments, message, capfd):
    assert run_command(arguments) == 2
    printed = capfd.readouterr()
    assert message in one_line(printed.err)
    assert printed.err.startswith("moeprof: error: ")
    assert printed.out == ""


def test_a_pass_of_the_gpu_is_refused_on_the_cpu(capfd):
    assert run_command(["run", "--solution", "reference", *QUICK, "--passes", "graph"]) == 2
    assert "pass 'graph' runs on a GPU only; here: first,bare" in one_line(capfd.readouterr().err)


def test_cuda_is_refused_where_there_is_none(capfd):
    import torch

    if torch.cuda.is_available():
        return
    assert run_command(["run", "--solution", "reference", "--device", "cuda"]) == 2
    assert "torch sees no CUDA device; moeprof doctor" in one_line(capfd.readouterr().err)


def test_traces_that_cannot_be_written_are_refused_before_measuring(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    arguments = ["run", "--solution", "reference", *QUICK, "--traces", str(tmp_path / "file" / "x")]
    assert run_command(arguments) == 2
    assert "Not a directory; choose a --traces" in one_line(capfd.readouterr().err)


# ---------------------------------------------------------------- list and doctor


def test_lists_are_tables_and_documents(capfd, make_run, tmp_path):
    path = store.save(make_run(), tmp_path / "runs", "tiny")
    documents = {}
    for what in ("solutions", "stages", "workloads", "runs"):
        extra = ["--traces", str(tmp_path)] if what == "runs" else []
        assert run_command(["list", what, "--json", *extra]) == 0
        documents[what] = json.loads(capfd.readouterr().out)
        assert documents[what]["schema"] == f"moeprof.{what}/1"
        assert run_command(["list", what, *extra]) == 0
        table = capfd.readouterr().out
        assert len(table.splitlines()) > len(documents[what][what])
    assert {"triton_v2", "reference"} <= {s["name"] for s in documents["solutions"]["solutions"]}
    full = [w for w in documents["workloads"]["workloads"] if w["definition"] == "dsv3"]
    assert len(full) == 19
    assert [w["num_tokens"] for w in full] == sorted(w["num_tokens"] for w in full)
    (run,) = documents["runs"]["runs"]
    assert Path(run["record"]).resolve() == path
    assert (run["solution"], run["definition"], run["num_tokens"]) == ("triton_v2", "tiny", 7)
    assert run_command(["list", "runs", "--solution", "none", "--traces", str(tmp_path)]) == 0
    assert capfd.readouterr().out == "no runs\n"


def test_doctor_ends_with_0_whatever_is_missing(capfd, tmp_path):
    assert run_command(["doctor", "--json", "--traces", str(tmp_path)]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "moeprof.doctor/1"
    names = [capability["name"] for capability in document["capabilities"]]
    assert names[0] == "GPU" and "cupti" in names and "nsys" in names


def test_a_reader_that_leaves_and_a_full_disk_under_stdout():
    command = f"{sys.executable} -m moeprof list stages"
    left = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert (left.stdout, left.stderr) == ("0\n", "")
    with open("/dev/full", "w") as full:
        done = subprocess.run(command.split(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "the disk is full" in one_line(done.stderr)


# ---------------------------------------------------------------- run


def test_a_run_prints_its_table_and_keeps_a_record_that_names_nobody(tmp_path):
    done = moeprof("run", "--solution", "reference", *QUICK, "--traces", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for word in ("reference", "T = 7", "gemm1", "swiglu_quant", "gather", "synthetic uniform"):
        assert word in done.stdout
    (found,) = store.find_runs(tmp_path / "runs", "reference", "tiny", 7)
    assert done.stdout.splitlines()[-1] == f"record {os.path.relpath(found.path)}"
    run = store.load(found.path)
    assert run.correctness.passed
    assert len(run.samples("stages")) == 5
    assert run.environment.device_kind == "cpu"
    text = json.dumps(store.to_json(run), ensure_ascii=False)
    assert store.leaks(text, private_words()) == ()


def test_json_goes_alone_to_stdout(tmp_path):
    done = moeprof(
        "run", "--solution", "reference", *QUICK[:4], "--preset", "quick", "--all-workloads",
        "--passes", "bare", "--json", "--traces", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "moeprof.run/1"
    assert [run["workload"]["seq_len"] for run in document["runs"]] == [1, 7, 13, 33, 70]
    for run in document["runs"]:
        assert store.load(run["record"]).workload.seq_len == run["workload"]["seq_len"]


def test_a_wrong_result_is_exit_code_1_and_recorded_without_timings(tmp_path):
    body = ["return torch.zeros(x.shape, dtype=torch.bfloat16)"]
    path = solution_file(tmp_path, body)
    done = moeprof("run", "--solution", path, *QUICK, "--traces", tmp_path)
    assert done.returncode == 1
    assert one_line(done.stderr).startswith("moeprof: wrong result: mine on T=7 (b426f560): ")
    (found,) = store.find_runs(tmp_path / "runs", "mine")
    run = store.load(found.path)
    assert not run.correctness.passed
    assert not any(measured.samples for measured in run.passes)


@pytest.mark.parametrize(
    ("body", "destination"),
    [
        (["raise ValueError('no luck')"], False),
        (["return torch.full(x.shape, float('nan'), dtype=torch.bfloat16)"], False),
        (["return torch.zeros(x.shape, dtype=torch.float32)"], False),
        (["return torch.zeros(3, 5, dtype=torch.bfloat16)"], False),
        (["return 'forward'"], False),
        (["output[1:].zero_()"], True),
        (["w1_scale.zero_()", "return torch.zeros(x.shape, dtype=torch.bfloat16)"], False),
    ],
    ids=["raises", "nan", "dtype", "shape", "type", "unwritten", "mutates"],
)
def test_every_wrong_result_is_one_line(body, destination, tmp_path, capfd):
    path = solution_file(tmp_path, body, destination)
    arguments = ["run", "--solution", str(path), *QUICK, "--traces", str(tmp_path)]
    assert run_command(arguments) == 1
    assert one_line(capfd.readouterr().err).startswith("moeprof: wrong result: mine on T=7")
    (found,) = store.find_runs(tmp_path / "runs", "mine")
    assert store.load(found.path).correctness.problem


def test_a_solution_file_that_raises_on_import_is_exit_code_2(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("x = 1\nx.append(2)\n")
    done = moeprof("run", "--solution", path, *QUICK, "--traces", tmp_path)
    assert done.returncode == 2
    assert "mine.py:2 raised AttributeError" in one_line(done.stderr)
    assert store.find_runs(tmp_path / "runs") == ()


def test_ctrl_c_half_way_keeps_what_is_finished_and_ends_with_130(tmp_path):
    """The solution is wrong on T=1, recorded at once, and never returns on T=7."""
    body = [
        "if x.shape[0] > 1:",
        f"    open({str(tmp_path / 'reached')!r}, 'w').close()",
        "    time.sleep(60)",
        "return torch.zeros(x.shape, dtype=torch.bfloat16)",
    ]
    command = [
        *(sys.executable, "-m", "moeprof", "run", "--solution", solution_file(tmp_path, body)),
        *(*QUICK[:4], "--all-workloads", "--traces", tmp_path),
    ]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "reached").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (
        one_line(errors.lstrip("\n")) == "moeprof: error: interrupted; finished records were kept\n"
    )
    assert output == ""
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert all(store.load(path) for path in files)


def test_weights_spoilt_on_one_workload_are_noticed_on_every_later_one(tmp_path, capfd):
    body = [
        "if x.shape[0] == 7: w2_scale.zero_()",
        "return torch.zeros_like(x, dtype=torch.bfloat16)",
    ]
    path = solution_file(tmp_path, body)
    arguments = ["run", "--solution", str(path), *QUICK[:4], "--all-workloads"]
    assert run_command([*arguments, "--traces", str(tmp_path)]) == 1
    problems = capfd.readouterr().err.splitlines()
    assert ["changed its input gemm2_weights_scale" in line for line in problems] == [
        *(False, True, True, True, True)
    ]
