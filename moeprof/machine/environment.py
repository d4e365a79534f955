"""The machine a run was measured on, and its clocks while it was.

Facts come from torch, NVML and package metadata; no library is imported to learn its version.
Nothing here reads a user name, a host name, a path or the content of an environment variable into
a record. What a machine lacks for measuring is ``capabilities``' question.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from moeprof.records import ClockSample, Environment

# name in a record -> the distributions that provide it, the current name first
LIBRARIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "torch": ("torch",),
        "triton": ("triton",),
        "sgl_kernel": ("sglang-kernel", "sgl-kernel"),
        "flashinfer": ("flashinfer-python",),
        "deep_gemm": ("sgl-deep-gemm", "deep-gemm"),
        "cutlass_dsl": ("nvidia-cutlass-dsl",),
        "cupti": ("cupti-python",),
        "nvtx": ("nvtx",),
        "nvidia_ml_py": ("nvidia-ml-py",),
        "numpy": ("numpy",),
    }
)

CARD_DIGITS = 8

# NVML's clocks-event-reason bits; names as nvidia-smi -q prints them
SW_POWER_CAP = 0x004
CLOCK_EVENTS: Mapping[int, str] = MappingProxyType(
    {
        0x001: "gpu_idle",
        0x002: "applications_clocks_setting",
        SW_POWER_CAP: "sw_power_cap",
        0x008: "hw_slowdown",
        0x010: "sync_boost",
        0x020: "sw_thermal_slowdown",
        0x040: "hw_thermal_slowdown",
        0x080: "hw_power_brake_slowdown",
        0x100: "display_clocks_setting",
    }
)


def describe(device: str) -> Environment:
    """The environment of a run on the current CUDA device ('cuda') or this processor ('cpu')."""
    return _describe_cuda() if device == "cuda" else _describe_cpu()


def _describe_cuda() -> Environment:
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Environment(
        device=properties.name,
        device_kind="cuda",
        python=platform.python_version(),
        versions=library_versions(),
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=driver_version(),
        cuda=torch.version.cuda,
        multiprocessors=properties.multi_processor_count,
        l2_bytes=properties.L2_cache_size,
        memory_bytes=properties.total_memory,
        card=card_of(getattr(properties, "uuid", None)),
    )


def card_of(uuid: object) -> str | None:
    """Tells one GPU from another of its model without giving its serial number away."""
    if uuid is None:
        return None
    return hashlib.sha256(f"moeprof card {uuid}".encode()).hexdigest()[:CARD_DIGITS]


def _describe_cpu() -> Environment:
    return Environment(
        device=processor_name(),
        device_kind="cpu",
        python=platform.python_version(),
        versions=library_versions(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        interpreter=os.environ.get("TRITON_INTERPRET") == "1",
    )


def library_versions() -> Mapping[str, str]:
    """The version of every library of ``LIBRARIES`` that is installed."""
    versions = {name: library_version(name) for name in LIBRARIES}
    return {name: version for name, version in versions.items() if version is not None}


def library_version(name: str) -> str | None:
    """Its installed version; a library unpacked without metadata is asked if it is loaded."""
    for distribution in LIBRARIES[name]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    version = getattr(sys.modules.get(name), "__version__", None)
    return version if isinstance(version, str) else None


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model as Linux names it, else the architecture."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, models), platform.machine() or "unknown processor")


def driver_version() -> str | None:
    """The NVIDIA driver's version, None where there is no driver."""
    return ClockReader().driver


class ClockReader:
    """NVML's clocks, power and temperature of the current CUDA device.

    Where NVML or the device is missing, or ``enabled`` is False, ``sample`` gives nothing and
    nothing else changes. NVML is released with the process.
    """

    def __init__(self, enabled: bool = True) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        self._capped_ns = 0
        self.driver: str | None = None
        if not enabled:
            return
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # no module, no library or no driver: there are no clocks to read
            return
        self._nvml = pynvml
        self.driver = _text(pynvml.nvmlSystemGetDriverVersion())
        try:
            self._handle = _device_handle(pynvml)
        except pynvml.NVMLError:  # such as a MIG slice
            self._handle = None
        self._capped_ns = self._power_capped_ns()

    def sample(self, pass_name: str) -> tuple[ClockSample, ...]:
        """One reading, or none (about 0.1 ms); take it beside a pass, never inside one.

        The power cap is also named if it held the clock down at any time since the last reading:
        the moment after a pass is too late to see it (1,680 MHz was read with no reason).
        """
        if self._handle is None:
            return ()
        nvml, handle = self._nvml, self._handle

        def read(function: Callable[..., int], *arguments: int) -> int:
            try:
                return function(handle, *arguments)
            except nvml.NVMLError:  # one reading that a virtual machine does not offer
                return 0

        reasons = read(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        capped_ns = self._power_capped_ns()
        if capped_ns > self._capped_ns:
            reasons |= SW_POWER_CAP
        self._capped_ns = capped_ns
        reading = ClockSample(
            pass_name=pass_name,
            sm_mhz=read(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            memory_mhz=read(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            power_w=read(nvml.nvmlDeviceGetPowerUsage) / 1e3,
            temperature_c=read(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            throttle=clock_events(reasons),
        )
        return (reading,)

    def _power_capped_ns(self) -> int:
        """How long the power cap has held the clock down so far; 0 where it is not counted."""
        if self._handle is None:
            return 0
        nvml = self._nvml
        try:
            status = nvml.nvmlDeviceGetViolationStatus(self._handle, nvml.NVML_PERF_POLICY_POWER)
        except nvml.NVMLError:
            return 0
        return int(status.violationTime)


def clock_events(bits: int) -> tuple[str, ...]:
    """The names of the set bits; an unknown bit is shown as hexadecimal, not dropped."""
    known = tuple(name for bit, name in CLOCK_EVENTS.items() if bits & bit)
    rest = bits & ~sum(CLOCK_EVENTS)
    return (*known, hex(rest)) if rest else known


def _device_handle(nvml: Any) -> Any:
    """NVML's handle of torch's current device; the two count devices differently."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        uuid = getattr(properties, "uuid", None)
        if uuid is not None:
            return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    return nvml.nvmlDeviceGetHandleByIndex(0)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
