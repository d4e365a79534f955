"""One fresh process: a solution run on its side's own code, and the record it leaves."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from moeprof.capturing.process import run as run_child
from moeprof.capturing.process import signal_name
from moeprof.checking import child
from moeprof.checking.request import Request
from moeprof.checking.trees import Tree
from moeprof.errors import EnvironmentMissing, MoeprofError
from moeprof.storage.store import SUFFIX

_ERROR = "moeprof: error: "
_NO_OPTION = re.compile(r"No such (?:option|command)")


def fresh_record(tree: Tree, request: Request, scratch: Path) -> Path:
    """Run one process to its end and return the record it wrote below ``scratch``, made anew.

    MoeprofError, one line, if it fails; a wrong result is a record and no failure.
    """
    scratch = scratch.absolute()  # the process runs in its tree's folder
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    command = [
        *(sys.executable, "-P", child.__file__, str(tree.folder)),
        *(str(tree.foreign or ""), str(tree.root or "")),
        *("run", "--solution", tree.solution, *request.arguments(), "--traces", str(scratch)),
    ]
    done = run_child(command, tree.environment(), request.seconds)
    records = sorted(scratch.rglob(f"*{SUFFIX}"))
    if done.code in (0, 1) and len(records) == 1:
        return records[0]
    raise failure(done.code, done.output, tree)


def failure(code: int, output: str, tree: Tree) -> MoeprofError:
    """The error of a process that left no record, from how it ended and what it printed last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(_ERROR)]
    if told:
        reason = told[-1].removeprefix(_ERROR)
        if _NO_OPTION.search(reason):
            do = f"the moeprof of {tree.label} is too old for a check; name a later revision"
            return EnvironmentMissing(reason, do=do)
        return EnvironmentMissing(reason)
    last = lines[-1][:200] if lines else "it printed nothing"
    if code < 0:
        return EnvironmentMissing(f"it was ended by {signal_name(-code)}; last line: {last}")
    return EnvironmentMissing(f"it ended with exit code {code} and no record; last line: {last}")
