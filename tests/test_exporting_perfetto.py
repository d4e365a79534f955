"""Exported traces, read by Perfetto's own trace processor, asked by SQL, and by Chrome's viewer.

    .venv/bin/python -m pytest tests/test_exporting_perfetto.py

What is expected comes from the time identity of the same iterations, not from what was written.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moeprof.analysis.attribution import profile
from moeprof.analysis.identity import attribute
from moeprof.analysis.profiles import IterationProfile
from moeprof.analysis.reconstruct import reconstruct
from moeprof.analysis.rows import rows_of
from moeprof.exporting import export
from moeprof.exporting.chrome import chrome_trace, on_threads
from moeprof.exporting.timeline import timeline_of
from moeprof.records import Run
from moeprof.storage import store
from tests.builders import make_cpu_run, make_run
from tests.trace_processor import Engines, engines, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

RECORDED = Path(__file__).resolve().parents[1] / "traces" / "recorded" / "h200"
CASES = (
    ("triton_v2", 7), ("sglang_v2", 56), ("flashinfer_moe", 14107),
    ("reference", 7),
)  # fmt: skip
FORMATS = ("trace.perfetto-trace", "trace.json.gz")
FORWARD, GRAPH = "forward without a profiler (reconstructed)", "replayed CUDA graph"
Ask = Callable[[str], list[tuple[Any, ...]]]

# both formats as one table: what is a group of tracks in one is a process in the other, in which
# iterations, stages and calls share the host's thread
SLICES = """
CREATE PERFETTO VIEW moeprof AS
SELECT s.id, s.ts, s.dur, s.name, s.category, s.arg_set_id, s.depth,
  CASE WHEN s.name = 'moeprof.iteration' OR thread.name = 'GPU span' THEN 'iterations'
    WHEN thread.name = 'host' AND s.category = 'user_annotation' THEN 'host: stages'
    WHEN thread.name LIKE 'host%' THEN 'host: CUDA calls'
    ELSE COALESCE(thread.name, track.name) END AS track,
  COALESCE(process.name, parent.name) AS pass
FROM slice s JOIN track ON s.track_id = track.id
LEFT JOIN track parent ON track.parent_id = parent.id
LEFT JOIN thread_track ON thread_track.id = track.id
LEFT JOIN thread ON thread_track.utid = thread.utid
LEFT JOIN process ON thread.upid = process.upid
"""
STAGE = "COALESCE(EXTRACT_ARG(arg_set_id, 'debug.stage'), EXTRACT_ARG(arg_set_id, 'args.stage'))"
# Chrome's format spells what PyTorch's profiler has a word for as that does
KERNELS = "('kernel', 'memcpy', 'memset', 'gpu_memcpy', 'gpu_memset')"


@pytest.fixture(scope="module")
def processors() -> Iterator[Engines]:
    with engines() as running:
        yield running


@pytest.fixture(scope="module")
def opened(processors: Engines, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``opened(run, name, which)``: a context whose value asks SQL of the exported trace."""
    from contextlib import contextmanager

    @contextmanager
    def open_trace(run: Run, name: str, which: Any = "all") -> Iterator[Ask]:
        path = tmp_path_factory.mktemp("trace") / name
        export(run, path, iterations=which)
        content = path.read_bytes()
        with processors.open(gzip.decompress(content) if name.endswith("gz") else content) as read:

            def ask(sql: str) -> list[tuple[Any, ...]]:
                return [tuple(vars(row).values()) for row in read.query(sql)]

            ask(SLICES)
            yield ask

    return open_trace


def recorded(solution: str, tokens: int) -> Run:
    (file,) = (RECORDED / solution / "dsv3").glob(f"T{tokens}-*")
    return store.load(file)


@pytest.fixture(
    scope="module",
    params=[(*case, name) for case in CASES for name in FORMATS],
    ids=lambda param: "-".join(map(str, param)),
)
def shown(request: pytest.FixtureRequest, opened: Any) -> Iterator[tuple[Run, Ask]]:
    """A recorded run and what asks of its exported trace; one engine for all tests of it."""
    solution, tokens, name = request.param
    run = recorded(solution, tokens)
    with opened(run, name) as ask:
        yield run, ask


def books(run: Run) -> list[IterationProfile]:
    """The time identity of every reconstructed iteration."""
    reconstruction = reconstruct(run)
    assert reconstruction.agrees
    operations = reconstruction.operations
    rows = rows_of(operations, run.solution.stages)
    return [attribute(operations, p.iteration, rows) for p in reconstruction.predictions]


