"""What every test may use: the GPU marker, the facts beside the checkout, one rich record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.records import PassResult, Run, StageCorrectness, StageInfo
from tests import builders

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` are skipped, with the reason, where torch sees no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of facts beside the checkout; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """``make_run(**changes)``: every pass, 28 operations, 20 iterations, all fields filled."""
    return _make_run


def _make_run(iterations: int = 20, kernels: int = 4, **changes: object) -> Run:
    script = builders.eager_script(kernels)
    run = builders.make_run(script, stages=[_rich_stage(name) for name, _ in script])
    launched = {"grid": (132, 4, 1), "block": (128, 1, 1), "registers": 64, "shared_bytes": 8192}
    timelines = tuple(
        replace(
            timeline,
            operation_sets=tuple(
                tuple(replace(operation, **launched) for operation in operations)
                for operations in timeline.operation_sets
            ),
            iterations=timeline.iterations[:iterations],
        )
        for timeline in run.timelines
    )
    run = replace(
        run,
        solution=replace(run.solution, name="triton_v2"),
        correctness=replace(
            run.correctness, stages=(StageCorrectness("gemm1", "gemm1_output", 0.003, True),)
        ),
        passes=(*run.passes, PassResult("events", unavailable="too many events: café")),
        timelines=timelines,
        warnings=("a twin stood in",),
    )
    return replace(run, **changes)  # type: ignore[arg-type]


def _rich_stage(name: str) -> StageInfo:
    """A stage in which no field has its default."""
    return builders.stage_info(
        name,
        options={"workspace_bytes": 90_000, "nested": {"a": (1, 2.5, None, True, "x")}},
        why="to be stored",
        stand_in="no GPU",
        kernel_rules=((r"gemm\d", ("gemm1", "gemm2")),),
        rows_executed=56,
        flops=10**12,
    )
