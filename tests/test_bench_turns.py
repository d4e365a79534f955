"""Who is measured after whom in a bench, and what one process of it does, without its watcher."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch

from moeprof.bench.cells import Failure
from moeprof.benching import worker
from moeprof.benching.bench import groups
from moeprof.benching.messages import (
    Asked,
    Broken,
    End,
    Failed,
    Fatal,
    Job,
    Loading,
    Preparing,
    Ready,
    Recorded,
    Request,
    Turn,
    from_line,
    to_line,
)
from moeprof.benching.words import without_paths
from moeprof.errors import UsageError
from moeprof.measure.inputs import fingerprints
from moeprof.measure.turns import balanced_orders, in_turn
from moeprof.presets import ATOL, MAX_RELATIVE_L2, REQUIRED_MATCHED_RATIO, RTOL
from moeprof.problem.dataset import Dataset
from moeprof.records import Settings
from moeprof.storage import store
from moeprof.storage.benches import BenchPlan, BenchSolution, BenchWorkload
from tests import builders
from tests.benches import TINY, write_dataset, write_opaque, write_right

# ---------------------------------------------------------------- orders


def test_orders_of_three_and_four_by_hand():
    assert balanced_orders(0) == ()
    assert balanced_orders(1) == ((0,),)
    assert balanced_orders(2) == ((0, 1), (1, 0))
    assert balanced_orders(3) == (
        *((0, 1, 2), (2, 1, 0)),
        *((1, 2, 0), (0, 2, 1)),
        *((2, 0, 1), (1, 0, 2)),
    )
    assert balanced_orders(4) == ((0, 1, 3, 2), (1, 2, 0, 3), (2, 3, 1, 0), (3, 0, 2, 1))


@pytest.mark.parametrize("count", range(2, 12))
def test_each_follows_each_other_equally_often(count):
    orders = balanced_orders(count)
    follows = Counter(pair for order in orders for pair in zip(order, order[1:], strict=False))
    assert set(follows) == {(a, b) for a in range(count) for b in range(count) if a != b}
    assert len(set(follows.values())) == 1
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert len(set(Counter(order[0] for order in orders).values())) == 1


def test_turns_go_through_the_orders_and_begin_again():
    assert [in_turn("ab", turn) for turn in range(3)] == [("a", "b"), ("b", "a"), ("a", "b")]
    assert in_turn((), 5) == ()


def test_every_process_gets_small_and_large_workloads():
    workloads = [BenchWorkload(str(size), size) for size in range(19)]
    made = groups(workloads)
    assert [len(group) for group in made] == [5, 5, 5, 4]
    assert [workload.seq_len for workload in made[0]] == [0, 4, 8, 12, 16]
    assert sorted(w.seq_len for group in made for w in group) == list(range(19))
    assert groups(workloads[:3]) == (tuple(workloads[:3]),)


def test_what_is_put_down_names_no_folder():
    assert without_paths("no luck in /home/bob/x.py, line 3") == "no luck in x.py, line 3"
    assert without_paths("lib '/opt/a b/c.so'\nis bad") == "lib 'a b/c.so' is bad"
    assert without_paths("a/b and 3/4 stay") == "a/b and 3/4 stay"


FAILURE = Failure("a", "b", 7, "error", "it says\nso")
RUN = builders.make_run(builders.eager_script(1))
PLAN = BenchPlan(
    *("0.1.0", "d", "tiny", "uniform", "quantised", RUN.settings, RUN.environment),
    *((BenchSolution("a", "a.py", kind="error", problem="x"),), (BenchWorkload("b", 7),)),
)


@pytest.mark.parametrize(
    "message",
    [
        Request((Asked("./a.py", True), Asked("reference", False)), {"seed": 0, "passes": None}),
        Job("/a folder", (("a", "b"), ("c", "d"))),
        Loading("./a.py"),
        Ready(PLAN),
        Preparing(),
        Turn("bare", "a", "b", 7),
        Recorded("a", "b"),
        Failed(FAILURE, True),
        Fatal("the disk is full", 2),
        Broken("Traceback:\n  ..."),
        End(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_is_one_line_and_comes_as_it_was_sent(message):
    line = to_line(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert from_line(line) == message


# ---------------------------------------------------------------- one process


@pytest.fixture(autouse=True)
def one_thread():
    """Torch's threads spin while others hold the cores: one takes a tenth of the time of two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def problems(tmp_path):
    from moeprof.measure.plan import Problems

    dataset = Dataset(write_dataset(tmp_path / "data", (7, 13)))
    definition = dataset.definition(TINY)
    settings = Settings(
        *("quick", 0, 1, 2, 0, "flush", ("first", "bare", "stages")),
        *(RTOL, ATOL, REQUIRED_MATCHED_RATIO, MAX_RELATIVE_L2),
    )
    return Problems(
        *(definition, dataset.workloads(definition), dataset, settings),
        *("uniform", "quantised", "cpu", False),
    )


