"""The real grouped GEMMs behind ``libraries.cutedsl``: compiled at first use, then launched.

Compiling takes 0.3 to 0.8 s a kernel, loading what another process compiled 4 ms. A kernel depends
on the weights' shape and the tile, not on the number of rows. The DSL spends 26 us on a call, most
of it on turning arguments into pointers to pointers: so that is done once for a set of addresses,
and later calls with them take 7 us. Nothing here waits for the GPU; launches go to torch's current
stream, so that a graph can capture them once the kernel is loaded.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cutlass
import torch
from cutlass import cute
from cutlass.cute.runtime import load_module, make_ptr
from cutlass.torch import cuda  # the driver's bindings, as the DSL itself uses them

from stages.gemm import cutedsl_kernel
from stages.gemm.cutedsl_kernel.grouped_gemm import GroupedGemm
from stages.gemm.cutedsl_kernel.variant import BLOCK, Variant
from stages.libraries.object_cache import ObjectCache, key_of, source_digest, user_folder

ARCHITECTURE = "sm_90a"
FUNCTION = "grouped_gemm"  # in an object
MOST_PREPARED = 256  # calls a kernel keeps arguments of
PLACEHOLDER = 1024  # an address while compiling: only types and alignment matter
VERSION = cutlass.__version__

Operands = tuple[torch.Tensor, ...]


def grouped_gemm(
    rows, row_scale, weights, weights_scale, m_indptr, expert_counts, output, columns=128
):
    """See the twin. Rows of padding get a product of whatever is in them, or keep what was there.

    columns: of a tile, 128 or 256.
    """
    experts, n, k = weights.shape
    # the kernel of this variant never touches the scale of its output
    operands = (rows, row_scale, weights, weights_scale, output, row_scale)
    kernel = _kernel(experts, n, k, columns, False, rows.device.index)
    kernel((*operands, m_indptr, expert_counts), rows.shape[0])


def grouped_gemm_swiglu_quant(
    rows, row_scale, weights, weights_scale, m_indptr, expert_counts, output, output_scale
):
    """See the twin. Rows of padding as in ``grouped_gemm``."""
    experts, n, k = weights.shape
    operands = (rows, row_scale, weights, weights_scale, output, output_scale)
    kernel = _kernel(experts, n, k, BLOCK, True, rows.device.index)
    kernel((*operands, m_indptr, expert_counts), rows.shape[0])


class Kernel:
    """One variant on one device. ``executor`` is what the DSL launches it with."""

    def __init__(self, variant: Variant, executor: Any, processors: int, device: int) -> None:
        self.variant = variant
        self.executor = executor
        self.ctas = processors // variant.cluster * variant.cluster
        self.device = device
        self._prepared: dict[tuple[int, ...], tuple[Any, ...]] = {}

    def __call__(self, operands: Operands, rows: int) -> None:
        """Launch on torch's current stream. operands: in the order of ``GroupedGemm.__call__``."""
        stream = torch.cuda.current_stream(self.device).cuda_stream
        key = (*[tensor.data_ptr() for tensor in operands], rows, stream)
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = self._prepare(operands, rows, stream)
            if len(self._prepared) >= MOST_PREPARED:
                self._prepared.clear()
            self._prepared[key] = prepared
        self.executor.run_compiled_program(prepared[0])

    def _prepare(self, operands: Operands, rows: int, stream: int) -> tuple[Any, ...]:
        """Pointers to the arguments, and with them what they point to."""
        check_operands(self.variant, operands, rows)
        addresses = tuple(tensor.data_ptr() for tensor in operands)
        arguments = dsl_arguments(self.variant, addresses, rows, self.ctas, stream)
        values, adapted = self.executor.generate_execution_args(*arguments)
        return values, adapted, arguments