def sound(ask: Ask) -> None:
    """Nothing that the trace processor dropped, sorted wrongly or could not read."""
    assert ask("SELECT name, value FROM stats WHERE severity != 'info' AND value > 0") == []
    assert ask("SELECT COUNT(*) FROM slice WHERE dur < 0") == [(0,)]  # begun, never ended


def test_sums_by_sql_are_the_time_identity(shown: tuple[Run, Ask]) -> None:
    run, ask = shown
    expected = books(run)
    sound(ask)
    kernel_sums = dict(
        ask(
            f"SELECT {STAGE}, SUM(dur) FROM moeprof WHERE pass = '{FORWARD}' "
            f"AND category IN {KERNELS} GROUP BY 1"
        )
    )
    busy = dict(
        ask(
            f"SELECT {STAGE}, SUM(dur) FROM moeprof WHERE pass = '{FORWARD}' "
            "AND track = 'GPU busy: stage' GROUP BY 1"
        )
    )
    gaps = {
        (stage, cause): total
        for stage, cause, total in ask(
            f"SELECT {STAGE}, name, SUM(dur) FROM moeprof WHERE pass = '{FORWARD}' "
            "AND track = 'GPU idle: cause' GROUP BY 1, 2"
        )
    }
    spans = ask(f"SELECT dur FROM moeprof WHERE pass = '{FORWARD}' AND name = 'span' ORDER BY ts")
    for stage in {stage.name for book in expected for stage in book.stages}:
        mine = [s for book in expected for s in book.stages if s.name == stage]
        assert kernel_sums.get(stage, 0) == sum(s.kernel_sum_ns for s in mine)
        assert busy.get(stage, 0) == sum(s.busy_ns for s in mine)
        for cause in ("host_late", "api", "launch_latency", "dependency"):
            want = sum(getattr(s, f"{cause}_ns") for s in mine)
            assert gaps.get((stage, cause), 0) == want, (stage, cause)
    assert [span for (span,) in spans] == [book.span_ns for book in expected]
    assert sum(busy.values()) + sum(gaps.values()) == sum(book.span_ns for book in expected)


def test_slices_flows_and_counters_by_number(shown: tuple[Run, Ask]) -> None:
    run, ask = shown
    reconstruction = reconstruct(run)
    iterations = len(reconstruction.predictions)
    launches = sum(
        begin_ns != -1
        for prediction in reconstruction.predictions
        for begin_ns in prediction.iteration.launch_begin_ns
    )
    counted = {
        (group, track): count
        for group, track, count in ask("SELECT pass, track, COUNT(*) FROM moeprof GROUP BY 1, 2")
    }
    assert counted[FORWARD, "iterations"] == 2 * iterations  # each with its span
    assert counted[FORWARD, "host: stages"] == len(run.solution.stages) * iterations
    on_streams = sum(
        count for (group, track), count in counted.items()
        if group == FORWARD and track.startswith("GPU stream 7")
    )  # fmt: skip
    assert on_streams == len(reconstruction.operations) * iterations
    assert ((GRAPH, "GPU stream 7") in counted) == (run.timeline("graph") is not None)
    assert ask("SELECT COUNT(*) FROM flow") == [(launches,)]
    backwards = (
        "SELECT COUNT(*) FROM flow JOIN slice a ON slice_out = a.id "
        "JOIN slice b ON slice_in = b.id WHERE a.ts > b.ts"
    )
    assert ask(backwards) == [(0,)]
    pairs = ask(
        "SELECT COUNT(DISTINCT slice_out) AS calls, COUNT(DISTINCT slice_in) AS kernels "
        "FROM flow JOIN moeprof a ON slice_out = a.id JOIN moeprof b ON slice_in = b.id "
        f"WHERE a.track LIKE 'host: CUDA calls%' AND b.category IN {KERNELS}"
    )
    assert pairs == [(launches, launches)]
    bare = [clock for clock in run.clocks if clock.pass_name == "bare"]
    for like, field in (("SM clock%", "sm_mhz"), ("power%", "power_w")):
        values = ask(
            "SELECT value FROM counter JOIN track ON counter.track_id = track.id "
            f"WHERE track.name LIKE '{like}' ORDER BY ts"
        )
        assert [value for (value,) in values] == [getattr(clock, field) for clock in bare]


