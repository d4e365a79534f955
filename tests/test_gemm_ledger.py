"""The ledger of the GEMMs: exact small numbers, bounds by brute force, closing on real records."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.attribution import profile
from moeprof.errors import RecordError
from moeprof.ledger.expert_rows import ExpertRows, Range, expert_rows
from moeprof.ledger.floors import floor_rows, total
from moeprof.ledger.gemm_ledger import GemmRow, gemm_factors, gemm_rows, tiling
from moeprof.ledger.gemm_tiles import GemmTile
from moeprof.ledger.ledger import Ceilings
from moeprof.records import Run
from moeprof.reports.gemm_phrases import factor, gemm_notes
from moeprof.reports.json import run_document
from moeprof.reports.text import render_run
from tests.builders import Launch, eager_script, make_cpu_run, make_run, stage_info
from tests.test_gemm_tiles import runs
from tests.test_reports import shown

SOLUTIONS = ("reference", "sglang_v1", "sglang_v2", "triton_v1", "triton_v2", "flashinfer_moe")
SQUARE = GemmTile("CUTLASS", 128, 128, 128)


def recorded(solution: str, tokens: int) -> Run:
    return next(run for run in runs(solution) if run.workload.seq_len == tokens)


def ledger(solution: str, tokens: int) -> tuple[GemmRow, GemmRow]:
    run = recorded(solution, tokens)
    gemm1, gemm2 = gemm_rows(run, profile(run))
    return gemm1, gemm2


# -- tiles, padding, waves ------------------------------------------------------------------------


def test_tiles_of_a_small_product() -> None:
    """130, 0 and 1 rows x 256 columns in tiles of 128 x 128: (2 + 0 + 1) x 2, on 4 SMs."""
    found = tiling(ExpertRows((130, 0, 1), 0, "local"), 256, SQUARE, 4)
    assert found.tiles == Range(6, 6)
    assert found.padding.low == found.padding.high == 3 * 128 / 131
    assert found.waves.low == found.waves_of_fewest == 8 / 6  # two turns of four


def test_columns_are_padded_as_well() -> None:
    found = tiling(ExpertRows((128,), 0, "local"), 192, SQUARE, 1)
    assert found.padding.low == 256 / 192 and found.waves.low == 1.0


def test_a_cluster_is_one_unit_of_scheduling() -> None:
    """Clusters of 2 x 1 tiles: 3 row tiles become 4; 2 columns make 4 clusters on 3 pairs."""
    found = tiling(ExpertRows((300,), 0, "local"), 256, replace(SQUARE, cluster_rows=2), 7)
    assert found.tiles == Range(8, 8)
    assert found.padding.low == 512 / 300
    assert found.waves.low == 6 / 4


COUNTS = st.lists(st.integers(0, 60), min_size=2, max_size=5)


@given(COUNTS, st.integers(0, 80), st.integers(1, 40))
def test_bounds_are_those_of_every_way_to_share(
    known: list[int], shared: int, rows_per_tile: int
) -> None:
    rows = ExpertRows(tuple(known), shared, "clamped")
    ways = []
    for first in range(shared + 1):
        one = [*known]
        one[0] += first
        one[-1] += shared - first
        ways.append(one)
    tiles = [sum(-(-count // rows_per_tile) for count in one) for one in ways]
    assert rows.tiles(rows_per_tile) == (min(tiles), max(tiles))
    assert rows.busiest == Range(min(map(max, ways)), max(map(max, ways)))


def test_a_single_local_expert_has_every_clamped_row() -> None:
    stage = stage_info("gemm1", rows_executed=56, reads=("clamped_expert_ids",))
    run = make_run(stages=[stage_info(n) for n, _ in eager_script() if n != "gemm1"] + [stage])
    one = replace(run.routing, tokens_per_expert=(9,), active_experts=1)
    assert expert_rows(replace(run, routing=one), stage)[0] == ExpertRows((56,), 0, "clamped")


# -- rows of each expert --------------------------------------------------------------------------


def test_clamped_rows_are_exact_where_the_rank_is_at_an_end() -> None:
    """T = 14 runs the first experts, T = 16 the last: every other id lies on one side."""
    for tokens, end in ((14, -1), (16, 0)):
        run = recorded("triton_v2", tokens)
        stage = run.solution.stages[3]
        rows, why = expert_rows(run, stage)
        assert rows is not None and not why and rows.shared == 0 and rows.basis == "clamped"
        others = 8 * tokens - run.routing.local_pairs
        assert rows.known[end] == run.routing.tokens_per_expert[end] + others
        assert rows.total == 8 * tokens
        gemm1 = ledger("triton_v2", tokens)[0]
        assert gemm1.tiling is not None and gemm1.tiling.tiles.low == gemm1.tiling.tiles.high


def test_clamped_rows_of_a_rank_in_the_middle_are_bounded() -> None:
    gemm1, gemm2 = ledger("triton_v2", 14107)
    assert gemm1.tiling is not None and gemm2.tiling is not None and gemm1.rows is not None
    # 900 or 901 tiles of 128 rows, times 4096 / 128 and 7168 / 128
    assert gemm1.tiling.tiles == Range(900 * 32, 901 * 32)
    assert gemm2.tiling.tiles == Range(900 * 56, 901 * 56)
    assert gemm1.tiling.padding.low == 900 * 128 / 112_856
    assert gemm1.rows.shared == 112_856 - 13_982
    assert gemm1.rows.imbalance == Range(
        -(-(478 + 428 + 98_874) // 2) * 32 / 112_856, (478 + 98_874) * 32 / 112_856
    )


def test_counted_rows_go_before_anything_derived() -> None:
    run = recorded("triton_v2", 14107)
    counts = (112_856 - 31, *(1,) * 31)
    stage = replace(run.solution.stages[3], rows_per_expert=counts)
    assert expert_rows(run, stage)[0] == ExpertRows(counts, 0, "counted")


def test_rows_that_follow_from_nothing_are_unknown() -> None:
    run = recorded("triton_v2", 14107)
    stage = run.solution.stages[3]
    for changed in (replace(stage, rows_executed=20_000), replace(stage, rows_executed=None)):
        rows, why = expert_rows(run, changed)
        assert rows is None and "does not say" in why


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(RecordError, match="rows_per_expert of gemm1 sums to 4"):
        stage_info("gemm1", rows_executed=5, rows_per_expert=(4, 0))


# -- the product ----------------------------------------------------------------------------------

NS = st.floats(1e-3, 1e9)
FACTOR = st.floats(1.0, 100.0)


@given(NS, NS, NS, FACTOR, FACTOR, FACTOR)
def test_the_product_is_the_busy_time(
    busy_ns: float,
    bytes_ns: float,
    flops_ns: float,
    padding: float,
    waves: float,
    helpers: float,
) -> None:
    found = gemm_factors(busy_ns, bytes_ns, flops_ns, padding, waves, helpers)
    assert found is not None
    assert found.busy_ns == pytest.approx(busy_ns, rel=1e-12)
    assert 1.0 <= found.padding <= padding * (1 + 1e-12)
    assert 1.0 <= found.waves <= waves * (1 + 1e-12)


def test_bound_by_flops_padding_and_waves_count_in_full() -> None:
    found = gemm_factors(130.0, 10.0, 40.0, padding=2.0, waves=1.25, helpers=1.04)
    assert found is not None and (found.bound, found.ideal_bound) == ("FLOPs", "FLOPs")
    assert (found.ideal_ns, found.padding, found.waves) == (40.0, 2.0, 1.25)
    assert found.residual == pytest.approx(1.25)


def test_bound_by_bytes_they_do_not_count() -> None:
    found = gemm_factors(50.0, 40.0, 2.0, padding=8.0, waves=2.0)
    assert found is not None and (found.bound, found.ideal_bound) == ("bytes", "bytes")
    assert (found.ideal_ns, found.padding, found.waves, found.residual) == (40.0, 1.0, 1.0, 1.25)


def test_padding_that_turns_bytes_into_flops_counts_for_what_it_adds() -> None:
    found = gemm_factors(60.0, 10.0, 4.0, padding=5.0, waves=1.5)
    assert found is not None and (found.bound, found.ideal_bound) == ("FLOPs", "bytes")
    assert (found.ideal_ns, found.padding, found.waves, found.residual) == (10.0, 2.0, 1.5, 2.0)


def test_nothing_done_has_no_factors() -> None:
    assert gemm_factors(10.0, 0.0, 0.0) is None and gemm_factors(0.0, 1.0, 1.0) is None


# -- records --------------------------------------------------------------------------------------


@pytest.mark.parametrize("solution", SOLUTIONS)
def test_every_recorded_gemm_closes(solution: str) -> None:
    for run in runs(solution):
        explained = profile(run)
        rows = gemm_rows(run, explained)
        assert [row.step for row in rows] == ["gemm1", "gemm2"]
        for row in rows:
            stage = explained.stage(row.name)
            assert stage is not None and row.busy_ns == stage.busy_ns
            assert row.factors is not None
            assert row.factors.busy_ns == pytest.approx(stage.busy_ns, rel=1e-12)
            assert row.factors.residual > 1.0  # no kernel beats the ceilings
            assert (row.tile is None) == (solution == "reference") == bool(row.why)
            assert (row.tiling is None) == (solution == "reference")
            assert row.rows is not None and row.rows.imbalance is not None


def test_both_kernels_leave_the_same_residual_of_the_rows_they_pad() -> None:
    """T = 14107: 5.8 ms against 0.85 ms in gemm1, and none of it is the kernel's efficiency."""
    clamped, local = ledger("triton_v2", 14107), ledger("flashinfer_moe", 14107)
    for mine, theirs in zip(clamped, local, strict=True):
        assert mine.factors is not None and theirs.factors is not None
        assert mine.factors.residual == pytest.approx(theirs.factors.residual, rel=0.06)
        assert mine.factors.ideal_ns / theirs.factors.ideal_ns == pytest.approx(8.08, abs=0.02)
        assert theirs.tiling is not None
        assert theirs.factors.padding == theirs.tiling.padding.low == 128 * 128 / 13_982