def measured(problems, solutions, tmp_path, cells=None, flag=None):
    """The messages of one process, every cell or ``cells`` asked for. flag: made before 'bare'."""
    told = []

    def send(message):
        told.append(message)
        if flag is not None and isinstance(message, Turn) and message.turn == "bare":
            flag.touch()

    def job():
        plan = told[-1].plan
        return Job(str(tmp_path / "bench"), cells or plan.cells)

    asked = [Asked(solution, True) for solution in solutions]
    worker.work(problems, asked, False, send, job)
    return told


def of(told, kind):
    return [message for message in told if isinstance(message, kind)]


def names(tmp_path, **bodies):
    return [write_right(tmp_path, name, body) for name, body in bodies.items()]


def test_solutions_take_turns_on_a_workload_before_the_next_comes(problems, tmp_path):
    told = measured(problems, [*names(tmp_path, b="pass", c="pass"), "reference"], tmp_path)
    turns = [(one.turn, one.seq_len, one.solution[0]) for one in of(told, Turn)]
    expected = []
    orders = ["bcr", "rcb", "crb", "brc", "rbc", "cbr"]  # of b, c and the reference
    passes = ("first", "rest", "bare", "bare", "stages")  # two trials of bare
    for number, (name, size) in enumerate((p, size) for p in passes for size in (7, 13)):
        for letter in orders[number % 6]:
            expected.append((name, size, letter))
            if name == "stages":  # the last pass: checked again, then recorded
                expected.append(("again", size, letter))
    assert turns == expected
    assert [one.asked.split("/")[-1] for one in of(told, Loading)] == ["b.py", "c.py", "reference"]
    assert isinstance(told[-1], End) and not of(told, Failed)
    assert len(of(told, Recorded)) == 6
    runs = [store.load(file.path) for file in store.find_runs(tmp_path / "bench")]
    assert len(runs) == 6
    for run in runs:
        assert run.correctness.passed and len(run.samples("stages")) == 1
        assert [sample.trial for sample in run.samples("bare")] == [0, 1]
    assert len({run.routing.histogram_hash for run in runs if run.workload.seq_len == 7}) == 1


def test_the_reference_runs_once_a_workload_as_the_judge(problems, tmp_path, monkeypatch):
    """A right solution is called by its first call and its check; the judge's copy is kept."""
    from moeprof.measure import workbench

    made = []
    tensors = workbench.Reference.tensors

    def counted(self, case):
        before = self._tensors
        found = tensors(self, case)
        made.append((case.seq_len, found is not before))
        return found

    monkeypatch.setattr(workbench.Reference, "tensors", counted)
    measured(problems, names(tmp_path, b="pass", c="pass", d="pass"), tmp_path)
    assert Counter(size for size, new in made if new) == {7: 1, 13: 1}
    assert sum(not new for _, new in made) >= 4


def test_spoilt_inputs_are_the_spoilers_fault_alone(problems, tmp_path):
    spoils = [
        write_opaque(tmp_path, "weights", "w1_scale.zero_()"),
        write_opaque(tmp_path, "tokens", "x_scale.mul_(3)"),
    ]
    told = measured(problems, [*spoils, *names(tmp_path, right="pass"), "reference"], tmp_path)
    assert not of(told, Failed)
    runs = [store.load(file.path) for file in store.find_runs(tmp_path / "bench")]
    problem = {(run.solution.name, run.workload.seq_len): run.correctness.problem for run in runs}
    for size in (7, 13):
        assert problem["right", size] is None and problem["reference", size] is None
        assert "changed its input gemm1_weights_scale" in problem["weights", size]
        assert "changed its input hidden_states_scale" in problem["tokens", size]


