"""TraceSets made for a test: moeprof's tiny definition and solutions of a few lines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from moeprof.problem.dataset import own_root

TINY = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e8_h256_i256"
ARGUMENTS = (
    "routing_logits, routing_bias, hidden_states, hidden_states_scale, gemm1_weights, "
    "gemm1_weights_scale, gemm2_weights, gemm2_weights_scale, local_expert_offset, "
    "routed_scaling_factor"
)


def reference() -> str:
    """The definition's own reference: value-returning, in plain torch."""
    path = own_root() / "definitions" / "moe" / f"{TINY}.json"
    return str(json.loads(path.read_bytes())["reference"])


def filling(before: str = "", after: str = "") -> str:
    """A destination-passing ``main.py`` beside ``reference.py``; lines around the right call."""
    return (
        "import torch\nfrom .reference import run as right\n"
        f"KEPT = {{}}\ndef run({ARGUMENTS}, output):\n"
        + "".join(f"    {line}\n" for line in before.splitlines())
        + f"    output.copy_(right({ARGUMENTS}))\n"
        + "".join(f"    {line}\n" for line in after.splitlines())
    )


def make(root: Path) -> Path:
    """A TraceSet without solutions."""
    for folder, suffix in (("definitions", "json"), ("workloads", "jsonl")):
        target = root / folder / "moe"
        target.mkdir(parents=True)
        shutil.copy(own_root() / folder / "moe" / f"{TINY}.{suffix}", target)
    (root / "solutions").mkdir()
    return root


def solution(
    name: str = "theirs",
    main: str | None = None,
    files: dict[str, str] | None = None,
    style: bool = True,
    **changes: Any,
) -> dict[str, Any]:
    """The JSON of a solution; by default a right one that fills its output."""
    sources = {"main.py": filling() if main is None else main, "reference.py": reference()}
    sources.update(files or {})
    spec = {
        "language": changes.pop("language", "python"),
        "target_hardware": ["cuda"],
        "entry_point": changes.pop("entry_point", "main.py::run"),
        "destination_passing_style": style,
    }
    return {
        "name": name,
        "definition": TINY,
        "author": "somebody",
        "spec": spec,
        "sources": [{"path": path, "content": text} for path, text in sources.items()],
        **changes,
    }


def put(root: Path, document: dict[str, Any] | str, file: str | None = None) -> Path:
    """Write a solution into the TraceSet; text as it is."""
    name = file or "solution"
    if isinstance(document, dict) and file is None:
        name = "".join(c for c in document["name"] if c.isalnum() or c in "_-") or "solution"
    path = root / "solutions" / "somebody" / "moe" / TINY / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path
