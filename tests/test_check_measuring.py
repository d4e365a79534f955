"""Fresh processes of one side or two, as real processes: their order, records, failures and ends;
the code of a revision in a worktree."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.checking import child, rounds, worktree
from moeprof.checking.process import failure
from moeprof.checking.request import Request, request_of, routing_asked
from moeprof.checking.trees import Tree, working_tree
from moeprof.cli.asking import ends_as_ctrl_c
from moeprof.errors import MoeprofError, UsageError
from moeprof.storage import store
from moeprof.storage.checks import CheckFolder, new_check_folder, runs_in
from tests.checks import write_solution
from tests.privacy import private_words
from tests.processes import gone

ROOT = Path(__file__).resolve().parents[1]
TINY = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e8_h256_i256"


@pytest.fixture
def request_(root):
    """The tiny definition at T = 7, as little of it as shows anything."""
    return Request(
        *(TINY, "", 7, root / "traces", "uniform", "quantised", "cpu", "quick", 0, 2, 1),
        *("flush", 0, ("bare", "stages")),
        seconds=120.0,
    )


@pytest.fixture
def folder(tmp_path):
    return new_check_folder(tmp_path, "mine", 7)


def git(repository, *arguments):
    command = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@y.invalid"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A user's repository: the solution is fast in 'old' and rests in gemm1 in the working tree."""
    path = tmp_path / "kernels"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    write_solution(path / "mine.py", "old")
    git(path, "add", ".")
    git(path, "commit", "-qm", "old")
    git(path, "tag", "old")
    write_solution(path / "mine.py", "new", gemm1=0.01)
    git(path, "commit", "-qam", "new")
    return path


def one_line(error):
    assert "\n" not in str(error)
    return str(error)


def moeprof(*arguments, **options):
    command = [sys.executable, "-m", "moeprof", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


# ---------------------------------------------------------------- what is asked


def test_sides_alternate_so_that_drift_meets_both_alike():
    order = rounds.interleaved(("baseline", "candidate"), 4)
    assert "".join(side[0] for side in order) == "bccbbccb"
    assert rounds.interleaved(("candidate",), 3) == ("candidate",) * 3


def test_everything_is_asked_for_by_name(request_):
    arguments = request_.arguments()
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert options["--num-tokens"] == "7" and "--workload" not in options
    assert options["--passes"] == "bare,stages" and options["--seed"] == "0"
    asked = replace(request_, workload="b426f560", allow_no_local_work=True).arguments()
    assert "--workload" in asked and "--num-tokens" not in asked
    assert asked[-1] == "--allow-no-local-work"


def test_a_record_tells_what_gives_another_like_it(root):
    path = next((root / "traces/recorded/h200/triton_v2/dsv3").glob("T56-*"))
    run = store.load(path)
    request = request_of(run, root / "traces")
    assert request.workload == run.workload.uuid and request.device == "cuda"
    assert request.routing == "uniform" and request.weights == "quantised"
    assert request.passes == ("bare", "events", "kernels", "api")
    assert (request.iterations, request.trials) == (20, 3)
    assert routing_asked("synthetic zipf:1.2") == "zipf:1.2"
    assert routing_asked("recorded") == "recorded"
    with pytest.raises(UsageError, match="--routing file:PATH"):
        routing_asked("file r.safetensors")


# ---------------------------------------------------------------- fresh processes


FAILS_SECOND = """
import os
if os.path.exists({flag!r}):
    raise OSError("second")
open({flag!r}, "w").close()
"""


def test_each_record_is_kept_as_its_process_ends_and_a_failure_says_so(tmp_path, request_, folder):
    extra = FAILS_SECOND.format(flag=str(tmp_path / "flag"))
    tree = working_tree(str(write_solution(tmp_path / "mine.py", extra=extra, gemm1=0.01)))
    told: list[str] = []
    seen = []
    with pytest.raises(MoeprofError) as caught:
        for side, run in rounds.fresh_runs({"candidate": tree}, request_, 3, folder, told.append):
            seen.append((side, run))
            assert len(folder.records("candidate")) == len(seen)
    assert one_line(caught.value).startswith("process 2 of 3 failed: mine.py:")
    assert "raised OSError: second" in str(caught.value)
    assert "1 finished record is in " in str(caught.value)
    assert [line.split(",")[0] for line in told] == ["process 1 of 3", "process 2 of 3"]
    assert "s each, about" in told[1]
    ((side, run),) = seen
    assert side == "candidate" and runs_in(folder.path) == (run,)
    assert [path.name for path in folder.path.rglob("*")] == ["candidate", "001.json.gz"]
    assert run.correctness.passed and run.solution.name == "mine"
    assert len(run.samples("stages")) == 2 and run.settings.passes == ("first", "bare", "stages")
    rested = dict(zip(run.solution.stage_names, run.samples("stages")[0].stage_us, strict=True))
    assert rested["gemm1"] > 10_000
    assert store.leaks(json.dumps(store.to_json(run)), private_words()) == ()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("raise ValueError('no luck')", "raised ValueError: no luck"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it was ended by SIGKILL"),
        ("import os; print('bye', flush=True); os._exit(7)", "7 and no record; last line: bye"),
        ("import time; time.sleep(60)", "did not finish in 3 s"),
    ],
    ids=["raises", "killed", "leaves", "hangs"],
)  # fmt: skip
def test_a_process_that_fails_is_one_line_with_its_reason(extra, words, tmp_path, request_, folder):
    tree = working_tree(str(write_solution(tmp_path / "mine.py", extra=extra)))
    request = replace(request_, seconds=3.0 if "sleep" in extra else 60.0)
    with pytest.raises(MoeprofError) as caught:
        rounds.measure({"candidate": tree}, request, 2, folder, lambda text: None)
    assert words in one_line(caught.value)
    assert str(caught.value).startswith("process 1 of 2 failed: ")
    assert caught.value.exit_code == 2
    assert not folder.path.exists(), "a folder without a record is no check"


