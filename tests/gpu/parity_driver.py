"""flashinfer-bench main's timer on a solution of a dataset, in a process of its own.

python tests/gpu/parity_driver.py DATASET SOLUTION TOKENS     prints the latency, us

flashinfer-bench 0.1.2 builds the solution and makes the inputs; FlashInfer's own function times it
with main's arguments: no CUDA graph, cold L2, nothing cloned. Median of a trial, mean of trials.
"""

from __future__ import annotations

import statistics
import sys

import torch
from flashinfer.testing import bench_gpu_time_with_cupti
from flashinfer_bench.bench.evaluators.utils import allocate_outputs
from flashinfer_bench.bench.utils import gen_inputs, load_safetensors
from flashinfer_bench.compile import BuilderRegistry
from flashinfer_bench.data import TraceSet

WARMUP, ITERATIONS, TRIALS = 10, 50, 3


def latency_us(root: str, name: str, tokens: int) -> float:
    dataset = TraceSet.from_path(root)
    solution = dataset.get_solution(name)
    definition = dataset.definitions[solution.definition]
    traces = dataset.workloads[definition.name]
    workload = next(t.workload for t in traces if t.workload.axes["seq_len"] == tokens)
    runnable = BuilderRegistry.get_instance().build(definition, solution)
    tensors = load_safetensors(definition, workload, dataset.root)
    trials = []
    for _ in range(TRIALS):
        inputs = gen_inputs(definition, workload, "cuda:0", tensors)
        arguments = (*inputs, *allocate_outputs(definition, inputs, "cuda:0"))
        runnable(*arguments)
        torch.cuda.synchronize()
        times_ms = bench_gpu_time_with_cupti(
            fn=runnable,
            dry_run_iters=WARMUP,
            repeat_iters=ITERATIONS,
            input_args=arguments,
            cold_l2_cache=True,
            use_cuda_graph=False,
        )
        trials.append(statistics.median(times_ms) * 1e3)
    return statistics.mean(trials)


if __name__ == "__main__":
    print(latency_us(sys.argv[1], sys.argv[2], int(sys.argv[3])))
