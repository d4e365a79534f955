"""``moeprof.profile`` on real torch callables on a CPU, and its records wherever records go."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from rich.console import Console

import moeprof
from moeprof import stage
from moeprof.analysis import attribution
from moeprof.analysis.rows import clock_rows, stage_rows
from moeprof.compare.compare import compare, explain_pair
from moeprof.errors import ContractError, EnvironmentMissing, UsageError
from moeprof.measure.interface import profile
from moeprof.other_threads import charge_by_time
from moeprof.records import Run, StageInfo
from moeprof.reports.compare_text import render_comparison
from moeprof.reports.json import run_document
from moeprof.reports.text import render_run, render_runs
from moeprof.scopes import LISTENER
from moeprof.storage import store
from moeprof.timelines import Iteration, Operation, TimelinePass
from moeprof.timing.ranges import ScopeRanges
from tests import builders

QUICK = {"iterations": 4, "warmup": 1, "trials": 2}


class Block(torch.nn.Module):
    """A small mixture-of-experts layer, as user code would mark it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = torch.nn.Linear(32, 4)
        self.up = torch.nn.Linear(32, 64)
        self.down = torch.nn.Linear(64, 32)

    @stage("routing")
    def route(self, x: torch.Tensor) -> torch.Tensor:
        return self.gate(x).softmax(-1).amax(-1, keepdim=True)

    def forward(self, x: torch.Tensor, layers: int = 2) -> torch.Tensor:
        for _ in range(layers):
            weight = self.route(x)
            with stage("experts"):
                hidden = self.up(x)
                with stage("activation"):
                    hidden = torch.nn.functional.silu(hidden)
                x = x + weight * self.down(hidden)
        return x


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small operations on shared cores: threads of torch would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def block_run() -> Run:
    torch.manual_seed(0)
    with torch.inference_mode():
        return profile(Block(), torch.randn(8, 32), layers=3, seq_len=8, device="cpu", **QUICK)


def text(renderable, width=140):
    out = io.StringIO()
    Console(file=out, width=width, no_color=True, highlight=False).print(renderable)
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_the_record_of_a_module(block_run):
    layer = ["routing", "outside", "experts", "activation", "experts", "outside"]
    rows = [info.row for info in block_run.solution.stages]
    assert rows == ["outside", *layer * 3]
    assert len(set(block_run.solution.stage_names)) == len(rows)
    assert block_run.solution.name == "Block"
    assert block_run.workload.definition == "callable:Block"
    assert (block_run.workload.seq_len, block_run.workload.is_callable) == (8, True)
    assert block_run.routing.tokens_per_expert == ()
    assert not block_run.correctness.checked
    assert [p.name for p in block_run.passes] == ["first", "bare", "stages"]
    assert len(block_run.samples("bare")) == 2 * 4
    assert len(block_run.samples("stages")) == 4
    stamped = [s for s in block_run.samples("bare") if s.stamps_us]
    assert {len(s.stamps_us) for s in stamped} == {len(rows)}
    assert block_run.settings.passes == ("first", "bare", "stages")


def test_stage_times_add_up_to_the_call(block_run):
    explained = attribution.profile(block_run)
    assert [row.name for row in explained.stages] == ["routing", "experts", "activation", "outside"]
    assert all(row.busy_ns > 0 for row in explained.stages)
    assert explained.residual_ns == pytest.approx(0, abs=1e-6)
    for sample in block_run.samples("stages"):
        assert sum(sample.stage_us) <= sample.wall_us


def test_the_package_s_profile_is_the_function():
    """Though modules that read records were imported long before."""
    assert moeprof.profile is profile


def test_how_often_a_stage_is_entered_is_counted(block_run):
    rows = stage_rows(block_run.solution.stages)
    entries = [("routing", 3), ("experts", 3), ("activation", 3), ("outside", 1)]
    assert [(row.name, row.entries) for row in rows] == entries
    assert clock_rows(block_run.solution.stages)["activation"] == [4, 10, 16]