def test_helper_kernels_are_told_apart() -> None:
    """sgl sets pointers up before each product; FlashInfer's rows are one kernel."""
    for row in ledger("triton_v2", 1):
        assert row.factors is not None and 1.02 < row.factors.helpers < 1.12
    for row in ledger("flashinfer_moe", 1):
        assert row.factors is not None and row.factors.helpers == 1.0


def test_several_gemm_kernels_in_a_row_are_not_told_apart() -> None:
    name = (
        "void deep_gemm::fp8_gemm_kernel<4096u, 7168u, 64u, 128u, 128u, 32u, 8u, 128u, 128u, 1u, "
        "deep_gemm::GroupedWithOffsetScheduler<1u> >(int)"
    )
    for kernels, why in (
        (1, ()),
        (2, ("2 GEMM kernels in one row: their rows cannot be told apart",)),
    ):
        script = [
            (n, [Launch(name, 9_000)] * kernels if n == "gemm1" else m) for n, m in eager_script()
        ]
        infos = [stage_info(n, rows_executed=9, flops=10**9) for n, _ in script]
        run = make_run(script, stages=infos)
        gemm1, gemm2 = gemm_rows(run, profile(run))
        assert gemm1.why == why and (gemm1.tile is None) == (kernels == 2)
        assert gemm2.why == ("no kernel of the row has its tile in its name",)
        other = replace(
            run,
            workload=replace(
                run.workload, constants={**run.workload.constants, "intermediate_size": 512}
            ),
        )
        if kernels == 1:
            assert gemm_rows(other, profile(other))[0].why == (
                "deep_gemm::fp8_gemm_kernel is built for 4,096 columns, gemm1 has 1,024",
            )


