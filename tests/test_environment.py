"""What is recorded of the machine, and what ``doctor`` finds on it."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import pytest

from moeprof.machine import capabilities, environment
from moeprof.storage import store
from moeprof.storage.codec import encode
from tests.privacy import private_words


def test_the_processor_and_the_versions_are_those_installed():
    found = environment.describe("cpu")
    assert found.device_kind == "cpu"
    assert found.device == environment.processor_name()
    assert found.python == platform.python_version()
    assert found.versions["torch"] == metadata.version("torch")
    assert found.versions["numpy"] == metadata.version("numpy")
    assert set(found.versions) <= set(environment.LIBRARIES)
    assert found.driver is None


def test_the_processor_name_is_read_from_cpuinfo(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Made Up 9000\nmodel name\t: Other\n")
    assert environment.processor_name(cpuinfo) == "Made Up 9000"
    assert environment.processor_name(tmp_path / "absent") == platform.machine()


def test_an_environment_names_no_user_host_path_or_variable():
    text = json.dumps(encode(environment.describe("cpu")))
    assert store.leaks(text, private_words()) == ()


def test_clock_events_are_named_and_unknown_bits_kept():
    assert environment.clock_events(0) == ()
    assert environment.clock_events(0x4 | 0x40) == ("sw_power_cap", "hw_thermal_slowdown")
    assert environment.clock_events(0x1 | 0x8000) == ("gpu_idle", "0x8000")


def test_a_disabled_reader_reads_nothing():
    reader = environment.ClockReader(enabled=False)
    assert reader.sample("bare") == ()
    assert reader.driver is None


@pytest.mark.gpu
def test_clocks_of_a_real_gpu():
    (sample,) = environment.ClockReader().sample("bare")
    assert sample.pass_name == "bare"
    assert 100 < sample.sm_mhz < 4000
    assert 20 < sample.power_w < 2000
    assert 10 < sample.temperature_c < 110
    found = environment.describe("cuda")
    assert found.driver
    assert found.multiprocessors > 10
    assert found.l2_bytes > 2**20


@pytest.mark.gpu
def test_a_power_cap_that_has_passed_is_still_named():
    """Products of two random matrices draw more than 700 W; half a second later nothing does."""
    import time

    import torch

    factors = torch.randn(2, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    reader = environment.ClockReader()
    begin = time.perf_counter()
    while time.perf_counter() - begin < 2.0:
        torch.mm(factors[0], factors[1])
        torch.cuda.synchronize()
    time.sleep(0.5)
    (loaded,) = reader.sample("bare")
    time.sleep(2.0)  # NVML itself names the cap for some time after
    reader.sample("bare")
    (idle,) = reader.sample("bare")
    assert "sw_power_cap" in loaded.throttle
    assert "sw_power_cap" not in idle.throttle


def test_probing_names_everything_and_how_to_get_what_is_missing(tmp_path):
    found = {item.name: item for item in capabilities.probe(tmp_path / "runs")}
    assert list(found) == [
        *("GPU", "torch", "triton", "sgl_kernel", "flashinfer", "deep_gemm", "cutlass_dsl"),
        *("cupti", "nvtx", "nsys", "ncu", "NVML clocks", "records"),
    ]
    assert found["torch"].ok and metadata.version("torch") in found["torch"].found
    assert found["records"].ok
    assert all(item.enables and item.found for item in found.values())
    for name in ("sgl_kernel", "cupti", "nsys"):
        if found[name].found in ("not installed", "not found"):
            assert not found[name].ok
            assert "install" in found[name].install


def test_a_library_that_does_not_load_says_why():
    assert capabilities._import_problem("import json as m; m.dumps") is None
    problem = capabilities._import_problem("import json as m; m.moe_fused_gate")
    assert "no attribute 'moe_fused_gate'" in problem
    assert capabilities._import_problem("import os; os.abort()") == "exit code -6"