def test_the_record_goes_through_the_store(block_run, tmp_path):
    path = store.save(block_run, tmp_path)
    assert path.parent == tmp_path / "Block" / "callable_Block"
    assert store.load(path) == block_run
    (found,) = store.find_runs(tmp_path, solution="Block", seq_len=8)
    assert found.path == path


def test_the_report_says_that_nothing_was_checked(block_run):
    lines = text(render_run(block_run))
    assert "result not checked: moeprof has no reference for a user's callable" in lines
    assert "workload T = 8, callable:Block" in lines
    assert [line.split()[:2] for line in lines if line.startswith(("routing", "outside"))] == [
        ["routing", "3"],
        ["outside", "1"],
    ]
    assert any(line.startswith("stage entered clock span") for line in lines)
    everything = "\n".join(lines)
    assert "not needed" not in everything and "local pairs" not in everything
    overview = [line for line in text(render_runs([block_run])) if "not checked" in line]
    assert [line.split()[1:4] for line in overview] == [["8", "-", "-"]]


def test_the_document_has_no_verdict(block_run):
    document = run_document(block_run)
    json.dumps(document, allow_nan=False)
    verdict = document["correctness"]
    assert (verdict["checked"], verdict["passed"], verdict["relative_l2"]) == (False, None, None)
    activation = next(row for row in document["stages"] if row["name"] == "activation")
    assert activation["entries"] == 3
    assert activation["necessary"] == {"rows": None, "bytes": None, "flops": None}


def test_time_goes_to_the_stage_that_spends_it():
    def call():
        with stage("slow"):
            time.sleep(0.004)
            with stage("inner"):
                time.sleep(0.002)
        time.sleep(0.003)

    run = profile(call, device="cpu", iterations=3, warmup=0, trials=1)
    slept_ms = {"slow": 4, "inner": 2, "outside": 3}
    rows = {row.name: row.busy_ns / 1e6 for row in attribution.profile(run).stages}
    assert list(rows) == list(slept_ms)
    for name, least_ms in slept_ms.items():
        assert least_ms <= rows[name] < least_ms + 10  # a sleep lasts at least as long


def test_arguments_reach_the_callable_and_names_come_from_it():
    calls = []

    def layer(*arguments, **named):
        calls.append((arguments, named))

    few = {"iterations": 1, "warmup": 1, "trials": 1, "passes": ["bare"]}
    run = profile(layer, 1, 2, scale=3, device="cpu", **few)
    assert set(map(str, calls)) == {"((1, 2), {'scale': 3})"}
    assert run.solution.name == "layer"
    assert run.settings.passes == ("first", "bare")
    assert profile(partial(layer, 1), device="cpu", **few).solution.name == "layer"
    assert profile(lambda: None, device="cpu", **few).workload.definition == "callable:lambda"
    assert profile([].clear, device="cpu", **few).solution.name == "list.clear"
    named = profile(layer, name="moe", variant="mine", device="cpu", **few)
    assert (named.workload.definition, named.solution.name) == ("callable:moe", "mine")


def test_one_name_and_size_is_one_workload():
    def identity(name, seq_len):
        few = {"iterations": 1, "warmup": 0, "trials": 1, "passes": ["bare"]}
        return profile(int, name=name, seq_len=seq_len, device="cpu", **few).workload.uuid

    assert identity("moe", 4) == identity("moe", 4)
    assert len({identity("moe", 4), identity("moe", 5), identity("attention", 4)}) == 3


def test_the_source_hash_follows_the_source():
    def one():
        return 1

    def two():
        return 2

    few = {"iterations": 1, "warmup": 0, "trials": 1, "passes": ["bare"], "device": "cpu"}
    first, second = (profile(fn, **few).solution.source_hash for fn in (one, two))
    assert first != second
    assert profile(one, **few).solution.source_hash == first
    assert len(profile(len, "", **few).solution.source_hash) == 64


def test_a_callable_that_takes_turns_is_refused():
    calls = [0]

    def turns():
        calls[0] += 1
        with stage("even" if calls[0] % 2 else "odd"):
            pass

    # every second bare sample is stamped: without warm-ups always an odd call, like the first
    few = {"iterations": 4, "warmup": 0, "trials": 1, "passes": ["bare"]}
    with pytest.raises(ContractError, match="turns does not go through the same stages") as caught:
        profile(turns, device="cpu", **few)
    assert "came stage 'odd', not stage 'even'" in str(caught.value)
    assert LISTENER.get() is None


