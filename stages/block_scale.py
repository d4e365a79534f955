"""Block-scaled e4m3 in plain PyTorch: the definition's number format, said once.

Activations carry one scale per 128 values of a row, weights one per 128x128 block; a value is
e4m3 * scale. Used by the reference and by the twins of kernel libraries, where clarity counts and
time does not; measured backends have their own code.
"""

from __future__ import annotations

import torch

from moeprof.contract import BLOCK, E4M3_MAX


def take_rows(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """rows[index] for any dtype; e4m3 goes as bytes, for which indexing exists on every device."""
    if rows.dtype == torch.float8_e4m3fn:
        return rows.view(torch.uint8)[index].view(torch.float8_e4m3fn)
    return rows[index]


def dequantise_rows(rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """[M, K] float8_e4m3fn, [M, K/128] float32 -> [M, K] float32. One tensor of that size."""
    values = rows.to(torch.float32)
    values.unflatten(1, (-1, BLOCK)).mul_(scale.unsqueeze(-1))
    return values


def dequantise_weight(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """[N, K] float8_e4m3fn, [N/128, K/128] float32 -> [N, K] float32. One tensor of that size."""
    values = weight.to(torch.float32)
    blocks = values.unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK))  # [N/128, 128, K/128, 128]
    blocks.mul_(scale[:, None, :, None])
    return values


def quantise_rows(values: torch.Tensor, least_amax: float) -> tuple[torch.Tensor, torch.Tensor]:
    """[M, K] -> ([M, K] float8_e4m3fn, [M, K/128] float32), scale = max(amax, least_amax) / 448."""
    groups = values.to(torch.float32).unflatten(1, (-1, BLOCK))
    amax = groups.abs().amax(dim=-1).clamp_(min=least_amax)
    quantised = groups.mul_((E4M3_MAX / amax).unsqueeze(-1)).clamp_(-E4M3_MAX, E4M3_MAX)
    return quantised.flatten(1).to(torch.float8_e4m3fn), amax / E4M3_MAX
