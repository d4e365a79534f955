"""docs/bench-h200.md is what the committed records and the published tables give."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from moeprof.storage.store import load
from scripts.bench_h200 import RECORDS, main
from scripts.bench_h200_claims import CLAIMS, _verdict
from scripts.bench_h200_data import published

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "bench-h200.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made() -> str:
    return main()


def section(number: int) -> str:
    return PAGE[PAGE.index(f"\n## {number}. ") :].split(f"\n## {number + 1}. ")[0]


def row(number: int, first: str) -> list[str]:
    line = next(line for line in section(number).splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_is_what_the_records_give(made):
    assert made == PAGE, "run: python -m scripts.bench_h200 > docs/bench-h200.md"


def test_the_published_tables_are_whole():
    every = published()
    assert [one.date for one in every] == ["2026-02-02"] * 4 + ["2026-02-26"]
    assert all(len(one.speedups) == 19 for one in every)
    assert [len(one.solutions) for one in every] == [2, 2, 2, 2, 4]
    # figures that the notes themselves print
    assert every[4].speedups[7] == (42.63, 9.64, 11.74, 31.64)
    means = [statistics.fmean(every[4].column(name)) for name in every[4].solutions]
    assert means == pytest.approx(every[4].printed_means, abs=0.006)
    won = [values.index(max(values)) for values in every[4].speedups.values()]
    assert [won.count(i) for i in range(4)] == [6, 0, 0, 13]
    assert sum(b > a for a, b in every[0].speedups.values()) == 17
    assert sum(a > b for a, b in every[1].speedups.values()) == 17


def test_a_row_of_the_page_reckoned_from_the_records():
    def median(solution: str, name: str, tokens: int) -> float:
        (path,) = (RECORDS / solution).rglob(f"T{tokens}-*.json.gz")
        found = load(path).samples(name)
        plain = [s.span_us for s in found if not s.stamps_us] or [s.span_us for s in found]
        return statistics.median(plain)

    for tokens, shown in ((56, "56"), (14107, "14,107")):
        reference = median("reference", "bare", tokens)
        one, other = ("flashinfer_moe", "triton_v2")
        expected = []
        for solution in (one, other):
            for name in ("bare", "graph"):
                expected.append(f"{reference / median(solution, name, tokens):.2f}x")
        cells = row(2, shown)
        assert [cells[3], cells[4], cells[6], cells[7]] == expected
        ratio = median(one, "graph", tokens) / median(other, "graph", tokens)
        assert cells[10] == f"{ratio:.2f}"


def test_every_note_has_its_claims_and_every_claim_a_verdict():
    words = re.compile(r"^(holds|does not hold|not seen)")
    for number in range(1, len(CLAIMS) + 1):
        table = section(number).split("| the note says |")[1]
        verdicts = [line.strip("|").split("|")[2].strip() for line in table.splitlines()[2:]
                    if line.startswith("| ")]  # fmt: skip
        assert len(verdicts) >= 4 and all(map(words.match, verdicts))
    assert "does not hold" in PAGE and "holds" in PAGE


@pytest.mark.parametrize(
    ("there", "own", "expected"),
    [
        (1.7, 1.6, "holds"),
        (1.7, 1.2, "holds in kind: less"),
        (1.071, 1.02, "holds in kind: less"),
        (1.1, 1.9, "holds in kind: more"),
        (1.3, 1.005, "does not hold"),
        (1.3, 0.8, "does not hold"),
        (0.3, 0.31, "holds"),
        (0.3, 0.8, "holds in kind: less"),
        (0.98, 0.9, "holds in kind: more"),
    ],
)
def test_verdicts(there, own, expected):
    assert _verdict(there, own) == expected
