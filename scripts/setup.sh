#!/usr/bin/env bash
# scripts/setup.sh PYTHON run|dev: makes .venv ready to run moeprof, or to test it as well.
#
#   no NVIDIA GPU               torch for the CPU and triton, whose interpreter runs the kernels
#   GPU, python has CUDA torch  a .venv that sees python's own packages: nothing large is fetched
#   GPU, python has none        torch for CUDA and the kernel libraries of the extra 'cuda'
#
# `make` calls it only when what it reads has changed. Says one line and ends with 2 on trouble.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 purpose=$2

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 2; }
pip() { .venv/bin/python -m pip install -qq --disable-pip-version-check "$@"; }

has_gpu() { nvidia-smi -L 2>/dev/null | grep -q GPU; }
sees_cuda() { "$1" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; }
imports() { .venv/bin/python -c "import $1" 2>/dev/null; }

check_python() {
  command -v "$python" >/dev/null || die "$python is not installed; apt-get install python3 python3-venv"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$python is $("$python" -V 2>&1); moeprof needs 3.11 or newer: make PYTHON=python3.12"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python cannot make a virtual environment; apt-get install python3-venv"
}

install_cpu_torch() {
  # the wheel without CUDA is 200 MB, the usual one over 2 GB: ask for the small one first
  pip -c constraints.txt torch==2.13.0+cpu triton 2>/dev/null ||
    pip -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 ||
    pip -c constraints.txt torch==2.13.0 || die "torch could not be installed: is there a network?"
  pip -c constraints.txt triton numpy || die "triton could not be installed"
}

install_on_gpu_torch() {
  # the machine's torch, triton and kernel libraries are used as they are
  for module in click:click rich:rich numpy:numpy nvtx:nvtx pynvml:nvidia-ml-py safetensors:safetensors \
    plotly:plotly
  do
    imports "${module%%:*}" || pip "${module##*:}" || die "${module##*:} could not be installed"
  done
  imports perfetto || pip perfetto 2>/dev/null || say "no perfetto: timelines are written as .json"
  imports scipy.stats || pip scipy 2>/dev/null || say "no scipy: records are checked elsewhere"
  local site
  site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  pwd >"$site/moeprof.pth" # an editable install that needs neither a network nor setuptools
  printf '#!/bin/sh\nexec "%s/.venv/bin/python" -m moeprof "$@"\n' "$PWD" >.venv/bin/moeprof
  chmod +x .venv/bin/moeprof
}

install_dev() {
  pip "${@}" -e '.[dev]' || die "the test tools could not be installed"
  # the one's TraceSet must read our dataset, the other's timer is what parity copies; what they
  # depend on is gigabytes of CUDA
  pip --no-deps flashinfer-bench==0.1.2 || die "flashinfer-bench could not be installed"
  imports flashinfer || pip --no-deps flashinfer-python==0.6.13 ||
    die "flashinfer-python could not be installed"
}

install_browser() {
  # the tests look at the report in it; without one they say so and are skipped
  for browser in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$browser" >/dev/null && return
  done
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing chromium for the tests of the report (once)"
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; } \
      >/dev/null 2>&1 && return
  fi
  say "no Chromium could be installed: the page of the report will not be tested"
}

check_python
if has_gpu && sees_cuda "$python"; then
  [ -x .venv/bin/python ] || "$python" -m venv --system-site-packages .venv
  say "using $python's own torch with CUDA"
  install_on_gpu_torch
  if [ "$purpose" = dev ]; then
    for tool in pytest hypothesis xdist:pytest-xdist ruff mypy websockets; do
      imports "${tool%%:*}" || pip "${tool##*:}" || die "${tool##*:} could not be installed"
    done
  fi
else
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  if has_gpu; then
    say "installing torch for CUDA and the kernel libraries (several GB, once)"
    pip torch==2.11.0 triton==3.6.0 || die "torch could not be installed"
    pip -e '.[cuda]' || die "the kernel libraries could not be installed"
  else
    say "installing torch for the CPU (once)"
    imports torch || install_cpu_torch
    pip -c constraints.txt -e . || die "moeprof could not be installed"
  fi
  if [ "$purpose" = dev ]; then
    if has_gpu; then install_dev; else install_dev -c constraints.txt; fi
  fi
fi
[ "$purpose" = run ] || install_browser
