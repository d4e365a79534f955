"""What a stage really executed, read off its tensors after a forward: rows, bytes, FLOPs.

Bytes are what the named tensors hold: expert weights only of experts that had rows, row tensors
only for the rows executed. Scratch inside a stage is not counted; padding inside a kernel neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moeprof.contract import RowCount, Stage, Step
from moeprof.records import RoutingIdentity


@dataclass(frozen=True, slots=True)
class ExecutedWork:
    """Rows, bytes and FLOPs of one stage; None where the notion does not apply.

    rows_per_expert: where the stage reads problem sizes or counts, one an expert.
    """

    rows: int | None
    rows_declared: bool
    bytes_read: int
    bytes_written: int
    flops: int | None
    rows_per_expert: tuple[int, ...] | None = None


def executed_work(
    stage: Stage,
    tensors: Mapping[str, Any],
    constants: Mapping[str, int],
    routing: RoutingIdentity,
) -> ExecutedWork:
    """Measure the work of ``stage`` from the tensors of a finished forward."""
    rows, allocated, active = _rows(stage, tensors, routing)
    experts = constants["num_local_experts"]

    def held(name: str) -> int:
        tensor = tensors.get(name)
        if tensor is None or not hasattr(tensor, "nbytes") or not hasattr(tensor, "shape"):
            return 0
        size = int(tensor.nbytes)
        leading = tensor.shape[0] if len(tensor.shape) else 0
        if name.startswith(("gemm1_weights", "gemm2_weights")) and leading == experts:
            return size * active // experts
        if rows is not None and allocated and leading == allocated:
            return size * rows // allocated
        return size

    return ExecutedWork(
        rows=rows,
        rows_declared=stage.rows_run is not None and stage.rows_run.kind == "local_pairs",
        bytes_read=sum(held(name) for name in stage.reads if name not in stage.writes),
        bytes_written=sum(held(name) for name in stage.writes),
        flops=_flops(stage, rows, constants),
        rows_per_expert=_rows_per_expert(stage, tensors),
    )


def _rows_per_expert(stage: Stage, tensors: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The counts, or column 0 (m) of the problem sizes, [E, 3]."""
    rows = stage.rows_run
    if rows is None or rows.kind not in ("problem_sizes", "counts"):
        return None
    return tuple(int(count) for count in _counts(rows, tensors[rows.tensor]).tolist())


def _counts(rows: RowCount, tensor: Any) -> Any:
    return tensor if rows.kind == "counts" else tensor[:, 0]


def _rows(
    stage: Stage, tensors: Mapping[str, Any], routing: RoutingIdentity
) -> tuple[int | None, int | None, int]:
    """Rows executed, rows allocated in its row tensors, local experts with rows."""
    rows = stage.rows_run
    if rows is None:
        return None, None, routing.active_experts
    if rows.kind == "local_pairs":
        return routing.local_pairs, None, routing.active_experts
    tensor = tensors[rows.tensor]
    if rows.kind == "leading":
        return int(tensor.shape[0]), int(tensor.shape[0]), routing.active_experts
    if rows.kind == "slots":
        return int((tensor >= 0).sum()), int(tensor.shape[0]), routing.active_experts
    counts = _counts(rows, tensor)
    written = [tensors[name] for name in stage.writes if hasattr(tensors[name], "shape")]
    allocated = int(written[0].shape[0]) if written else None
    return int(counts.sum()), allocated, int((counts > 0).sum())


def _flops(stage: Stage, rows: int | None, constants: Mapping[str, int]) -> int | None:
    gemms = {
        Step.GEMM1: 2 * constants["gemm1_out_size"] * constants["hidden_size"],
        Step.GEMM2: 2 * constants["hidden_size"] * constants["intermediate_size"],
    }
    covered = [gemms[step] for step in stage.covers if step in gemms]
    return rows * sum(covered) if rows is not None and covered else None
