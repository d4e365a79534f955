"""What the tests of ``bench`` measure: a small dataset, and solutions that misbehave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from moeprof.problem.dataset import own_root

TINY = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e8_h256_i256"
OPAQUE = """import ctypes, os, signal, sys, time
import torch
def run(logits, bias, x, x_scale, w1, w1_scale, w2, w2_scale, offset, factor):
    {body}
    return torch.zeros(x.shape, dtype=torch.bfloat16, device=x.device)
"""


def write_dataset(folder: Path, tokens: Sequence[int]) -> Path:
    """A dataset of the tiny definition with a workload of each of these sizes."""
    root = own_root()
    (folder / "workloads/moe").mkdir(parents=True)
    shutil.copytree(root / "definitions/moe", folder / "definitions/moe")
    line = (root / f"workloads/moe/{TINY}.jsonl").read_text().splitlines()[0]
    lines = []
    for size in tokens:
        document = json.loads(line)
        document["workload"]["uuid"] = f"{size:08d}-0000-4000-8000-000000000000"
        document["workload"]["axes"]["seq_len"] = size
        lines.append(json.dumps(document))
    (folder / f"workloads/moe/{TINY}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_opaque(folder: Path, name: str, body: str) -> str:
    """A solution that runs ``body`` (x: [T, H] hidden states) and returns zeros: wrong at best."""
    path = folder / f"{name}.py"
    path.write_text(OPAQUE.format(body=body))
    return str(path)


def write_right(folder: Path, name: str, body: str = "pass", extra: str = "") -> str:
    """The reference under another name that runs ``body`` at every call (tokens, CALLS)."""
    path = folder / f"{name}.py"
    path.write_text(
        "import functools, os, signal, sys, time\n"
        "from dataclasses import replace\n"
        "from stages.solutions.reference import SOLUTION as REFERENCE\n"
        f"{extra}\n"
        "FIRST = REFERENCE.stages[0]\n"
        "CALLS = 0\n"
        "@functools.wraps(FIRST.function)\n"
        "def first(*given, **options):\n"
        "    global CALLS\n"
        "    CALLS += 1\n"
        "    tokens = len(given[0])\n"
        f"    {body}\n"
        "    return FIRST.function(*given, **options)\n"
        "STAGES = (replace(FIRST, function=first), *REFERENCE.stages[1:])\n"
        f"SOLUTION = replace(REFERENCE, name={name!r}, stages=STAGES)\n"
    )
    return str(path)
