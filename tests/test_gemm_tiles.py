"""Tiles read off real kernel names; names that do not tell, with the reason; damaged names."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.rows import rows_of
from moeprof.ledger.gemm_tiles import GemmTile, Parsed, parse_kernel, short_name, template_arguments
from moeprof.ledger.mangled import demangled
from moeprof.records import Run
from moeprof.storage import store

RECORDED = Path(__file__).resolve().parents[1] / "traces" / "recorded" / "h200"
SGL_SMALL = GemmTile("CUTLASS", 32, 128, 128, swap_ab=True, cluster_columns=2)
SGL_LARGE = GemmTile("CUTLASS", 128, 128, 128, cluster_columns=2)
OFFSETS = "deep_gemm::GroupedWithOffsetScheduler<4096u, 64u, 128u, 32u, 1u, 32u, 16u>"


@cache
def runs(solution: str) -> tuple[Run, ...]:
    return tuple(store.load(file) for file in sorted((RECORDED / solution).rglob("*.json.gz")))


def gemm_kernels(run: Run) -> dict[str, set[GemmTile | None]]:
    """The tiles found in each GEMM row; {None} where no kernel tells."""
    timeline = run.timeline("api")
    assert timeline is not None
    found: dict[str, set[GemmTile | None]] = {}
    for operations in timeline.operation_sets:
        rows = rows_of(operations, run.solution.stages)
        for operation, row in zip(operations, rows, strict=True):
            tile = parse_kernel(operation.name).tile
            if row in ("gemm1", "gemm2"):
                found.setdefault(row, set()).add(tile)
            else:
                assert tile is None, operation.name
    return {row: tiles - {None} or {None} for row, tiles in found.items()}


def deep_gemm(tokens: int, columns: int, depth: int) -> GemmTile:
    """FlashInfer's choice by tokens: swapped below 32, 64 rows below 64, else 128."""
    rows = 16 if tokens < 32 else 64 if tokens < 64 else 128
    return GemmTile(
        "DeepGEMM", rows, 128, 128, tokens < 32, columns_built=columns, depth_built=depth
    )


@pytest.mark.parametrize("solution", ["sglang_v1", "sglang_v2", "triton_v1", "triton_v2"])
def test_sgl_switches_tiles_at_2048_executed_rows(solution: str) -> None:
    for run in runs(solution):
        tile = SGL_SMALL if 8 * run.workload.seq_len <= 2048 else SGL_LARGE
        assert gemm_kernels(run) == {"gemm1": {tile}, "gemm2": {tile}}


def test_flashinfer_chooses_by_tokens_not_by_rows_of_an_expert() -> None:
    for run in runs("flashinfer_moe"):
        tokens = run.workload.seq_len
        assert gemm_kernels(run) == {
            "gemm1": {deep_gemm(tokens, 4096, 7168)},
            "gemm2": {deep_gemm(tokens, 7168, 2048)},
        }


def test_the_reference_names_no_tile() -> None:
    for run in runs("reference"):
        assert gemm_kernels(run) == {"gemm1": {None}, "gemm2": {None}}


@cache
def mangled_names() -> tuple[str, ...]:
    """The names that the demangler gave up on when the records were made."""
    found: dict[str, None] = {}
    for solution in ("triton_v2", "flashinfer_moe"):
        for run in runs(solution):
            for timeline in run.timelines:
                for operations in timeline.operation_sets:
                    found.update(dict.fromkeys(operation.name for operation in operations))
    names = tuple(name for name in found if name.startswith("_Z"))
    assert len(names) == 2
    return names


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="no c++filt to compare with")
def test_long_names_read_as_binutils_reads_them() -> None:
    for name in mangled_names():
        whole = subprocess.run(["c++filt", "-r", name], capture_output=True, text=True, check=True)
        expected = whole.stdout.strip().removeprefix("void ")
        while "> >" in expected:
            expected = expected.replace("> >", ">>")
        found = demangled(name)
        assert found is not None and len(found) > 2_500
        assert expected == f"{found}({expected[len(found) + 1 :]}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain_kernel", "plain_kernel"),
        ("_Z6kernelv", "kernel"),
        ("_ZN3foo3barIiLi3EEEvT_", "foo::bar<int, 3>"),
        ("_ZN3foo3barINS_1AIPKfEES1_Lb1EEEvv", "foo::bar<foo::A<float const*>, foo::A, true>"),
        ("_ZN3foo3barINS_1AIPKfEES5_Lb0EEEvv", None),  # there is no S5_
        ("_ZN3foo3barIJlmEEEvv", "foo::bar<long, unsigned long>"),
        ("_ZN3foo3barILNS_1EE2ELjn7EEEvv", "foo::bar<(foo::E)2, -7u>"),
        ("_ZN3foo3barIFvvEEEvv", None),  # a function type
        ("_ZN3foo99barE", None),
        ("_Z", None),
    ],
)
def test_short_mangled_names(name: str, expected: str | None) -> None:
    assert demangled(name) == expected