def test_a_wrong_result_ends_the_round(tmp_path, request_, folder):
    path = tmp_path / "mine.py"
    parameters = "logits, bias, x, x_scale, w1, w1_scale, w2, w2_scale, offset, factor"
    path.write_text(
        f"import torch\ndef run({parameters}):\n"
        "    return torch.zeros(x.shape, dtype=torch.bfloat16)\n"
    )
    trees = {"candidate": working_tree(str(path))}
    found = rounds.measure(trees, request_, 5, folder, lambda text: None)
    (run,) = found["candidate"]
    assert not run.correctness.passed


def test_what_an_old_revision_lacks_is_said():
    tree = Tree("1a2b3c4d", "mine", Path("."), ())
    output = "a table\nmoeprof: error: No such option: --l2\n"
    told = one_line(failure(2, output, tree))
    assert told == (
        "No such option: --l2; the moeprof of 1a2b3c4d is too old for a check; "
        "name a later revision"
    )
    assert one_line(failure(1, "", tree)).endswith("last line: it printed nothing")
    assert "ended by SIGSEGV" in one_line(failure(-11, "x", tree))


# ---------------------------------------------------------------- ends


HANGS = """
import os, time
if os.path.exists({flag!r}):
    open({pid!r}, "w").write(str(os.getpid()))
    os.rename({pid!r}, {pid!r} + ".ready")
    time.sleep(60)
open({flag!r}, "w").close()
"""


@contextmanager
def hanging(tmp_path, finished):
    """A command that hangs after ``finished`` processes (0 or 1), and its child's process id."""
    flag, pid = tmp_path / "flag", tmp_path / "pid"
    if not finished:
        flag.touch()
    path = write_solution(tmp_path / "mine.py", extra=HANGS.format(flag=str(flag), pid=str(pid)))
    process = moeprof(
        *("check", "--measure-only", "--solution", path, "--device", "cpu", "--num-tokens", "7"),
        *("--iterations", "2", "--warmup", "0", "--traces", tmp_path / "traces"),
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    ready = Path(f"{pid}.ready")
    deadline = time.monotonic() + 120
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        yield process, int(ready.read_text())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "finished"), [(signal.SIGINT, 1), (signal.SIGTERM, 0)])
def test_ctrl_c_and_a_cancelled_job_end_the_children_and_keep_what_is_finished(
    number, finished, tmp_path
):
    with hanging(tmp_path, finished) as (process, pid):
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "moeprof: error: interrupted; finished records were kept"
    assert "Traceback" not in errors
    assert gone(pid)
    checks = list((tmp_path / "traces" / "checks").iterdir())
    assert len(checks) == finished, "a check without a record leaves no folder"
    if finished:
        assert [path.name for path in checks[0].rglob("*")] == ["candidate", "001.json.gz"]
        assert len(runs_in(checks[0])) == 1


