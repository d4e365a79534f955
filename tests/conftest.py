"""What every test may use: the GPU marker, the facts beside the checkout, one rich record."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.records import (
    ApiCall,
    Calibration,
    ClockSample,
    Correctness,
    Environment,
    Iteration,
    Operation,
    PassResult,
    RoutingIdentity,
    Run,
    Sample,
    Settings,
    SolutionIdentity,
    StageCorrectness,
    StageInfo,
    TimelinePass,
    WorkloadIdentity,
)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
STEPS = (
    "routing prepare_moe_input shuffle_rows gemm1 swiglu_quant gemm2 gather".split()
)  # one stage each in the record below


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
    """``make_run(**changes)``: a record as large as a real one, all passes, 31 operations."""
    return _make_run


def _make_run(iterations: int = 20, operations: int = 31, **changes: object) -> Run:
    generator = random.Random(7)
    histogram = (5, 0, 3, 0, 0, 7, 1, 0)
    run = Run(
        moeprof="0.1.0",
        created="2026-01-31T12:59:59Z",
        solution=SolutionIdentity(
            name="triton_v2",
            source_hash="3f" * 32,
            stages=tuple(_stage(name) for name in STEPS),
            keeps_buffers=True,
        ),
        workload=WorkloadIdentity(
            definition="moe_made_up",
            uuid="b8f4f012-a32e-4356-b4e1-7665b3d598af",
            seq_len=7,
            local_expert_offset=32,
            routed_scaling_factor=2.5,
            constants={"num_experts": 64, "num_local_experts": 8},
        ),
        routing=RoutingIdentity(
            label="synthetic uniform",
            weights_recipe="quantised",
            seed=0,
            histogram_hash="ab" * 32,
            local_pairs=sum(histogram),
            active_experts=4,
            local_tokens=6,
            tokens_per_expert=histogram,
        ),
        environment=Environment(
            device="NVIDIA H200",
            device_kind="cuda",
            python="3.12.3",
            versions={"torch": "2.11.0", "triton": "3.6.0"},
            compute_capability="9.0",
            driver="580.1",
            cuda="13.0",
            multiprocessors=132,
            l2_bytes=62914560,
        ),
        settings=Settings(
            preset="default",
            warmup=5,
            iterations=iterations,
            trials=3,
            seed=0,
            l2="flush",
            passes=("bare", "kernels", "api"),
            rtol=0.2,
            atol=0.1,
            required_matched_ratio=0.85,
            max_relative_l2=0.04,
        ),
        correctness=Correctness(
            passed=True,
            matched_ratio=1.0,
            relative_l2=0.026,
            cosine=0.9996,
            max_absolute=0.4,
            stages=(StageCorrectness("gemm1", "gemm1_output", 0.003, True),),
        ),
        passes=(
            PassResult("bare", tuple(_sample(generator, t) for t in range(3) for _ in range(20))),
            PassResult("graph", unavailable="the solution synchronises: café"),
        ),
        timelines=tuple(
            _timeline(generator, name, iterations, operations) for name in ("kernels", "api")
        ),
        clocks=(ClockSample("bare", 1980, 3201, 310.5, 44, ("sw_power_cap",)),),
        calibration=Calibration(5.8, 6.6, 6.6, 2100, 1088),
        warnings=("a twin stood in",),
    )
    return replace(run, **changes)  # type: ignore[arg-type]


def _stage(name: str) -> StageInfo:
    return StageInfo(
        name=name,
        covers=(name,),
        backend="sgl",
        reads=("hidden_states", "num_experts"),
        writes=(f"{name}_output",),
        options={"workspace_bytes": 90_000, "nested": {"a": (1, 2.5, None, True, "x")}},
        library="sgl_kernel",
        kernel_rules=((r"gemm\d", ("gemm1", "gemm2")),),
        rows_executed=56,
        bytes_read=123_456_789_012,
        bytes_written=4096,
        flops=10**12,
    )


def _sample(generator: random.Random, trial: int) -> Sample:
    stamps = tuple(round(20.0 * i + generator.random(), 3) for i in range(9))
    return Sample(round(170 + generator.random(), 3), 201.125, trial, stamps)


def _timeline(
    generator: random.Random, name: str, iterations: int, operations: int
) -> TimelinePass:
    api = name == "api"
    made = tuple(
        Operation(
            name=f"void cutlass::device_kernel<at_cuda_detail::cub::Kernel<{i % 23}, long, name>>",
            kind="kernel",
            stage=STEPS[min(i * 7 // operations, 6)],
            stream=7,
            launch="cudaLaunchKernelExC_v11060",
            grid=(i + 1, 132, 1),
            block=(128, 1, 1),
            registers=64,
            shared_bytes=8192,
        )
        for i in range(operations)
    )
    return TimelinePass(
        name=name,
        operation_sets=(made,),
        iterations=tuple(_iteration(generator, operations, api) for _ in range(iterations)),
    )


def _iteration(generator: random.Random, operations: int, api: bool) -> Iteration:
    starts = [20_000 + 7_000 * i + generator.randrange(3_000) for i in range(operations)]
    return Iteration(
        operation_set=0,
        start_ns=tuple(starts),
        end_ns=tuple(start + generator.randrange(900, 4_000) for start in starts),
        launch_begin_ns=tuple(start - generator.randrange(9_000, 12_000) for start in starts)
        if api
        else (),
        launch_end_ns=tuple(start - generator.randrange(2_000, 4_000) for start in starts)
        if api
        else (),
        stage_begin_ns=tuple(range(0, 7 * 30_000, 30_000)) if api else (),
        stage_end_ns=tuple(range(29_000, 7 * 30_000, 30_000)) if api else (),
        exit_ns=260_000,
        calls=(ApiCall("cudaStreamSynchronize", 240_000, 259_000),) if api else (),
    )
