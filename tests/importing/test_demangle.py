"""Names of kernels and calls: what libstdc++ says, what it does not, what a terminal may see."""

from __future__ import annotations

import time

import pytest

from moeprof.importing import demangle
from moeprof.importing.demangle import demangled
from moeprof.importing.names import api_name, printable


def test_mangled_names_are_spelled_out_and_others_are_not_asked():
    names = ["gather_kernel", "_Z12scale_kernelPKfi", "_ZN1a1bIfLi4EEEvv", "_Zbroken", "_Z", ""]
    assert demangled(names) == {
        "_Z12scale_kernelPKfi": "scale_kernel(float const*, int)",
        "_ZN1a1bIfLi4EEEvv": "void a::b<float, 4>()",
        "_Zbroken": "_Zbroken",
    }


@pytest.mark.parametrize("name", ["_Z1f\ni", "_Z1f i", "_Z1f;i", "_Z1fé", "_Z" + "1a" * 10_001])
def test_what_cannot_be_a_mangled_name_is_not_passed_on(name):
    assert demangled([name]) == {}


def _doubling(levels: int) -> str:
    """A name whose spelling doubles with every few letters."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "_Z1fISt4pairIiiE" + "".join(f"S0_IS{n}_S{n}_E" for n in digits[1:][:levels]) + "EvT_"


@pytest.mark.parametrize("levels", [22, 35])  # 70 MB, then more than any machine has
def test_a_name_that_would_fill_the_memory_costs_neither_it_nor_the_other_names(
    levels, monkeypatch
):
    monkeypatch.setattr(demangle, "SECONDS", 1)
    began = time.monotonic()
    found = demangled(["_Z1gi", _doubling(10), _doubling(levels), "_Z1hi"])
    assert time.monotonic() - began < 15
    assert (found["_Z1gi"], found["_Z1hi"]) == ("g(int)", "h(int)")
    assert len(found[_doubling(10)]) == 20_000
    assert found.get(_doubling(levels), _doubling(levels)) == _doubling(levels)


def test_names_keep_their_spelling_where_the_demangler_dies_or_hangs(monkeypatch):
    monkeypatch.setattr(demangle, "_PROGRAM", "import os; os.abort()")
    assert demangled(["_Z1gi"]) == {}
    answers_once = "import sys, time; print(sys.stdin.readline()[2:4], flush=True); time.sleep(60)"
    monkeypatch.setattr(demangle, "_PROGRAM", answers_once)
    monkeypatch.setattr(demangle, "SECONDS", 0.1)
    assert demangled(["_Z1gi", "_Z1hi", "_Z1ji"]) == {"_Z1gi": "1g", "_Z1ji": "1j"}
    monkeypatch.setattr(demangle.sys, "executable", "/nowhere/python")
    assert demangled(["_Z1gi"]) == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("gemm<float>(int)", "gemm<float>(int)"),
        ("a\tb\nc\u2028d", "a b c d"),
        ("\x1b[2J\x00\x7f\u202e\ud800", "\ufffd[2J" + "\ufffd" * 4),
        ("αβγ", "αβγ"),
        ("x" * 30, "x" * 9 + "…"),
    ],
)
def test_printable(text, shown):
    assert printable(text, 10) == shown if len(text) > 20 else printable(text) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cudaLaunchKernel_v7000", "cudaLaunchKernel"),
        ("cudaMemcpyAsync_ptsz_v7000", "cudaMemcpyAsync_ptsz"),
        ("cuLaunchKernelEx", "cuLaunchKernelEx"),
        ("cuMemcpyDtoDAsync_v2", "cuMemcpyDtoDAsync"),
    ],
)
def test_api_names_have_no_version(name, shown):
    assert api_name(name) == shown
