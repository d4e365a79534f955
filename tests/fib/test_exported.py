"""What every exported solution carries: which functions it calls, and whose memory they get."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from moeprof.contract import Library, Solution, Step, stage
from moeprof.definition import Definition
from moeprof.errors import UsageError
from moeprof.fib.entry import Call, Composition, entry_text
from moeprof.fib.exported import Scratch, functions_of
from moeprof.problem.dataset import Dataset, own_root
from moeprof.solutions.catalog import solution_names
from moeprof.solutions.composition import exported, returns_values, source_of


@stage(Step.GATHER, writes="output", library=Library("a_library", "1.0"))
def gather(hidden_states, output):
    output.copy_(hidden_states)


SOLUTION = Solution("mine", (gather,))
MISSING = replace(SOLUTION, stages=(replace(gather, library=Library("a_library", stand_in="why")),))


@pytest.fixture(scope="module")
def tiny() -> Definition:
    return Dataset(own_root()).definition("tiny")


# --- functions ---


def test_the_functions_are_the_bare_ones(monkeypatch):
    assert functions_of(SOLUTION, ("gather",)) == (gather.function,)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert functions_of(SOLUTION, ("gather",)) == (gather.function,)


def test_a_twin_stands_in_only_where_there_is_no_gpu(monkeypatch):
    assert functions_of(MISSING, ("gather",)) == (gather.function,)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ImportError, match="mine needs a_library, which cannot be used here: why"):
        functions_of(MISSING, ("gather",))


def test_a_solution_with_other_stages_on_this_machine_is_refused():
    with pytest.raises(ImportError, match="has the stages gather on this machine .* with routing"):
        functions_of(SOLUTION, ("routing",))


@pytest.mark.parametrize("name", solution_names())
def test_nothing_but_the_place_of_compiled_kernels_depends_on_the_environment(name, tiny):
    solution = exported(name, tiny, "moeprof", "cpu", in_place=True)
    reading = {s.path for s in solution.sources if "environ" in s.content or "getenv" in s.content}
    assert reading <= {"stages/libraries/object_cache.py"}
    assert len(source_of(solution.description)) == 12


# --- memory ---


def address(scratch, tokens):
    buffers = scratch.of(tokens, torch.device("cpu"))
    return buffers.empty("a", (tokens, 4), torch.float32, "cpu").data_ptr()


def test_kept_memory_is_that_of_one_shape():
    scratch = Scratch(keep=True)
    kept = scratch.of(7, torch.device("cpu"))
    assert scratch.of(7, torch.device("cpu")) is kept
    assert address(scratch, 7) == address(scratch, 7)
    others = [scratch.of(7, torch.device("meta")), scratch.of(8, torch.device("meta"))]
    assert len({id(buffers) for buffers in (kept, *others)}) == 3
    assert scratch.of(7, torch.device("cpu")) is not kept  # what was given back is not handed out


def test_without_keeping_every_call_gets_its_own():
    buffers = Scratch(keep=False).of(7, torch.device("cpu"))
    tensors = [buffers.empty("a", (7,), torch.float32, "cpu") for _ in range(2)]
    assert tensors[0].data_ptr() != tensors[1].data_ptr()


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_made_of_weights_is_made_at_every_call(keep):
    buffers, source, made = Scratch(keep).of(1, None), torch.zeros(1), []
    for _ in range(2):
        buffers.once("view", source, made.append)
    assert made == [source, source]


# --- the text ---


def always(x):
    return x


def never(x):
    def inner():
        return x

    x.add_(inner())
    return


def sometimes(x):
    if x:
        return x


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (always, True),
        (partial(always, 1), True),
        (never, False),
        (sometimes, None),
        (lambda x: x, None),
        (len, None),
    ],
)
def test_whether_a_function_returns_is_read_in_its_text(function, expected):
    assert returns_values(function) is expected


def run_of(calls, in_place, definition, **functions):
    """The ``run`` of a text whose stages are ``functions``."""
    composition = Composition("mine", ("solution", "mine"), "SOLUTION", calls, True, ("Notes.",))
    text = entry_text(composition, definition, in_place)
    kept = [line for line in text.split("\n") if not line.startswith("from .")]
    names = {"functions_of": lambda solution, stages: [functions[s] for s in stages]}
    names |= {"SOLUTION": None, "Scratch": Scratch}
    exec("\n".join(kept), names)
    return names["run"]


@pytest.mark.parametrize("returns", [True, False, None])
@pytest.mark.parametrize("in_place", [True, False])
def test_the_output_arrives_whoever_makes_it(returns, in_place, tiny):
    """A stage may fill the output, return another, or do either: the caller gets the values."""
    states = torch.arange(3.0 * 256).remainder(64).reshape(3, 256)  # exact in bfloat16
    inputs = [states] * len(tiny.inputs)
    twice = (Call("first", ("hidden_states", "seq_len"), ("doubled",), True),)

    def first(x, tokens):
        assert tokens == 3
        return 2 * x

    def filling(x, output):
        output.copy_(x)

    def returning(x, output):
        return x

    for last in (filling, returning) if returns is None else (returning if returns else filling,):
        calls = (*twice, Call("last stage", ("doubled", "output"), ("output",), returns))
        run = run_of(calls, in_place, tiny, **{"first": first, "last stage": last})
        if in_place:
            output = torch.full((3, 256), torch.nan)
            assert run(*inputs, output) is None
        else:
            output = run(*inputs).float()
        assert torch.equal(output, 2 * states)


@pytest.mark.parametrize("name", ["for", "a b", "run_gather", "Scratch", "written"])
def test_a_tensor_that_cannot_be_a_variable_is_refused(name, tiny):
    calls = (Call("gather", (), (name,), True),)
    with pytest.raises(UsageError, match="rename the tensor"):
        entry_text(Composition("x", ("x",), "SOLUTION", calls, True, ()), tiny, True)
