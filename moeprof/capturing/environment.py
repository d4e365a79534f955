"""What of this process's environment a captured process gets.

Nsight Systems writes the whole environment of every process it sees into its report, tokens and
passwords included. So the child is started with the few variables that it needs before its first
line of Python runs; what is needed later (where compiled kernels are cached, ...) is handed over
in a file and put in place by the child itself, after the report has taken its copy.
"""

from __future__ import annotations

import os
import site
import tempfile
from collections.abc import Mapping
from pathlib import Path

import moeprof

# needed by the dynamic loader, by the tool itself or to find Python's modules
ALLOWED = (
    "PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_DRIVER_CAPABILITIES",
)

# handed over in the job: without them the child would compile every kernel again, or others
HANDED_OVER = (
    "HOME",
    "XDG_CACHE_HOME",
    "TRITON_HOME",
    "TRITON_CACHE_DIR",
    "TRITON_PTXAS_PATH",
    "TRITON_INTERPRET",
    "FLASHINFER_WORKSPACE_BASE",
    "FLASHINFER_CUDA_ARCH_LIST",
    "TORCHINDUCTOR_CACHE_DIR",
    "TORCH_EXTENSIONS_DIR",
    "TORCH_CUDA_ARCH_LIST",
    "PYTORCH_CUDA_ALLOC_CONF",
    "CUDA_CACHE_PATH",
    "CUDA_MODULE_LOADING",
    "DG_JIT_CACHE_DIR",
    "TRTLLM_DG_CACHE_DIR",
    "TLLM_CACHE_DIR",
    "CC",
    "CXX",
    "OMP_NUM_THREADS",
)


def child_environment(environ: Mapping[str, str], temporary: Path) -> dict[str, str]:
    """The environment to start a tool or a captured process with.

    temporary: a private folder for TMPDIR, since the tools' own in /tmp may belong to another user,
    and for HOME, so that they have one and neither name nor change the user's.
    """
    kept = {name: environ[name] for name in ALLOWED if environ.get(name)}
    paths = [_checkout(), kept.get("PYTHONPATH", "")]
    kept["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if site.ENABLE_USER_SITE and site.USER_BASE:
        kept["PYTHONUSERBASE"] = site.USER_BASE  # else found through HOME
    # figures with a point and no separators of thousands; ncu's own files stay where they are
    fixed = {"LC_ALL": "C.UTF-8", "NV_COMPUTE_PROFILER_DISABLE_STOCK_FILE_DEPLOYMENT": "1"}
    private = dict.fromkeys(("HOME", "TMPDIR"), str(temporary))
    return {**{k: v for k, v in kept.items() if v}, **fixed, **private}


def handed_over(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the child sets for itself once it runs, TMPDIR as it is here."""
    kept = {name: environ[name] for name in HANDED_OVER if environ.get(name)}
    return {**kept, "TMPDIR": environ.get("TMPDIR") or tempfile.gettempdir()}


def _checkout() -> str:
    """Where ``import moeprof`` finds this very package; '' where it is installed as others are."""
    folder = Path(moeprof.__file__).resolve().parents[1]
    return "" if folder.name in ("site-packages", "dist-packages") else str(folder)
