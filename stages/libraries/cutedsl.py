"""The grouped GEMMs written in CuTe DSL, or their torch twins where they cannot run.

Bound once, at import. ``cutlass`` takes 2 s to import and is imported on SM90 alone.
"""

from __future__ import annotations

from types import ModuleType

import torch

from moeprof.contract import Library
from stages.libraries import cutedsl_twin
from stages.libraries.device import why_not_on_gpu

NAME = "nvidia-cutlass-dsl"


def load() -> tuple[ModuleType, Library]:
    """The module that provides the kernels, and what to record about it."""
    reason = why_not_on_gpu() or _why_not_on(torch.cuda.get_device_capability())
    if reason is None:
        try:
            from stages.libraries import cutedsl_kernels
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            reason = f"{NAME} does not import: {type(error).__name__}"
        else:
            return cutedsl_kernels, Library(NAME, cutedsl_kernels.VERSION)
    return cutedsl_twin, Library(NAME, stand_in=reason)


def _why_not_on(capability: tuple[int, int]) -> str | None:
    if capability == (9, 0):
        return None
    if capability[0] == 10:
        return "its kernels are not available on SM100 until they can be tested there"
    return f"its kernels are for SM90, and this is SM{capability[0]}{capability[1]}"


_module, LIBRARY = load()

grouped_gemm = _module.grouped_gemm
grouped_gemm_swiglu_quant = _module.grouped_gemm_swiglu_quant
