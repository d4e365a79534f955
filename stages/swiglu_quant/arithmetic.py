"""SwiGLU and its quantisation of one tile, as the Triton backends share it: no stage of its own."""

from __future__ import annotations

import triton
import triton.language as tl

LEAST_AMAX = 1e-10  # as sgl's quantiser: an all-zero group gets a tiny scale, not a division by 0


@triton.jit
def quantised_swiglu(source, row, column, inside, width, least_amax, largest):
    """The groups ``column`` [groups, 128] of a row of ``source`` [M, 2 * width] bfloat16, up then
    gate -> e4m3 [groups, 128], scales [groups] float32."""
    # to float32 right after the load: the interpreter does bfloat16 arithmetic on raw bits
    up = tl.load(source + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(source + row * 2 * width + width + column, mask=inside, other=0.0)
    gate = gate.to(tl.float32)
    # below -80 silu is under 1e-32 either way, and exp does not overflow
    product = up * gate / (1.0 + tl.exp(-tl.maximum(gate, -80.0)))
    amax = tl.maximum(tl.max(tl.abs(product), axis=1), least_amax)
    quantised = product * (largest / amax)[:, None]
    quantised = tl.minimum(tl.maximum(quantised, -largest), largest)
    return quantised.to(tl.float8e4nv), amax / largest
