"""A user's file as a module: what lies beside it can be imported, as in a script.

Two users' files in one process (``bench ./a/x.py,./b/y.py``) may each import a ``helper`` of their
own: a folder's modules are then those of the file that is loaded, not of the one loaded before.
Left out: an import that a function makes only when it is called finds the folder loaded last.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

PACKAGE = "moeprof_user"


def import_file(path: Path) -> ModuleType | None:
    """Run the file as a module; None if its name is no Python file's. Its exceptions pass."""
    name = f"{PACKAGE}.{path.stem.replace('.', '_')}"  # a stage's backend is the last part
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        return None
    folder = path.resolve().parent
    _come_before_others(folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and triton.jit look their module up there
    spec.loader.exec_module(module)
    return module


def _come_before_others(folder: Path) -> None:
    """Search ``folder`` before those of other users' files, and after everything else."""
    others = {
        Path(file).parent
        for name, module in sys.modules.items()
        if name.startswith(f"{PACKAGE}.") and (file := getattr(module, "__file__", None))
    } - {folder}
    known = [place for place in sys.path if Path(place) in others]
    kept = [place for place in sys.path if place not in known]
    own = [] if str(folder) in kept else [str(folder)]
    sys.path[:] = [*kept, *own, *known]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        top = name.partition(".")[0]
        of_another = file is not None and any(Path(file).is_relative_to(other) for other in others)
        if of_another and top != PACKAGE and _holds(folder, top):
            del sys.modules[name]


def _holds(folder: Path, top: str) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()
