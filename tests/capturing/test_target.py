"""The process under the profiler, without one: what it runs, marks, answers and refuses."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from moeprof.capturing.environment import ALLOWED, HANDED_OVER, child_environment, handed_over
from moeprof.capturing.job import TRACE, Answer, GraphNodes, Job, read, write
from moeprof.errors import RecordError
from moeprof.storage import store
from tests.capturing.jobs import answered, done, events, job, skeleton, solution_file
from tests.privacy import private_words

STAGES = [
    *("routing", "prepare_moe_input", "shuffle_rows", "gemm1", "swiglu_quant", "gemm2", "gather")
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that is done."""
    folder = tmp_path_factory.mktemp("job")
    ended, answer = done(folder, job("triton_v2", "torch"))
    assert (ended.code, answer) == (0, Answer()), ended.output
    return folder


def test_the_skeleton_is_the_record_that_run_would_make_but_for_its_times(finished: Path) -> None:
    run = skeleton(finished)
    assert run.correctness.passed and 0 < run.correctness.relative_l2 < 0.04
    assert len(run.correctness.stages) == 5
    assert list(run.solution.stage_names) == STAGES
    assert run.solution.stages[3].rows_executed == 56  # T=7 and 8 experts a token
    assert (run.workload.seq_len, run.routing.label) == (7, "synthetic uniform")
    assert run.settings.iterations == 3 and run.settings.passes == ("api",)
    assert run.passes == () and run.timelines == () and run.calibration is None
    assert store.leaks((finished / "skeleton.json").read_text(), private_words()) == ()


def test_torchs_profiler_sees_a_range_an_iteration_with_a_range_a_stage(finished: Path) -> None:
    ranges = [e for e in events(finished / TRACE) if e.get("cat") == "user_annotation"]
    assert Counter(e["name"] for e in ranges) == dict.fromkeys(
        ["moeprof.iteration", *(f"moeprof.{stage}" for stage in STAGES)], 3
    )
    windows = [(e["ts"], e["ts"] + e["dur"]) for e in ranges if e["name"] == "moeprof.iteration"]
    for begin, end in windows:
        inside = [e for e in ranges if begin <= e["ts"] and e["ts"] + e["dur"] <= end]
        order = sorted(inside, key=lambda e: (e["ts"], -e["dur"]))
        assert [e["name"] for e in order] == [f"moeprof.{n}" for n in ("iteration", *STAGES)]


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (["return torch.zeros(x.shape, dtype=torch.bfloat16)"], 1, "wrong result: mine on T=7: "),
        (["raise ValueError('no luck')"], 1, "stage forward of mine raised ValueError: no luck"),
        (["return 'forward'"], 1, "wrong result: mine on T=7: "),
    ],
    ids=["zeros", "raises", "type"],
)
def test_a_wrong_result_is_never_captured(
    body: list[str], code: int, words: str, tmp_path: Path
) -> None:
    ended, answer = answered(tmp_path, job(solution_file(tmp_path, *body), "torch"))
    assert ended == code == answer.exit_code
    assert words in answer.error and "\n" not in answer.error
    assert not (tmp_path / TRACE).exists() and not (tmp_path / "skeleton.json").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"solution": "triton_v9"}, "there is no solution 'triton_v9'; did you mean"),
        ({"solution": "/nowhere/x.py"}, "there is no solution file /nowhere/x.py"),
        ({"stage": "gem1"}, "reference has no stage 'gem1'; did you mean gemm1"),
        ({"mode": "graph"}, "--mode graph captures CUDA graphs; expected a GPU"),
        ({"routing": "recorded"}, "routing"),
        ({"definition": "huge"}, "unknown definition 'huge'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_a_user_can_cause_is_one_line(
    changes: dict[str, str], words: str, tmp_path: Path
) -> None:
    code, answer = answered(tmp_path, job(**changes))
    assert code == 2 == answer.exit_code
    assert words in answer.error and "\n" not in answer.error


