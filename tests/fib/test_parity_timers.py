"""moeprof's copies of flashinfer-bench's timers beside the originals, step by step, on a CPU.

Both run here on CPU tensors with CUDA's events and waits, and CUPTI's switches, replaced by entries
in a log; every tensor operation enters it too. Equal logs are equal timers.
"""

from __future__ import annotations

import ast
import importlib.metadata
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from moeprof.contract import STEPS, Solution, Step, stage
from moeprof.fib.exported import Scratch
from moeprof.measure.forward import Forward
from moeprof.measure.straight_line import StraightCall, straight_line
from moeprof.problem.operation import INPUTS
from moeprof.solutions.catalog import FORWARD_INPUTS
from moeprof.timing import parity

WARMUP, ITERATIONS = 2, 3
TOKENS = 5


class Log(TorchDispatchMode):
    """The names of what happens, in order; of operations with the sizes of large outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[str] = []
        self.quiet = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.quiet:
            self.entries.append(f"{func._schema.name} {tuple(result.shape)}")
        return result


class Event:
    """A CUDA event that logs. made: how many exist; their numbers are in order of making."""

    made = 0

    def __init__(self, log: Log) -> None:
        self.log, self.number = log, Event.made
        Event.made += 1
        log.entries.append(f"event {self.number} made")

    def record(self) -> None:
        self.log.entries.append(f"event {self.number} recorded")

    def elapsed_time(self, other: Event) -> float:
        return 0.25 + self.number


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    found = Log()
    Event.made = 0
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: Event(found))
    monkeypatch.setattr(
        torch.cuda, "synchronize", lambda device=None: found.entries.append("synchronize")
    )
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """256 MB on a CPU is slow to zero; the size itself is compared apart."""
    monkeypatch.setattr(parity, "EVENT_FLUSH_BYTES", 64)


def solution() -> Solution:
    @stage(*STEPS, writes="output")
    def forward(hidden_states: Any, gemm1_weights: Any, output: Any) -> None:
        output.copy_(hidden_states + gemm1_weights.sum())

    return Solution("toy", (forward,))


def given() -> dict[str, Any]:
    tensors: dict[str, Any] = {name: torch.ones(2) for name in FORWARD_INPUTS}
    tensors |= {"hidden_states": torch.ones(TOKENS, 4), "seq_len": TOKENS}
    tensors |= {"local_expert_offset": 32, "routed_scaling_factor": 2.5, "num_experts": 256}
    return {**tensors, "output": torch.zeros(TOKENS, 4), "buffers": None}


def test_event_pairs_are_taken_step_by_step_as_0_1_2_takes_them(
    log: Log, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = pytest.importorskip("flashinfer_bench.bench.timing")
    assert parity.EVENT_FLUSH_BYTES == 64
    monkeypatch.setattr(
        theirs,
        "_get_empty_cache_for_benchmark",
        lambda device: torch.empty(16, dtype=torch.int, device=device),
    )
    call = StraightCall(solution(), given())
    with log:
        latency_ms = theirs.time_runnable(
            call.runnable, list(call.arguments), WARMUP, ITERATIONS, "cpu"
        )
    expected, log.entries = log.entries, []
    Event.made = 0
    with log:
        samples = parity.event_pairs(call, WARMUP, ITERATIONS, trial=1)
    assert log.entries == expected
    assert sum("aten::clone" in entry for entry in expected) == 9 * (WARMUP + ITERATIONS)
    mean_us = sum(sample.span_us for sample in samples) / ITERATIONS
    assert mean_us == pytest.approx(latency_ms * 1e3) and samples[0].trial == 1


def test_the_buffer_that_is_zeroed_has_the_size_of_0_1_2s(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pytest.importorskip("flashinfer_bench.bench.timing")
    with torch.device("meta"):
        buffer = theirs._get_empty_cache_for_benchmark("meta")
    assert buffer.numel() * buffer.element_size() == parity.EVENT_FLUSH_BYTES


class FakeCupti:
    """moeprof's session and cupti-python's module at once: recording and reading the clock log."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.clock = 0
        self.recorded: list[dict[str, bool]] = []

    def now_ns(self) -> int:
        self.log.entries.append("clock read")
        self.clock += 1_000
        return self.clock

    @contextmanager
    def recording(self, **asked: bool) -> Iterator[None]:
        self.recorded.append(asked)
        self.log.entries.append("recording on")
        yield
        self.log.entries.append("recording off")

    def collect(self, name: str, iterate: Callable[[], Any]) -> Any:
        return name, iterate()


