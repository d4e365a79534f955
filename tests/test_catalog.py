"""Solutions by name and by path; what a user's file can do wrong; the source hash."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from moeprof.contract import STEPS, check_wiring
from moeprof.errors import ContractError, UsageError
from moeprof.solutions.catalog import FORWARD_INPUTS, load_solution, solution_names
from moeprof.solutions.sources import solution_files, source_hash, stage_backends

SOLUTIONS = {
    *("reference", "sglang_v1", "sglang_v2", "triton_v1", "triton_v2", "triton_v3"),
    *("cutedsl_v3", "cutedsl_v3_2", "flashinfer_moe"),
}
AXES = (
    "num_experts num_local_experts hidden_size intermediate_size gemm1_out_size "
    "num_hidden_blocks num_intermediate_blocks num_gemm1_out_blocks"
).split()
GIVEN = (*FORWARD_INPUTS, *AXES, "seq_len", "output", "buffers")
TEN = ", ".join(FORWARD_INPUTS)


def write(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


# ---------------------------------------------------------------- moeprof's own


def test_the_solutions_are_the_files():
    assert set(solution_names()) >= SOLUTIONS
    assert all(file.summary for file in solution_files())


def test_every_step_has_a_reference_backend_and_every_backend_says_what_it_is():
    backends = stage_backends()
    assert tuple(backends) == tuple(STEPS)
    for step, files in backends.items():
        assert "reference" in {file.name for file in files}, step
        assert all(file.summary for file in files)
    assert {"sgl", "triton"} <= {file.name for file in backends["gather"]}


@pytest.mark.parametrize("name", sorted(SOLUTIONS - {"flashinfer_moe"}))
def test_a_solution_loads_under_its_file_name_and_is_wired(name):
    loaded = load_solution(name, "cpu")
    assert loaded.solution.name == name
    assert loaded.origin == "stages"
    check_wiring(loaded.solution, GIVEN)
    assert len(loaded.source_hash) == 64


def test_all_solutions_have_different_source():
    hashes = {source_hash([file.path]) for file in solution_files()}
    assert len(hashes) == len(solution_files())


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match="no solution 'triton_v9'; did you mean triton_v"):
        load_solution("triton_v9", "cpu")


# ---------------------------------------------------------------- a user's file


def test_a_value_returning_function_becomes_one_stage(tmp_path):
    loaded = load_solution(write(tmp_path, f"def run({TEN}):\n    return 42\n"), "cpu")
    (stage,) = loaded.solution.stages
    assert (stage.name, stage.backend, loaded.solution.name) == ("forward", "mine", "mine")
    assert stage.covers == STEPS
    assert stage.reads == FORWARD_INPUTS
    assert stage.writes == ("output",)
    assert stage(*range(10)) == 42
    assert loaded.origin == "mine.py"
    check_wiring(loaded.solution, GIVEN)


def test_a_destination_passing_function_may_name_its_parameters_freely(tmp_path):
    text = "def run(a, b, c, d, e, f, g, h, i, j, out, *, tile=64):\n    out.append(tile)\n"
    (stage,) = load_solution(write(tmp_path, text), "cpu").solution.stages
    assert stage.reads == (*FORWARD_INPUTS, "output")
    written = []
    assert stage(*range(10), written) is None
    assert written == [64]


def test_files_of_two_folders_have_each_its_own_modules(tmp_path):
    loaded = {}
    for folder in ("one", "two", "one"):
        (tmp_path / folder / "helpers_xyz").mkdir(parents=True, exist_ok=True)
        write(tmp_path / folder, f"FOLDER = {folder!r}\n", "helper_xyz.py")
        write(tmp_path / folder, f"DEEPER = {folder!r}\n", "helpers_xyz/__init__.py")
        text = (
            "from helper_xyz import FOLDER\nfrom helpers_xyz import DEEPER\n"
            f"def run({TEN}):\n    return FOLDER, DEEPER\n"
        )
        loaded[folder] = load_solution(write(tmp_path / folder, text), "cpu")
        for name, one in loaded.items():
            assert one.solution.stages[0].function(*[None] * 10) == (name, name)
    assert loaded["one"].source_hash != loaded["two"].source_hash


def test_a_file_may_compose_stages_and_import_what_lies_beside_it(tmp_path):
    write(tmp_path, "NAME = 'composed'\n", "beside_it_xyz.py")
    text = (
        "from dataclasses import replace\n"
        "from beside_it_xyz import NAME\n"
        "from stages.solutions import reference\n"
        "SOLUTION = replace(reference.SOLUTION, name=NAME)\n"
    )
    first = load_solution(write(tmp_path, text), "cpu")
    assert first.solution.name == "composed"
    check_wiring(first.solution, GIVEN)
    write(tmp_path, "NAME = 'composed'  # changed\n", "beside_it_xyz.py")
    assert load_solution(str(tmp_path / "mine.py"), "cpu").source_hash != first.source_hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "holds neither SOLUTION nor run"),
        ("SOLUTION = 'gemm'\n", "holds a str"),
        ("def run(a, b):\n    pass\n", "run takes 2 positional parameters"),
        (f"def run({TEN}, *rest):\n    pass\n", "needs 'rest'"),
        (f"def run({TEN}, *, tile):\n    pass\n", "needs 'tile'"),
        ("\n\nraise ValueError('no\\nluck')\n", "mine.py:3 raised ValueError: no luck"),
        ("import json\n\njson.loads('{')\n", "mine.py:3 raised JSONDecodeError"),
        ("import not_a_module_xyz\n", "mine.py:1 raised ModuleNotFoundError"),
        ("import sys\nsys.exit(0)\n", "mine.py:2 raised SystemExit"),
        ("x = 1\ndef run(:\n", "mine.py:2: invalid syntax"),
        ("x = '\0'\n", "mine.py"),
        (
            "from moeprof.contract import stage\n@stage(writes='x')\ndef f(*a):\n    pass\n",
            "mine.py:2: stage function f takes *a",
        ),
    ],
)
def test_what_is_wrong_with_a_users_file_is_one_line(tmp_path, text, message):
    with pytest.raises(ContractError) as caught:
        load_solution(write(tmp_path, text), "cpu")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_no_file_is_a_usage_error(tmp_path):
    for path in (str(tmp_path), str(tmp_path / "absent.py")):
        with pytest.raises(UsageError, match="no solution file"):
            load_solution(path, "cpu")


# ---------------------------------------------------------------- source hash


def test_the_hash_depends_on_content_alone(tmp_path):
    text = f"def run({TEN}):\n    return 42\n"
    one = load_solution(write(tmp_path, text), "cpu").source_hash
    (tmp_path / "elsewhere").mkdir()
    assert load_solution(write(tmp_path / "elsewhere", text, "b.py"), "cpu").source_hash == one
    assert load_solution(write(tmp_path, text + "# \n"), "cpu").source_hash != one


def test_a_change_in_a_stage_changes_exactly_the_solutions_that_use_it(root, tmp_path):
    for package in ("moeprof", "stages"):
        shutil.copytree(root / package, tmp_path / package)

    def hashes():
        program = (
            "from moeprof.solutions.sources import solution_files, source_hash\n"
            "for file in solution_files(): print(file.name, source_hash([file.path]))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return dict(line.split() for line in done.stdout.splitlines())

    before = hashes()
    assert before == {file.name: source_hash([file.path]) for file in solution_files()}
    with (tmp_path / "stages" / "gather" / "triton.py").open("a") as file:
        file.write("\n# changed\n")
    after = hashes()
    changed = {name for name in before if before[name] != after[name]}
    assert "triton_v2" in changed
    assert not changed & {"reference", "sglang_v1"}