def test_a_kill_ends_the_children_too_and_the_next_check_does_not_wait(tmp_path, monkeypatch):
    with hanging(tmp_path, 0) as (process, pid):
        process.kill()
        process.communicate()
    assert gone(pid, seconds=1.0), "an orphan would disturb the next check"
    monkeypatch.setattr(rounds.tempfile, "gettempdir", lambda: str(tmp_path))
    told: list[str] = []
    with rounds.device_alone(told.append):
        assert told == []


def test_a_closed_terminal_ends_as_ctrl_c_does():
    before = signal.getsignal(signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt), ends_as_ctrl_c():
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(5)
    assert signal.getsignal(signal.SIGHUP) == before


def test_two_checks_do_not_measure_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(rounds.tempfile, "gettempdir", lambda: str(tmp_path))
    program = (
        "import sys, time, tempfile\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "from moeprof.checking.rounds import device_alone\n"
        "with device_alone(print):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(0.7)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    told: list[str] = []
    begin = time.monotonic()
    with rounds.device_alone(told.append):
        waited = time.monotonic() - begin
    other.communicate()
    assert told == ["another check measures here; waiting for it"]
    assert 0.3 < waited < 10
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with rounds.device_alone(told.append):
        assert len(list(tmp_path.glob("moeprof-*.lock"))) == 2  # another GPU is another lock


def test_folders_of_one_second_are_told_apart(tmp_path):
    folders = [new_check_folder(tmp_path, "a/b.py", 7) for _ in range(3)]
    assert len({one.path for one in folders}) == 3
    assert all(one.path.name.startswith("b-T7-") for one in folders)
    (tmp_path / "file").write_text("")
    with pytest.raises(MoeprofError, match="cannot be written to"):
        new_check_folder(tmp_path / "file", "a", 7)


def test_runs_of_different_work_are_not_judged_together(tmp_path, make_run):
    run = make_run(iterations=1, kernels=1)
    store.save(run, tmp_path)
    store.save(replace(run, solution=replace(run.solution, source_hash="00" * 32)), tmp_path)
    with pytest.raises(UsageError, match="2 versions of the solution's source"):
        runs_in(tmp_path)
    with pytest.raises(UsageError, match="no record in"):
        runs_in(_empty(tmp_path))
    with pytest.raises(UsageError, match="there is no folder"):
        runs_in(tmp_path / "absent")


def _empty(tmp_path):
    path = tmp_path / "empty"
    (path / ".process-1").mkdir(parents=True)
    (path / ".process-1" / "001.json.gz").write_bytes(b"half")  # hidden: under way
    return path


# ---------------------------------------------------------------- the code of a revision


def worktrees(repository):
    return git(repository, "worktree", "list", "--porcelain").count("worktree ")


def test_a_revision_runs_its_own_code_and_leaves_no_trace(repository, request_, folder):
    before = (repository / "mine.py").read_text()
    solution = str(repository / "mine.py")
    after = working_tree(solution)
    with worktree.revision_tree(solution, "old") as old:
        home = Path(old.solution).parent
        assert worktrees(repository) == 2
        assert old.label == git(repository, "rev-parse", "old")[:8]
        trees = {"baseline": old, "candidate": after}
        found = rounds.measure(trees, request_, 1, folder, lambda text: None)
    (one,), (other,) = found["baseline"], found["candidate"]
    assert (one.solution.description, other.solution.description) == ("old", "new")
    assert one.solution.source_hash != other.solution.source_hash
    assert one.schema_version == other.schema_version
    assert one.routing == other.routing, "both sides must be given the same inputs"
    assert len(folder.records("baseline")) == len(folder.records("candidate")) == 1
    assert worktrees(repository) == 1 and not home.exists()
    assert (repository / "mine.py").read_text() == before
    assert git(repository, "status", "--porcelain") == ""


def test_a_dirty_tree_is_what_is_checked_and_is_known_to_be_dirty(repository):
    solution = str(repository / "mine.py")
    assert not working_tree(solution).dirty
    write_solution(repository / "mine.py", "edited")
    (repository / "untracked.txt").write_text("")
    tree = working_tree(solution)
    assert tree.dirty and tree.commit == git(repository, "rev-parse", "HEAD")
    with worktree.revision_tree(solution, "HEAD") as old:
        assert "new" in Path(old.solution).read_text()


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("nowhere", "git knows no revision 'nowhere' here; git fetch it"),
        ("--help", "git knows no revision '--help'"),
        ("empty", "has no file mine.py; name a revision that has it"),
    ],
)
def test_what_cannot_be_checked_out_is_one_line(revision, words, repository):
    git(repository, "checkout", "-q", "--orphan", "bare")
    git(repository, "commit", "-qm", "empty", "--allow-empty")
    git(repository, "rm", "-q", "--cached", "mine.py")
    git(repository, "commit", "-qm", "none", "--allow-empty")
    git(repository, "tag", "empty")
    with pytest.raises(UsageError) as caught:
        with worktree.revision_tree(str(repository / "mine.py"), revision):
            pass
    assert words in one_line(caught.value)
    assert worktrees(repository) == 1


