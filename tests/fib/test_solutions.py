"""Solutions of a TraceSet: whose they are, when they run, and what becomes of bad ones."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from inspect import getclosurevars
from pathlib import Path
from typing import Any

import pytest
import torch

from moeprof.cli.main import run_command
from moeprof.contract import STEPS
from moeprof.errors import EnvironmentMissing, MoeprofError, UsageError
from moeprof.fib.find import find_solution
from moeprof.fib.unpack import source_hash
from moeprof.measure.inputs import changed_inputs
from moeprof.measure.reference import Reference
from moeprof.measure.workbench import Case, Problem, still_right, try_out
from moeprof.records import Settings
from moeprof.solutions.catalog import LoadedSolution, check_exists, load_solution
from moeprof.timing.device import CpuDevice
from tests.fib import tracesets
from tests.fib.tracesets import ARGUMENTS, filling

TOKENS = 7


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tracesets.make(tmp_path / "set")


def load(root: Path, name: str = "theirs") -> LoadedSolution:
    return load_solution(f"fib:{name}", "cpu", dataset=root, trusted=True)


@pytest.fixture(scope="module")
def bench() -> tuple[Problem, Reference, Settings]:
    """The tiny problem of 7 tokens, what is right on it, and how that is judged."""
    from moeprof.cli.planning import RunOptions, make_choices
    from moeprof.measure.plan import Inputs, Plan

    options = RunOptions(
        solution="reference", num_tokens=TOKENS, workload=None, all_workloads=False,
        definition="tiny", routing="uniform", weights="quantised", dataset=None, device="cpu",
        preset=None, warmup=0, iterations=2, trials=1, l2="warm", seed=0, passes="bare",
        allow_no_local_work=False,
    )  # fmt: skip
    chosen = make_choices(options)
    plan = Plan(
        loaded=load_solution("reference", "cpu"),
        definition=chosen.definition,
        workloads=chosen.workloads,
        dataset=chosen.dataset,
        settings=chosen.settings,
        routing="uniform",
        weights="quantised",
        device="cpu",
    )
    problem = Inputs(plan).problem(chosen.workloads[0], "uniform")
    return problem, Reference(plan.loaded.solution), chosen.settings


@pytest.fixture
def verdict(root: Path, bench: Any) -> Callable[..., Case]:
    """The case of a solution after its verdict; every input must hold what it held before."""

    def judged(main: str, style: bool = True, **changes: Any) -> Case:
        problem, reference, settings = bench
        tracesets.put(root, tracesets.solution("theirs", main, style=style, **changes))
        case = problem.case(load(root).solution)
        try_out(case, reference, CpuDevice(), settings)
        if "changed its input" in (case.correctness.problem or ""):
            for name, values in fresh.items():
                problem.inputs[name].copy_(values)
        assert changed_inputs(problem.untouched, problem.inputs) == ()
        return case

    fresh = {n: v.clone() for n, v in bench[0].inputs.items() if isinstance(v, torch.Tensor)}
    return judged


# ---------------------------------------------------------------- trust


def test_foreign_code_is_not_touched_without_the_users_word(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "ran"
    document = tracesets.solution(main=f"open({str(mark)!r}, 'w')\n" + filling())
    path = tracesets.put(root, document)
    arguments = ["run", "--solution", "fib:theirs", "--dataset", str(root), "--num-tokens", "7"]
    assert run_command(arguments) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and not mark.exists()
    place = path.relative_to(root).as_posix()
    assert f"fib:theirs is foreign code of 'somebody' ({place}, sha256 " in told
    assert "--trust, which holds for this command only" in told
    for command in (["explain", "fib:theirs", "triton_v2"], ["timeline", "-o", str(tmp_path / "t"),
                    "--tool", "torch", "--solution", "fib:theirs"]):  # fmt: skip
        assert run_command([*command, "--dataset", str(root)]) == 2
        assert "is foreign code of 'somebody'" in capsys.readouterr().err
    with pytest.raises(UsageError, match="foreign code"):
        load_solution("fib:theirs", "cpu", dataset=root)
    assert not mark.exists()


@pytest.mark.parametrize("command", ["check", "baseline record"])
def test_a_check_does_not_take_foreign_code(
    root: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tracesets.put(root, tracesets.solution())
    given = ["--solution", "fib:theirs", "--dataset", str(root)]
    given += ["--baseline", "b"] if command == "check" else []
    assert run_command([*command.split(), *given]) == 2
    assert "fib:theirs is" in capsys.readouterr().err


# ---------------------------------------------------------------- finding and loading


def test_a_solution_is_one_opaque_stage_with_an_identity_and_no_path(root: Path) -> None:
    tracesets.put(root, tracesets.solution())
    loaded = load(root)
    (stage,) = loaded.solution.stages
    assert (stage.name, stage.covers, stage.backend) == ("forward", STEPS, "python")
    assert stage.reads == (*ARGUMENTS.split(", "), "output") and stage.writes == ("output",)
    assert loaded.solution.name == "fib:theirs" and loaded.author == "somebody"
    file = find_solution("fib:theirs", root)
    assert loaded.fib_hash == file.solution.hash
    assert loaded.source_hash == source_hash(file.solution)
    assert loaded.foreign and loaded.opaque
    assert str(root) not in repr((loaded.solution.name, loaded.solution.description, stage.backend))


def test_the_hash_is_of_the_sources_content_alone(root: Path) -> None:
    one = tracesets.solution("one", files={"more.py": "A = 1"})
    two = tracesets.solution("two", files={"other.py": "A = 1"}, author="another")
    three = tracesets.solution("three", files={"more.py": "A = 2"})
    for document in (one, two, three):
        tracesets.put(root, document)
    hashes = [load(root, name).source_hash for name in ("one", "two", "three")]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_same_solution_loads_twice_from_two_folders(root: Path, tmp_path: Path) -> None:
    tracesets.put(root, tracesets.solution())
    other = tracesets.make(tmp_path / "other")
    tracesets.put(other, tracesets.solution())
    first, second = load(root), load(other)
    assert first.source_hash == second.source_hash
    codes = [getclosurevars(one.solution.stages[0].function).nonlocals["function"].__code__
             for one in (first, second)]  # fmt: skip
    assert codes[0].co_filename != codes[1].co_filename


@pytest.mark.parametrize("broken", ["{", "[]", "null", '{"name": "theirs"}', "\0", ""])
def test_broken_files_beside_it_are_passed_over_and_counted(root: Path, broken: str) -> None:
    tracesets.put(root, tracesets.solution())
    tracesets.put(root, broken, file="broken")
    assert load(root).solution.name == "fib:theirs"
    with pytest.raises(UsageError, match=r"no solution 'thiers' \(1 files cannot be read\); did"):
        find_solution("fib:thiers", root)


def test_a_name_that_two_files_have_is_no_name(root: Path) -> None:
    tracesets.put(root, tracesets.solution(), file="one")
    tracesets.put(root, tracesets.solution(), file="two")
    with pytest.raises(UsageError, match=r"is defined by .*one\.json and .*two\.json"):
        find_solution("fib:theirs", root)


def test_without_a_trace_set_it_is_said_where_one_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--dataset DIR and --trust"):
        check_exists("fib:theirs")
    with pytest.raises(UsageError, match="holds no folder solutions"):
        check_exists("fib:theirs", dataset=tmp_path)


NAME = "bad\x1b[2Jname/with\nlines"


def test_a_name_that_steers_a_terminal_is_shown_harmlessly_and_can_be_asked_for(root: Path) -> None:
    tracesets.put(root, tracesets.solution(NAME, author="\x07ring"), file="x")
    for asked in (NAME, "bad\ufffd[2Jname/with lines"):
        loaded = load(root, asked)
        assert loaded.solution.name == "fib:bad\ufffd[2Jname/with lines"
        assert loaded.author.isprintable() and loaded.solution.description.isprintable()
    with pytest.raises(UsageError) as caught:
        check_exists(f"fib:{NAME}", dataset=root)
    assert str(caught.value).isprintable()


LOADING = {
    "arity": ("def run(a, b): pass", {}, "run takes 2 parameters; expected 11"),
    "arity of a returning one": (filling(), {"style": False}, "takes 11 parameters; expected 10"),
    "keyword needed": (f"def run({ARGUMENTS}, output, *, x): pass", {}, "and needs 'x'"),
    "no entry": ("x = 1", {}, "main.py holds no 'run'"),
    "entry is a value": ("run = 3", {}, "main.py holds a int called 'run'"),
    "syntax": ("def run(:", {}, r"main\.py:1: invalid syntax"),
    "null byte": ("x = '\0'", {}, r"raised SyntaxError|null byte"),
    "raises": ("x = 1\nraise KeyError('k')", {}, r"main\.py:2 raised KeyError: 'k'"),
    "exits": ("import sys\nsys.exit(0)", {}, r"main\.py:2 raised SystemExit \(sys\.exit\(0\)\)"),
    "missing module": ("import no_such_thing", {}, "ModuleNotFoundError: No module named 'no_s"),
    "absolute import of a sibling": (
        "import beside_theirs",
        {"files": {"beside_theirs.py": "x = 1"}},
        "No module named 'beside_theirs'",
    ),
    "up": (None, {"files": {"../x.py": "1"}}, r"1 files cannot be read"),
    "absolute": (None, {"files": {"/tmp/x.py": "1"}}, r"1 files cannot be read"),
    "drive": (None, {"files": {"C:\\x.py": "1"}}, "a relative path of plain names"),
    "backslashes": (None, {"files": {"..\\..\\x.py": "1"}}, "a relative path of plain names"),
    "backslash": (None, {"files": {"a\\b.py": "1"}}, "a relative path of plain names"),
    "control character": (None, {"files": {"a\x1b.py": "1"}}, "a relative path of plain names"),
    "file and folder": (None, {"files": {"a": "1", "a/b.py": "1"}}, "is a file and a folder"),
    "long part": (None, {"files": {"a" * 300: "1"}}, "a relative path of plain names"),
    "entry not python": (None, {"files": {"a.txt": "1"}, "entry_point": "a.txt::run"}, "a .py"),
    "no entry file": (None, {"entry_point": "other.py::run"}, "1 files cannot be read"),
    "surrogate": ("x = '\ud800'", {}, "1 files cannot be read"),
}


@pytest.mark.parametrize("case", LOADING)
def test_what_does_not_load_is_one_line(root: Path, case: str) -> None:
    main, changes, expected = LOADING[case]
    tracesets.put(root, tracesets.solution("theirs", main, **changes))
    before = set(sys.modules)
    with pytest.raises(MoeprofError, match=expected) as caught:
        load(root)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()
    assert "/moeprof-fib-" not in str(caught.value)
    assert not {name for name in set(sys.modules) - before if "no_such" in name}


def test_a_language_without_its_library_is_the_machines_lack(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    known = importlib.util.find_spec
    absent = ("tilelang", "flashinfer_bench")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in absent else known(name, *a)
    )
    tracesets.put(root, tracesets.solution("t", language="tilelang"))
    tracesets.put(root, tracesets.solution("c", language="cuda", files={"k.cu": "int x;"}))
    with pytest.raises(EnvironmentMissing, match="needs tilelang, which is not installed"):
        load(root, "t")
    with pytest.raises(EnvironmentMissing, match="is cuda, which flashinfer_bench builds"):
        load(root, "c")


def test_a_file_of_endless_size_is_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moeprof.fib import find

    tracesets.put(root, tracesets.solution("good"))
    huge = tracesets.put(root, tracesets.solution("theirs"))
    with huge.open("ab") as file:
        file.truncate(find.LARGEST_FILE + 1)
    (problem,) = [f for f in find.solution_files(root) if isinstance(f, find.Unreadable)]
    assert "larger than 64 MiB" in problem.problem
    assert load(root, "good").author == "somebody"


# ---------------------------------------------------------------- verdicts

RETURNING = (
    f"import torch\nfrom .reference import run as right\nKEPT = {{}}\ndef run({ARGUMENTS}):\n"
)
CALL = f"right({ARGUMENTS})"
CACHES = filling(
    "key = hidden_states.data_ptr()\nif key in KEPT:\n    output.copy_(KEPT[key])\n    return",
    "KEPT[key] = output.clone()",
)
KEPT_ROUTING = filling(
    "routing_logits = KEPT.setdefault(routing_logits.data_ptr(), routing_logits.clone())"
)
OUTSIDE = (
    "rows, columns = output.shape\n"
    "whole = output.as_strided((rows + 2, columns), (columns, 1), output.storage_offset() {})\n"
    "whole[{}] = 0\n"
)
BAD: dict[str, tuple[str, bool, str]] = {
    "remembers its output": (CACHES, True, "returns the result of an earlier call"),
    "remembers the routing": (KEPT_ROUTING, True, "after its inputs changed in place: "),
    "writes after": (filling("", OUTSIDE.format("", "rows")), True, "in 1 rows after it"),
    "writes before": (filling("", OUTSIDE.format("- columns", "0")), True, "in 1 rows before it"),
    "changes an input": (
        filling("", "hidden_states_scale.mul_(2)"), True, "changed its input hidden_states_scale",
    ),
    "changes weights": (
        filling("", "gemm2_weights_scale[0, 0, 0] += 1"), True, "input gemm2_weights_scale",
    ),
    "leaves a row": (filling("", "output[3] = float('nan')"), True, "in 1 of 7 rows"),
    "wrong numbers": (filling("", "output.mul_(1.5)"), True, "of the output matches"),
    "raises": (filling("raise ValueError('x')"), True, "of fib:theirs raised ValueError: x"),
    "exits": (filling("import sys; sys.exit(0)"), True, "raised SystemExit (sys.exit(0))"),
    "returns None": (RETURNING + f"    {CALL}\n", False, "output is nothing, expected a tensor"),
    "returns a list": (RETURNING + f"    return [{CALL}] * 2\n", False, "output is list, expected"),
    "wrong shape": (RETURNING + f"    return {CALL}[1:]\n", False, "output has shape [6, 256]"),
    "wrong type": (RETURNING + f"    return {CALL}.float()\n", False, "output is float32"),
    "wrong device": (RETURNING + f"    return {CALL}.to('meta')\n", False, "output is on meta"),
    "transposed": (
        RETURNING + f"    return {CALL}.t().contiguous().t()\n", False, "output is not contiguous",
    ),
    "a subclass": (
        RETURNING + f"    return torch.nn.Parameter({CALL}, requires_grad=False)\n", False,
        "output is a Parameter, expected a plain torch.Tensor",
    ),
    "sparse": (RETURNING + f"    return {CALL}.to_sparse()\n", False, "expected a dense tensor"),
    "an input's memory": (
        RETURNING + "    whole = gemm1_weights.view(torch.bfloat16).view(-1)\n"
        "    return whole[:7 * 256].view(7, 256)\n", False,
        "output lies in the memory of the input gemm1_weights",
    ),
    "an input itself": (
        RETURNING + "    return hidden_states.view(torch.bfloat16)\n", False,
        "output lies in the memory of the input hidden_states",
    ),
    "one memory for all": (
        RETURNING + f"    kept = KEPT.setdefault('o', torch.empty_like({CALL}))\n"
        f"    return kept.copy_({CALL})\n", False, "returns the same memory at every call",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_solution_is_wrong_in_one_line(verdict: Callable[..., Case], case: str) -> None:
    main, style, expected = BAD[case]
    found = verdict(main, style)
    assert not found.correctness.passed and not found.passes
    assert expected in (found.correctness.problem or "")
    assert (found.correctness.problem or "").isprintable()


GOOD: dict[str, tuple[str, bool]] = {
    "fills": (filling(), True),
    "returns": (RETURNING + f"    return {CALL}\n", False),
    "returns in a tuple": (RETURNING + f"    return ({CALL},)\n", False),
    "fills and returns something": (filling("", "return 17"), True),
    "keeps weights": (
        filling("gemm2_weights = KEPT.setdefault('w', gemm2_weights.clone())"), True,
    ),
    "keeps a scratch": (
        filling("KEPT.setdefault('s', torch.empty(1)).fill_(1)"), True,
    ),
    "takes more by default": (
        f"from .reference import run as right\ndef run({ARGUMENTS}, output, x=1, **more):\n"
        f"    output.copy_({CALL})\n", True,
    ),
    "takes anything": (
        "from .reference import run as right\ndef run(*given):\n"
        "    given[-1].copy_(right(*given[:-1]))\n", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_a_right_solution_is_right_however_it_is_called(
    verdict: Callable[..., Case], case: str
) -> None:
    main, style = GOOD[case]
    found = verdict(main, style)
    assert found.correctness.passed, found.correctness.problem
    assert [p.name for p in found.passes] == ["first"]


TRITON = """
import triton
import triton.language as tl