def test_exceptions_of_the_callable_are_its_own():
    def breaks():
        with stage("inside"):
            raise FloatingPointError("of the user")

    with pytest.raises(FloatingPointError, match="of the user"):
        profile(breaks, device="cpu", **QUICK)
    assert LISTENER.get() is None


def test_ranges_rest_while_a_callable_is_measured():
    pushed = []

    class Noting(ScopeRanges):
        def enter(self, name):
            pushed.append(name)
            super().enter(name)

    def call():
        with stage("measured"):
            pass

    noting = Noting()
    token = LISTENER.set(noting)
    try:
        profile(call, device="cpu", **QUICK)
        assert LISTENER.get() is noting
        with stage("later"):
            pass
    finally:
        LISTENER.reset(token)
    assert pushed == ["later"]


def test_a_profile_inside_a_profile_is_refused():
    def inner():
        return profile(int, device="cpu", **QUICK)

    with pytest.raises(UsageError, match="inside the callable that it measures"):
        profile(inner, device="cpu", **QUICK)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"iterations": 0}, "iterations is 0; expected a whole number from 1 on"),
        ({"iterations": True}, "iterations is True"),
        ({"warmup": -1}, "warmup is -1; expected a whole number from 0 on"),
        ({"trials": 1.5}, "trials is 1.5"),
        ({"seq_len": 0}, "seq_len is 0"),
        ({"passes": ["bear"]}, "unknown pass 'bear'; did you mean bare?"),
        ({"passes": ["api"]}, "pass 'api' runs on a GPU only"),
        ({"l2": "cold"}, "l2 is 'cold'; expected 'flush' or 'warm'"),
        ({"device": "tpu"}, "device is 'tpu'; expected 'cuda' or 'cpu'"),
        ({"name": " "}, "name is ' '"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, said):
    with pytest.raises(UsageError) as caught:
        profile(int, **{"device": "cpu", **wrong})
    assert str(caught.value).startswith(said)


def test_what_is_not_a_callable_is_refused():
    with pytest.raises(UsageError, match="given a Tensor; expected a callable"):
        profile(torch.zeros(1), device="cpu")

    async def later():
        return 1

    with pytest.raises(UsageError, match="later is a generator or coroutine"):
        profile(later, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_must_be_there_if_it_is_asked_for():
    with pytest.raises(EnvironmentMissing, match="torch sees no CUDA device"):
        profile(int, device="cuda")


COMPILED = """
import moeprof, torch

@torch.library.custom_op("moeprof_test::layer", mutates_args=())
def layer(x: torch.Tensor) -> torch.Tensor:
    with moeprof.stage("gemm"):
        return x @ x

@layer.register_fake
def _(x):
    return torch.empty_like(x)

compiled = torch.compile(lambda x: layer(x) + 1, backend="eager", fullgraph=True)
run = moeprof.profile(compiled, torch.ones(4, 4), name="compiled", device="cpu", iterations=2)
print(*(info.row for info in run.solution.stages))
"""


def test_scopes_work_where_a_compiler_does_not_look():
    """Inside a custom operator, the way servers hide a layer from torch.compile.

    In a process of its own: the compiler imports triton, which other tests must be first to do.
    """
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "outside gemm outside\n"), done.stderr


def test_the_documented_example_runs(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (root / "docs" / "python-interface.md").read_text()
    module, script = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(module + script, "docs/python-interface.md", "exec"), {})
    said = capsys.readouterr().out
    rows = re.findall(r"^ (\w+) +\d+ +[\d,.]+ +[\d.]+ %", said, re.MULTILINE)
    assert rows == ["routing", "gemm1", "swiglu", "gemm2", "outside"]
    assert len(store.find_runs(tmp_path / "traces" / "runs", solution="moe_layer")) == 1