def test_clocks_around_stages_have_no_ledger() -> None:
    events = replace(recorded("flashinfer_moe", 7), timelines=())
    for run, source in ((make_cpu_run(), "stage clock"), (events, "events")):
        explained = profile(run)
        assert explained.source == source
        assert gemm_rows(run, explained) == ()
        assert "GEMMs" not in shown(render_run(run))


# -- the work ledger in time ----------------------------------------------------------------------


def test_floors_of_a_record_multiply_to_its_busy_time() -> None:
    run = recorded("triton_v2", 14107)
    explained = profile(run)
    rows = floor_rows(run, explained, Ceilings(4.39e12, 1.486e15))
    for row in rows:
        assert row.factors is not None
        assert row.factors.busy_ns == pytest.approx(row.work.busy_ns, rel=1e-12)
    whole = total(rows)
    assert whole is not None and whole.busy_ns == pytest.approx(explained.busy_ns)
    assert whole.amplification == pytest.approx(7.6, abs=0.05)


def test_unneeded_work_amplifies_the_whole() -> None:
    run = recorded("flashinfer_moe", 14107)
    rows = floor_rows(run, profile(run), Ceilings(4.39e12, 1.488e15))
    (cast,) = (row for row in rows if row.unneeded and row.work.busy_ns)
    assert cast.work.name == "dequantise" and cast.factors is None and cast.best_ns is not None
    whole = total(rows)
    floors = sum(row.factors.floor_ns for row in rows if row.factors)
    assert whole is not None and whole.amplification == pytest.approx(1 + cast.best_ns / floors)


