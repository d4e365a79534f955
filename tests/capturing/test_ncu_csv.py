"""ncu's raw page as CSV: real output of an H200, and the styles of other locales and versions."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.capturing.ncu_csv import read_metrics, read_number, read_table
from moeprof.errors import RecordError
from moeprof.storage import store
from tests.privacy import private_words

DATA = Path(__file__).resolve().parents[1] / "data" / "ncu"
STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"


def real(name: str) -> str:
    return (DATA / name).read_text()


def printed(units: dict[str, str], *rows: dict[str, str], before: str = "") -> str:
    """A table as ncu prints one, after ``before``."""
    header = ["ID", "Kernel Name", *units]
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(header)
    writer.writerow(["", "", *units.values()])
    for number, row in enumerate(rows):
        writer.writerow([str(number), *(row.get(name, "") for name in header[1:])])
    return before + out.getvalue()


def test_two_kernels_of_gemm1_at_56_tokens() -> None:
    helper, gemm = read_metrics(real("h200_gemm1_two_kernels.csv"), "gemm1")
    assert (helper.launch, gemm.launch) == (0, 1)
    assert (helper.stage, gemm.stage) == ("gemm1", "gemm1")
    assert helper.name.startswith("void get_group_gemm_starts<float_e4m3_t, bfloat16_t, float")
    assert gemm.name.startswith("void device_kernel<gemm::GemmUniversal<")
    assert (helper.duration_ns, gemm.duration_ns) == (3200.0, 241984.0)
    assert gemm.dram_bytes_per_second == 3_592_517_323_459.40
    assert gemm.tensor_pipe_fraction == pytest.approx(0.0220)
    assert (helper.registers, gemm.registers) == (30, 168)
    assert gemm.dram_fraction is None and gemm.occupancy_fraction is None
    assert gemm.sm_clock_hz is None and gemm.stalls == {}


def test_every_figure_of_the_full_set() -> None:
    (kernel,) = read_metrics(real("h200_gemm1_full_set.csv"), "gemm1")
    assert kernel.duration_ns == 2464.0
    assert kernel.dram_bytes_per_second == 2_181_818_181.82
    assert kernel.dram_fraction == pytest.approx(0.0005)
    assert kernel.tensor_pipe_fraction == 0.0  # and not None: the pipe was idle
    assert kernel.occupancy_fraction == pytest.approx(0.0156)
    assert kernel.sm_clock_hz == 1_963_778_409.09  # gpc's; the sm's 2.056 GHz is above the chip's
    assert kernel.registers == 30
    assert list(kernel.stalls.items())[:4] == [
        ("long_scoreboard", 7.72),
        ("no_instruction", 3.25),
        ("imc_miss", 1.32),
        ("wait", 1.15),
    ]
    assert "selected" not in kernel.stalls and "barrier" not in kernel.stalls


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.glob("*.csv")))
def test_the_files_kept_name_nobody(name: str) -> None:
    assert store.leaks(real(name), private_words()) == ()


@pytest.mark.parametrize(
    ("time", "rate", "clock", "duration_ns"),
    [
        (("ns", "241,984"), ("byte/s", "3,592,517,323,459.40"), ("hz", "1,980,000,000"), 241984),
        (("us", "241.98"), ("Tbyte/s", "3.59"), ("Ghz", "1.98"), 241980),
        (("usecond", "241.98"), ("Gbyte/second", "3,590.00"), ("cycle/nsecond", "1.98"), 241980),
        (("ms", "0.24"), ("Mbyte/s", "3,590,000.00"), ("Mhz", "1,980.00"), 240000),
        (("second", "0.00024"), ("byte/ns", "3,590.00"), ("cycle/usecond", "1,980.00"), 240000),
    ],
)
def test_scaled_units_are_brought_back(
    time: tuple[str, str], rate: tuple[str, str], clock: tuple[str, str], duration_ns: float
) -> None:
    names = ("gpu__time_duration.sum", "dram__bytes.sum.per_second")
    cycles = "sm__cycles_elapsed.avg.per_second"
    units = {names[0]: time[0], names[1]: rate[0], cycles: clock[0]}
    row = {"Kernel Name": "k", names[0]: time[1], names[1]: rate[1], cycles: clock[1]}
    (kernel,) = read_metrics(printed(units, row), "gemm1")
    assert kernel.duration_ns == pytest.approx(duration_ns)
    assert kernel.dram_bytes_per_second == pytest.approx(3.59e12, rel=1e-3)
    assert kernel.sm_clock_hz == pytest.approx(1.98e9)


@pytest.mark.parametrize("group", [".", "\u00a0", "\u202f", " ", "'"])
def test_a_comma_may_be_the_decimal_mark(group: str) -> None:
    name, percent = "gpu__time_duration.sum", "sm__warps_active.avg.pct_of_peak_sustained_active"
    row = {"Kernel Name": "k", name: f"241{group}984", percent: "9,37"}
    (kernel,) = read_metrics(printed({name: "ns", percent: "%"}, row), "gemm1")
    assert kernel.duration_ns == 241984.0
    assert kernel.occupancy_fraction == pytest.approx(0.0937)


def test_the_programs_own_output_may_come_first() -> None:
    units = {"gpu__time_duration.sum": "ns"}
    row = {"Kernel Name": 'a "quoted", <b, c>', "gpu__time_duration.sum": "1,000"}
    before = 'loading "ID" 3\n==PROF== Connected to process 7 (/usr/bin/x)\n"IDs","of","mine"\n'
    text = printed(units, row, before=before) + "==PROF== Disconnected from process 7\n"
    (kernel,) = read_metrics(text, "s")
    assert (kernel.name, kernel.duration_ns) == ('a "quoted", <b, c>', 1000.0)


@pytest.mark.parametrize("cell", ["", "n/a", "(!) n/a", "nan", "inf", "-", "(32, 1, 1)", "No-CC"])
def test_what_is_no_number_is_unknown(cell: str) -> None:
    name, rate = "gpu__time_duration.sum", "dram__bytes.sum.per_second"
    units = {name: "ns", rate: "byte/s", "launch__registers_per_thread": ""}
    row = {"Kernel Name": "k", name: "1.5", rate: cell, "launch__registers_per_thread": cell}
    (kernel,) = read_metrics(printed(units, row), "s")
    assert kernel.dram_bytes_per_second is None and kernel.registers is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "printed no table"),
        ("==ERROR== something\n", "printed no table"),
        ('"ID","Process"\n"","" \n', "names no kernels"),
        (printed({"gpu__time_duration.sum": "ns"}), "holds no kernel"),
        (printed({"x": "ns"}, {"Kernel Name": "k", "x": "1"}), "no duration of k"),
        (f'"ID","Kernel Name"\n"0","{"k" * 200_000}"\n', "is no CSV"),
        ('"ID","Kernel Name","gpu__time_duration.sum"\n"","","ns"\n"0","k"\n', "no kernel"),
    ],
)
def test_what_is_no_table_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        read_metrics(text, "gemm1")


@given(st.floats(0, 1e15, allow_nan=False), st.sampled_from([".", ","]))
def test_a_number_is_read_back_in_either_style(value: float, mark: str) -> None:
    english = f"{value:,.2f}"
    text = english if mark == "." else english.translate(str.maketrans(",.", ".,"))
    found = read_number(text, mark)
    assert found is not None and math.isclose(found, round(value, 2), abs_tol=0.006)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        assert read_table(f'"ID","Kernel Name","x"\n"0","k","1"\n{text}').rows
    except RecordError:
        pass


@given(st.text(max_size=30), st.sampled_from([".", ","]))
def test_any_cell_is_a_finite_number_or_unknown(cell: str, mark: str) -> None:
    value = read_number(cell, mark)
    assert value is None or math.isfinite(value)