def test_substitutions_are_counted_as_the_abi_counts_them() -> None:
    """S_ foo, S0_ foo::bar, S1_ foo::A, S2_ float const, S3_ pointer to it, S4_ foo::A<...>."""
    stem = "_ZN3foo3barINS_1AIPKfEE{}EEvv"
    seen = ("S_", "foo"), ("S0_", "foo::bar"), ("S1_", "foo::A"), ("S2_", "float const")
    for reference, meaning in (*seen, ("S3_", "float const*"), ("S4_", "foo::A<float const*>")):
        assert demangled(stem.format(reference)) == f"foo::bar<foo::A<float const*>, {meaning}>"


@settings(deadline=None)
@given(st.data())
def test_a_damaged_name_is_refused_or_read_but_never_raises(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(mangled_names()))
    begin = data.draw(st.integers(2, len(name) - 1))
    end = data.draw(st.integers(begin, len(name)))
    inserted = data.draw(st.text("NSEIJLPKTi_0123456789F", max_size=4))
    tile = parse_kernel(name[:begin] + inserted + name[end:]).tile
    assert tile is None or min(tile.rows, tile.columns, tile.cluster_rows) >= 1
    assert demangled(name[: min(begin, name.rindex("EEvNT_"))]) is None


def test_names_that_would_grow_without_end_are_refused() -> None:
    doubling = "".join(f"N1aI{'S_' if n == 0 else f'S{n}_'}S0_EE" for n in range(40))
    assert demangled(f"_ZN1kI{'P' * 5000}iEE") is None
    assert demangled("_ZN1k" + "I" * 5000) is None
    assert demangled(f"_ZN1kI{doubling}EEvv") is None


def test_a_name_that_cannot_be_read_says_so() -> None:
    assert parse_kernel("_ZN7cutlass4gemmIFvvEEE") == Parsed(
        None, "its mangled name is not understood"
    )
    assert parse_kernel("_ZN3fooIFvvEEE") == Parsed(None)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fp8_gemm_kernel<4096u, 7168u, 64u>(int)", "of unknown form"),
        (
            "fp8_gemm_kernel<4096u, 7168u, 64u, 128u, 128u, 32u, 8u, 128u, 128u, 2u, " + OFFSETS,
            "multicasts between blocks",
        ),
        (
            "fp8_gemm_kernel<4096u, 7168u, 64u, 128u, 128u, 32u, 8u, 128u, 128u, 1u, "
            "deep_gemm::NormalScheduler<4096u>",
            "does not schedule by expert offsets",
        ),
    ],
)
def test_deep_gemm_kernels_that_tile_otherwise(name: str, why: str) -> None:
    end = "" if name.endswith(")") else ">(float*)"
    parsed = parse_kernel(f"void deep_gemm::{name}{end}")
    assert parsed.tile is None and why in parsed.why


@pytest.mark.parametrize(
    ("found", "instead", "why"),
    [
        ("MainloopSm90", "MainloopSm100", "another architecture"),
        ("GroupProblemShape", "ProblemShape", "one product"),
        ("tuple<cute::C<1>, long, cute::C<0>>", "tuple<long, long, long>", "layout"),
        ("cute::tuple<cute::C<128>, cute::C<32>, ", "cute::tuple<int, int, ", "not part of"),
    ],
)
def test_cutlass_kernels_that_are_not_understood(found: str, instead: str, why: str) -> None:
    (name,) = (name for name in mangled_names() if parse_kernel(name).tile == SGL_SMALL)
    text = demangled(name)
    assert text is not None and found in text
    parsed = parse_kernel(text.replace(found, instead))
    assert parsed.tile is None and why in parsed.why


def test_a_tile_is_shown_as_its_library_calls_it() -> None:
    assert SGL_SMALL.shape == "128x32x128" and (SGL_SMALL.rows, SGL_SMALL.columns) == (32, 128)
    assert deep_gemm(7, 4096, 7168).shape == "128x16x128"
    assert deep_gemm(52, 4096, 7168).shape == "64x128x128"


def test_short_names() -> None:
    assert short_name("void at::native::(anonymous namespace)::fill<4, F<int> >(int)") == (
        "native::fill"
    )
    assert short_name("std::enable_if<!(false), void>::type gemvx::kernel<int>(P)") == (
        "gemvx::kernel"
    )
    assert {short_name(name) for name in mangled_names()} == {"CUTLASS grouped GEMM"}
    assert len(short_name("k" * 200)) == 60


def test_template_arguments() -> None:
    assert template_arguments("f<a<b, c>, (d, e)1, g>(h)", "f") == ("a<b, c>", "(d, e)1", "g")
    assert template_arguments("f<a<b", "f") == () == template_arguments("g<a>", "f")
