"""flashinfer-bench 0.1.2's event timer and moeprof's copy of it, in turn in one process.

python tests/gpu/parity_turns.py DATASET SOLUTION TOKENS ROUNDS     prints "theirs ours" a round, us

The same inputs for both; theirs calls the solution that it built from the dataset, ours moeprof's
own stages in a straight line. A host that slows for seconds slows both.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from flashinfer_bench.bench.evaluators.utils import allocate_outputs
from flashinfer_bench.bench.timing import time_runnable
from flashinfer_bench.bench.utils import gen_inputs, load_safetensors
from flashinfer_bench.compile import BuilderRegistry
from flashinfer_bench.data import TraceSet

from moeprof.contract import Buffers
from moeprof.measure.straight_line import StraightCall
from moeprof.problem.dataset import Dataset
from moeprof.solutions.catalog import FORWARD_INPUTS, load_solution
from moeprof.timing.parity import event_pairs

WARMUP, ITERATIONS = 10, 50


def take_turns(root: str, name: str, tokens: int, rounds: int) -> None:
    dataset = TraceSet.from_path(root)
    solution = dataset.get_solution(name)
    definition = dataset.definitions[solution.definition]
    traces = dataset.workloads[definition.name]
    workload = next(t.workload for t in traces if t.workload.axes["seq_len"] == tokens)
    runnable = BuilderRegistry.get_instance().build(definition, solution)
    tensors = load_safetensors(definition, workload, dataset.root)
    inputs = gen_inputs(definition, workload, "cuda:0", tensors)
    arguments = [*inputs, *allocate_outputs(definition, inputs, "cuda:0")]

    own = load_solution(name, "cuda").solution
    constants = Dataset(Path(root)).definition(definition.name).constants
    given = {**constants, "seq_len": tokens, "buffers": Buffers(own.keeps_buffers)}
    given.update(zip((*FORWARD_INPUTS, "output"), arguments, strict=True))
    call = StraightCall(own, given)

    def theirs() -> float:
        return time_runnable(runnable, arguments, WARMUP, ITERATIONS, "cuda:0") * 1e3

    def ours() -> float:
        samples = event_pairs(call, WARMUP, ITERATIONS, trial=0)
        return statistics.mean(sample.span_us for sample in samples)

    theirs(), ours()  # compiled, allocated, warm
    for number in range(rounds):
        if number % 2:
            one = ours()
            print(theirs(), one)
        else:
            print(theirs(), ours())


if __name__ == "__main__":
    take_turns(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