def test_a_solution_file_that_raises_on_import_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("x = 1\nx.append(2)\n")
    _, answer = answered(tmp_path, job(str(path)))
    assert "mine.py:2 raised AttributeError" in answer.error


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"tool": "nsys"')
    with pytest.raises(RecordError, match="job.json cannot be read"):
        read(Job, tmp_path / "job.json")
    (tmp_path / "job.json").write_text('{"tool": "nsys"}')
    with pytest.raises(RecordError, match="mode is missing"):
        read(Job, tmp_path / "job.json")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    for value in (job(), Answer("no", 2), Answer(nodes=GraphNodes(("a", "b"), (1, 7)))):
        write(tmp_path / "file.json", value)
        assert read(type(value), tmp_path / "file.json") == value


# ---------------------------------------------------------------- the environment


POISONED = {
    "PATH": "/usr/bin",
    "LD_LIBRARY_PATH": "/opt/lib",
    "CUDA_VISIBLE_DEVICES": "1",
    "HOME": "/home/jane.doe",
    "USER": "jane.doe",
    "LOGNAME": "jane.doe",
    "HOSTNAME": "build-7.example.org",
    "SECRET_TOKEN": "hunter2hunter2",
    "HF_TOKEN": "hf_abcdefgh",
    "TRITON_CACHE_DIR": "/scratch/triton",
    "SSH_AUTH_SOCK": "/tmp/ssh-x/agent",
    "PYTHONPATH": "",
}


def test_only_allow_listed_names_are_given_to_a_tool(tmp_path: Path) -> None:
    given = child_environment(POISONED, tmp_path)
    own = {"LC_ALL", "TMPDIR", "HOME", "NV_COMPUTE_PROFILER_DISABLE_STOCK_FILE_DEPLOYMENT"}
    assert set(given) <= {*ALLOWED, "PYTHONUSERBASE"} | own
    assert (given["PATH"], given["CUDA_VISIBLE_DEVICES"]) == ("/usr/bin", "1")
    assert given["TMPDIR"] == given["HOME"] == str(tmp_path)
    values = "\n".join(value for name, value in given.items() if name != "PYTHONUSERBASE")
    for name in ("HOME", "USER", "HOSTNAME", "SECRET_TOKEN", "HF_TOKEN", "SSH_AUTH_SOCK"):
        assert POISONED[name] not in values, name


def test_caches_stay_where_they_are_and_secrets_are_handed_to_nobody() -> None:
    given = handed_over({**POISONED, "TMPDIR": "/scratch/tmp"})
    assert set(given) == {"HOME", "TRITON_CACHE_DIR", "TMPDIR"}
    assert given["TRITON_CACHE_DIR"] == "/scratch/triton" and given["TMPDIR"] == "/scratch/tmp"
    forbidden = ("TOKEN", "SECRET", "PASSWORD", "KEY", "USER", "HOST")
    assert not [n for n in (*ALLOWED, *HANDED_OVER) if any(word in n for word in forbidden)]


def test_what_is_handed_over_is_set_in_the_process_and_in_nobodys_environment_block(
    tmp_path: Path,
) -> None:
    """A profiler reads /proc/PID/environ; Python's os.environ is put in place after that."""
    body = [
        "block = open('/proc/self/environ', 'rb').read().decode()",
        f"open({str(tmp_path / 'seen')!r}, 'w').write(os.environ['HOME'] + '|' + block)",
        "raise ValueError",
    ]
    environ = {**os.environ, "HOME": "/home/jane.doe", "SECRET_TOKEN": "hunter2hunter2"}
    done(tmp_path, job(solution_file(tmp_path, *body)), environ)
    home, _, block = (tmp_path / "seen").read_text().partition("|")
    assert home == "/home/jane.doe"
    assert "jane.doe" not in block and "hunter2" not in block
    names = {entry.partition("=")[0] for entry in block.split("\0") if entry}
    own = {"LC_ALL", "TMPDIR", "HOME", "PYTHONUSERBASE", "MOEPROF_CAPTURE"}
    own.add("NV_COMPUTE_PROFILER_DISABLE_STOCK_FILE_DEPLOYMENT")
    assert names <= {*ALLOWED} | own
