"""sglang_v2's form: SwiGLU as two PyTorch ops on the halves, then sgl's group quantiser."""

from __future__ import annotations

import torch
from torch.nn import functional

from moeprof.contract import BLOCK, E4M3_MAX, Step, leading_rows, stage
from stages.libraries.sgl_kernel import LIBRARY, sgl_per_token_group_quant_fp8

LEAST_AMAX = 1e-10  # the op accepts no other value


@stage(
    Step.SWIGLU_QUANT,
    writes=("activated", "activated_scale"),
    rows=leading_rows("activated"),
    library=LIBRARY,
)
def swiglu_quant(gemm1_output, intermediate_size, buffers):
    """[M, 2I] bfloat16, up then gate -> [M, I] float8_e4m3fn, [M, I/128] float32."""
    rows, device = gemm1_output.shape[0], gemm1_output.device
    up, gate = gemm1_output[:, :intermediate_size], gemm1_output[:, intermediate_size:]
    product = functional.silu(gate) * up
    activated = buffers.empty("activated", product.shape, torch.float8_e4m3fn, device)
    scale = buffers.empty(
        "activated_scale", (rows, intermediate_size // BLOCK), torch.float32, device
    )
    sgl_per_token_group_quant_fp8(
        product, activated, scale, BLOCK, LEAST_AMAX, -E4M3_MAX, E4M3_MAX, enable_v2=False
    )
    return activated, scale
