"""The grouped GEMM in CuTe DSL as far as no GPU is needed: what is compiled, kept and called."""

import ctypes
import gc
import importlib
import subprocess
import sys

import pytest
import torch

from moeprof.contract import Buffers, Step
from stages.block_scale import dequantise_rows
from stages.gemm import cutedsl
from stages.gemm.cutedsl_kernel.variant import Variant
from stages.libraries.cutedsl import _why_not_on
from stages.libraries.object_cache import ObjectCache
from stages.solutions import cutedsl_v3, cutedsl_v3_2


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        # halves, cluster, tiles along N, second half, columns of the output
        (Variant(32, 4096, 7168), (1, 2, 16, 1, 4096)),
        (Variant(32, 7168, 2048, columns=256), (2, 2, 14, 1, 7168)),
        (Variant(32, 4096, 7168, gated=True), (2, 2, 8, 16, 2048)),
        (Variant(8, 256, 256, columns=256), (2, 1, 1, 1, 256)),
        (Variant(8, 384, 256, columns=256), (1, 1, 3, 1, 384)),
        (Variant(8, 256, 128, gated=True), (2, 1, 1, 1, 128)),
    ],
)
def test_tiles_cover_the_weights(variant, expected):
    found = (variant.halves, variant.cluster, variant.n_tiles, variant.second_half)
    assert (*found, variant.out_columns) == expected
    assert variant.halves * variant.cluster * variant.n_tiles == variant.n_blocks


@pytest.mark.parametrize("wrong", [(8, 192, 128), (8, 128, 64), (8, 128, 128, 64)])
def test_weights_that_are_no_whole_blocks_are_refused(wrong):
    with pytest.raises(ValueError, match="blocks|columns"):
        Variant(*wrong)
    with pytest.raises(ValueError, match="blocks"):
        Variant(8, 128, 128, gated=True)


def test_only_sm90_runs_the_kernels():
    assert _why_not_on((9, 0)) is None
    assert "not available on SM100 until" in _why_not_on((10, 0))
    assert "SM80" in _why_not_on((8, 0)) and "SM120" in _why_not_on((12, 0))


def test_the_tile_follows_the_tokens_unless_it_is_set(monkeypatch):
    seen = []
    monkeypatch.setattr(cutedsl, "grouped_gemm", lambda *a: seen.append((a[6].shape, a[7])))
    rows, weights = torch.empty(256, 128), torch.empty(2, 384, 128)
    buffers = Buffers(keep=False)
    operands = (rows, None, weights, None, None, None)
    for stage, tokens in ((cutedsl.gemm2, (7,)), (cutedsl.gemm2, (2048,)), (cutedsl.gemm1, ())):
        stage(*operands, *tokens, buffers)
    cutedsl.gemm2.with_options(columns=256)(*operands, 7, buffers)
    assert seen == [((256, 384), columns) for columns in (128, 256, 128, 256)]


def test_the_fused_solution_has_no_quantising_stage_and_the_same_result(
    make_problem, run, relative_l2
):
    problem = make_problem(7, 56)
    apart, fused = (run(module.SOLUTION, problem) for module in (cutedsl_v3, cutedsl_v3_2))
    assert "gemm1_output" in apart and "gemm1_output" not in fused
    covers = [stage.covers for stage in cutedsl_v3_2.SOLUTION.stages]
    assert (Step.GEMM1, Step.SWIGLU_QUANT) in covers and (Step.SWIGLU_QUANT,) not in covers
    owned = apart["row_token"][: int(apart["m_indptr"][-1])] >= 0
    rows = owned.nonzero().squeeze(1)
    assert len(rows)
    values = [
        dequantise_rows(
            found["activated"].view(torch.uint8)[rows].view(torch.float8_e4m3fn),
            found["activated_scale"][rows],
        )
        for found in (apart, fused)
    ]
    # one rounding to bfloat16 lies between: of two e4m3 values that are neighbours, either
    assert 0 < relative_l2(*values) < 0.02
    assert relative_l2(apart["output"], fused["output"]) < 0.02


