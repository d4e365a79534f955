"""What ``ncu --csv --page raw`` prints, as KernelMetrics: one row a kernel, a second row of units.

The table may follow the program's own output and ncu's ``==PROF==`` lines. ncu writes numbers in
the style of a locale (2,464 or 2.464,00) and, depending on its version and options, in base units
or scaled ones; a metric that a chip lacks is an empty cell, 'n/a' or no column at all.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moeprof.errors import RecordError
from moeprof.records import KernelMetrics

# of each figure the metrics that give it, the best first (names as on GH100)
DURATION = ("gpu__time_duration.sum", "gpu__time_duration.avg", "gpu__time_duration.max")
DRAM_RATE = ("dram__bytes.sum.per_second",)
DRAM_FRACTION = (
    "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
)
# cycles in which the pipe works; the older ones count one kind of instruction
TENSOR_FRACTION = (
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
    "sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
)
OCCUPANCY = ("sm__warps_active.avg.pct_of_peak_sustained_active",)
# gpc first: of a kernel of 2 us the sm's is 5 % above the highest clock that the chip has
SM_CLOCK = (
    "gpc__cycles_elapsed.avg.per_second",
    "sm__cycles_elapsed.avg.per_second",
    "smsp__cycles_elapsed.avg.per_second",
)
REGISTERS = ("launch__registers_per_thread",)
_STALL = re.compile(r"smsp__average_warps?_issue_stalled_(\w+)_per_issue_active\.ratio")

_TIME_NS = {"n": 1.0, "u": 1e3, "m": 1e6, "": 1e9}
_SCALE = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15}
_NUMBER = re.compile(r"[-+]?[\d.,'\s\u00a0\u202f]*\d(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Table:
    """The table as printed: units by column, one mapping of cells a kernel, the decimal mark."""

    units: Mapping[str, str]
    rows: tuple[Mapping[str, str], ...]
    mark: str


def read_metrics(text: str, stage: str) -> tuple[KernelMetrics, ...]:
    """The kernels of ``stage`` in order of launch. RecordError if there is no such table."""
    table = read_table(text)
    return tuple(_metrics(table, row, stage, launch) for launch, row in enumerate(table.rows))


def read_table(text: str) -> Table:
    """The table in ``text``; RecordError if there is none or no kernel in it."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith('"ID",')]
    if not starts:
        raise RecordError("ncu printed no table", "the page raw as CSV")
    try:
        header, *records = csv.reader(lines[starts[0] :])
    except csv.Error as error:
        raise RecordError(f"ncu's table is no CSV ({error})", "the page raw as CSV") from None
    if "Kernel Name" not in header:
        raise RecordError("ncu's table names no kernels", "a column Kernel Name")
    whole = [record for record in records if len(record) == len(header)]
    units = next((record for record in whole if not record[0].strip()), [""] * len(header))
    kernels = [record for record in whole if record[0].strip().isdecimal()]
    if not kernels:
        raise RecordError("ncu's table holds no kernel", "at least one")
    rows = tuple(dict(zip(header, record, strict=True)) for record in kernels)
    return Table(dict(zip(header, units, strict=True)), rows, _decimal_mark(kernels))


def _metrics(table: Table, row: Mapping[str, str], stage: str, launch: int) -> KernelMetrics:
    def figure(names: Sequence[str]) -> float | None:
        found = (_figure(table, row, name) for name in names)
        return next((value for value in found if value is not None), None)

    def fraction(names: Sequence[str]) -> float | None:
        percent = figure(names)
        return None if percent is None else percent / 100

    duration_ns = figure(DURATION)
    if duration_ns is None:
        raise RecordError(f"ncu gives no duration of {row['Kernel Name']:.60}", DURATION[0])
    registers = figure(REGISTERS)
    return KernelMetrics(
        stage=stage,
        launch=launch,
        name=row["Kernel Name"],
        duration_ns=duration_ns,
        dram_bytes_per_second=figure(DRAM_RATE),
        dram_fraction=fraction(DRAM_FRACTION),
        tensor_pipe_fraction=fraction(TENSOR_FRACTION),
        occupancy_fraction=fraction(OCCUPANCY),
        sm_clock_hz=figure(SM_CLOCK),
        registers=None if registers is None else round(registers),
        stalls=_stalls(table, row),
    )


def _stalls(table: Table, row: Mapping[str, str]) -> dict[str, float]:
    """Warps waiting per instruction issued, by reason, the largest first."""
    found = {}
    for name in row:
        match = _STALL.fullmatch(name)
        value = _figure(table, row, name) if match else None
        if match and value and match.group(1) != "selected":  # which is the warp that issues
            found[match.group(1)] = value
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _figure(table: Table, row: Mapping[str, str], name: str) -> float | None:
    """One cell in base units: ns, bytes and cycles per second, per cent."""
    value = read_number(row.get(name, ""), table.mark)
    return None if value is None else value * _factor(table.units.get(name, ""))


def read_number(cell: str, mark: str) -> float | None:
    """A number whose decimal mark is ``mark`` ('.' or ','); None for anything else."""
    text = cell.strip()
    if not _NUMBER.fullmatch(text):
        return None
    plain = re.sub(r"[^\de+.,-]" if mark == "." else r"[^\de+,.-]", "", text.lower())
    plain = plain.replace("," if mark == "." else ".", "").replace(",", ".")
    try:
        value = float(plain)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _factor(unit: str) -> float:
    """From ``unit`` to the base unit of its kind; 1 for counts and ratios."""
    unit = unit.strip().lower()
    time = re.fullmatch(r"(n|u|m|)(?:s|sec|second)", unit)
    if time:
        return _TIME_NS[time.group(1)]
    rate = re.fullmatch(r"(k|m|g|t|p|)(?:byte|b)/(n|u|m|)s(?:ec|econd)?", unit)
    if rate:
        return _SCALE[rate.group(1)] * 1e9 / _TIME_NS[rate.group(2)]
    clock = re.fullmatch(r"(k|m|g|)hz", unit)
    if clock:
        return _SCALE[clock.group(1)]
    cycles = re.fullmatch(r"cycles?/(n|u|m|)s(?:ec|econd)?", unit)
    return 1e9 / _TIME_NS[cycles.group(1)] if cycles else 1.0


def _decimal_mark(rows: Sequence[Sequence[str]]) -> str:
    """The mark that the numbers of the table agree on; they are all of one locale."""
    votes = {".": 0, ",": 0}
    for row in rows:
        for cell in row:
            text = cell.strip()
            if _NUMBER.fullmatch(text):
                mark = _mark_of(text)
                if mark:
                    votes[mark] += 1
    return "," if votes[","] > votes["."] else "."


def _mark_of(text: str) -> str:
    """The decimal mark of one number, '' if it could be read either way."""
    marks = re.findall(r"[.,]", text)
    if len(set(marks)) == 2:
        return str(marks[-1])  # 1,234.56: the last one
    if len(marks) == 1:
        head, tail = re.split(r"[.,]", text)
        is_group = len(tail) == 3 and head.lstrip("+-").lstrip("0")
        return "" if is_group else str(marks[0])
    return "." if marks and marks[0] == "," else "," if marks else ""
