"""Real captures of an H200 through the half of ``moeprof timeline`` that comes after the tool."""

from __future__ import annotations

import shutil
import statistics
from collections import Counter
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest

from moeprof.capturing.capture import Captured, Files
from moeprof.capturing.imported import as_record
from moeprof.capturing.job import GraphNodes
from moeprof.records import Run
from moeprof.storage import store
from moeprof.timelines import TimelinePass

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
RECORDED = ROOT / "traces" / "recorded" / "h200"


def recorded(solution: str, tokens: int) -> Run:
    (file,) = RECORDED.glob(f"{solution}/dsv3/T{tokens}-*.json.gz")
    return store.load(file)


def imported(tmp_path: Path, name: str, known: Run, nodes: GraphNodes | None = None) -> Run:
    """The record of the export ``name``, with what ``known`` says but its times."""
    tool = "nsys" if name.endswith(".sqlite") else "torch"
    files = Files(tmp_path, "capture", tool)
    assert files.export is not None
    shutil.copyfile(DATA / ("nsys" if tool == "nsys" else "kineto") / name, files.export)
    skeleton = replace(known, passes=(), timelines=(), calibration=None)
    return as_record(Captured(skeleton, nodes), files)


def stage_us(timeline: TimelinePass) -> dict[str, float]:
    """Median over iterations of each stage's summed operations."""
    totals: dict[str, list[float]] = {}
    for iteration in timeline.iterations:
        found: Counter[str] = Counter()
        operations = timeline.operation_sets[iteration.operation_set]
        for number, operation in enumerate(operations):
            found[operation.stage] += iteration.end_ns[number] - iteration.start_ns[number]
        for stage, total in found.items():
            totals.setdefault(stage, []).append(total / 1e3)
    return {stage: statistics.median(values) for stage, values in totals.items()}


def test_a_replayed_graphs_stages_are_those_of_moeprofs_own_record(tmp_path: Path) -> None:
    known = recorded("triton_v2", 56)
    graph = known.timeline("graph")
    assert graph is not None
    names = known.solution.stage_names
    counts = Counter(operation.stage for operation in graph.operation_sets[0])
    nodes = GraphNodes(names, tuple(accumulate(counts[name] for name in names)))
    run = imported(tmp_path, "graph-triton_v2-T56.sqlite", known, nodes)
    (api,) = run.timelines
    assert run.capture is not None and run.capture.stages_by == "graph nodes"
    ours = [operation.stage for operation in graph.operation_sets[0]]
    assert [operation.stage for operation in api.operation_sets[0]] == ours
    theirs, own = stage_us(api), stage_us(graph)
    assert set(theirs) == set(names)
    for stage, expected in own.items():
        # prepare_moe_input takes 15 % more or less in another process: atomics
        tolerance = max(0.5, (0.2 if stage == "prepare_moe_input" else 0.03) * expected)
        assert theirs[stage] == pytest.approx(expected, abs=tolerance), stage


def test_without_the_nodes_no_stage_is_taken_from_a_range(tmp_path: Path) -> None:
    run = imported(tmp_path, "graph-triton_v2-T56.sqlite", recorded("triton_v2", 56))
    assert run.capture is not None and run.capture.stages_by == "rules"


@pytest.mark.parametrize(
    ("name", "solution", "tokens"),
    [
        ("triton_v2-T1.sqlite", "triton_v2", 1),
        ("sglang_v2-T14107.sqlite", "sglang_v2", 14107),
        ("flashinfer_moe-T56.sqlite", "flashinfer_moe", 56),
        ("kineto-triton_v2-T56.json.gz", "triton_v2", 56),
        ("kineto-flashinfer_moe-T14107.json.gz", "flashinfer_moe", 14107),
    ],
)
def test_an_eager_capture_has_the_solutions_stages_by_ranges(
    name: str, solution: str, tokens: int, tmp_path: Path
) -> None:
    known = recorded(solution, tokens)
    run = imported(tmp_path, name, known)
    assert run.capture is not None and run.capture.stages_by == "ranges"
    assert run.solution == known.solution and run.ceilings == known.ceilings
    (api,) = run.timelines
    own = known.timeline("api")
    assert own is not None
    assert Counter(o.stage for o in api.operation_sets[0]) == Counter(
        o.stage for o in own.operation_sets[0]
    )
    assert set(stage_us(api)) == set(known.solution.stage_names)
