"""Jobs of the small definition, which a CPU can do, and the process that does them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moeprof.capturing.environment import child_environment, handed_over
from moeprof.capturing.job import ANSWER, JOB, SKELETON, Answer, Job, ToolName, read, write
from moeprof.capturing.process import Finished, run
from moeprof.capturing.target import main
from moeprof.presets import ATOL, MAX_RELATIVE_L2, REQUIRED_MATCHED_RATIO, RTOL
from moeprof.problem.dataset import Dataset, own_root
from moeprof.records import Run, Settings
from moeprof.storage import store

TOLERANCES = (RTOL, ATOL, REQUIRED_MATCHED_RATIO, MAX_RELATIVE_L2)
FORWARD = "def run(logits, bias, x, x_scale, w1, w1_scale, w2, w2_scale, offset, factor):\n"


def job(solution: str = "reference", tool: ToolName = "nsys", **changes: Any) -> Job:
    """Three forwards of ``solution`` on seven tokens of the small definition, on the CPU."""
    dataset = Dataset(own_root())
    definition = dataset.definition("tiny")
    made = Job(
        tool=tool,
        mode="eager",
        stage="",
        solution=solution,
        definition=definition.name,
        workload=dataset.workload_of_size(definition, 7),
        dataset=str(dataset.root),
        settings=Settings("default", 1, 3, 1, 0, "flush", ("api",), *TOLERANCES),
        routing="auto",
        weights="quantised",
        device="cpu",
    )
    return replace(made, **changes)


def solution_file(folder: Path, *body: str) -> str:
    """A user's solution: one function."""
    path = folder / "mine.py"
    path.write_text(f"import os, torch, time\n{FORWARD}" + "".join(f"    {b}\n" for b in body))
    return str(path)


def done(
    folder: Path, wanted: Job, environ: Mapping[str, str] = os.environ
) -> tuple[Finished, Answer | None]:
    """What the captured process makes of a job in ``folder``, without any profiler."""
    write(folder / JOB, replace(wanted, variables=handed_over(environ)))
    command = (sys.executable, "-m", "moeprof.capturing.target", str(folder))
    finished = run(command, child_environment(environ, folder), 120)
    answer = folder / ANSWER
    return finished, read(Answer, answer) if answer.exists() else None


def answered(folder: Path, wanted: Job) -> tuple[int, Answer]:
    """The same in this process, for what ends before anything is captured."""
    write(folder / JOB, wanted)
    return main(folder), read(Answer, folder / ANSWER)


def skeleton(folder: Path) -> Run:
    return store.load(folder / SKELETON)


def events(path: Path) -> list[dict[str, Any]]:
    """The events of a Chrome trace."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return found
