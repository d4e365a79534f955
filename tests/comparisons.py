"""Hand-made records of two solutions on one problem, with the figures an H200 showed at T = 14107.

``pipeline`` executes all T * 8 pairs in seven stages, ``fused`` only the local ones, most steps in
one opaque stage, after a cast that the definition does not ask for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moeprof.records import Run, StageInfo
from moeprof.storage.store import save
from tests.builders import Launch, Script, make_run

TOKENS, PAIRS = 14107, 13982
ROWS = TOKENS * 8
GEMM_FLOPS = {"gemm1": 4 * 2048 * 7168, "gemm2": 2 * 2048 * 7168}

# measured busy time, us, and what the stage's tensors held, MB
PIPELINE: Mapping[str, tuple[float, float]] = {
    "routing": (79.0, 16.3),
    "prepare_moe_input": (199.0, 1.4),
    "shuffle_rows": (278.0, 939.0),
    "gemm1": (6415.6, 2698.5),
    "swiglu_quant": (342.9, 1162.9),
    "gemm2": (3699.1, 2326.1),
    "gather": (426.1, 1821.0),
}
FUSED_KERNELS: Mapping[str, float] = {
    "BuildExpertMaps": 14.1,
    "expandInputRows": 484.4,
    "scale_1x128_in": 100.0,
    "fp8_gemm_kernel_1": 850.9,
    "doActivation": 100.0,
    "scale_1x128_out": 91.4,
    "fp8_gemm_kernel_2": 482.5,
    "finalizeMoeRouting": 173.1,
}
FUSED_RULES = (
    ("BuildExpertMaps", ("prepare_moe_input",)),
    ("expandInputRows", ("shuffle_rows",)),
    ("scale_1x128", ("shuffle_rows", "swiglu_quant")),
    ("fp8_gemm_kernel", ("gemm1", "gemm2")),
    ("doActivation", ("swiglu_quant",)),
    ("finalizeMoeRouting", ("gather",)),
)


def pipeline(
    tokens: int = TOKENS,
    pairs: int = PAIRS,
    name: str = "triton_v2",
    scale: float = 1.0,
    **changes: Any,
) -> Run:
    """Seven stages that execute every pair. scale: factor on all durations."""
    script = [(stage, [launch(stage, us * scale)]) for stage, (us, _) in PIPELINE.items()]
    stages = [_pipeline_stage(stage, tokens) for stage in PIPELINE]
    return named(make_run(script, tokens, pairs, stages, **changes), name)


def fused(
    tokens: int = TOKENS,
    pairs: int = PAIRS,
    name: str = "flashinfer_moe",
    rows: int | None = None,
    scale: float = 1.0,
    **changes: Any,
) -> Run:
    """Routing, a cast, and one opaque stage of eight kernels over the local pairs."""
    script: Script = [
        ("routing", [launch("topk", 38.4 * scale)]),
        ("dequantise", [launch("mul", 773.4 * scale)]),
        ("fused_moe", [launch(kernel, us * scale) for kernel, us in FUSED_KERNELS.items()]),
    ]
    rows = pairs if rows is None else rows
    opaque = StageInfo(
        name="fused_moe",
        covers=tuple(PIPELINE)[1:],
        backend="flashinfer",
        reads=("dequantised_hidden_states",),
        writes=("output",),
        kernel_rules=FUSED_RULES,
        rows_executed=rows,
        rows_declared=True,
        bytes_read=1_612_771_008,
        bytes_written=202_237_952,
        flops=rows * sum(GEMM_FLOPS.values()),
    )
    why = "the op takes bfloat16 activations only"
    cast = StageInfo(
        "dequantise", (), "flashinfer", ("hidden_states",), ("dequantised_hidden_states",),
        why=why, bytes_read=104_278_944, bytes_written=202_237_952,
    )  # fmt: skip
    stages = [_pipeline_stage("routing", tokens, "flashinfer"), cast, opaque]
    return named(make_run(script, tokens, pairs, stages, **changes), name)


def launch(name: str, microseconds: float) -> Launch:
    """One kernel of this length."""
    return Launch(name, round(microseconds * 1e3))


def named(run: Run, name: str) -> Run:
    """The same record of a solution called ``name``."""
    return replace(run, solution=replace(run.solution, name=name))


def at(run: Run, tokens: int, uuid: str, pairs: int | None = None) -> Run:
    """The same record, as if of another workload."""
    workload = replace(run.workload, seq_len=tokens, uuid=uuid)
    return replace(run, workload=workload)


def save_all(runs: Sequence[Run], traces: Path, folder: str = "runs") -> list[Path]:
    """Write records where ``compare`` looks for them."""
    return [save(run, traces / folder, "dsv3") for run in runs]


def _pipeline_stage(name: str, tokens: int, backend: str = "sgl") -> StageInfo:
    rows = tokens * 8 if name not in ("routing", "prepare_moe_input") else None
    moved = round(PIPELINE[name][1] * 1e6 * tokens / TOKENS)
    return StageInfo(
        name=name,
        covers=(name,),
        backend=backend,
        reads=("hidden_states",),
        writes=(f"{name}_output",),
        rows_executed=rows,
        bytes_read=moved // 2,
        bytes_written=moved - moved // 2,
        flops=rows * GEMM_FLOPS[name] if rows and name in GEMM_FLOPS else None,
    )
