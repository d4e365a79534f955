"""The corrected cast float32 -> float8e4nv, value by value, and when the correction can go."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from moeprof.machine import interpreter

pytestmark = pytest.mark.skipif(
    not triton.knobs.runtime.interpret, reason="a CUDA device is there: kernels are compiled"
)


def telling_values():
    """Every finite e4m3 value, every midpoint, and the float32 next to each, both signs."""
    values = torch.arange(0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).to(torch.float32)
    middles = (values[:-1] + values[1:]) / 2  # exact: one more bit of mantissa
    exact = torch.cat((values, middles, torch.tensor([448.0, 449.0, 463.9, 464.0, 1e4]))).numpy()
    above = np.nextafter(exact, np.float32(np.inf))
    below = np.nextafter(exact, np.float32(-np.inf))
    both = np.concatenate((exact, above, below))
    return torch.from_numpy(np.concatenate((both, -both)).astype(np.float32))


def torch_cast(values):
    return values.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)


@triton.jit
def cast_kernel(source, target, COUNT: tl.constexpr):
    index = tl.arange(0, COUNT)
    tl.store(target + index, tl.load(source + index).to(tl.float8e4nv))


def interpreted_cast(values):
    count = 1 << (values.numel() - 1).bit_length()
    padded = torch.zeros(count)
    padded[: values.numel()] = values
    target = torch.empty(count, dtype=torch.float8_e4m3fn)
    cast_kernel[(1,)](padded, target, COUNT=count)
    return target[: values.numel()].view(torch.uint8)


def test_every_value_and_midpoint_casts_as_torch_does():
    values = telling_values()
    torch.testing.assert_close(interpreted_cast(values), torch_cast(values), rtol=0, atol=0)


def test_the_value_named_in_the_docstring():
    assert interpreted_cast(torch.tensor([126.24])).view(torch.float8_e4m3fn).item() == 128


def test_nan_stays_nan_and_infinity_saturates():
    bits = interpreter.to_e4m3_bits(np.array([np.nan, np.inf, -np.inf], np.float32))
    assert bits.tolist() == [0x7F, 0x7E, 0xFE]


def test_upstream_is_still_wrong(monkeypatch):
    from triton.runtime import interpreter as upstream

    values = telling_values()
    values = values[values.abs() <= 448]
    monkeypatch.setattr(upstream, "_convert_float", upstream._convert_float.uncorrected)
    if torch.equal(interpreted_cast(values), torch_cast(values)):
        pytest.fail(
            "triton casts to e4m3 correctly now: moeprof/machine/interpreter.py can drop its own"
        )


def test_other_casts_stay_upstreams():
    from triton.runtime import interpreter as upstream

    values = np.array([1.0, 1.1, -3.3], np.float32)
    convert = upstream._convert_float
    expected = convert.uncorrected(values, tl.float32, tl.bfloat16, None)
    np.testing.assert_array_equal(convert(values, tl.float32, tl.bfloat16, None), expected)


def test_enabling_again_changes_nothing():
    from triton.runtime import interpreter as upstream

    before = upstream._convert_float
    assert interpreter.enable()
    assert upstream._convert_float is before


def test_triton_imported_before_is_refused_in_one_line():
    program = (
        "import triton\n"
        "from moeprof.machine.interpreter import enable\n"
        "from moeprof.errors import EnvironmentMissing\n"
        "try:\n    enable(force=True)\n"
        "except EnvironmentMissing as error:\n    print(error)\n"
    )
    clean = {name: value for name, value in os.environ.items() if name != interpreter.VARIABLE}
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stdout == (
        "triton was imported before its interpreter was switched on; expected "
        "moeprof.machine.interpreter.enable() to run first; "
        "set TRITON_INTERPRET=1 before Python starts\n"
    )