def test_outside_a_repository_or_without_git_is_one_line(tmp_path, monkeypatch):
    path = write_solution(tmp_path / "mine.py")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match="lies in no git repository; check it with --baseline"):
        with worktree.revision_tree(str(path), "HEAD"):
            pass
    assert working_tree(str(path)).commit == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MoeprofError, match="git is not installed"):
        with worktree.revision_tree(str(path), "HEAD"):
            pass
    assert working_tree(str(path)).commit == ""


def test_the_worktree_of_a_killed_check_is_removed_by_the_next(repository):
    program = (
        "import sys, time\n"
        "from moeprof.checking.worktree import revision_tree\n"
        "with revision_tree(sys.argv[1], 'old') as tree:\n"
        "    print(tree.solution, flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(repository / "mine.py")]
    killed, alive = (subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2))
    left = Path(killed.stdout.readline().strip()).parent
    busy = Path(alive.stdout.readline().strip()).parent
    killed.kill()
    killed.communicate()
    assert left.is_dir() and worktrees(repository) == 3
    with worktree.revision_tree(str(repository / "mine.py"), "old"):
        assert not left.exists() and busy.is_dir(), "that of a living check was taken"
    alive.send_signal(signal.SIGINT)
    alive.communicate()
    assert not busy.exists() and worktrees(repository) == 1
    assert not left.parent.exists() and not busy.parent.exists()


def test_the_other_sides_modules_are_never_loaded(repository, request_, folder):
    """An editable install leads to the working tree whatever the revision: that is refused."""
    (repository / "kernels").mkdir()
    (repository / "kernels" / "helper.py").write_text("WHO = 'the working tree'\n")
    path = repository / "mine.py"
    sneaks = f"import sys; sys.path.insert(0, {str(repository / 'kernels')!r}); import helper"
    write_solution(path, extra=sneaks)
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "sneaks")
    with worktree.revision_tree(str(path), "HEAD") as tree:
        with pytest.raises(MoeprofError) as caught:
            rounds.measure({"baseline": tree}, request_, 1, folder, lambda text: None)
    assert "helper was loaded from the working tree, not from the revision" in one_line(
        caught.value
    )


def test_a_python_path_inside_the_repository_leads_into_the_revision(
    repository, request_, folder, monkeypatch
):
    source = repository / "src"
    source.mkdir()
    (source / "helper.py").write_text("WHO = 'old helper'\n")
    extra = "import helper"
    text = write_solution(repository / "mine.py", extra=extra).read_text()
    (repository / "mine.py").write_text(text.replace("description=''", "description=helper.WHO"))
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "helper")
    (source / "helper.py").write_text("WHO = 'new helper'\n")
    monkeypatch.setenv("PYTHONPATH", str(source))
    solution = str(repository / "mine.py")
    with worktree.revision_tree(solution, "HEAD") as tree:
        found = rounds.measure({"baseline": tree}, request_, 1, folder, lambda text: None)
    assert found["baseline"][0].solution.description == "old helper"
    assert working_tree(solution).python_path[-1] == source


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone of this very checkout, with what is not yet committed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this checkout is no git repository")
    path = tmp_path_factory.mktemp("clone") / "moeprof"
    subprocess.run(["git", "clone", "-q", "--shared", str(ROOT), str(path)], check=True)
    for name in ("moeprof", "stages"):
        shutil.rmtree(path / name)
        shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
    git(path, "add", "-A")
    git(path, "commit", "-qm", "as it is", "--allow-empty")
    git(path, "tag", "now")
    return path


