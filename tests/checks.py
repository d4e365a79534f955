"""Hand-made checks: verdicts as ``judge`` would give them, for what stores and shows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from moeprof.records import WorkloadIdentity
from moeprof.regression.policy import Policy
from moeprof.regression.values import Cause, Check, Finding, Quantity, Side
from tests.builders import GEOMETRY

STAGES = "routing prepare_moe_input shuffle_rows gemm1 swiglu_quant gemm2 gather".split()
WORKLOAD = WorkloadIdentity(
    "moe_fp8", "4822167c-a32e-4356-b4e1-7665b3d598af", 56, 64, 2.5, GEOMETRY
)


def finding(stage: str, measure: str, **changes: Any) -> Finding:
    """A finding of the same time on both sides."""
    same = Finding(
        quantity=Quantity(stage, measure),  # type: ignore[arg-type]
        verdict="SAME",
        reason="a change beyond the floor is excluded",
        processes=(10, 5),
        source="kernels",
        baseline_us=100.0,
        candidate_us=100.1,
        ratio=1.001,
        ratio_low=0.996,
        ratio_high=1.006,
        shift_us=0.1,
        p_value=0.41,
        p_holm=1.0,
        p_rank=0.5,
        p_same=0.001,
        relative_floor=0.02,
        absolute_floor_us=0.3,
        noise=0.004,
        slowest=1.005,
        cleared=True,
    )
    return replace(same, **changes)


def regressed(stage: str = "gemm1", measure: str = "busy", **changes: Any) -> Finding:
    """+4.9 %, confirmed."""
    return finding(
        stage,
        measure,
        **{
            "verdict": "REGRESSED",
            "reason": "slower in both rounds",
            "baseline_us": 246.8,
            "candidate_us": 258.9,
            "ratio": 1.049,
            "ratio_low": 1.042,
            "ratio_high": 1.056,
            "shift_us": 12.1,
            "p_value": 0.00001,
            "p_holm": 0.00007,
            "confirmation": "confirmed",
            "cleared": False,
            **changes,
        },
    )


def improved(stage: str = "gemm2", measure: str = "busy", **changes: Any) -> Finding:
    """-3.0 %."""
    return finding(
        stage,
        measure,
        **{
            "verdict": "IMPROVED",
            "reason": "faster by more than both floors",
            "baseline_us": 129.4,
            "candidate_us": 125.5,
            "ratio": 0.97,
            "ratio_low": 0.962,
            "ratio_high": 0.978,
            "shift_us": -3.9,
            **changes,
        },
    )


def inconclusive(stage: str = "routing", measure: str = "host", **changes: Any) -> Finding:
    """+3.1 % of a noisy time, in which +12 % would hide."""
    return finding(
        stage,
        measure,
        **{
            "verdict": "INCONCLUSIVE",
            "reason": "its spread of 6.0 % hides a change of up to 12 %",
            "ratio": 1.031,
            "ratio_low": 0.95,
            "ratio_high": 1.12,
            "shift_us": 3.1,
            "cleared": False,
            **changes,
        },
    )


GRID = Cause("gemm1", "launch shape", "the grid of gemm_kernel changed from 132 to 66", 11.8)


def make_check(*changed: Finding, causes: tuple[Cause, ...] = (), **changes: Any) -> Check:
    """Seven stages and the forward, all the same but for ``changed``."""
    own = {finding.quantity: finding for finding in changed}
    plain = [finding("", measure) for measure in ("span", "wall", "orchestration")]
    plain += [finding(stage, measure) for stage in STAGES for measure in ("busy", "host")]
    side = Side("triton_v2", ("3f" * 32,), 10, ("2026-11-20T12:00:00+00:00",) * 2)
    after = replace(
        side,
        source_hashes=("4a" * 32,),
        processes=5,
        created=("2026-11-21T09:00:00+00:00", "2026-11-21T09:02:30+00:00"),
    )
    check = Check(
        baseline=side,
        candidate=after,
        workload=WORKLOAD,
        device="NVIDIA H200",
        policy=Policy(),
        interleaved=False,
        findings=tuple(own.get(f.quantity, f) for f in plain),
        causes=causes,
    )
    return replace(check, **changes)


SOLUTION = '''"""The reference with a stage that rests."""
import functools
import time
from dataclasses import replace
from moeprof.contract import Solution
from stages.solutions.reference import SOLUTION as REFERENCE

SLOW = {slow!r}

def slowed(stage):
    @functools.wraps(stage.function)
    def function(*given, **options):
        time.sleep(SLOW[stage.name])
        return stage.function(*given, **options)
    return replace(stage, function=function)

{extra}
STAGES = tuple(slowed(s) if s.name in SLOW else s for s in REFERENCE.stages)
SOLUTION = Solution("mine", STAGES, description={text!r})
'''


def write_solution(path: Path, text: str = "", extra: str = "", **slow: float) -> Path:
    """A user's solution: the reference, in which the stages named rest for some seconds."""
    path.write_text(SOLUTION.format(slow=slow, extra=extra, text=text))
    return path