def test_inputs_are_restored_bit_for_bit(problems):
    from moeprof.measure.plan import Inputs

    inputs = Inputs(problems)
    problem = inputs.problem(problems.workloads[0], "uniform")
    places = {name: value.data_ptr() for name, value in problem.inputs.items() if name[0] in "gh"}
    problem.inputs["gemm2_weights"].view(torch.uint8).zero_()
    problem.inputs["hidden_states"].view(torch.uint8).zero_()
    inputs.restore(problem, "uniform")
    now = fingerprints(problem.inputs)
    assert all(torch.equal(now[name], known) for name, known in problem.untouched.items())
    assert places == {name: problem.inputs[name].data_ptr() for name in places}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('see /home/bob/x.py')", "in pass bare it raised: ValueError: see x.py"),
        ("sys.exit(3)", "in pass bare it raised: SystemExit (sys.exit(3))"),
        (
            "raise __import__('torch').OutOfMemoryError('2 GiB')",
            "in pass bare it ran out of memory: OutOfMemoryError: 2 GiB",
        ),
    ],
    ids=["raises", "exits", "memory"],
)
def test_what_fails_after_the_check_costs_its_cell_alone(body, words, problems, tmp_path):
    flag = tmp_path / "flag"
    checked = f"if tokens == 13 and os.path.exists({str(flag)!r}): {body}"
    told = measured(problems, names(tmp_path, bad=checked, good="pass"), tmp_path, flag=flag)
    (failed,) = of(told, Failed)
    assert failed.failure == Failure("bad", problems.workloads[1].uuid, 13, "error", words)
    assert not failed.ends and isinstance(told[-1], End)
    recorded = Counter(one.solution for one in of(told, Recorded))
    assert recorded == {"good": 2, "bad": 1}
    later = [one for one in told[told.index(failed) :] if isinstance(one, Turn)]
    assert ("bad", 13) not in {(one.solution, one.seq_len) for one in later}


def test_only_the_cells_of_the_job_are_measured(problems, tmp_path):
    uuid = problems.workloads[1].uuid
    told = measured(problems, names(tmp_path, b="pass", c="pass"), tmp_path, ((("b"), uuid),))
    assert {(one.solution, one.seq_len) for one in of(told, Turn)} == {("b", 13)}
    assert of(told, Recorded) == [Recorded("b", uuid)]


def test_what_does_not_load_is_a_column_with_its_reason(problems, tmp_path):
    (tmp_path / "broken.py").write_text("x = = 1\n")
    asked = [str(tmp_path / "broken.py"), "reference"]
    told = measured(problems, asked, tmp_path)
    (ready,) = of(told, Ready)
    broken, reference = ready.plan.solutions
    assert (broken.name, broken.kind, broken.source_hash) == ("broken", "error", "")
    assert "broken.py:1: invalid syntax" in broken.problem and str(tmp_path) not in broken.problem
    assert reference.kind is None and len(reference.source_hash) == 64
    assert {one.solution for one in of(told, Turn)} == {"reference"}


def test_a_solution_whose_library_is_missing_is_not_available(problems, tmp_path, monkeypatch):
    """As on a GPU, where a torch twin is never timed in a library's place."""
    on_a_gpu = partial(worker.refuse_stand_ins, device="cuda")
    monkeypatch.setattr(worker, "refuse_stand_ins", lambda loaded, device: on_a_gpu(loaded))
    told = measured(problems, ["sglang_v2", "reference"], tmp_path)
    (ready,) = of(told, Ready)
    absent, reference = ready.plan.solutions
    assert (absent.name, absent.kind, reference.kind) == ("sglang_v2", "not available", None)
    assert "needs a library that does not load here (sgl_kernel" in absent.problem
    assert {one.solution for one in of(told, Turn)} == {"reference"}


def test_two_solutions_of_one_name_are_refused(problems, tmp_path):
    (tmp_path / "other").mkdir()
    asked = [write_right(tmp_path, "mine"), write_right(tmp_path / "other", "mine")]
    with pytest.raises(UsageError, match="two solutions are called mine"):
        measured(problems, asked, tmp_path)
