"""What this machine does at best: copying, reading, and multiplying FP8.

Random data, never zeros: the tensor cores draw less power on zeros and run up to a tenth faster.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from moeprof.records import MachineCeilings
from moeprof.timing.device import CudaDevice

BYTES = 2 << 30  # several dozen times the L2
PRODUCT = 8192
REPEATS = 10


def measure(device: CudaDevice) -> MachineCeilings | None:
    """The ceilings, or None where FP8 products or 8 GB of memory are not to be had."""
    import torch

    if torch.cuda.get_device_capability() < (8, 9) or torch.cuda.mem_get_info()[0] < 8 << 30:
        return None
    left, right = (
        torch.randn(PRODUCT, PRODUCT, device="cuda").to(torch.float8_e4m3fn) for _ in range(2)
    )
    one = torch.ones((), device="cuda")

    def product_us(fast: bool) -> float:
        return _median_us(
            device,
            lambda: torch._scaled_mm(
                left, right.t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=fast
            ),
        )

    flops = 2.0 * PRODUCT**3
    copy_us, read_us = _copy_and_read_us(device)
    return MachineCeilings(
        copy_bytes_per_second=2 * BYTES / copy_us * 1e6,
        read_bytes_per_second=BYTES / read_us * 1e6,
        fp8_flops_per_second=flops / product_us(True) * 1e6,
        fp8_slow_flops_per_second=flops / product_us(False) * 1e6,
    )


def _copy_and_read_us(device: CudaDevice) -> tuple[float, float]:
    import torch

    source = torch.randint(-(1 << 30), 1 << 30, (BYTES // 4,), dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    copy_us = _median_us(device, lambda: target.copy_(source))
    return copy_us, _median_us(device, lambda: source.amax())


def _median_us(device: CudaDevice, call: Callable[[], object]) -> float:
    """Median time of ``call`` between events, behind a hold so that no launch is late."""
    call()
    times: list[float] = []
    for _ in range(REPEATS):
        opening, closing = device.event(), device.event()
        device.synchronize()
        device.hold_stream(100.0)
        opening.record()
        call()
        closing.record()
        device.synchronize()
        times.append(float(opening.elapsed_time(closing)) * 1e3)
    return statistics.median(times)
