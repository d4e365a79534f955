"""The ceilings that a reader of records reckons with: the records' own, else an H200's.

Assumed ones, from one H200 on 2026-11-20, torch 2.11+cu130: read 4.34 TB/s (copy 4.22); FP8
``torch._scaled_mm`` of 8192^3 1333 TFLOP/s with the slow accumulation that block-scaled kernels
need (1453 with the fast one). A comparison uses ceilings to tell whether bytes or FLOPs bound a
step, for which only their ratio counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from moeprof.ledger.ledger import Ceilings
from moeprof.records import Run

ASSUMED_CEILINGS = Ceilings(bytes_per_second=4.34e12, flops_per_second=1.333e15)
SHORTEST_KERNEL_NS = 1_000.0  # one element, CUPTI, the same H200


def ceilings_of(runs: Sequence[Run]) -> tuple[Ceilings, str]:
    """The best that any of ``runs`` measured of its machine, and where the figures come from."""
    known = [run.ceilings for run in runs if run.ceilings is not None]
    if not known:
        return ASSUMED_CEILINGS, f"assumed, as measured on one H200: {_shown(ASSUMED_CEILINGS)}"
    measured = Ceilings(
        bytes_per_second=max(found.read_bytes_per_second for found in known),
        flops_per_second=max(found.fp8_slow_flops_per_second for found in known),
    )
    return measured, f"measured beside the runs: {_shown(measured)}"


def _shown(ceilings: Ceilings) -> str:
    return (
        f"{ceilings.bytes_per_second / 1e12:.2f} TB/s read, "
        f"{ceilings.flops_per_second / 1e12:,.0f} TFLOP/s FP8"
    )