def check_operands(variant: Variant, operands: Operands, rows: int) -> None:
    """Raise ValueError unless every operand is what the kernel will read it as."""
    v, e4m3, float32 = variant, torch.float8_e4m3fn, torch.float32
    out_type = e4m3 if v.gated else torch.bfloat16
    expected: list[tuple[str, torch.dtype, tuple[int, ...]]] = [
        ("rows", e4m3, (rows, v.k)),
        ("row_scale", float32, (rows, v.k_blocks)),
        ("weights", e4m3, (v.experts, v.n, v.k)),
        ("weights_scale", float32, (v.experts, v.n_blocks, v.k_blocks)),
        ("output", out_type, (rows, v.out_columns)),
        ("output_scale", float32, (rows, v.out_columns // BLOCK if v.gated else v.k_blocks)),
        ("m_indptr", torch.int32, (v.experts + 1,)),
        ("expert_counts", torch.int32, (v.experts,)),
    ]
    if rows % BLOCK:
        raise ValueError(f"{rows} rows are not whole tiles of {BLOCK}")
    for (name, dtype, shape), tensor in zip(expected, operands, strict=True):
        if tensor.dtype != dtype or tuple(tensor.shape) != shape or not tensor.is_contiguous():
            found = f"{tensor.dtype} {list(tensor.shape)}"
            found += "" if tensor.is_contiguous() else ", not contiguous"
            raise ValueError(f"{name} is {found}, expected {dtype} {list(shape)}, contiguous")


def dsl_arguments(
    variant: Variant, addresses: tuple[int, ...], rows: int, ctas: int, stream: int
) -> tuple[Any, ...]:
    """What ``GroupedGemm.__call__`` takes, in the DSL's types."""
    out_type = cutlass.Float8E4M3FN if variant.gated else cutlass.BFloat16
    types = (cutlass.Float8E4M3FN, cutlass.Float32) * 2
    types = (*types, out_type, cutlass.Float32, cutlass.Int32, cutlass.Int32)
    pointers = [
        make_ptr(dtype, address, cute.AddressSpace.gmem, assumed_align=16)
        for dtype, address in zip(types, addresses, strict=True)
    ]
    return (*pointers, cutlass.Int32(rows), cutlass.Int32(ctas), cuda.CUstream(stream))


@functools.cache
def _kernel(experts: int, n: int, k: int, columns: int, gated: bool, device: int) -> Kernel:
    """The kernel loaded on ``device``: from the cache of objects, else compiled for it."""
    variant = Variant(experts, n, k, columns, gated)
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    with torch.cuda.device(device):
        executor = executor_of(variant, ObjectCache(user_folder("cutedsl")), on_device)
    return Kernel(variant, executor, processors, device)


def on_device(function: Any) -> Any:
    """Load a function's kernel on the current device, which a capture would not allow later."""
    return function.to(None)


def executor_of(variant: Variant, cache: ObjectCache, loaded: Callable[[Any], Any]) -> Any:
    """``loaded`` of the variant's function, from ``cache`` if an object in it can be loaded."""
    key = object_key(variant)
    path = cache.find(key)
    if path is not None:
        try:
            return loaded(load_module(str(path))[FUNCTION])
        except Exception:  # whatever the DSL raises: an object of no use is compiled again
            cache.discard(path)
    function = compiled(variant)
    with contextlib.suppress(Exception):  # nor does it matter why an object cannot be written
        cache.store(key, function.dump_to_object(FUNCTION))
    return loaded(function)


def compiled(variant: Variant) -> Any:
    """Compile for SM90, which takes no GPU."""
    arguments = dsl_arguments(variant, (PLACEHOLDER,) * 8, 128, variant.cluster, 0)
    GroupedGemm.grouped_gemm.set_name_prefix(
        variant.kernel_name, remove_cutlass_symbol=True, keep_mangled_name=False
    )
    with warnings.catch_warnings():  # of loops unrolled by Python: registers have no other index
        warnings.simplefilter("ignore")
        return cute.compile(GroupedGemm(variant), *arguments, options=f"--gpu-arch {ARCHITECTURE}")


def object_key(variant: Variant) -> str:
    """Of everything that decides what an object holds and who can load it."""
    return key_of(
        {
            "variant": variant,
            "architecture": ARCHITECTURE,
            "source": source_digest(Path(str(cutedsl_kernel.__file__)).parent),
            "dsl": " ".join(_dsl_packages()),
            "cuda": torch.version.cuda,
            "python": sys.version_info[:2],
        }
    )


def _dsl_packages() -> list[str]:
    """The DSL is several packages: the compiler comes for CUDA 12 and for CUDA 13."""
    found = [VERSION]
    for part in ("", "-libs-base", "-libs-core", "-libs-cu12", "-libs-cu13"):
        try:
            found.append(f"{part}={importlib.metadata.version('nvidia-cutlass-dsl' + part)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
