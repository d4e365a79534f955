"""flashinfer's ops as the stages call them, and which of its two MoE paths this machine has.

``ARCHITECTURE`` is "sm90" (``cutlass_fused_moe`` with DeepSeek block scales; also where the twin
stands in) or "sm100" (``trtllm_fp8_block_scale_moe``). Bound once, at import. flashinfer builds its
kernels when an op is first called, not here.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from moeprof.contract import Library
from stages.libraries import flashinfer_twin
from stages.libraries.device import why_not_on_gpu

NAME = "flashinfer"
OPS = ("fused_topk_deepseek", "cutlass_fused_moe", "trtllm_fp8_block_scale_moe")


def load() -> tuple[ModuleType, Library, str]:
    """The module that provides the ops, what to record about it, and the path to take."""
    reason = why_not_on_gpu()
    if reason is None:
        major, minor = torch.cuda.get_device_capability()
        if (major, minor) != (9, 0) and major != 10:
            reason = f"{NAME} has FP8 block-scale MoE for SM90 and SM100, this is SM{major}{minor}"
    if reason is None:
        try:
            version = importlib.import_module(NAME).__version__
            module = importlib.import_module(f"{NAME}.fused_moe")
        except (ImportError, OSError, RuntimeError, AttributeError) as error:
            reason = f"{NAME} does not import: {type(error).__name__}"
        else:
            missing = [op for op in OPS if not hasattr(module, op)]
            if not missing:
                return module, Library(NAME, version), "sm90" if major == 9 else "sm100"
            reason = f"{NAME} {version} lacks {', '.join(missing)}"
    return flashinfer_twin, Library(NAME, stand_in=reason), "sm90"


_module, LIBRARY, ARCHITECTURE = load()

fused_topk_deepseek = _module.fused_topk_deepseek
cutlass_fused_moe = _module.cutlass_fused_moe
trtllm_fp8_block_scale_moe = _module.trtllm_fp8_block_scale_moe