def test_neither_a_list_nor_a_machine_without_gpu_imports_cutlass():
    program = """
import sys
from moeprof.cli.main import main
try:
    main(["list", "solutions"])
except SystemExit:
    pass
assert "cutlass" not in sys.modules and "torch" not in sys.modules
import torch
torch.cuda.is_available = lambda: False
from stages.solutions import cutedsl_v3, cutedsl_v3_2
assert cutedsl_v3.SOLUTION.stand_ins and cutedsl_v3_2.SOLUTION.stand_ins
assert "cutlass" not in sys.modules
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "cutedsl_v3" in found.stdout and "cutedsl_v3_2" in found.stdout


@pytest.fixture(scope="module")
def kernels():
    """The module of the real kernels; compiling for SM90 takes no GPU."""
    pytest.importorskip("cutlass")
    from cutlass.runtime import find_runtime_libraries

    # what a launch calls; without a GPU nothing else loads it, and an object cannot be written
    ctypes.CDLL(find_runtime_libraries()[0], ctypes.RTLD_GLOBAL)
    return importlib.import_module("stages.libraries.cutedsl_kernels")


def never(*_):
    raise AssertionError("compiled although an object is kept")


@pytest.mark.parametrize("gated", [False, True])
def test_a_kernel_is_compiled_once_and_again_where_its_object_is_damaged(
    kernels, gated, tmp_path, monkeypatch
):
    variant, cache = Variant(8, 512, 256, gated=gated), ObjectCache(tmp_path)
    compiled, same = kernels.compiled, lambda function: function
    kernels.executor_of(variant, cache, same)
    path = cache.find(kernels.object_key(variant))
    content = path.read_bytes()
    assert content.startswith(b"\x7fELF") and variant.kernel_name.encode() in content
    monkeypatch.setattr(kernels, "compiled", never)
    loaded = kernels.executor_of(variant, cache, same)
    addresses = tuple(range(1024, 1024 + 8 * 16, 16))
    arguments = kernels.dsl_arguments(variant, addresses, 256, 132, 99)
    values, adapted = loaded.generate_execution_args(*arguments)
    gc.collect()  # what the values point to must live as long as these three
    values = [getattr(value, "value", value) for value in values]
    assert [ctypes.c_uint64.from_address(v).value for v in values[:8]] == list(addresses)
    assert [ctypes.c_int32.from_address(v).value for v in values[8:10]] == [256, 132]
    assert ctypes.c_uint64.from_address(values[10]).value == 99  # the stream

    path.write_bytes(content[:-1] + b"x")
    made = []
    monkeypatch.setattr(kernels, "compiled", lambda v: made.append(v) or compiled(v))
    kernels.executor_of(variant, cache, same)
    assert made == [variant] and cache.find(kernels.object_key(variant)) is not None


def test_an_object_that_does_not_load_is_compiled_again(kernels, tmp_path, monkeypatch):
    """Intact by its digest, but of another version of the DSL, say."""
    variant, cache = Variant(2, 256, 128), ObjectCache(tmp_path)
    path = cache.store(kernels.object_key(variant), b"\x7fELF and nothing else")

    def refuses(_):
        raise RuntimeError("version mismatch")

    monkeypatch.setattr(kernels, "load_module", refuses)
    assert kernels.executor_of(variant, cache, lambda function: function) is not None
    assert not path.exists() and cache.find(kernels.object_key(variant)) is not None


def test_the_key_follows_variant_versions_and_source(kernels, monkeypatch):
    base = Variant(8, 512, 256)
    keys = {kernels.object_key(v) for v in (base, Variant(8, 512, 256, gated=True))}
    for name, value in (
        ("VERSION", "0"),
        ("ARCHITECTURE", "sm_80"),
        ("source_digest", lambda folder: "another"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(kernels, name, value)
            keys.add(kernels.object_key(base))
    assert len(keys) == 5 and kernels.object_key(base) in keys


class Recorder:
    """Stands where the DSL's executor does, and keeps what it is asked to launch."""

    def __init__(self):
        self.prepared, self.launched = [], []

    def generate_execution_args(self, *arguments):
        self.prepared.append(arguments)
        return [len(self.prepared)], []

    def run_compiled_program(self, values):
        self.launched.append(values)


@pytest.fixture
def operands():
    e4m3, capacity = torch.float8_e4m3fn, 256
    return [
        torch.empty(capacity, 256, dtype=e4m3),
        torch.empty(capacity, 2),
        torch.empty(3, 512, 256, dtype=e4m3),
        torch.empty(3, 4, 2),
        torch.empty(capacity, 512, dtype=torch.bfloat16),
        torch.empty(capacity, 2),
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(3, dtype=torch.int32),
    ]


def test_arguments_are_prepared_once_for_their_addresses(kernels, operands, monkeypatch):
    class Stream:
        cuda_stream = 5

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream)
    monkeypatch.setattr(kernels, "MOST_PREPARED", 3)
    executor = Recorder()
    kernel = kernels.Kernel(Variant(3, 512, 256), executor, 133, 0)
    assert kernel.ctas == 132  # whole clusters of two
    for _ in range(2):
        kernel(operands, 256)
    assert executor.launched == [[1], [1]] and len(executor.prepared) == 1
    Stream.cuda_stream = 6
    kernel(operands, 256)
    operands[0] = torch.empty_like(operands[0])
    kernel(operands, 256)
    operands[4] = torch.empty_like(operands[4])
    kernel(operands, 256)  # the fourth set of addresses: those before are dropped
    assert executor.launched[2:] == [[2], [3], [4]] and len(kernel._prepared) == 1


@pytest.mark.parametrize("position", range(8))
def test_operands_of_another_form_are_refused(kernels, operands, position):
    variant = Variant(3, 512, 256)
    kernels.check_operands(variant, operands, 256)
    good = operands[position]
    for bad in (good.to(torch.float16), good[:-1], good.repeat_interleave(2, dim=0)[::2]):
        operands[position] = bad
        with pytest.raises(ValueError, match="expected"):
            kernels.check_operands(variant, operands, 256)
    with pytest.raises(ValueError, match="whole tiles"):
        kernels.check_operands(variant, operands, 200)