def cupti_module(fake: FakeCupti) -> types.ModuleType:
    """What flashinfer.testing uses of cupti-python."""
    cupti: Any = types.ModuleType("cupti.cupti")
    kinds = ("RUNTIME", "CONCURRENT_KERNEL", "DRIVER", "MEMCPY", "MEMSET")
    cupti.ActivityKind = types.SimpleNamespace(**{kind: kind for kind in kinds})
    cupti.activity_enable = lambda kind: (
        kind == kinds[0] and fake.log.entries.append("recording on")
    )
    cupti.activity_disable = lambda kind: (
        kind == kinds[0] and fake.log.entries.append("recording off")
    )
    cupti.activity_register_callbacks = lambda *callbacks: None
    cupti.activity_flush_all = lambda flag: None
    cupti.finalize = lambda: None
    cupti.get_timestamp = fake.now_ns
    package: Any = types.ModuleType("cupti")
    package.cupti = cupti
    return package


def _is_of_the_estimate(entry: str) -> bool:
    """The events by which main's timer guesses how long a forward takes: sizes were given."""
    return entry.startswith("event")


def _without_waits_for_nothing(entries: list[str]) -> list[str]:
    """A wait right after a wait finds nothing to wait for."""
    pairs = zip(["", *entries], entries, strict=False)
    return [entry for before, entry in pairs if (before, entry) != ("synchronize",) * 2]


def test_spans_are_taken_step_by_step_as_main_takes_them(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    testing = pytest.importorskip("flashinfer.testing.utils")
    fake = FakeCupti(log)
    package = cupti_module(fake)
    monkeypatch.setitem(sys.modules, "cupti", package)
    monkeypatch.setitem(sys.modules, "cupti.cupti", package.cupti)
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "13.0.1" if name == "cupti-python" else version(name),
    )
    monkeypatch.setattr(testing, "get_l2_cache_size", lambda device: (3 << 20) + 5)
    monkeypatch.setattr(testing, "_infer_device_from_tensors", lambda *arguments: "cpu")
    call = StraightCall(solution(), given())
    with log, pytest.raises(ValueError, match="No kernel activities"):
        testing.bench_gpu_time_with_cupti(
            fn=call.runnable,
            dry_run_iters=WARMUP,
            repeat_iters=ITERATIONS,
            input_args=call.arguments,
            cold_l2_cache=True,
        )
    expected, log.entries = log.entries, []
    with log:
        name, windows = parity.kernel_spans(fake, call, (3 << 20) + 5, WARMUP, ITERATIONS, 1)
    kept = [entry for entry in expected if not _is_of_the_estimate(entry)]
    assert _without_waits_for_nothing(log.entries) == _without_waits_for_nothing(kept)
    assert "aten::zero_ (6291456,)" in expected
    assert fake.recorded == [{"api": True, "tags": False, "every_call": True}]
    assert name == "fib_span" and len(windows) == ITERATIONS
    assert not any("clone" in entry for entry in expected)


def test_observed_pairs_differ_from_plain_ones_by_clocks_alone(log: Log, small: None) -> None:
    call = StraightCall(solution(), given())
    with log:
        parity.event_pairs(call, WARMUP, ITERATIONS, trial=0)
    expected, log.entries = log.entries, []
    Event.made = 0
    fake = FakeCupti(log)
    with log:
        samples, (name, windows) = parity.observed_event_pairs(fake, call, WARMUP, ITERATIONS, 2)
    added = ("clock read", "recording on", "recording off")
    kept = [entry for entry in log.entries if entry not in added]
    assert kept[: len(expected)] == expected and len(kept) == 2 * len(expected)
    assert name == "fib_observed" and [s.trial for s in samples] == [0] * 3 + [1] * 3
    for window in windows:
        assert window.entry <= window.stage_begin[0] <= window.stage_end[0] <= window.exit
    assert len(windows) == len(samples) == 2 * ITERATIONS


# ---------------------------------------------------------------- the call