ONE_PROCESS = """
import sys
from pathlib import Path
from moeprof.checking import rounds, worktree
from moeprof.checking.request import Request
from moeprof.errors import MoeprofError
from moeprof.storage.checks import new_check_folder
import moeprof
traces = Path(moeprof.__file__).parents[1] / "traces"
request = Request(
    sys.argv[1], "", 7, traces, "uniform", "quantised", "cpu", "quick", 0, 2, 1, "flush", 0,
    ("bare", "stages"),
)
try:
    with worktree.revision_tree("reference", sys.argv[2]) as tree:
        print(tree.python_path[0])
        folder = new_check_folder(Path(sys.argv[3]), "reference", 7)
        found = rounds.measure({"baseline": tree}, request, 1, folder, print)
        print(found["baseline"][0].solution.description)
        print(found["baseline"][0].moeprof)
except MoeprofError as error:
    print("error:", error)
"""


def in_clone(clone, revision, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ONE_PROCESS, TINY, revision, str(tmp_path)],
        capture_output=True, text=True, cwd=clone, env={**os.environ, "PYTHONPATH": str(clone)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_revision_of_this_checkout_is_measured_by_its_own_moeprof(clone, tmp_path):
    path = clone / "moeprof" / "__init__.py"
    path.write_text(path.read_text().replace('__version__ = "', '__version__ = "9.'))
    reference = clone / "stages" / "solutions" / "reference.py"
    text = reference.read_text()
    reference.write_text(re.sub(r'description="[^"]*"', 'description="of a revision"', text))
    git(clone, "commit", "-qam", "another")
    another = git(clone, "rev-parse", "HEAD")
    git(clone, "reset", "-q", "--hard", "now")
    lines = in_clone(clone, another, tmp_path).splitlines()
    assert "moeprof-worktree-" in lines[0]
    assert lines[-2] == "of a revision" and lines[-1].startswith("9."), lines


def test_a_revision_whose_moeprof_is_too_old_or_absent_is_one_line(clone, tmp_path):
    options = clone / "moeprof" / "cli" / "options.py"
    options.write_text(options.read_text().replace('"--l2"', '"--l3", "l2"'))
    git(clone, "commit", "-qam", "without --l2")
    old = git(clone, "rev-parse", "HEAD")
    git(clone, "rm", "-q", "-r", "moeprof")
    git(clone, "commit", "-qm", "without moeprof")
    none = git(clone, "rev-parse", "HEAD")
    git(clone, "reset", "-q", "--hard", "now")
    assert f"the moeprof of {old[:8]} is too old for a check" in in_clone(clone, old, tmp_path)
    assert f"error: {none[:8]} has no moeprof to measure it with" in in_clone(clone, none, tmp_path)


def test_the_child_knows_whose_a_module_is(tmp_path, monkeypatch):
    inside = tmp_path / "inside.py"
    inside.write_text("")
    module = type(sys)("inside")
    module.__file__ = str(inside)
    monkeypatch.setitem(sys.modules, "inside", module)
    assert child.loaded_from(str(tmp_path), "") == "inside"
    assert child.loaded_from(str(tmp_path), str(tmp_path)) == "", "a worktree inside the repository"
    assert child.loaded_from(str(tmp_path / "other"), "") == ""
    assert child.loaded_from(sys.prefix, "") == "", "installed packages are nobody's"


def test_a_check_folder_counts_on(tmp_path, make_run):
    folder = CheckFolder(tmp_path / "c")
    folder.path.mkdir()
    run = make_run(iterations=1, kernels=1)
    for _ in range(2):
        folder.keep(store.save(run, tmp_path / "scratch"), "baseline")
    assert [path.name for path in folder.records("baseline")] == ["001.json.gz", "002.json.gz"]
    assert folder.records("candidate") == ()
