"""What a fresh process runs first: ``python -P child.py FOLDER FOREIGN OWN run OPTIONS...``.

Run as a file, before any moeprof is imported, so that it serves every revision's. It fails if the
code it ran was not its side's own: an editable install elsewhere on the path would quietly measure
one side twice.
"""

from __future__ import annotations

import os
import runpy
import sys

LEAKED = 2


def main(folder: str, foreign: str, own: str, arguments: list[str]) -> int:
    """Run moeprof's command line in ``folder``; its exit code, or LEAKED with one line."""
    os.chdir(folder)
    sys.argv = ["moeprof", *arguments]
    code = 0
    try:
        runpy.run_module("moeprof", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    leaked = loaded_from(foreign, own) if foreign and code in (0, 1) else ""
    if leaked:
        sys.stdout.flush()
        print(
            f"moeprof: error: {leaked} was loaded from the working tree, not from the revision; "
            "is it installed with pip install -e? Leave that package out of the environment",
            file=sys.stderr,
        )
        return LEAKED
    return code


def loaded_from(folder: str, own: str) -> str:
    """The first module whose file lies below ``folder``; '' if none does.

    Not counted are those of ``own`` and of this Python, which may lie there too.
    """
    inside = os.path.realpath(folder) + os.sep
    allowed = tuple(os.path.realpath(path) + os.sep for path in (own, sys.prefix) if path)
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and name != "__main__":
            path = os.path.realpath(file)
            if path.startswith(inside) and not path.startswith(allowed):
                return name
    return ""


if __name__ == "__main__":
    folder, foreign, own, *arguments = sys.argv[1:]
    sys.exit(main(folder, foreign, own, arguments))