def staged() -> Solution:
    @stage(Step.ROUTING, writes=("left", "right"))
    def routing(hidden_states: Any, num_experts: int, *, factor: int = 2) -> tuple[Any, Any]:
        return hidden_states * factor, hidden_states * num_experts

    @stage(Step.PREPARE_MOE_INPUT, writes="scratch")
    def prepare(left: Any, gemm1_weights: Any, buffers: Any, seq_len: int) -> Any:
        kept = buffers.empty("kept", (seq_len,), torch.float32, "cpu")
        kept.fill_(buffers.once("sum", gemm1_weights, torch.sum))
        return kept

    @stage(*STEPS[2:], writes="output")
    def rest(left: Any, right: Any, scratch: Any, output: Any) -> None:
        output.copy_(left + right + scratch[:, None])

    return Solution("staged", (routing.with_options(factor=3), prepare, rest), keeps_buffers=True)


def test_a_solution_in_a_straight_line_computes_the_same() -> None:
    from moeprof.contract import Buffers

    tensors = {**given(), "buffers": Buffers(keep=True)}
    forward = Forward(staged(), tensors)
    wanted = forward.output(forward()).clone()
    call = StraightCall(staged(), tensors)
    assert len(call.arguments) == len(INPUTS) + 1
    arguments = parity.cloned(call.arguments)
    assert call(arguments) is None
    assert torch.equal(arguments[-1], wanted) and wanted[0, 0] == 3 + 256 + 2
    arguments = parity.cloned(call.arguments)
    arguments[FORWARD_INPUTS.index("gemm1_weights")].fill_(5.0)
    call(arguments)
    assert arguments[-1][0, 0] == 3 + 256 + 10  # nothing kept of the first weights


def test_what_the_last_stage_returns_is_copied_as_an_exported_solution_does() -> None:
    @stage(*STEPS[1:], writes="output")
    def returning(left: Any, right: Any) -> Any:
        return left - right

    solution = Solution("returning", (staged().stages[0], returning))
    tensors = given()
    call = StraightCall(solution, tensors)
    assert call(list(call.arguments)) is None and len(call.arguments) == len(INPUTS) + 1
    assert torch.equal(tensors["output"], torch.full((TOKENS, 4), 3.0 - 256.0))


def test_one_function_of_the_definitions_arguments_is_called_itself() -> None:
    def run(*arguments: Any) -> Any:
        return arguments[2] * 2

    from moeprof.contract import Stage

    tensors = given()
    opaque = Stage("forward", STEPS, FORWARD_INPUTS, ("output",), run, "users")
    function, destination = straight_line(Solution("users", (opaque,)), tensors)
    assert function is run and not destination
    call = StraightCall(Solution("users", (opaque,)), tensors)
    assert len(call.arguments) == len(INPUTS)
    assert torch.equal(call(list(call.arguments)), torch.full((TOKENS, 4), 2.0))


def test_scratch_memory_is_that_of_an_exported_solution() -> None:
    scratch = Scratch(keep=True)
    seen: list[Any] = []

    @stage(*STEPS, writes="output")
    def forward(hidden_states: Any, buffers: Any, output: Any) -> None:
        seen.append(buffers)

    call = StraightCall(Solution("toy", (forward,), keeps_buffers=True), given())
    call(list(call.arguments))
    assert type(seen[-1]) is type(scratch.of(TOKENS, torch.device("cpu")))
    assert seen[-1] is seen[0] and seen[-1].keep


@pytest.mark.parametrize("name", ["triton_v2", "triton_v3"])
def test_the_straight_line_is_that_of_the_exported_solution(name: str) -> None:
    """Statement by statement, but for the names of functions, constants and memory."""
    from moeprof.measure import straight_line as module
    from moeprof.problem.dataset import Dataset, own_root
    from moeprof.solutions.catalog import load_solution
    from moeprof.solutions.composition import exported, returns_values

    definition = Dataset(own_root()).definition("dsv3")
    text = exported(name, definition, "moeprof", "cpu", True).source("main.py")
    solution = load_solution(name, "cpu").solution
    returning = [bool(returns_values(stage.function)) for stage in solution.stages]
    assert _statements(text) == _statements(module._source(solution, returning))
    assert len(_statements(text)) == len(solution.stages) + 2


def _statements(text: str) -> list[tuple[list[str], list[str]]]:
    """Of each statement of ``run`` the names it gives and those it is given."""
    (run,) = (n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == "run")
    found = []
    for statement in run.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        given = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        value = statement.value if isinstance(statement, ast.Assign | ast.Expr) else statement
        if isinstance(value, ast.Constant):  # the docstring
            continue
        inside = value.args if isinstance(value, ast.Call) else [value]
        read = [n.id.lower() for a in inside for n in ast.walk(a) if isinstance(n, ast.Name)]
        found.append((given, read))
    return found
