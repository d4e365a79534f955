"""sgl_kernel's ops as the stages call them: the real ones, or torch twins where it cannot load.

Bound once, at import. ``LIBRARY.stand_in`` tells which; a twin is correct and is never a timing.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from moeprof.contract import Library
from stages.libraries import sgl_kernel_twin
from stages.libraries.device import why_not_on_gpu

NAME = "sgl_kernel"
OPS = (
    "moe_fused_gate",
    "prepare_moe_input",
    "shuffle_rows",
    "fp8_blockwise_scaled_grouped_mm",
    "silu_and_mul",
    "sgl_per_token_group_quant_fp8",
    "apply_shuffle_mul_sum",
)


def load() -> tuple[ModuleType, Library]:
    """The module that provides the ops, and what to record about it."""
    reason = why_not_on_gpu()
    if reason is None:
        try:
            module = importlib.import_module(NAME)
        except (ImportError, OSError, RuntimeError) as error:
            reason = f"{NAME} does not import: {type(error).__name__}"
        else:
            missing = [op for op in OPS if not hasattr(module, op)]
            if not missing:
                return module, Library(NAME, module.__version__)
            # moe_fused_gate is gone from sglang-kernel 0.4.6.post1 on
            reason = f"{NAME} {module.__version__} lacks {', '.join(missing)}"
    return sgl_kernel_twin, Library(NAME, stand_in=reason)


_module, LIBRARY = load()

moe_fused_gate = _module.moe_fused_gate
prepare_moe_input = _module.prepare_moe_input
shuffle_rows = _module.shuffle_rows
fp8_blockwise_scaled_grouped_mm = _module.fp8_blockwise_scaled_grouped_mm
silu_and_mul = _module.silu_and_mul
sgl_per_token_group_quant_fp8 = _module.sgl_per_token_group_quant_fp8
apply_shuffle_mul_sum = _module.apply_shuffle_mul_sum
