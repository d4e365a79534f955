"""The directions of imports, parsed from every file, and the reading half without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("values", "pure", "reports", "device", "cli")
# the first part of a module's name below moeprof -> its layer; whatever is not named here is pure
LAYER_OF = {  # by room; what is not named here is pure
    **dict.fromkeys(("errors", "definition", "contract", "records", "timelines"), "values"),
    "reports": "reports",
    **dict.fromkeys(
        (
            "alerts",
            "benching",
            "capturing",
            "checking",
            "explain",
            "machine",
            "measure",
            "solutions",
            "timing",
        ),
        "device",
    ),
    **dict.fromkeys(("cli", "pytest_plugin", "__main__"), "cli"),
}
DEVICE_LIBRARIES = {
    *("torch", "triton", "sgl_kernel", "flashinfer", "deep_gemm", "cutlass", "cupti", "pynvml")
}
STAGES_MAY_IMPORT = {"torch", "triton", "sgl_kernel", "flashinfer", "deep_gemm", "cutlass"}


def _files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _imports(path: Path, whole: bool = True) -> Iterator[str]:
    """Dotted names imported by a file; ``whole`` False: only when it is itself imported."""
    pending = list(ast.parse(path.read_bytes()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its layer"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif whole or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            if whole or not is_typing:
                pending.extend(ast.iter_child_nodes(node))


def _layer(module: str) -> int:
    if module == "moeprof":  # its __init__ is the door to what a user's code may call
        return LAYERS.index("device")
    return LAYERS.index(LAYER_OF.get(module.split(".")[1], "pure"))


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("path", _files("moeprof"), ids=_module)
def test_a_module_imports_its_own_layer_or_below_and_never_stages(path):
    own = _layer(_module(path))
    for name in _imports(path):
        assert name.split(".")[0] != "stages", f"{path.name} imports {name} by statement"
        if name.startswith("moeprof."):
            assert _layer(name) <= own, f"{_module(path)} imports {name}, a layer above it"


@pytest.mark.parametrize("path", _files("stages"), ids=_module)
def test_a_stage_imports_the_contract_and_kernel_libraries_only(path):
    for name in _imports(path):
        top = name.split(".")[0]
        if top == "moeprof":
            allowed = name == "moeprof" or name.startswith("moeprof.contract")
            assert allowed, f"{_module(path)} imports {name}"
        elif top != "stages":
            assert top in STAGES_MAY_IMPORT | sys.stdlib_module_names, f"{path.name}: {name}"


def _reading_modules() -> list[str]:
    below_device = LAYERS.index("device")
    return [_module(path) for path in _files("moeprof") if _layer(_module(path)) < below_device]


def test_reading_modules_name_no_device_library_at_import():
    for module in _reading_modules():
        path = ROOT / (module.replace(".", "/") + ".py")
        path = path if path.exists() else path.with_suffix("") / "__init__.py"
        found = {name.split(".")[0] for name in _imports(path, whole=False)} & DEVICE_LIBRARIES
        assert not found, f"{module} imports {found}"


def test_records_are_read_and_listed_where_torch_does_not_exist(make_run, tmp_path):
    """Every reading module is imported, and a record loaded, with the device libraries blocked."""
    from moeprof.storage import store

    path = store.save(make_run(), tmp_path / "runs")
    program = (
        "import sys, importlib\n"
        f"for name in {sorted(DEVICE_LIBRARIES)}: sys.modules[name] = None\n"
        f"for name in {_reading_modules()}: importlib.import_module(name)\n"
        "from moeprof.storage import store\n"
        "from moeprof.cli.main import run_command\n"
        f"print(store.load({str(path)!r}).solution.name)\n"
        f"sys.exit(run_command(['list', 'runs', '--traces', {str(tmp_path)!r}])\n"
        "  or run_command(['list', 'stages']) or run_command(['list', 'workloads']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("triton_v2\n")
    assert "b8f4f012" in done.stdout