@triton.jit
def copy(source, target, count, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    tl.store(target + place, tl.load(source + place, mask=inside), mask=inside)
"""


def test_triton_kernels_of_a_foreign_file_run(verdict: Callable[..., Case]) -> None:
    main = (
        "from .kernels import copy\nfrom .reference import run as right\n"
        f"def run({ARGUMENTS}, output):\n    result = {CALL}\n"
        "    count = result.numel()\n"
        "    copy[(count // 256 + 1,)](result, output, count, BLOCK=256)\n"
    )
    found = verdict(main, files={"kernels.py": TRITON}, language="triton")
    assert found.correctness.passed, found.correctness.problem
    past = main.replace("output, count, BLOCK", "output, count + 1, BLOCK")
    found = verdict(past, files={"kernels.py": TRITON}, language="triton")
    assert "in 1 rows after it" in (found.correctness.problem or "")


def test_a_result_remembered_only_later_is_found_after_the_clocks(
    verdict: Callable[..., Case], bench: Any
) -> None:
    main = filling(
        "KEPT['calls'] = KEPT.get('calls', 0) + 1\n"
        "if KEPT['calls'] > 5:\n    output.copy_(KEPT['result'])\n    return",
        "KEPT['result'] = output.clone()",
    )
    found = verdict(main)
    assert found.correctness.passed
    for _ in range(4):
        found.forward()
    still_right(found, bench[2])
    assert not found.correctness.passed and not found.passes
    assert "after the measurement its result is wrong" in (found.correctness.problem or "")
    good = verdict(filling())
    still_right(good, bench[2])
    assert good.correctness.passed and good.passes


CPP = """
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>
using tvm::ffi::TensorView;

void run(TensorView, TensorView, TensorView, TensorView hidden_scale, TensorView, TensorView,
         TensorView, TensorView, int64_t, double, TensorView output) {
  uint16_t* rows = static_cast<uint16_t*>(output.data_ptr());
  for (int64_t n = 0; n < output.size(0) * output.size(1); ++n) rows[n] = 0x3f80;
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
"""


def test_cpp_is_built_by_flashinfer_bench_itself(
    root: Path, tmp_path: Path, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flashinfer_bench")
    pytest.importorskip("tvm_ffi")
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    monkeypatch.setenv("FIB_CACHE_PATH", str(tmp_path / "cache"))
    built = tracesets.solution("ones", language="cpp", entry_point="main.cpp::run")
    built["sources"] = [{"path": "main.cpp", "content": CPP}]
    broken = {**built, "name": "broken", "sources": [{"path": "main.cpp", "content": "int x"}]}
    for document in (built, broken):
        tracesets.put(root, document)
    problem, reference, settings = bench
    case = problem.case(load(root, "ones").solution)
    try_out(case, reference, CpuDevice(), settings)
    assert "of the output matches" in (case.correctness.problem or "")  # it filled in ones
    assert bool((case.given["output"] == 1).all())
    with pytest.raises(MoeprofError, match="fib:broken raised BuildError") as caught:
        load(root, "broken")
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)
