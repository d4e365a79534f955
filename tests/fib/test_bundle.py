"""A bundle's files: what is carried along, and that nothing but import statements is rewritten."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from moeprof.errors import UsageError
from moeprof.fib.bundle import Places, bundle, identifier
from moeprof.solutions.catalog import solution_names
from moeprof.solutions.sources import package_folder

STAGES = package_folder()
PLACES = Places(STAGES)


def of_solution(name):
    file = STAGES / "solutions" / f"{name}.py"
    return bundle([(file, ("stages", "solutions", name))], PLACES)


def of_user(folder, name="mine"):
    """The bundle of ``folder/NAME.py``; its files by path."""
    places = Places(STAGES, folder)
    made = bundle([(folder / f"{name}.py", places.user(name))], places)
    return {source.path: source.content for source in made.sources}


def without_imports(text):
    """What a file says apart from its imports, lines included."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody", "handlers"):
            nodes = getattr(node, field, None)
            if isinstance(nodes, list):
                kept = [n for n in nodes if not isinstance(n, ast.Import | ast.ImportFrom)]
                setattr(node, field, kept)
    return ast.dump(tree, include_attributes=True)


@pytest.mark.parametrize("name", solution_names())
def test_of_a_stage_only_imports_are_rewritten_and_each_finds_its_file(name):
    made = of_solution(name)
    paths = {source.path for source in made.sources}
    assert f"stages/solutions/{name}.py" in paths and "contract.py" in paths
    for source in made.sources:
        own = STAGES.parent / source.path
        own = own if own.exists() else STAGES.parent / "moeprof" / source.path
        assert without_imports(source.content) == without_imports(own.read_text())
        folder = Path(source.path).parent
        for node in ast.walk(ast.parse(source.content)):
            if isinstance(node, ast.Import):
                assert not {a.name.split(".")[0] for a in node.names} & {"stages", "moeprof"}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.split(".")[0] not in ("stages", "moeprof")
            elif isinstance(node, ast.ImportFrom):
                place = folder
                for _ in range(node.level - 1):
                    assert place != Path(), f"{source.path}: above the package"
                    place = place.parent
                target = place.joinpath(*(node.module or "").split("."))
                modules = [target, *(target / alias.name for alias in node.names)]
                assert any(
                    f"{m}.py" in paths or f"{m}/__init__.py" in paths for m in map(Path, modules)
                ), f"{source.path}: {ast.unparse(node)}"


def test_installed_modules_are_listed_and_those_of_python_are_not():
    assert of_solution("triton_v2").third_party == ("torch", "triton")
    assert of_solution("cutedsl_v3").third_party == ("cutlass", "torch", "triton")
    assert of_solution("reference").third_party == ("torch",)


def test_twins_come_along_and_other_solutions_do_not():
    paths = {source.path for source in of_solution("triton_v3").sources}
    assert "stages/libraries/deep_gemm_twin.py" in paths
    assert not [path for path in paths if "sgl" in path or "cutedsl" in path]
    assert {path for path in paths if path.startswith("stages/solutions")} == {
        "stages/solutions/__init__.py",
        "stages/solutions/triton_v3.py",
    }


def test_every_form_of_import(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os, helper, torch as t  # several\n"
        "import helper as h\n"
        "from helper import (  # kept\n    one,\n    two as zwei,\n)\n"
        'text = "é"; from pack import inner\n'
        "import pack.inner as deep\n"
        "def f():\n    from pack.inner import three; import moeprof.contract as c\n    return c\n"
        "from stages.routing.triton import routing\n"
    )
    (tmp_path / "helper.py").write_text("from json import loads\none = two = 1\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "inner.py").write_text("import helper\nfrom .other import four as three\n")
    (tmp_path / "pack" / "other.py").write_text("four = 4\n")
    made = of_user(tmp_path)
    assert made["solution/mine.py"] == (
        "import os; from . import helper; import torch as t  # several\n"
        "from . import helper as h\n"
        "from .helper import (  # kept\n    one,\n    two as zwei,\n)\n"
        'text = "é"; from .pack import inner\n'
        "from .pack import inner as deep\n"
        "def f():\n    from .pack.inner import three; from .. import contract as c\n    return c\n"
        "from ..stages.routing.triton import routing\n"
    )
    assert made["solution/pack/inner.py"] == (
        "from .. import helper\nfrom .other import four as three\n"
    )
    assert "solution/pack/other.py" in made and "stages/routing/triton.py" in made
    assert all(text.strip() for text in made.values()), "flashinfer-bench takes no empty file"


def test_what_is_installed_goes_before_what_lies_beside(tmp_path):
    """As Python itself finds it where moeprof loads the file."""
    (tmp_path / "mine.py").write_text("import numpy, click\n")
    (tmp_path / "numpy.py").write_text("")
    assert of_user(tmp_path) == {"solution/mine.py": "import numpy, click\n"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("from moeprof.records import Run", ("mine.py:1", "moeprof.records", "moeprof.contract")),
        ("from moeprof import stage", ("mine.py:1", "moeprof.contract")),
        ("import helper.part", ("mine.py:1", "from helper.part import")),
        ("from stages.routing.tritn import routing", ("mine.py:1", "stages.routing.tritn")),
        ("x = (", ("mine.py:1", "never closed")),
    ],
)
def test_an_import_that_cannot_be_carried_is_one_line(tmp_path, text, parts):
    (tmp_path / "mine.py").write_text(text + "\n")
    (tmp_path / "helper").mkdir()
    (tmp_path / "helper" / "part.py").write_text("x = 1\n")
    with pytest.raises(UsageError) as caught:
        of_user(tmp_path)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("stem", "name"), [("mine", "mine"), ("my-kernel.v2", "my_kernel_v2"), ("3d", "_3d")]
)
def test_a_file_name_becomes_a_module_name(stem, name):
    assert identifier(stem) == name


COMPILE = """
import ctypes, json, sys
from pathlib import Path

class Blocked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in ("moeprof", "stages"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked)
sys.path.insert(0, sys.argv[1])
from cutlass.runtime import find_runtime_libraries
ctypes.CDLL(find_runtime_libraries()[0], ctypes.RTLD_GLOBAL)
from carried.stages.libraries import cutedsl_kernels as kernels
from carried.stages.libraries.object_cache import ObjectCache

cache, variant = ObjectCache(Path(sys.argv[2])), kernels.Variant(8, 512, 256, gated=True)
kernels.executor_of(variant, cache, lambda function: function)
kernels.compiled = None  # from here on an object must be found
kernels.executor_of(variant, cache, lambda function: function)
print(cache.find(kernels.object_key(variant)).stat().st_size)
"""


def test_the_cute_dsl_kernels_compile_from_a_bundle_and_are_kept(tmp_path):
    """The DSL reads the source of what it compiles, imports included."""
    pytest.importorskip("cutlass")
    for source in of_solution("cutedsl_v3_2").sources:
        path = tmp_path / "carried" / source.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.content)
    program = [sys.executable, "-c", COMPILE, str(tmp_path), str(tmp_path / "objects")]
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 1000
