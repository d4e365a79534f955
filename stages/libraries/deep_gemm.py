"""DeepGEMM's grouped GEMM as the stages call it, or its torch twin where it cannot load.

Bound once, at import. The package is ``sgl-deep-gemm``; it compiles its kernels with nvcc when a
shape is first used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from types import ModuleType

import torch

from moeprof.contract import Library
from stages.libraries import deep_gemm_twin
from stages.libraries.device import why_not_on_gpu

NAME = "deep_gemm"
PACKAGE = "sgl-deep-gemm"
OP = "fp8_m_grouped_gemm_nt_masked"


def load() -> tuple[ModuleType, Library]:
    """The module that provides the op, and what to record about it."""
    reason = why_not_on_gpu()
    if reason is None and torch.cuda.get_device_capability() != (9, 0):
        # on SM100 scales are packed UE8M0, which this layout is not
        reason = f"{NAME} takes float32 scales on SM90 alone"
    if reason is None:
        try:
            module = importlib.import_module(NAME)
        except (ImportError, OSError, RuntimeError, AssertionError) as error:
            reason = f"{NAME} does not import: {type(error).__name__}"
        else:
            if hasattr(module, OP):
                return module, Library(NAME, _version(module))
            reason = f"{NAME} lacks {OP}"
    return deep_gemm_twin, Library(NAME, stand_in=reason)


def _version(module: ModuleType) -> str | None:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return getattr(module, "__version__", None)


_module, LIBRARY = load()

fp8_m_grouped_gemm_nt_masked = _module.fp8_m_grouped_gemm_nt_masked
