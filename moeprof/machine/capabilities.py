"""What this machine can measure, what is missing, and the line that installs it.

Each probe looks for the real thing: a library is imported in a process of its own (one that
crashes there harms nobody), a tool is run. Leaves out performance: see ``moeprof calibrate``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from moeprof.capturing.find import NCU, NSYS, Kind, candidates, find
from moeprof.errors import EnvironmentMissing
from moeprof.machine.environment import ClockReader, driver_version, library_version, processor_name

IMPORT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that measuring may need. ``found``: the version, or what stands in the way."""

    name: str
    ok: bool
    enables: str
    found: str
    install: str | None = None


@dataclass(frozen=True, slots=True)
class _Machine:
    """What the other probes depend on: the GPU's name and the CUDA that torch was built for."""

    gpu: str | None
    torch_cuda: str | None


def probe(runs_folder: Path) -> tuple[Capability, ...]:
    """Every capability, in the order they matter. ``runs_folder``: where records would be put."""
    machine = _machine()
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        libraries = tuple(pool.map(lambda facts: _library(machine, *facts), _LIBRARIES))
    return (
        _gpu(machine),
        _torch(machine),
        _triton(machine),
        *libraries,
        _cupti(machine),
        _nvtx(),
        _tool(NSYS, "moeprof timeline --tool nsys, and importing .nsys-rep files"),
        _tool(NCU, "moeprof timeline --tool ncu: counters inside one kernel"),
        _clocks(),
        _writable(runs_folder),
    )


# name, module, what must hold after the import, what it enables, how to get it
_LIBRARIES: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "sgl_kernel",
        "sgl_kernel",
        "m.moe_fused_gate",
        "SGLang's own ops in sglang_* and triton_* (else torch twins stand in)",
        "pip install 'sglang-kernel==0.4.4'",
    ),
    (
        "flashinfer",
        "flashinfer.fused_moe",
        "m.cutlass_fused_moe",
        "the solution flashinfer_moe",
        "pip install 'flashinfer-python==0.6.13'",
    ),
    (
        "deep_gemm",
        "deep_gemm",
        "m",
        "DeepGEMM's grouped GEMMs",
        "pip install 'sgl-deep-gemm==0.1.5'",
    ),
    ("cutlass_dsl", "cutlass.cute", "m", "CuTe kernels", "pip install 'nvidia-cutlass-dsl==4.8.1'"),
)


def _machine() -> _Machine:
    try:
        import torch
    except ImportError:
        return _Machine(None, None)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return _Machine(gpu, torch.version.cuda)


def _gpu(machine: _Machine) -> Capability:
    driver = driver_version()
    enables = "every pass but the CPU's wall clock"
    if machine.gpu:
        return Capability("GPU", True, enables, f"{machine.gpu}, driver {driver or 'unknown'}")
    found = f"driver {driver}, but torch sees no device" if driver else "no NVIDIA driver"
    return Capability("GPU", False, enables, f"{found}; runs use {processor_name()}",
                      "a machine with an NVIDIA GPU, for real figures SM90 or newer")  # fmt: skip


def _torch(machine: _Machine) -> Capability:
    version, enables = library_version("torch"), "running anything"
    if version is None:
        return Capability("torch", False, enables, "not installed", "pip install torch")
    if machine.torch_cuda is None:
        return Capability("torch", True, enables, f"{version}, built without CUDA")
    return Capability("torch", True, enables, f"{version}, CUDA {machine.torch_cuda}")


def _triton(machine: _Machine) -> Capability:
    version = library_version("triton")
    if version is None:
        return Capability("triton", False, "the triton_* solutions", "not installed",
                          "pip install triton")  # fmt: skip
    if machine.gpu is None:
        return Capability(
            "triton", True, "the triton_* solutions, slowly", f"{version}, interpreted"
        )
    return Capability("triton", True, "the triton_* solutions", version)


def _library(
    machine: _Machine, name: str, module: str, check: str, enables: str, install: str
) -> Capability:
    if not _is_findable(module):
        return Capability(name, False, enables, "not installed", install)
    version = library_version(name) or "unknown version"
    if machine.gpu is None:
        return Capability(name, False, enables, f"{version} is installed, but there is no GPU")
    problem = _import_problem(f"import {module} as m; {check}")
    if problem:
        return Capability(name, False, enables, f"{version} does not load: {problem}", install)
    return Capability(name, True, enables, version)


def _cupti(machine: _Machine) -> Capability:
    enables = "the passes kernels and api: true stage times, gaps by cause"
    wanted = ".".join((machine.torch_cuda or "13.0").split(".")[:2])
    install = f"pip install 'cupti-python=={wanted}.*'"
    version = library_version("cupti")
    if version is None:
        return Capability("cupti", False, enables, "not installed", install)
    if machine.gpu is None:
        return Capability("cupti", False, enables, f"{version} is installed, but there is no GPU")
    if ".".join(version.split(".")[:2]) != wanted:
        found = f"{version}, but torch is built for CUDA {wanted}"
        return Capability("cupti", False, enables, found, install)
    problem = _import_problem("from cupti import cupti; cupti.get_version()")
    if problem:
        return Capability("cupti", False, enables, f"{version} does not load: {problem}", install)
    return Capability("cupti", True, enables, version)


def _nvtx() -> Capability:
    version, enables = library_version("nvtx"), "stage names in Nsight Systems"
    if version is None:
        return Capability("nvtx", False, enables, "not installed", "pip install nvtx")
    return Capability("nvtx", True, enables, version)


def _tool(kind: Kind, enables: str) -> Capability:
    """A profiler that runs and is new enough, or what stands in the way of each that was found."""
    try:
        tool = find(kind)
    except EnvironmentMissing as error:
        reason, _, _ = str(error).partition(f"; {kind.install}")
        found = reason if next(candidates(kind, os.environ), None) else "not found"
        return Capability(kind.name, False, enables, found, kind.install)
    return Capability(kind.name, True, enables, f"{kind.product} {tool.version}, {tool.path}")


def _clocks() -> Capability:
    enables = "clocks, power and throttling beside every pass"
    samples = ClockReader().sample("doctor")
    if not samples:
        missing = library_version("nvidia_ml_py") is None
        install = "pip install nvidia-ml-py" if missing else None
        return Capability("NVML clocks", False, enables, "NVML finds no device", install)
    found = f"SM {samples[0].sm_mhz} MHz, {samples[0].power_w:.0f} W"
    return Capability("NVML clocks", True, enables, found)


def _writable(folder: Path) -> Capability:
    enables = "keeping records"
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        found = f"{existing}: {error.strerror}"
        return Capability("records", False, enables, found, "use --traces with a folder of yours")
    free = shutil.disk_usage(existing).free / 2**30
    return Capability("records", True, enables, f"{folder}, {free:.1f} GiB free")


def _is_findable(module: str) -> bool:
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def _import_problem(statement: str) -> str | None:
    """Why ``statement`` fails in a fresh Python; None if it does not."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", statement],
            capture_output=True,
            text=True,
            timeout=IMPORT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {IMPORT_SECONDS} s"
    if done.returncode == 0:
        return None
    return _last_line(done.stderr) or f"exit code {done.returncode}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:160] if lines else ""
