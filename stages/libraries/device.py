"""Whether this process runs on a GPU: decides between a kernel library and its twin."""

from __future__ import annotations

import torch
import triton


def why_not_on_gpu() -> str | None:
    """None where kernels run on a CUDA device, else the reason why they do not."""
    if not torch.cuda.is_available():
        return "no CUDA device"
    if triton.knobs.runtime.interpret:
        return "run on the CPU by request"
    return None
