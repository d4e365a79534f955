"""Runs one forward outside moeprof's own clocks, in a process of its own, for other tools to time.

python tests/gpu/driver.py flashinfer SOLUTION TOKENS eager|graph   prints median span, us
nsys profile -c cudaProfilerApi ... python tests/gpu/driver.py nsys SOLUTION TOKENS
"""

from __future__ import annotations

import statistics
import sys

import torch

from moeprof.measure.forward import Forward
from moeprof.measure.plan import Inputs, Problems
from moeprof.presets import ATOL, MAX_RELATIVE_L2, REQUIRED_MATCHED_RATIO, RTOL
from moeprof.problem.dataset import Dataset, own_root
from moeprof.records import PASSES, Settings
from moeprof.solutions.catalog import load_solution
from moeprof.timing.cupti import session
from moeprof.timing.device import CudaDevice
from moeprof.timing.graph import capture
from moeprof.timing.ranges import Ranges

WARM_UP, ITERATIONS = 5, 20


def bound_forward(solution: str, tokens: int) -> Forward:
    """The forward that ``moeprof run --solution SOLUTION --num-tokens TOKENS`` measures."""
    loaded = load_solution(solution, "cuda")
    dataset = Dataset(own_root())
    definition = dataset.definition("dsv3")
    workload = dataset.workload_of_size(definition, tokens)
    tolerances = (RTOL, ATOL, REQUIRED_MATCHED_RATIO, MAX_RELATIVE_L2)
    settings = Settings("default", WARM_UP, ITERATIONS, 1, 0, "flush", PASSES, *tolerances)
    given = Problems(definition, (workload,), dataset, settings, "auto", "quantised", "cuda")
    forward = Inputs(given).problem(workload, "auto").case(loaded.solution).forward
    for _ in range(WARM_UP):
        forward()
    torch.cuda.synchronize()
    return forward


def spans_us(forward: Forward, graph: bool) -> tuple[float, float]:
    """Median span of one callable in one process, by moeprof and by FlashInfer; cold L2, rested.

    One process, because kernel times differ by up to 3 % between processes; rested, because a
    GPU that meets its power cap has no one speed.
    """
    from flashinfer.testing import bench_gpu_time_with_cupti

    device = CudaDevice("flush")
    device.rests = True
    call = capture(forward)[0].replay if graph else forward
    timeline = session().graph(call, device, ITERATIONS)
    ours = [iteration.span_ns / 1e3 for iteration in timeline.iterations]
    theirs = bench_gpu_time_with_cupti(
        call, dry_run_iters=WARM_UP, repeat_iters=ITERATIONS, sleep_after_run=True
    )
    return statistics.median(ours), statistics.median(theirs) * 1e3


def under_nsys(forward: Forward, tokens: int) -> None:
    """Ranges and forwards between the profiler's start and stop."""
    device = CudaDevice("flush")
    ranges = Ranges(forward.stage_names, tokens)
    torch.cuda.cudart().cudaProfilerStart()
    for _ in range(ITERATIONS):
        device.prepare()
        with ranges.iteration():
            forward(ranges.enter, ranges.leave)
            device.synchronize()
    torch.cuda.cudart().cudaProfilerStop()


if __name__ == "__main__":
    mode, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    bound = bound_forward(name, size)
    if mode == "nsys":
        under_nsys(bound, size)
    else:
        print(*spans_us(bound, graph=sys.argv[4] == "graph"))
