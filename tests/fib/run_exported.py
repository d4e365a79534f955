"""Runs the solutions of a dataset on a CPU by flashinfer-bench alone, and prints what happened.

python tests/fib/run_exported.py ROOT TOKENS[,TOKENS...]      FIB_CACHE_PATH and PYTHONPATH are set

moeprof and stages cannot be imported here once Triton's interpreter has been corrected, so that a
solution that needs either of them does not build.
"""

from __future__ import annotations

import gc
import json
import sys
import weakref
from pathlib import Path

from moeprof.machine import interpreter

interpreter.enable()
for name in [name for name in sys.modules if name.split(".")[0] in ("moeprof", "stages")]:
    del sys.modules[name]


class Blocked:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in ("moeprof", "stages"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)


sys.meta_path.insert(0, Blocked)

import torch  # noqa: E402
from flashinfer_bench.bench.utils import gen_inputs, load_safetensors  # noqa: E402
from flashinfer_bench.compile import BuilderRegistry  # noqa: E402
from flashinfer_bench.data import TraceSet  # noqa: E402


def call(runnable, inputs):
    """The result, from an output full of NaN where the solution fills one."""
    if not runnable.metadata.destination_passing_style:
        return runnable(*inputs)
    output = torch.full((inputs[2].shape[0], inputs[2].shape[1]), torch.nan, dtype=torch.bfloat16)
    assert runnable(*inputs, output) is None
    return output


def error(output, expected):
    """Relative L2 distance; NaN where any value was not written."""
    assert output.dtype == expected.dtype and output.shape == expected.shape
    difference = output.float() - expected.float()
    return (difference.norm() / expected.float().norm()).item()


def run(traces, definition, solution, sizes):
    registry = BuilderRegistry.get_instance()
    runnable = registry.build(definition, solution)
    reference = registry.build_reference(definition)
    workloads = {w.workload.axes["seq_len"]: w.workload for w in traces.workloads[definition.name]}
    errors, first = {}, None
    for seed, tokens in enumerate((*sizes, sizes[0], sizes[0])):
        blobs = load_safetensors(definition, workloads[tokens], traces.root)
        torch.manual_seed(seed)
        inputs = gen_inputs(definition, workloads[tokens], "cpu", blobs)
        expected = reference(*inputs)
        output = call(runnable, inputs)
        errors[f"{tokens}, seed {seed}"] = error(output, expected)
        if first is None:
            first = (output, expected)
        weights = weakref.ref(inputs[4])
    del inputs
    gc.collect()
    return {
        "errors": errors,
        # what a later call of the same shape leaves of an earlier one's result
        "first_again": error(*first),
        "holds_weights": weights() is not None,
        "build_type": runnable.metadata.build_type,
        "hash": solution.hash(),
    }


def main(root, sizes):
    traces = TraceSet.from_path(root)
    found = {}
    for name, solutions in traces.solutions.items():
        for solution in solutions:
            found[solution.name] = run(traces, traces.definitions[name], solution, sizes)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(tokens) for tokens in sys.argv[2].split(",")])
