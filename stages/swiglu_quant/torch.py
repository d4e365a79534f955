"""sglang_v1's form: swap the halves for sgl's ``silu_and_mul``, then quantise with PyTorch ops.

``silu_and_mul`` applies silu to the first half; here the gate is the second, hence the copy of
the whole GEMM1 output by ``torch.cat``. The quantisation is seven launches over [M, I].
"""

from __future__ import annotations

import torch

from moeprof.contract import BLOCK, E4M3_MAX, Step, leading_rows, stage
from stages.libraries.sgl_kernel import LIBRARY, silu_and_mul

LEAST_AMAX = 1e-10


@stage(
    Step.SWIGLU_QUANT,
    writes=("activated", "activated_scale"),
    rows=leading_rows("activated"),
    library=LIBRARY,
)
def swiglu_quant(gemm1_output, intermediate_size, buffers):
    """[M, 2I] bfloat16, up then gate -> [M, I] float8_e4m3fn, [M, I/128] float32."""
    up, gate = gemm1_output[:, :intermediate_size], gemm1_output[:, intermediate_size:]
    swapped = torch.cat((gate, up), dim=1)
    shape = (gemm1_output.shape[0], intermediate_size)
    product = buffers.empty("swiglu", shape, torch.bfloat16, gemm1_output.device)
    silu_and_mul(swapped, product)

    groups = product.view(shape[0], -1, BLOCK)
    amax = groups.abs().amax(dim=-1, keepdim=True).to(torch.float32).clamp(min=LEAST_AMAX)
    scale = amax / E4M3_MAX
    quantised = (groups / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    return quantised.view(shape), scale.squeeze(-1)
