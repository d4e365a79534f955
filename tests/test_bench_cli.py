"""``moeprof bench`` as a user meets it: its processes watched, ended, killed, resumed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from moeprof.bench.cells import Failure, assemble
from moeprof.cli.bench_outputs import exit_code
from moeprof.cli.main import run_command
from moeprof.errors import RecordError, UsageError
from moeprof.records import Settings
from moeprof.storage import store
from moeprof.storage.benches import (
    BENCH_FILE,
    BenchPlan,
    BenchSolution,
    BenchWorkload,
    benches,
    create,
    difference,
    open_folder,
    to_resume,
)
from moeprof.storage.locks import locked
from tests.benches import TINY, write_dataset, write_opaque, write_right
from tests.fib import tracesets
from tests.privacy import private_words
from tests.processes import gone

ROOT = Path(__file__).resolve().parents[1]
BRIEF = (
    *("--device", "cpu", "--definition", "tiny", "--routing", "uniform"),
    *("--warmup", "0", "--iterations", "2", "--trials", "1"),
)
WITHOUT_TORCH = (
    "import sys\n"
    "for name in ('torch', 'triton', 'pynvml'): sys.modules[name] = None\n"
    "from moeprof.cli.main import run_command\n"
    "sys.exit(run_command(sys.argv[1:]))\n"
)
# one thread: torch's spin while others hold the cores, which takes ten times as long
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def started(folder, solutions, *arguments, every=True, preexec_fn=None, **variables):
    """A bench as from a shell, in a folder with a dataset and solutions, of every workload."""
    command = [sys.executable, "-m", "moeprof", "bench", "--solutions", ",".join(solutions), *BRIEF]
    command += ["--all-workloads"] if every else []
    command += ["--dataset", "data", "--traces", "traces", *arguments]
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec_fn,
    )


def finished(process, seconds=120):
    """Exit code, stdout, lines of stderr (click puts an empty one after a ^C)."""
    output, errors = process.communicate(timeout=seconds)
    assert "Traceback" not in errors, errors
    return process.returncode, output, [line for line in errors.splitlines() if line]


def the_bench(folder):
    (found,) = benches(folder / "traces")
    return found


# ---------------------------------------------------------------- solutions that misbehave

CHATTY = "[os.write(n, b'x' * 65536) for n in (1, 2) for _ in range(40)]"
STRAY = "subprocess.Popen(['sleep', '600'], start_new_session=True)"


@pytest.fixture(scope="module")
def misbehaved(tmp_path_factory):
    """One bench of every kind of solution; its folder, exit code, stdout and stderr."""
    folder = tmp_path_factory.mktemp("bench")
    write_dataset(folder / "data", (7, 13))
    stray = f"import subprocess; {STRAY}; os._exit(7)"
    solutions = [
        write_right(folder, "right", CHATTY),
        write_right(folder, "hangs", "while tokens == 13: time.sleep(1)"),
        write_opaque(folder, "leaves", stray),
        write_opaque(folder, "killed", "os.kill(os.getpid(), 9) if len(x) == 7 else None"),
        write_opaque(folder, "raises", "raise ValueError('no luck')"),
        write_opaque(folder, "wrong", "pass"),
        write_opaque(folder, "asks", "input()"),
        write_right(folder, "dies", extra="print('bye', flush=True); os._exit(5)"),
        write_right(folder, "broken", extra="import no_such_module"),
    ]
    names = [os.path.relpath(path, folder) for path in solutions]
    names = [f"./{name}" for name in names]
    files = ("-o", "table.md", "-o", "table.json", "-o", "page.html")
    process = started(folder, names, "--timeout", "12", *files)
    return folder, *finished(process, 240)


def kinds(folder):
    """(solution, T) -> how the cell ended."""
    found = the_bench(folder)
    cells = {(run.solution.name, run.workload.seq_len): run for run in found.runs()}
    ended = {key: "right" if run.correctness.passed else "wrong" for key, run in cells.items()}
    return {**{(one.solution, one.seq_len): one.kind for one in found.failures()}, **ended}


def test_each_costs_its_own_cells_and_the_rest_goes_on(misbehaved):
    folder, code, _, _ = misbehaved
    assert code == 1
    assert kinds(folder) == {
        ("right", 7): "right", ("right", 13): "right",
        ("reference", 7): "right", ("reference", 13): "right",
        ("hangs", 7): "right", ("hangs", 13): "timeout",
        ("leaves", 7): "crashed", ("leaves", 13): "crashed",
        ("killed", 7): "crashed", ("killed", 13): "wrong",
        ("raises", 7): "wrong", ("raises", 13): "wrong",
        ("wrong", 7): "wrong", ("wrong", 13): "wrong",
        ("asks", 7): "wrong", ("asks", 13): "wrong",
        ("dies", 7): "crashed", ("dies", 13): "crashed",
        ("broken", 7): "error", ("broken", 13): "error",
    }  # fmt: skip
    why = {(one.solution, one.seq_len): one.message for one in the_bench(folder).failures()}
    assert why["hangs", 13] == "it did not come to an end within 12 s in pass first"
    assert why["leaves", 7] == "its process ended with exit code 7 in pass first"
    assert why["killed", 7] == "its process was ended by SIGKILL in pass first"
    assert why["dies", 7] == "its process ended with exit code 5 while it was loaded"
    assert "raised ModuleNotFoundError: No module named 'no_such_module'" in why["broken", 7]


def test_what_happened_is_said_once_on_stderr(misbehaved):
    _, _, _, errors = misbehaved
    assert all(line.startswith("moeprof: ") for line in errors)
    assert "moeprof: leaves is dropped: it ended 2 processes" in errors
    told = "moeprof: dies: its process ended with exit code 5 while it was loaded; it printed: bye"
    assert told in errors
    assert sum("timeout: hangs on T=13" in line for line in errors) == 1
    assert not any("x" * 100 in line for line in errors)


def test_nothing_of_it_is_left_running(misbehaved):
    folder, *_ = misbehaved
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and os.readlink(entry / "cwd") == str(folder):
                raise AssertionError((entry / "cmdline").read_bytes())


def test_the_folder_holds_whole_records_and_names_nobody(misbehaved):
    folder, *_ = misbehaved
    found = the_bench(folder)
    for path in found.path.rglob("*"):
        if path.is_file():
            text = store._read_text(path).decode()
            assert store.leaks(text, {*private_words(), str(folder)}) == (), path
    names = {path.name for path in found.path.iterdir()}
    assert names == {BENCH_FILE, "failures.json", *found.plan.names} - {"leaves", "dies", "broken"}
    assert found.missing() and found.plan.settings.iterations == 2
    runs = found.runs()
    assert len({run.routing.histogram_hash for run in runs if run.workload.seq_len == 13}) == 1
    for run in runs:
        assert bool(run.samples("stages")) == run.correctness.passed


def test_tables_go_to_stdout_and_files(misbehaved):
    folder, _, output, _ = misbehaved
    for text in (output, (folder / "table.md").read_text(), (folder / "page.html").read_text()):
        assert "right" in text and "hangs" in text
    document = json.loads((folder / "table.json").read_text())
    assert document["schema"] == "moeprof.bench/1"
    assert (
        output.splitlines()[-1] == f"records in {os.path.relpath(the_bench(folder).path, folder)}"
    )


def test_the_same_tables_come_from_the_records_without_torch(misbehaved):
    """And from plain folders of records, which know no failures."""
    folder, _, output, _ = misbehaved
    path = the_bench(folder).path

    def shown(*arguments):
        command = [sys.executable, "-c", WITHOUT_TORCH, "bench", "--records", *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ENVIRONMENT)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout

    assert shown(path) == (1, output)
    code, text = shown(path / "right", path / "reference")
    assert code == 0 and "hangs" not in text and "reference" in text
    code, text = shown(path, "--solutions", "right,hangs")
    assert code == 4 and "killed" not in text and "hangs" in text


def test_real_kernels_beside_the_reference(tmp_path):
    """The side that watches has neither torch nor Triton."""
    arguments = ("--num-tokens", "7", "--passes", "bare", "--iterations", "1", "--name", "mine")
    arguments += ("--solutions", "triton_v3,reference", "--traces", str(tmp_path), "--json")
    command = [sys.executable, "-c", WITHOUT_TORCH, "bench", *BRIEF, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    cells = json.loads(done.stdout)["cells"]
    assert {cell["solution"]: cell["kind"] for cell in cells} == dict.fromkeys(
        ("triton_v3", "reference"), "measured"
    )
    (found,) = benches(tmp_path)
    assert found.path.name == "mine" and found.plan.names == ("triton_v3", "reference")
    for run in found.runs():
        assert run.correctness.passed and run.settings.passes == ("first", "bare")


def test_solutions_of_a_traceset_need_trust_and_may_misbehave(tmp_path, capfd):
    """Fast without one, right with it; folders they were unpacked in are gone with the process."""
    root = tracesets.make(tmp_path / "data")
    tracesets.put(root, tracesets.solution("theirs"))
    stuck = tracesets.filling("import time\ntime.sleep(600)")
    tracesets.put(root, tracesets.solution("stuck", stuck))
    tracesets.put(root, {**tracesets.solution("elsewhere"), "definition": "another"})
    names = ["fib:theirs", "fib:stuck", "fib:elsewhere"]
    assert run_command(["bench", "--solutions", "fib:theirs", "--dataset", str(root)]) == 2
    assert "fib:theirs is foreign code of 'somebody'" in capfd.readouterr().err
    brief = ("--num-tokens", "7", "--passes", "bare", "--timeout", "8", "--trust")
    (tmp_path / "temporary").mkdir()
    process = started(tmp_path, names, *brief, every=False, TMPDIR=tmp_path / "temporary")
    code, _, errors = finished(process)
    assert code == 4
    assert kinds(tmp_path) == {
        ("fib:theirs", 7): "right",
        ("reference", 7): "right",
        ("fib:stuck", 7): "timeout",
        ("fib:elsewhere", 7): "error",
    }
    assert any(f"it is a solution of another; expected {TINY}" in line for line in errors)
    (run,) = [run for run in the_bench(tmp_path).runs() if run.solution.name == "fib:theirs"]
    assert run.solution.author == "somebody" and run.solution.stage_names == ("forward",)
    assert list((tmp_path / "temporary").glob("moeprof-fib-*")) == []


def test_a_full_disk_ends_the_bench_in_one_line_and_it_can_be_resumed(tmp_path):
    """A limit on the size of files stands for the disk: the plan fits, a record does not."""
    write_dataset(tmp_path / "data", (7,))

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))

    brief = ("--passes", "bare", "--iterations", "400")
    code, output, errors = finished(started(tmp_path, ["reference"], *brief, preexec_fn=limited))
    assert (code, output) == (2, "")
    (line,) = errors
    assert "could not be written: File too large; nothing half-written was left" in line
    found = the_bench(tmp_path)
    assert {path.name for path in found.path.rglob("*") if path.is_file()} == {BENCH_FILE}
    code, _, errors = finished(started(tmp_path, ["reference"], *brief, "--resume"))
    assert (code, errors) == (0, []) and the_bench(tmp_path).missing() == ()


# ---------------------------------------------------------------- interrupted and resumed

WAITS = (
    "while tokens == 8 and not os.path.exists('go'): open('waits', 'w').close(); time.sleep(0.02)"
)


@contextmanager
def waiting(folder, *arguments):
    """A bench of two groups (workloads 3 5 7 and 4 6 8) that waits in the second one."""
    (folder / "waits").unlink(missing_ok=True)
    process = started(folder, ["./slow.py"], *arguments)
    deadline = time.monotonic() + 60
    while not (folder / "waits").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def children_of(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*.json.gz")}


def test_ctrl_c_and_a_kill_lose_nothing_that_was_finished(tmp_path, capfd):
    """Ctrl-C, a resume that is refused, a kill of the watcher, a resume that ends."""
    write_dataset(tmp_path / "data", (3, 4, 5, 6, 7, 8))
    write_right(tmp_path, "slow", WAITS)
    with waiting(tmp_path) as process:
        (child,) = children_of(process.pid)
        begun = the_bench(tmp_path)
        code, _, errors = finished(started(tmp_path, ["./slow.py"], "--resume"))
        assert code == 2 and "is being written by another process" in errors[-1]
        process.send_signal(signal.SIGINT)
        code, output, errors = finished(process)
    assert (code, output) == (130, "")
    shown = os.path.relpath(begun.path, tmp_path)
    assert errors == [
        f"moeprof: 6 of 12 cells are in {shown}; the same command with --resume goes on with it",
        "moeprof: error: interrupted; finished records were kept",
    ]
    assert gone(child)
    first = contents(begun.path)
    assert {store.load(path).workload.seq_len for path in first} == {3, 5, 7}
    assert {one.kind for one in begun.failures()} == {"interrupted"}

    code, _, errors = finished(started(tmp_path, ["./slow.py"], "--resume", "--seed", "1"))
    assert code == 2
    assert errors == [
        f"moeprof: error: bench {begun.path.name} cannot be resumed: the setting seed was 0 and is "
        "1; restore it, or leave --resume out to measure anew"
    ]

    with waiting(tmp_path, "--resume") as process:
        (child,) = children_of(process.pid)
        process.kill()
        process.communicate()
    assert gone(child), "an orphan would hold the GPU"
    assert contents(begun.path) == first

    (tmp_path / "go").touch()
    code, output, errors = finished(started(tmp_path, ["./slow.py"], "--resume"))
    assert (code, errors) == (0, [])
    assert open_folder(begun.path).failures() == ()
    last = contents(begun.path)
    assert len(last) == 12 and {path: last[path] for path in first} == first
    assert run_command(["bench", "--records", str(begun.path)]) == 0
    assert "slow" in capfd.readouterr().out
    assert run_command(["bench", "--resume", "--traces", str(tmp_path / "traces"), *BRIEF]) == 2
    told = capfd.readouterr().err
    assert told == (
        "moeprof: error: nothing to resume: every bench there has all its records; "
        "leave --resume out\n"
    )
    assert the_bench(tmp_path).path == begun.path


def test_what_failed_in_one_bench_and_was_measured_in_a_later_one_is_measured(
    plan, tmp_path, make_run, capfd
):
    run = make_run(iterations=1, kernels=1)
    plan = replace(plan, solutions=plan.solutions[:1])
    create(tmp_path, "one", plan)
    two = create(tmp_path, "two", plan)

    def code(*folders):
        return run_command(["bench", "--records", *map(str, folders)])

    assert code(tmp_path / "bench") == 4
    assert "interrupted: triton_v2 on T=7" in capfd.readouterr().err
    two.keep(replace(run, created="2000-01-01T00:00:00+00:00"))
    assert code(tmp_path / "bench") == 4, "an old record says nothing of a later failure"
    two.keep(replace(run, created="2999-01-01T00:00:00+00:00"))
    assert code(tmp_path / "bench") == code(two.path) == code(two.path / "triton_v2") == 0
    assert code(two.path.parent / "one") == 4


def test_pairwise_ratios_are_over_the_baseline(root, capfd):
    folder = str(root / "traces/recorded/h200-bench/triton_v3")
    other = str(root / "traces/recorded/h200-bench/triton_v2")
    for arguments, over in (
        (["--solutions", "triton_v2,triton_v3"], "triton_v2"),
        (["--solutions", "triton_v2,triton_v3", "--baseline", "triton_v3"], "triton_v3"),
    ):
        assert run_command(["bench", "--records", folder, other, "--json", *arguments]) == 0
        assert json.loads(capfd.readouterr().out)["baseline"] == over


# ---------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("kinds", "unasked", "code"),
    [
        ((), (), 0),
        (("wrong result",), (), 1),
        (("timeout",), (), 4),
        (("crashed", "wrong result", "error"), (), 1),
        (("interrupted",), ("a",), 4),
        (("not available",), (), 4),
        (("not available",), ("a",), 0),
        (("not available", "error"), ("a",), 4),
    ],
)
def test_the_exit_code_says_whether_every_cell_is_right(kinds, unasked, code, make_run):
    run = make_run(iterations=1, kernels=1)
    failures = [Failure("a", f"{n}", n + 1, kind, "x") for n, kind in enumerate(kinds)]
    assert exit_code(assemble([run], failures, ["triton_v2"]), unasked) == code


def test_what_only_the_machine_knows_is_one_line_too(tmp_path):
    process = started(tmp_path, ["reference"], "--dataset", write_dataset(tmp_path / "data", (7,)),
                      "--workload", "zz", every=False)  # fmt: skip
    code, output, errors = finished(process)
    assert (code, output) == (2, "")
    (line,) = errors
    assert line.startswith("moeprof: error: unknown workload 'zz'")
    assert not list((tmp_path / "traces/bench").iterdir())


# ---------------------------------------------------------------- folders and plans


@pytest.fixture
def plan(make_run):
    run = make_run(iterations=1, kernels=1)
    return BenchPlan(
        *("0.1.0", TINY, "tiny", "uniform", "quantised", run.settings, run.environment),
        solutions=(
            BenchSolution("triton_v2", "stages", "ab" * 32),
            BenchSolution("absent", "stages", kind="not available", problem="no such library"),
        ),
        workloads=(BenchWorkload(run.workload.uuid, run.workload.seq_len),),
    )


def test_a_plan_is_as_it_was_written_and_says_what_differs(plan, tmp_path):
    folder = create(tmp_path, None, plan)
    assert open_folder(folder.path) == folder
    assert difference(plan, open_folder(folder.path).plan) == ""
    one, absent = plan.solutions
    for changed, told in (
        ({"definition": "other"}, f"the definition was {TINY} and is other"),
        ({"workloads": ()}, f"the list of workloads was {plan.workloads[0]} and is absent"),
        ({"solutions": (one,)}, "the list of solutions was triton_v2, absent and is triton_v2"),
        (
            {"solutions": (replace(one, source_hash="cd" * 32), absent)},
            "the source of triton_v2 was abababababab and is cdcdcdcdcdcd",
        ),
        (
            {"solutions": (one, replace(absent, kind=None, problem="", source_hash="ef" * 32))},
            "the source of absent was no such library and is efefefefefef",
        ),
        ({"routing": "zipf:1.2"}, "the routing was uniform and is zipf:1.2"),
        ({"settings": replace(plan.settings, trials=9)}, "the setting trials was 3 and is 9"),
        (
            {"environment": replace(plan.environment, card="00000000")},
            f"the machine's card was {plan.environment.card or 'absent'} and is 00000000",
        ),
        ({"moeprof": "9"}, "moeprof was 0.1.0 and is 9"),
    ):
        assert difference(plan, replace(plan, **changed)) == told


def test_every_setting_and_every_fact_of_the_machine_counts(plan):
    assert difference(plan, replace(plan, weights="harness")) != ""
    for name in Settings.__dataclass_fields__:
        other = replace(plan.settings)
        object.__setattr__(other, name, "other")
        assert difference(plan, replace(plan, settings=other)) != "", name
    for name in type(plan.environment).__dataclass_fields__:
        other = replace(plan.environment)
        object.__setattr__(other, name, "other")
        assert difference(plan, replace(plan, environment=other)) != "", name


def test_what_is_missing_is_read_off_the_folder(plan, tmp_path, make_run):
    folder = create(tmp_path, "mine", plan)
    uuid = plan.workloads[0].uuid
    assert folder.missing() == (("triton_v2", uuid),)
    assert [(one.solution, one.kind) for one in folder.failures()] == [
        ("triton_v2", "interrupted"),
        ("absent", "not available"),
    ]
    assert to_resume(tmp_path, "mine") == to_resume(tmp_path, None) == (folder,)
    folder.keep(make_run(iterations=1, kernels=1))
    assert folder.missing() == ()
    assert [one.kind for one in folder.failures()] == ["not available"]
    for name in ("mine", None):
        with pytest.raises(UsageError, match="nothing to resume"):
            to_resume(tmp_path, name)
    with pytest.raises(UsageError, match="there is no bench other to resume"):
        to_resume(tmp_path, "other")
    with pytest.raises(UsageError, match="there is no bench; leave"):
        to_resume(tmp_path / "elsewhere", None)


def test_a_name_is_taken_once_and_fresh_moves_the_old_bench_aside(plan, tmp_path):
    first = create(tmp_path, "mine", plan)
    with pytest.raises(UsageError, match="there is a bench mine already; --resume goes on"):
        create(tmp_path, "mine", plan)
    with (
        locked(first.path / BENCH_FILE, 1.0),
        pytest.raises(UsageError, match="bench mine is being measured by another process"),
    ):
        create(tmp_path, "mine", plan, fresh=True)
    create(tmp_path, "mine", replace(plan, routing="zipf:1.2"), fresh=True)
    names = sorted(one.path.name for one in benches(tmp_path))
    assert names[0] == "mine" and names[1].startswith("mine@2") and len(names) == 2
    aside = open_folder(tmp_path / "bench" / names[1])
    assert (aside.plan, aside.created) == (plan, first.created)
    for name in ("../x", ".hidden", "a b", "x@y"):
        with pytest.raises(UsageError, match="cannot name a bench"):
            create(tmp_path, name, plan)
    assert len({create(tmp_path, None, plan).path for _ in range(3)}) == 3


def test_a_damaged_plan_is_one_line(plan, tmp_path):
    path = create(tmp_path, "mine", plan).path / BENCH_FILE
    whole = path.read_text()
    for text, words in (
        ("", "not JSON"),
        (whole[: len(whole) // 2], "not JSON"),
        ('{"format": "moeprof run"}', "expected format 'moeprof bench'"),
        (whole.replace('"schema_version": 1', '"schema_version": 9'), "update moeprof"),
        (whole.replace('"weights"', '"wieghts"'), "wieghts is an unknown key"),
    ):
        path.write_text(text)
        with pytest.raises(RecordError, match=words) as caught:
            open_folder(path.parent)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--solutions", "triton_v9"], "there is no solution 'triton_v9'"),
        (["--solutions", "reference,reference"], "reference is named twice"),
        (["--solutions", " , "], "--solutions names none"),
        (["--solutions", "fib:x", "--dataset", "/nowhere"], "/nowhere"),
        (
            ["--solutions", "triton_v2,triton_v3", "--baseline", "triton_v1"],
            "no solution 'triton_v1' in this bench; expected triton_v2, triton_v3",
        ),
        (["--resume", "--fresh"], "--resume and --fresh were given together"),
        (["--resume"], "nothing to resume: there is no bench"),
        (["--name", "../x"], "cannot name a bench"),
        (["--passes", "bare,grph"], "did you mean graph?"),
        (["--routing", "zipf:x"], "zipf:S"),
        (["--num-tokens", "7", "--all-workloads"], "were given together"),
        (["--timeout", "0"], "0"),
        (["-o", "table.xls"], "the ending of table.xls names no format"),
        (["-o", "nowhere/table.md"], "lies in no folder"),
        (["--records", "empty"], "there is no record in empty"),
        (["--records", "nowhere"], "there is no file or folder nowhere"),
        (["--records", "empty", "--num-tokens", "7"], "nothing is measured with --records"),
        (["--records"], "--records without a DIR"),
        (["empty"], "empty without --records"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_one_line_before_anything_starts(
    arguments, words, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("moeprof.benching.bench.Process", None)
    (tmp_path / "empty").mkdir()
    if "--records" not in arguments:
        arguments = [*arguments, "--traces", "traces"]
    assert run_command(["bench", *arguments]) == 2
    told = capfd.readouterr().err
    assert words in told and told.count("\n") == 1 and told.startswith("moeprof: error: ")


def test_a_page_without_plotly_is_refused_before_anything_starts(monkeypatch, capfd):
    monkeypatch.setattr("moeprof.benching.bench.Process", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run_command(["bench", "-o", "page.html"]) == 2
    assert "page.html needs plotly" in capfd.readouterr().err


def test_traces_that_cannot_be_written_are_refused_before_anything_starts(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr("moeprof.benching.bench.Process", None)
    (tmp_path / "file").write_text("")
    assert run_command(["bench", "--traces", str(tmp_path / "file" / "x")]) == 2
    assert "choose a --traces folder" in capfd.readouterr().err


def test_a_bench_in_a_log_says_a_line_a_minute(plan, tmp_path, monkeypatch, capfd):
    """No terminal, no bar; yet ten minutes without a word look like a hang."""
    from moeprof.cli import progress

    clock = iter([0.0, 59.0, 61.0, 100.0, 125.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    bar = progress.BenchBar()
    bar.begin(create(tmp_path, "one", plan), 8, 0)
    for number in range(4):
        bar.turn(f"triton_v3 T=7 bare {number}", number, number / 4)
    bar.finish()
    assert capfd.readouterr().err.splitlines() == [
        "moeprof: 25 % done, 1 of 8 cells; triton_v3 T=7 bare 1",
        "moeprof: 75 % done, 3 of 8 cells; triton_v3 T=7 bare 3",
    ]
