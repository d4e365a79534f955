"""Hand-made records: a small host-and-GPU model that plays every pass of a forward.

The model is written apart from ``moeprof.analysis.simulate`` and knows what the reconstruction must
find out: how long the host needs before and in each launch call, when it waits, how much slower it
is under a profiler. ``make_run`` plays all passes of it into a Run as the executor would write one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from moeprof.records import (
    Calibration,
    ClockSample,
    Correctness,
    Environment,
    PassResult,
    RoutingIdentity,
    Run,
    Sample,
    Settings,
    SolutionIdentity,
    StageInfo,
    WorkloadIdentity,
)
from moeprof.timelines import ApiCall, Iteration, Operation, TimelinePass

LATENCY_NS, GAP_NS, EVENT_CALL_NS = 2_400, 1_100, 6_600
GEOMETRY = {
    "num_experts": 256,
    "num_local_experts": 32,
    "hidden_size": 7168,
    "intermediate_size": 2048,
}


@dataclass(frozen=True)
class Launch:
    """One launch: host time before it, in its call, and what the GPU does.

    sync: the host then waits for the GPU in a call of its own. copy: a copy to pageable memory,
    whose launching call returns when it is done.
    """

    name: str
    duration_ns: int
    before_ns: int = 3_000
    call_ns: int = 6_600
    stream: int = 7
    sync: bool = False
    copy: bool = False


Script = Sequence[tuple[str, Sequence[Launch]]]


@dataclass(frozen=True)
class Played:
    """One forward as it happened, ns from host entry."""

    stamps: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    launches: tuple[tuple[int, int], ...]
    calls: tuple[ApiCall, ...]
    opening: int
    closing: int
    exit: int


def eager_script(kernels: int = 3, duration_ns: int = 2_000) -> Script:
    """The seven steps, each ``kernels`` launches; the GEMMs ten times as long."""
    names = "routing prepare_moe_input shuffle_rows gemm1 swiglu_quant gemm2 gather".split()
    return tuple(
        (
            name,
            tuple(
                Launch(f"{name}_{i}", duration_ns * (10 if name.startswith("gemm") else 1))
                for i in range(kernels)
            ),
        )
        for name in names
    )


def play(script: Script, slow: float = 1.0, queued: bool = False, seed: int = 0) -> Played:
    """Play one forward. slow: factor on host times; queued: the GPU is held back until all is."""
    noise = random.Random(seed)
    now = EVENT_CALL_NS * slow
    stamps, spans, launches, calls = [round(now)], [], [], []
    opening = round(now) + LATENCY_NS
    stream_end: dict[int, int] = {}
    held = 10_000_000 if queued else 0
    opening = max(opening, held)
    for _, stage in script:
        for launch in stage:
            factor = slow * noise.uniform(0.95, 1.05)
            begin = round(now + launch.before_ns * factor)
            end = round(begin + launch.call_ns * factor)
            start = max(end + LATENCY_NS, stream_end.get(launch.stream, held) + GAP_NS)
            stream_end[launch.stream] = start + launch.duration_ns
            spans.append((start, start + launch.duration_ns))
            if launch.copy:
                end = max(end, round(start + launch.duration_ns + 1_500 * slow))
            launches.append((begin, end))
            now = float(end)
            if launch.sync:
                resumed = max(now + 1_000 * slow, max(stream_end.values()) + 1_500 * slow)
                calls.append(ApiCall("cudaStreamSynchronize", round(now) + 1, round(resumed)))
                now = resumed
        stamps.append(round(now))
    stamps.append(round(now + EVENT_CALL_NS * slow))
    drained = max(stream_end.values(), default=0)
    closing = max(stamps[-1] + LATENCY_NS, drained + GAP_NS)
    exit_ns = closing + 8_000
    calls.append(ApiCall("cudaDeviceSynchronize", stamps[-1] + 500, exit_ns))
    return Played(
        tuple(stamps), tuple(spans), tuple(launches), tuple(calls), opening, closing, exit_ns
    )


def sample(played: Played, trial: int = 0, stamped: bool = True) -> Sample:
    """The bare sample of one forward."""
    return Sample(
        span_us=(played.closing - played.opening) / 1e3,
        wall_us=played.exit / 1e3,
        trial=trial,
        stamps_us=tuple(stamp / 1e3 for stamp in played.stamps) if stamped else (),
    )


def timeline(script: Script, name: str, slow: float, iterations: int = 20) -> TimelinePass:
    """A CUPTI pass; ``kernels`` knows neither launches nor stages."""
    api = name == "api"
    launches = [(stage, launch) for stage, members in script for launch in members]
    operations = tuple(
        Operation(
            name=launch.name,
            kind="memcpy" if launch.copy else "kernel",
            stage=stage if api else "",
            stream=launch.stream,
            launch="cudaLaunchKernel" if api else "",
        )
        for stage, launch in launches
    )
    played = [play(script, slow, seed=1000 + i) for i in range(iterations)]
    return TimelinePass(
        name=name,
        operation_sets=(operations,),
        iterations=tuple(_iteration(one, api) for one in played),
    )


def _iteration(played: Played, api: bool) -> Iteration:
    return Iteration(
        operation_set=0,
        start_ns=tuple(start for start, _ in played.spans),
        end_ns=tuple(end for _, end in played.spans),
        launch_begin_ns=tuple(begin for begin, _ in played.launches) if api else (),
        launch_end_ns=tuple(end for _, end in played.launches) if api else (),
        stage_begin_ns=played.stamps[:-2] if api else (),
        stage_end_ns=played.stamps[1:-1] if api else (),
        exit_ns=played.exit,
        calls=played.calls if api else (),
    )


def stage_info(name: str, **changes: Any) -> StageInfo:
    """A stage that covers the step of its name (none if there is no such step)."""
    steps = [stage for stage, _ in eager_script()]
    info = StageInfo(
        name=name,
        covers=(name,) if name in steps else (),
        backend="sgl",
        reads=("hidden_states",),
        writes=(f"{name}_output",),
        library="sgl_kernel",
        bytes_read=400_000_000,
        bytes_written=1_000_000,
    )
    return replace(info, **changes)


def histogram(pairs: int, experts: int = 32) -> tuple[int, ...]:
    """``pairs`` spread evenly over the experts, the first ones one more."""
    return tuple(pairs // experts + (i < pairs % experts) for i in range(experts))


def make_run(
    script: Script | None = None,
    tokens: int = 7,
    pairs: int = 9,
    stages: Sequence[StageInfo] | None = None,
    profiler: float = 1.5,
    passes: Sequence[str] = ("first", "bare", "blocked", "graph", "kernels", "api"),
    **changes: Any,
) -> Run:
    """A CUDA run of ``script`` in which CUPTI slows the host by ``profiler``."""
    script = eager_script() if script is None else script
    counts = histogram(pairs)
    infos = tuple(stages or (stage_info(name, rows_executed=tokens * 8) for name, _ in script))
    kernels = sum(len(members) for _, members in script)
    run = Run(
        moeprof="0.1.0",
        created="2026-01-31T12:59:59+00:00",
        solution=SolutionIdentity("hand_made", "3f" * 32, infos, keeps_buffers=True),
        workload=WorkloadIdentity(
            "moe_fp8", "b8f4f012-a32e-4356-b4e1-7665b3d598af", tokens, 32, 2.5, GEOMETRY
        ),
        routing=RoutingIdentity(
            "synthetic uniform", "quantised", 0, "ab" * 32, pairs,
            sum(count > 0 for count in counts), min(tokens, pairs), counts,
        ),
        environment=Environment(
            "NVIDIA H200", "cuda", "3.12.3", {"torch": "2.11.0", "triton": "3.6.0"},
            compute_capability="9.0", driver="580.1", cuda="13.0", multiprocessors=132,
        ),
        settings=Settings(
            "default", 5, 20, 3, 0, "flush", tuple(passes), 0.2, 0.1, 0.85, 0.04
        ),
        correctness=Correctness(True, 1.0, 0.0262, 0.99965, 0.4),
        passes=_passes(script, kernels, passes),
        timelines=tuple(
            timeline(script, name, slow)
            for name, slow in (("kernels", 1.2), ("api", profiler))
            if name in passes
        ),
        clocks=(
            ClockSample("bare", 1980, 3201, 310.5, 44),
            ClockSample("api", 1935, 3201, 305.0, 45, ("gpu_idle",)),
        ),
        calibration=Calibration(5.8, EVENT_CALL_NS / 1e3, 6.6, LATENCY_NS, GAP_NS),
    )  # fmt: skip
    return replace(run, **changes)


def _passes(script: Script, kernels: int, passes: Sequence[str]) -> tuple[PassResult, ...]:
    bare = [sample(play(script, seed=i), i // 20, stamped=bool(i % 2)) for i in range(60)]
    blocked = play(script, queued=True)
    busy_us = sum(end - start for start, end in blocked.spans) / 1e3
    queued_us = busy_us + (kernels + 1) * GAP_NS / 1e3
    made = {
        "first": [Sample(812_345.0, 812_345.0)],
        "bare": bare,
        "blocked": [Sample(queued_us, queued_us + 2_000.0) for _ in range(20)],
        "graph": [Sample(busy_us + 1.5, busy_us + 20.0) for _ in range(20)],
    }
    return tuple(PassResult(name, tuple(made[name])) for name in passes if name in made)


def make_cpu_run(**changes: Any) -> Run:
    """A CPU run of the seven steps with torch twins: 10, 20, ... 70 us a stage."""
    names = [name for name, _ in eager_script()]
    stage_us = tuple(10.0 * (i + 1) for i in range(7))
    samples = tuple(Sample(290.0, 290.0, stage_us=stage_us) for _ in range(20))
    stand_in = "sgl_kernel does not load: no GPU"
    infos = [stage_info(n, rows_executed=56, stand_in=stand_in) for n in names]
    run = make_run(stages=infos, passes=("first",))
    return replace(
        run,
        environment=Environment(
            "x86_64, 2 cores", "cpu", "3.11.7", {"torch": "2.13.0"}, interpreter=True
        ),
        passes=(
            *run.passes,
            PassResult("bare", tuple(Sample(285.0, 285.0) for _ in range(20))),
            PassResult("stages", samples),
        ),
        clocks=(),
        calibration=None,
        **changes,
    )
