"""moeprof's copies of flashinfer-bench's latencies beside the originals, and what they are made of.

Run on a GPU machine: python -m pytest tests/gpu/test_parity.py -m gpu -s
Takes about seven minutes. Every figure is taken in processes of its own: CUPTI has one client, and
FlashInfer's timer takes CUPTI down when it is done. The host of a process may be a few per cent
faster than that of the next, so both sides take turns, and a side is the median of its rounds.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from moeprof.analysis.parity import ParityLatency, parity_latency
from moeprof.analysis.profiles import UNATTRIBUTED
from moeprof.storage import store
from tests.gpu.test_fib import bench, export

pytestmark = pytest.mark.gpu

DRIVER = Path(__file__).with_name("parity_driver.py")
TURNS = Path(__file__).with_name("parity_turns.py")
SOLUTIONS = ("triton_v2", "triton_v3")
SIZES = (7, 56, 901, 14107)
# the host decides few tokens: flashinfer-bench itself read 602 and 570 us of one solution at T=56
# in two sessions, and main's timer 303 and 318 us at T=7
FEW = (7, 56, 901)
ROUNDS = (SIZES, FEW, FEW)
TOLERANCE = 0.03
CASES = [(solution, tokens) for solution in SOLUTIONS for tokens in SIZES]


@dataclass
class Figures:
    """Latencies of one solution and size, us, a round each; the last record's parts."""

    theirs: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ours: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    parts: dict[str, ParityLatency] = field(default_factory=dict)

    def difference(self, timer: str) -> float:
        """Ours less theirs, a fraction of theirs."""
        return statistics.median(self.ours[timer]) / statistics.median(self.theirs[timer]) - 1.0


@pytest.fixture(autouse=True, scope="module")
def flashinfers() -> None:
    """Without either there is nothing to compare with."""
    pytest.importorskip("flashinfer_bench")
    pytest.importorskip("flashinfer.testing")


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, int], Figures]:
    found: dict[tuple[str, int], Figures] = {case: Figures() for case in CASES}
    for number, sizes in enumerate(ROUNDS):
        folder = tmp_path_factory.mktemp(f"round{number}")
        root = folder / "dataset"
        export(root, SOLUTIONS, sizes)
        (folder / "cache").mkdir()
        for case, evaluation in bench(root, SOLUTIONS, folder / "cache").items():
            assert evaluation["status"] == "PASSED", evaluation["log"][-3000:]
            found[case].theirs["0.1.2"].append(evaluation["performance"]["latency_ms"] * 1e3)
        for solution, tokens in itertools.product(SOLUTIONS, sizes):
            printed = output(str(DRIVER), str(root), solution, str(tokens))
            found[solution, tokens].theirs["main"].append(float(printed.split()[-1]))
        for solution in SOLUTIONS:
            add_ours(found, solution, root, folder / solution)
    for case, one in found.items():
        show(case, one)
    return found


def output(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def add_ours(
    found: Mapping[tuple[str, int], Figures], solution: str, root: Path, traces: Path
) -> None:
    output(
        *("-m", "moeprof", "run", "--solution", solution, "--all-workloads"),
        *("--definition", "dsv3", "--dataset", str(root), "--parity", "both"),
        *("--passes", "bare,kernels", "--traces", str(traces)),
    )
    for file in (traces / "runs").rglob("*.json.gz"):
        run = store.load(file)
        one = found[solution, run.workload.seq_len]
        assert run.routing.weights_recipe == "harness"
        for timer in ("0.1.2", "main"):
            latency = parity_latency(run, timer)
            assert latency is not None
            one.ours[timer].append(latency.latency_ns / 1e3)
            one.parts[timer] = latency


def show(case: tuple[str, int], one: Figures) -> None:
    solution, tokens = case
    for timer in ("0.1.2", "main"):
        theirs, ours = (
            " ".join(f"{us:9.1f}" for us in side[timer]) for side in (one.theirs, one.ours)
        )
        parts = one.parts[timer]
        split = ", ".join(f"{row.name} {row.time_ns / 1e3:.1f}" for row in parts.rows)
        print(
            f"\n{solution} T={tokens} {timer}: theirs {theirs} us, ours {ours} us, "
            f"{100 * one.difference(timer):+.1f} %\n    ours = {split} "
            f"- observing {parts.observing_ns / 1e3:.1f} (busy {parts.busy_ns / 1e3:.1f})"
        )


@pytest.mark.parametrize(("solution", "tokens"), CASES)
@pytest.mark.parametrize("timer", ["0.1.2", "main"])
def test_latency_is_flashinfer_benchs(
    figures: Mapping[tuple[str, int], Figures], solution: str, tokens: int, timer: str
) -> None:
    one = figures[solution, tokens]
    rounds = sum(tokens in sizes for sizes in ROUNDS)
    assert len(one.theirs[timer]) == len(one.ours[timer]) == rounds
    assert abs(one.difference(timer)) <= TOLERANCE, (one.theirs[timer], one.ours[timer])


@pytest.mark.parametrize(("solution", "tokens"), CASES)
def test_every_latency_is_the_sum_of_its_parts(
    figures: Mapping[tuple[str, int], Figures], solution: str, tokens: int
) -> None:
    for timer, latency in figures[solution, tokens].parts.items():
        assert latency.residual_ns == 0 and not latency.notes, (timer, latency.notes)
        parts_ns = sum(row.time_ns for row in latency.rows) - latency.observing_ns
        assert parts_ns == pytest.approx(latency.latency_ns, abs=1e-3)
        assert UNATTRIBUTED not in {row.name for row in latency.rows}
        assert all(row.operations > 0 for row in latency.rows if row.name == "gemm1")
        if timer == "0.1.2":
            lead_in, *_, tail = latency.rows
            assert lead_in.time_ns > 0 and tail.time_ns > 0
            # the host's own lateness is the only thing that observing adds to
            # and it lets the GPU rest, which at T=14107 runs into its power cap: 2.6 and 3.0 %
            # quicker were seen
            assert -0.05 * latency.latency_ns < latency.observing_ns
        else:
            assert latency.observing_ns == 0


@pytest.mark.parametrize(("solution", "tokens"), CASES)
def test_the_event_timers_agree_in_turn(tmp_path: Path, solution: str, tokens: int) -> None:
    """In one process, where the host is the same for both: the timer and the call path alone."""
    export(tmp_path / "dataset", [solution], [tokens])
    rounds = 2 if tokens > 10_000 else 10
    printed = output(str(TURNS), str(tmp_path / "dataset"), solution, str(tokens), str(rounds))
    pairs = [tuple(map(float, line.split())) for line in printed.splitlines()[-rounds:]]
    ratios = [ours / theirs for theirs, ours in pairs]
    middle = statistics.median(ratios)
    print(
        f"\n{solution} T={tokens} in turn: theirs {statistics.median(p[0] for p in pairs):.1f} us, "
        f"ours {statistics.median(p[1] for p in pairs):.1f} us, {100 * (middle - 1):+.2f} % "
        f"({100 * (min(ratios) - 1):+.1f} to {100 * (max(ratios) - 1):+.1f})"
    )
    assert len(pairs) == rounds and abs(middle - 1) <= TOLERANCE
