"""SwiGLU in float32. The definition does not requantise the activation; neither does this."""

from __future__ import annotations

import torch
from torch.nn import functional

from moeprof.contract import Step, leading_rows, stage


@stage(Step.SWIGLU_QUANT, writes="pair_activated", rows=leading_rows("pair_activated"))
def swiglu_quant(pair_gemm1):
    """[P, 2I] float32, up then gate -> pair_activated [P, I] float32, silu(gate) * up."""
    up, gate = torch.chunk(pair_gemm1, 2, dim=1)
    return functional.silu(gate).mul_(up)
