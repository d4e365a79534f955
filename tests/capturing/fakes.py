"""Shell scripts that behave as nsys and ncu were seen to, for what happens when they do.

The tools themselves need a GPU and are tried on one by ``tests/gpu/test_timeline.py``; here it is
about finding them, what they are given and what is said when they fail.
"""

from __future__ import annotations

from pathlib import Path

NSYS_VERSION = "NVIDIA Nsight Systems version 2025.3.1.90-253135822126v0"
NCU_VERSION = """NVIDIA (R) Nsight Compute Command Line Profiler
Copyright (c) 2018-2025 NVIDIA Corporation
Version 2025.3.1.0 (build 36398880) (public-release)"""

# what nsys 2025.3 printed on an H200, with and without libdw
RECORDED = """Capture range started in the application.
Capture range ended in the application.
Generating '/tmp/nsys-report-ba95.qdstrm'
[1/1] [0%                          ] x.nsys-rep\rProcessing events..."""
NO_LIBDW = (
    "/opt/nvidia/nsight-systems/2025.3.1/host-linux-x64/QdstrmImporter: error while loading shared "
    "libraries: libdw.so.1: cannot open shared object file: No such file or directory"
)


def program(path: Path, body: str) -> Path:
    """An executable shell script at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return path


def nsys(path: Path, profile: str = "", export: str = "", version: str = NSYS_VERSION) -> Path:
    """An nsys. In ``profile`` and ``export``: $OUT is where -o points, "${COMMAND[@]}" the program
    to run; ``export`` has the report in $REPORT."""
    return program(
        path,
        f"""
if [ "$1" = --version ]; then echo '{version}'; exit 0; fi
VERB=$1; shift
ARGUMENTS=("$@")
while [ $# -gt 0 ]; do
  case "$1" in
    -o) OUT=$2; shift 2;;
    -t|-s|-c|-f|--type) shift 2;;
    -*) shift;;
    *) break;;
  esac
done
COMMAND=("$@"); REPORT=$1
if [ "$VERB" = profile ]; then
{profile or ":"}
else
{export or ":"}
fi""",
    )


def ncu(path: Path, profile: str = "", page: str = "", version: str = NCU_VERSION) -> Path:
    """An ncu: ``profile`` as above, ``page`` is what ``--import`` does."""
    return program(
        path,
        f"""
if [ "$1" = --version ]; then echo '{version}'; exit 0; fi
ARGUMENTS=("$@")
while [ $# -gt 0 ]; do
  case "$1" in
    -o) OUT=$2; shift 2;;
    --import) IMPORTED=$2; shift 2;;
    --config-file|--nvtx-include|--profile-from-start|--clock-control|--cache-control) shift 2;;
    --metrics|--section|--page|--print-units) shift 2;;
    -*) shift;;
    *) break;;
  esac
done
COMMAND=("$@")
if [ -n "$IMPORTED" ]; then
{page or ":"}
else
{profile or ":"}
fi""",
    )