def test_a_profile_leaves_other_threads_alone():
    done = threading.Event()
    heard = []

    def busy():
        while not done.is_set():
            with stage("elsewhere"):
                heard.append(LISTENER.get())

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        run = profile(time.sleep, 0.0005, name="sleep", device="cpu", **QUICK)
    finally:
        done.set()
        thread.join()
    assert run.solution.stage_names == ("outside",)
    assert set(heard) == {None}


# -- what only a GPU's record has, on hand-made ones ----------------------------------------------


def _stretches(*rows: str) -> list[StageInfo]:
    counts: dict[str, int] = {}
    infos = []
    for position, row in enumerate(rows):
        counts[row] = counts.get(row, 0) + 1
        name = row if counts[row] == 1 else f"{row} #{counts[row]}"
        resumes = row == "outside" and position > 0
        infos.append(StageInfo(name, (), "callable", (), (), row=row, resumes=resumes))
    return infos


def _callable_run() -> Run:
    """A CUDA record of outside, gemm, outside, gemm, outside: 0, 2, 1, 2 and 0 launches."""
    infos = _stretches("outside", "gemm", "outside", "gemm", "outside")
    launches = [0, 2, 1, 2, 0]
    script = [
        (info.name, [builders.Launch(f"{info.name}/{i}", 9_000) for i in range(number)])
        for info, number in zip(infos, launches, strict=True)
    ]
    run = builders.make_run(script, stages=infos)
    return replace(run, workload=replace(run.workload, definition="callable:mine", constants={}))


def test_stretches_of_a_gpu_record_share_a_row_and_the_identity_closes():
    explained = attribution.profile(_callable_run())
    assert explained.source == "reconstructed"
    assert [(row.name, row.operations) for row in explained.stages] == [("gemm", 4), ("outside", 1)]
    assert explained.stage("gemm").busy_ns == pytest.approx(36_000)
    assert explained.residual_ns == pytest.approx(0, abs=1e-6)


def test_a_gpu_record_is_shown_without_work_that_nobody_knows():
    lines = text(render_run(_callable_run()), width=160)
    gemm = next(line for line in lines if line.startswith("gemm "))
    assert gemm.startswith("gemm 2 36.0 ")
    header = " ".join(lines)
    assert "GB/s" not in header and "needed" not in header


def test_two_variants_are_compared_part_by_part():
    gpu = _callable_run()
    timelines = tuple(
        replace(timeline, iterations=tuple(_longer(one) for one in timeline.iterations))
        for timeline in gpu.timelines
    )
    slower = replace(gpu, timelines=timelines, solution=replace(gpu.solution, name="slower"))
    comparison = compare(*explain_pair(gpu, slower))
    differences = {part.name: part.after.busy_ns - part.before.busy_ns for part in comparison.parts}
    assert differences == {"gemm": 4 * 500, "outside": 500}
    assert all(part.necessary.rows is part.necessary.bytes is None for part in comparison.parts)
    lines = text(render_comparison(comparison), width=160)
    assert "workload T = 7, callable:mine; results were not checked" in lines


def _longer(iteration: Iteration) -> Iteration:
    """The same operations, each half a microsecond longer."""
    return replace(iteration, end_ns=tuple(end + 500 for end in iteration.end_ns))


def test_operations_of_other_threads_are_charged_by_time():
    own = Operation("own", "kernel", "first", 7)
    other = Operation("other", "kernel", "", 7)
    iterations = tuple(
        Iteration(
            operation_set=0,
            start_ns=(10, 30, 50),
            end_ns=(20, 40, 60),
            launch_begin_ns=(-5, 5, launch),
            launch_end_ns=(-4, 6, launch + 1),
            stage_begin_ns=(0, 40),
            stage_end_ns=(40, 80),
        )
        for launch in (39, 40, 39)
    )
    timeline = TimelinePass("api", ((other, own, other),), iterations)
    charged, most = charge_by_time(timeline, ("first", "second"))
    assert most == 2
    stages = [[o.stage for o in operations] for operations in charged.operation_sets]
    assert stages == [["first", "first", "first"], ["first", "first", "second"]]
    assert [i.operation_set for i in charged.iterations] == [0, 1, 0]
    assert charge_by_time(charged, ("first", "second")) == (charged, 0)
