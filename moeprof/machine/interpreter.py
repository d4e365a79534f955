"""Triton kernels on a machine without a GPU: switches the interpreter on and corrects one cast.

Triton decides at ``@triton.jit`` whether a kernel is compiled or interpreted, so ``enable`` must
run before any stage, and before triton itself, is imported.

The correction: the interpreter's cast from float32 to float8e4nv adds the rounding bit to the
mantissa and loses the carry (126.24 becomes 64, not 128), rounds ties away from zero and does not
round subnormals (upstream issues 9808 and 11897; wrong for 96 of 8192 evenly spaced values in
[-460, 460], seen with triton 3.9.0). ``tests/stages/test_interpreter.py`` tells when it can go.
Left out: bfloat16 arithmetic, which the interpreter does on raw bits (kernels cast to float32
right after the load instead), and the cast to bfloat16, which truncates where a GPU rounds: half
of the values differ in their last bit, 2e-3 relative. Autotuning needs a driver; kernels name
their configurations.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from moeprof.contract import E4M3_MAX
from moeprof.errors import EnvironmentMissing

VARIABLE = "TRITON_INTERPRET"


def enable(force: bool = False) -> bool:
    """Interpret Triton kernels from here on if there is no CUDA device. Safe to call again.

    force: interpret although there is one (a CPU run on a GPU machine).
    Returns whether kernels are interpreted. Raises EnvironmentMissing if triton was imported
    before without the interpreter: its own library functions are then compiled ones.
    """
    if torch.cuda.is_available() and not force:
        return False
    os.environ[VARIABLE] = "1"
    loaded_before = "triton" in sys.modules
    import triton

    if loaded_before and type(triton.language.cdiv).__name__ != "InterpretedFunction":
        raise EnvironmentMissing(
            "triton was imported before its interpreter was switched on",
            "moeprof.machine.interpreter.enable() to run first",
            f"set {VARIABLE}=1 before Python starts",
        )
    from triton.runtime import interpreter

    _correct_cast(interpreter)
    return True


def to_e4m3_bits(values: Any) -> Any:
    """float32 numpy array -> uint8 array of e4m3 bits: nearest even, saturating, NaN kept.

    Saturating because that is what the GPU's conversion instruction does.
    """
    tensor = torch.from_numpy(values.copy()).clamp(-E4M3_MAX, E4M3_MAX)
    return tensor.to(torch.float8_e4m3fn).view(torch.uint8).numpy()


def _correct_cast(interpreter: Any) -> None:
    """Replace the one conversion float32 -> float8e4nv; every other one stays the interpreter's."""
    original = interpreter._convert_float
    if hasattr(original, "uncorrected"):
        return
    language = interpreter.tl

    def convert(source: Any, source_type: Any, target_type: Any, rounding_mode: Any) -> Any:
        if source_type == language.float32 and target_type == language.float8e4nv:
            return to_e4m3_bits(source)
        return original(source, source_type, target_type, rounding_mode)

    convert.uncorrected = original  # type: ignore[attr-defined]
    interpreter._convert_float = convert