@pytest.mark.parametrize("name", FORMATS)
def test_arguments_of_a_kernel_and_facts_of_the_trace(name: str, opened: Any) -> None:
    run = recorded("triton_v2", 901)
    place = "debug" if "perfetto" in name else "args"
    with opened(run, name, "median") as ask:
        found = dict(
            ask(
                "SELECT args.key, args.display_value FROM moeprof JOIN args USING (arg_set_id) "
                f"WHERE pass = '{FORWARD}' AND category = 'kernel' AND {STAGE} = 'gemm1' "
                "AND dur > 100000"
            )
        )
        reconstruction = reconstruct(run)
        position = next(
            p for p, o in enumerate(reconstruction.operations)
            if o.stage == "gemm1" and "cutlass" in o.name and o.name.startswith("_Z")
        )  # fmt: skip
        operation = reconstruction.operations[position]
        assert found[f"{place}.kernel"] == operation.name
        assert found[f"{place}.operation"] == str(position)
        assert found[f"{place}.launch"] == operation.launch
        if place == "debug":
            assert found["debug.grid"] == "66x2x1"
            assert found["debug.registers"] == str(operation.registers)
            assert found["debug.shared_bytes"] == str(operation.shared_bytes)
        facts = dict(
            ask(
                "SELECT args.key, args.display_value FROM moeprof JOIN args USING (arg_set_id) "
                "WHERE track = 'record'"
            )
        )
        assert facts[f"{place}.solution"] == "triton_v2"
        assert facts[f"{place}.num_tokens"] == "901"
        assert facts[f"{place}.source"] == profile(run).source == "reconstructed"


@pytest.mark.parametrize("name", FORMATS)
def test_overlapping_kernels_are_both_there(name: str, opened: Any) -> None:
    """One track could hold only one of them: the processor drops or cuts what does not nest."""
    run = recorded("flashinfer_moe", 14107)
    with opened(run, name, "median") as ask:
        (row,) = ask(
            "SELECT COUNT(*) AS n, a.track AS first, b.track AS second "
            "FROM moeprof a JOIN moeprof b "
            f"WHERE a.pass = '{FORWARD}' AND b.pass = a.pass AND a.category = 'kernel' "
            "AND b.category = 'kernel' AND a.ts < b.ts AND b.ts < a.ts + a.dur"
        )
    assert row == (1, "GPU stream 7", "GPU stream 7 (overlapping)")


@pytest.mark.parametrize("name", FORMATS)
def test_launches_of_one_forward_lie_within_their_stage(name: str, opened: Any) -> None:
    with opened(make_run(), name) as ask:
        sound(ask)
        inside = ask(
            "SELECT COUNT(*) FROM moeprof call JOIN moeprof stage "
            "ON call.track = 'host: CUDA calls' AND stage.track = 'host: stages' "
            "AND call.ts >= stage.ts AND call.ts + call.dur <= stage.ts + stage.dur "
            f"AND {STAGE.replace('arg_set_id', 'call.arg_set_id')} = "
            f"{STAGE.replace('arg_set_id', 'stage.arg_set_id')}"
        )
        assert inside == [(30 * 21,)]


@pytest.mark.parametrize("name", FORMATS)
def test_a_cpu_record_can_be_read_as_well(name: str, opened: Any) -> None:
    with opened(make_cpu_run(), name) as ask:
        sound(ask)
        (total,) = ask("SELECT SUM(dur) FROM moeprof WHERE track GLOB '*stages*'")
        assert total == (20 * 280_000,)


READ_IN_CHROME = """
(() => {
  const model = new tr.Model();
  new tr.importer.Import(model).importTraces([%s]);
  const threads = {};
  for (const process of model.getAllProcesses())
    for (const thread of Object.values(process.threads))
      threads[process.name + ': ' + thread.name] = thread.sliceGroup.length;
  const counters = model.getAllProcesses().flatMap(one => Object.keys(one.counters));
  return {threads, counters, warnings: model.importWarnings, flows: model.flowEvents.length};
})()
"""


@pytest.mark.parametrize(("solution", "tokens"), CASES)
def test_chromes_own_viewer_reads_it_without_a_warning(
    solution: str, tokens: int, processors: Engines
) -> None:
    if processors.browser is None:
        pytest.skip("the native trace processor brings no viewer")
    run = recorded(solution, tokens)
    timeline = timeline_of(run)
    text = json.dumps(chrome_trace(timeline).decode())
    with processors.chromes_viewer() as tab:
        read = tab.evaluate(READ_IN_CHROME % text)
    assert read["warnings"] == []
    assert read["threads"] == {
        f"{group.name}: {track.name}": len(track.slices)
        for group in map(on_threads, timeline.groups)
        for track in group.tracks
    }
    assert read["flows"] == len(reconstruct(run).operations)
    assert len(read["counters"]) == 4