# -- reports --------------------------------------------------------------------------------------


def test_the_block_below_the_table() -> None:
    lines = [
        " ".join(line.split()) for line in shown(render_run(recorded("flashinfer_moe", 14107)), 200)
    ]
    at = lines.index("GEMMs")
    assert lines[at + 1 : at + 5] == [
        "gemm1 DeepGEMM tile 128x128x128, padding 1.17x, waves 1.03x (4,096 tiles on 132 SMs), "
        "busiest expert 1.10x the mean, 3 % of the tiles",
        "848.8 us = 551.8 us of FLOPs x padding 1.17 x waves 1.03 x residual 1.27; bound by FLOPs",
        "gemm2 DeepGEMM tile 128x128x128, padding 1.17x, waves 1.01x (7,168 tiles on 132 SMs), "
        "busiest expert 1.10x the mean, 3 % of the tiles",
        "470.8 us = 275.9 us of FLOPs x padding 1.17 x waves 1.01 x residual 1.44; bound by FLOPs",
    ]
    at = next(i for i, line in enumerate(lines) if line.startswith("Work ledger"))
    table = {line.split()[0]: line for line in lines[at : at + 20] if line}
    assert table["gemm1"] == "gemm1 1,157.6 821.0 551.8 1.0x* 65.0 % 848.8 FLOPs"
    assert table["dequantise"] == "dequantise - - 0.0 unneeded 9.1 % 771.8 bytes"
    assert table["sum"] == "sum 2,627.0 1,231.7 1,003.1 1.1x 34.7 % 3,094.2"


def test_narrow_terminals_keep_the_gemms_and_drop_the_work_ledger() -> None:
    run = recorded("triton_v2", 1)
    assert not any("Work ledger" in line for line in shown(render_run(run), 99))
    assert any("Work ledger" in line for line in shown(render_run(run), 100))
    assert "GEMMs" in shown(render_run(run), 99)


def test_sentences_of_a_gemm_bound_by_bytes() -> None:
    notes = gemm_notes(ledger("triton_v2", 1))
    assert notes[0] == (
        "gemm1",
        "CUTLASS tile 128x32x128 with A and B swapped (32 rows), padding 8.00x to 12.0x, waves "
        "1.38x to 2.06x (64 to 96 tiles on 132 SMs), busiest expert 16.0x to 28.0x the mean, 33 "
        "to 50 % of the tiles: pairs of other ranks pile up on the first and the last expert",
    )
    assert notes[1] == (
        "gemm1",
        "37.4 us = 20.1 us of bytes x helper kernels 1.03 x residual 1.80; bound by bytes, which "
        "padding and waves do not add to; only 64 to 96 of 132 SMs have a tile, which the "
        "residual holds",
    )
    (label, sentence), *_ = gemm_notes(ledger("reference", 7))
    assert (label, sentence) == (
        "gemm1",
        "tile unknown, busiest expert 12.0x the mean (no kernel of the row has its tile in its "
        "name)",
    )
    assert factor(Range(1.001, 1.004)) == "1.00x"


def test_the_document_has_both_ledgers() -> None:
    document = json.loads(json.dumps(run_document(recorded("triton_v2", 14107)), allow_nan=False))
    gemm1, _ = document["gemms"]
    assert gemm1["tile"]["shape"] == "128x128x128" and gemm1["unknown"] == []
    assert gemm1["tiles"] == [28_800, 28_832]
    time = gemm1["time"]
    product = time["ideal_us"] * time["padding"] * time["waves"] * time["helpers"]
    assert product * time["residual"] == pytest.approx(time["busy_us"])
    stage = next(stage for stage in document["stages"] if stage["name"] == "gemm1")["floor"]
    floor = stage["floor_us"] * stage["amplification"] / stage["efficiency"]
    assert floor == pytest.approx(time["busy_us"]) and stage["bound"] == "FLOPs"
    assert document["ceilings"]["source"].startswith("measured beside the runs")
    unmeasured = run_document(make_cpu_run())
    assert unmeasured["gemms"] == [] and unmeasured["stages"][0]["floor"] is None
