"""Records as FlashInfer-Bench's traces: read by its own models, kept by its own dataset."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.cli.main import run_command
from moeprof.errors import UsageError
from moeprof.fib.evaluations import (
    as_trace,
    choose_timer,
    matching_reference,
    record_id,
    require_evaluation,
)
from moeprof.fib.schema import parse_solution
from moeprof.fib.trace_files import add_traces, find_target, stage_path
from moeprof.fib.traces import (
    STATUSES,
    ErrorFigures,
    Evaluation,
    Performance,
    Trace,
    parse_lines,
    trace_document,
    trace_line,
)
from moeprof.fib.unpack import source_hash
from moeprof.problem.dataset import Dataset
from moeprof.problem.routing import identify, make_routing, parse_spec
from moeprof.records import Correctness, ParitySettings, PassResult, Run, Sample
from moeprof.reports.stage_sidecar import DOCUMENT
from moeprof.storage import store
from moeprof.timelines import Iteration, Operation, TimelinePass
from tests import builders
from tests.fib import tracesets
from tests.privacy import private_words

fib = pytest.importorskip("flashinfer_bench.data")

TINY = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e8_h256_i256"
RIGHT = Correctness(True, 0.97, 0.026, 0.9996, 0.4, max_relative=1.5e11)
WRONG = Correctness(False, 0.4, 0.9, 0.1, 9.0, problem="40.0% of the output matches, 85% must",
                    max_relative=3e11)  # fmt: skip
PATH = f"traces/moeprof/moe/{TINY}.jsonl"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with one solution of moeprof's and two workloads."""
    root = tmp_path_factory.mktemp("exported") / "dataset"
    command = ["export", "fib", "--solution", "reference,triton_v2", "--dataset", str(root)]
    assert run_command([*command, "--definition", "tiny", "--num-tokens", "7,33"]) == 0
    return root


@pytest.fixture
def dataset(exported: Path, tmp_path: Path) -> Path:
    """The same, to be written to."""
    return Path(shutil.copytree(exported, tmp_path / "dataset"))


Record = Callable[..., Run]


@pytest.fixture
def record(exported: Path) -> Record:
    """A record of a solution of the dataset on one of its workloads, with both latencies."""

    def make(tokens: int = 7, solution: str = "triton_v2", us: float = 20.0, **changes: Any) -> Run:
        data = Dataset(exported)
        definition = data.definition(TINY)
        workload = data.workload_of_size(definition, tokens)
        routing = make_routing(parse_spec("recorded"), definition, workload, 0, dataset=data)
        run = parity_record(us)
        return replace(
            run,
            solution=replace(
                run.solution, name=solution, source_hash=source_of(exported, solution)
            ),
            workload=replace(
                run.workload, definition=TINY, uuid=workload.uuid, seq_len=tokens,
                local_expert_offset=workload.local_expert_offset,
            ),
            routing=identify(routing, definition, workload, "harness", 0),
            **{"correctness": RIGHT, **changes},
        )  # fmt: skip

    return make


def source_of(root: Path, solution: str) -> str:
    """A source hash that begins as the exported solution's description says."""
    (file,) = (root / "solutions").rglob(f"{solution}.json")
    description = json.loads(file.read_text())["description"]
    digits = description.rsplit("source ", 1)[1].rstrip(".")
    return str(digits).ljust(64, "0")


def parity_record(us: float) -> Run:
    run = builders.make_run()
    operations = (Operation("routing_0", "kernel", "", 7, "cudaLaunchKernel"),)
    iteration = Iteration(0, (9_000,), (9_000 + round(us * 500),), (3_000,), (6_000,),
                          (1_000,), (7_000,), 8_000)  # fmt: skip
    samples = (Sample(us, us), Sample(us, us))
    return replace(
        run,
        settings=replace(run.settings, parity=ParitySettings(("0.1.2", "main"), 10, 2, 1)),
        passes=(
            *run.passes,
            PassResult("fib_events", samples),
            PassResult("fib_observed", samples),
        ),
        timelines=(
            *run.timelines,
            TimelinePass("fib_span", (operations,), (iteration,) * 2),
            TimelinePass("fib_observed", (operations,), (iteration,) * 2),
        ),
    )


def wrong_record(record: Record, correctness: Correctness) -> Run:
    run = record()
    return replace(run, correctness=correctness, passes=(), timelines=())


def saved(folder: Path, *runs: Run) -> list[str]:
    return [str(store.save(run, folder / "runs")) for run in runs]


def export(dataset: Path, files: Sequence[str], *options: str) -> int:
    return run_command(["export", "traces", *files, "--dataset", str(dataset), *options])


def lines(dataset: Path) -> list[Any]:
    return [json.loads(line) for line in (dataset / PATH).read_text().splitlines()]


# ---------------------------------------------------------------- with flashinfer-bench itself


def test_flashinfer_bench_loads_the_traces_and_keeps_them(
    dataset: Path, record: Record, tmp_path: Path
) -> None:
    wrong = wrong_record(record, WRONG)
    files = saved(tmp_path, record(), record(33, us=31.5), replace(wrong, created="2026-03-01"))
    assert export(dataset, files, "--timer", "0.1.2") == 0
    loaded = fib.TraceSet.from_path(str(dataset))
    traces = {
        (t.workload.axes["seq_len"], t.evaluation.status.value): t for t in loaded.traces[TINY]
    }
    assert set(traces) == {(7, "PASSED"), (33, "PASSED"), (7, "INCORRECT_NUMERICAL")}
    passed = traces[33, "PASSED"]
    assert passed.is_successful() and passed.solution == "triton_v2"
    assert passed.evaluation.performance.latency_ms == pytest.approx(0.0315)
    assert passed.evaluation.performance.speedup_factor == 0.0
    assert passed.evaluation.correctness.max_relative_error == 1.5e11
    assert passed.evaluation.correctness.extra["matched_ratio"] == 0.97
    assert passed.evaluation.environment.hardware == "NVIDIA H200"
    assert passed.evaluation.environment.libs == {
        "torch": "2.11.0", "triton": "3.6.0", "cuda": "13.0",
    }  # fmt: skip
    assert passed.workload == next(
        t.workload for t in loaded.workloads[TINY] if t.workload.uuid == passed.workload.uuid
    )
    # what it writes is what was there: nothing of it was dropped
    again = [json.loads(trace.model_dump_json()) for trace in loaded.traces[TINY]]
    assert sorted(map(_plain, again)) == sorted(map(_plain, lines(dataset)))


figures = st.one_of(
    st.floats(0, 1e30), st.sampled_from([math.inf, math.nan, 0.0]), st.floats(0, 1e-30)
)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=9)


@st.composite
def evaluations(draw: st.DrawFn) -> Evaluation:
    status = draw(st.sampled_from(STATUSES))
    extra = draw(st.dictionaries(texts, st.one_of(st.floats(-1e9, 1e9), texts), max_size=3))
    checked = status in ("PASSED", "INCORRECT_NUMERICAL")
    times = st.floats(1e-6, 1e6)
    return Evaluation(
        status=status,
        hardware=draw(texts),
        libraries=draw(st.dictionaries(texts, texts, max_size=2)),
        timestamp=draw(texts),
        log=draw(st.text(max_size=20).filter(lambda t: t.isprintable())),
        correctness=ErrorFigures(draw(figures), draw(figures), extra) if checked else None,
        performance=Performance(draw(times), draw(times)) if status == "PASSED" else None,
    )


@given(evaluations())
@settings(max_examples=150, deadline=None)
def test_any_trace_is_read_and_written_alike_by_its_models(evaluation: Evaluation) -> None:
    workload = {"axes": {"seq_len": 7}, "inputs": {"x": {"type": "random"}}, "uuid": "u"}
    trace = Trace("d", workload, "s", evaluation)
    line = trace_line(trace)
    assert "\n" not in line
    read = fib.Trace.model_validate_json(line)
    assert read.evaluation.status.value == evaluation.status
    written = json.loads(read.model_dump_json())
    assert _plain(written) == _plain(trace_document(trace))


def _plain(value: Any) -> str:
    """Equal for equal values: NaN equals NaN, 1 equals 1.0, the order of keys is free."""
    return json.dumps(json.loads(json.dumps(value), parse_int=float), sort_keys=True)


@pytest.mark.parametrize("status", STATUSES)
def test_what_its_validator_refuses_is_refused_here(status: str) -> None:
    given_figures, time = ErrorFigures(0.0, 0.0, {}), Performance(1.0)
    for correctness in (None, given_figures):
        for performance in (None, time):
            try:
                Evaluation(status, "gpu", {}, "now", "", correctness, performance)
                ours = True
            except UsageError:
                ours = False
            try:
                fib.Evaluation(
                    status=status,
                    environment={"hardware": "gpu"},
                    timestamp="now",
                    correctness=None if correctness is None else {},
                    performance=None if performance is None else {},
                )
                theirs = True
            except ValueError:
                theirs = False
            assert ours == theirs


# ---------------------------------------------------------------- what is written


def test_the_same_again_changes_nothing(dataset: Path, record: Record, tmp_path: Path) -> None:
    files = saved(tmp_path, record(), record(33))
    assert export(dataset, files, "--timer", "main") == 0
    before = contents(dataset)
    assert export(dataset, files, "--timer", "main") == 0
    assert contents(dataset) == before and len(lines(dataset)) == 2


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_speedup_is_over_the_references_own_latency(
    dataset: Path, record: Record, tmp_path: Path
) -> None:
    """A line that says something else afterwards is replaced, in its place."""
    files = saved(tmp_path, record(), record(33))
    assert export(dataset, files, "--timer", "0.1.2") == 0
    reference = saved(tmp_path, record(7, "reference", us=500.0))
    assert export(dataset, [*files, *reference], "--timer", "0.1.2") == 0
    found = [line["evaluation"]["performance"] for line in lines(dataset)]
    by_latency = sorted(found, key=lambda performance: performance["reference_latency_ms"])
    assert len(found) == 2
    assert by_latency[0]["reference_latency_ms"] == by_latency[0]["speedup_factor"] == 0
    assert by_latency[1]["reference_latency_ms"] == pytest.approx(0.5)
    assert by_latency[1]["speedup_factor"] == pytest.approx(25.0)
    other = replace(
        record(7, "reference"), environment=replace(record().environment, device="B200")
    )
    assert matching_reference(record(), "0.1.2", [other]) is None


def test_no_byte_of_other_lines_changes(dataset: Path, record: Record, tmp_path: Path) -> None:
    """Neither theirs in the same file, however spaced, nor another author's file."""
    (file,) = saved(tmp_path, record())
    trace = as_trace(record(), "r", line_of(dataset, record()), "0.1.2", None, "x")
    theirs = json.dumps({**trace_document(trace), "solution": "somebody's"}, indent=None)
    stripped = json.loads(theirs)
    stripped["evaluation"]["log"] = "theirs"
    del stripped["evaluation"]["correctness"]["extra"]
    text = f"{json.dumps(stripped)}  \n\n{json.dumps(stripped, separators=(' ,', ': '))}"
    path = dataset / PATH
    path.parent.mkdir(parents=True)
    path.write_text(text)
    other = dataset / "traces" / "other" / "moe" / f"{TINY}.jsonl"
    other.parent.mkdir(parents=True)
    other.write_text(text + "\n")
    assert export(dataset, [file], "--timer", "0.1.2") == 0
    assert path.read_text().startswith(text + "\n")
    assert path.read_text().count("\n") == text.count("\n") + 2
    assert other.read_text() == text + "\n"


def line_of(dataset: Path, run: Run) -> dict[str, Any]:
    return find_target(dataset, run, "r").workload


def test_stages_lie_beside_the_trace_and_name_it(
    dataset: Path, record: Record, tmp_path: Path
) -> None:
    run = record()
    assert export(dataset, saved(tmp_path, run), "--timer", "0.1.2") == 0
    (trace,) = lines(dataset)
    noted = trace["evaluation"]["correctness"]["extra"]["moeprof"]
    stages = json.loads((dataset / noted["stages"]).read_text())
    assert noted["stages"] == str(stage_path(run)) and noted["timer"] == "0.1.2"
    assert stages["schema"] == DOCUMENT and stages["trace"] == PATH
    assert stages["record"] == noted["record"] == record_id(run)
    assert stages["workload"]["uuid"] == trace["workload"]["uuid"]
    theirs = fib.TraceSet.from_path(str(dataset)).get_solution("triton_v2")
    assert stages["solution"]["name"] == theirs.name
    assert stages["solution"]["hash"] == theirs.hash()
    (events, span) = stages["parity"]
    parts = sum(part["time_us"] for part in events["parts"]) - events["added_by_observing_us"]
    assert parts == pytest.approx(1e3 * trace["evaluation"]["performance"]["latency_ms"])
    assert span["timer"] == "main" and len(stages["stages"]) == 7


def test_no_file_holds_anything_private(dataset: Path, record: Record, tmp_path: Path) -> None:
    before = set(contents(dataset))
    assert export(dataset, saved(tmp_path, record()), "--timer", "main") == 0
    new = {path: text for path, text in contents(dataset).items() if path not in before}
    assert len(new) == 2
    for path, text in new.items():
        assert store.leaks(text.decode(), [*private_words(), str(tmp_path)]) == (), path


# ---------------------------------------------------------------- refusals


def refused(
    capsys: pytest.CaptureFixture[str], dataset: Path, files: list[str], *options: str
) -> str:
    before = contents(dataset)
    assert export(dataset, files, *options) == 2
    assert contents(dataset) == before
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    return said[0]


def test_no_latency_is_invented(
    dataset: Path, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record()
    bare = replace(run, settings=replace(run.settings, parity=None), timelines=(), passes=())
    good = saved(tmp_path, record(33))
    said = refused(capsys, dataset, [*good, *saved(tmp_path, bare)], "--timer", "main")
    assert "holds no latency by flashinfer-bench main's timer" in said and "--parity main" in said
    said = refused(capsys, dataset, saved(tmp_path, bare))
    assert "--parity 0.1.2" in said


def test_two_timers_never_stand_in_one_file(
    dataset: Path, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = saved(tmp_path, record())
    assert "choose one with --timer" in refused(capsys, dataset, files)
    assert export(dataset, files, "--timer", "0.1.2") == 0
    capsys.readouterr()
    said = refused(capsys, dataset, saved(tmp_path, record(33)), "--timer", "main")
    assert "latencies by flashinfer-bench 0.1.2's timer" in said
    one = replace(record(), settings=replace(record().settings, parity=ParitySettings(("main",))))
    assert choose_timer([one], None) == "main" and choose_timer([], None) is None


def test_a_record_of_another_problem_or_source_is_refused(
    dataset: Path, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record()
    cases = {
        "routed the tokens": replace(run, routing=replace(run.routing, histogram_hash="0" * 64)),
        "is of other source than triton_v2": replace(
            run, solution=replace(run.solution, source_hash="f" * 64)
        ),
        "holds no solution 'triton_v9'": replace(
            run, solution=replace(run.solution, name="triton_v9")
        ),
        "is of workload 00000000": replace(
            run, workload=replace(run.workload, uuid="00000000-0000")
        ),
        "unknown definition": replace(run, workload=replace(run.workload, definition="moe_other")),
        "there are only records": replace(run, solution=replace(run.solution, name="reference")),
        "result that nothing was compared with": replace(
            run, correctness=replace(RIGHT, checked=False)
        ),
        "of a CPU": replace(run, environment=replace(run.environment, device_kind="cpu")),
        "before moeprof kept": replace(run, correctness=replace(RIGHT, max_relative=None)),
    }
    for words, case in cases.items():
        said = refused(capsys, dataset, saved(tmp_path, case), "--timer", "0.1.2")
        assert words in said, words


def test_a_traces_file_that_is_none_is_refused_and_kept(
    dataset: Path, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = dataset / PATH
    path.parent.mkdir(parents=True)
    for text, words in (("{}\n", "is no trace"), ("not json\n", "is not JSON"), ("\xff", "UTF-8")):
        path.write_bytes(text.encode("latin-1"))
        said = refused(capsys, dataset, saved(tmp_path, record()), "--timer", "main")
        assert words in said


def test_a_traces_folder_that_is_a_file_is_named(
    dataset: Path, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset / "traces").write_text("")
    said = refused(capsys, dataset, saved(tmp_path, record()), "--timer", "main")
    assert "Not a directory" in said


def test_a_solution_of_the_dataset_that_moeprof_ran_is_known_by_its_source(
    record: Record, tmp_path: Path
) -> None:
    root = tracesets.make(tmp_path / "theirs")
    file = tracesets.put(root, tracesets.solution("theirs"))
    theirs = parse_solution(file.read_text(), "theirs")
    run = record(solution="triton_v2")
    own = replace(run.solution, name="fib:theirs", source_hash=source_hash(theirs))
    target = find_target(root, replace(run, solution=own), "r")
    assert target.solution == theirs
    assert str(target.path) == f"traces/somebody/moe/{TINY}.jsonl"
    assert str(stage_path(replace(run, solution=own))).startswith(
        f"moeprof/stages/{TINY}/theirs/{run.workload.uuid}-"
    )
    edited = replace(own, source_hash="0" * 64)
    with pytest.raises(UsageError, match="other source than theirs"):
        find_target(root, replace(run, solution=edited), "r")


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("defect", "status"),
    [
        ("shape", "INCORRECT_SHAPE"),
        ("dtype", "INCORRECT_DTYPE"),
        ("nan", "INCORRECT_NUMERICAL"),
        ("values", "INCORRECT_NUMERICAL"),
        ("type", "RUNTIME_ERROR"),
    ],
)
def test_a_verdict_becomes_its_status(
    exported: Path, record: Record, defect: str, status: str
) -> None:
    """The verdicts are those of the code that judges; flashinfer-bench says the same of each."""
    import torch

    from moeprof.measure.numerics import judge

    expected = torch.randn(5, 8)
    outputs = {
        "shape": expected.to(torch.bfloat16)[:4],
        "dtype": expected.clone(),
        "nan": torch.full((5, 8), math.nan, dtype=torch.bfloat16),
        "values": (expected + 5.0).to(torch.bfloat16),
        "type": None,
    }
    verdict = judge(outputs[defect], expected, record().settings)
    run = wrong_record(record, verdict)
    trace = as_trace(run, "r", line_of(exported, run), None, None, "x")
    assert trace.evaluation.status == status
    read = fib.Trace.model_validate_json(trace_line(trace))
    errors = read.evaluation.correctness
    if defect == "nan":
        assert math.isnan(errors.max_relative_error) and math.isnan(errors.max_absolute_error)
    elif defect == "values":
        assert errors.max_absolute_error == pytest.approx(5.0, rel=0.1)
        assert errors.max_relative_error > 1 and errors.extra["matched_ratio"] < 0.85
    else:
        assert errors is None


def test_what_flashinfer_bench_has_no_status_for_is_refused(exported: Path, record: Record) -> None:
    said = "the solution changed its input gemm1_weights"
    run = wrong_record(record, Correctness(False, 0.0, 1.0, 0.0, 0.0, problem=said))
    with pytest.raises(UsageError, match="no status for .*gemm1_weights"):
        as_trace(run, "r", line_of(exported, run), None, None, "x")
    raised = replace(run, correctness=replace(run.correctness, problem="stage a of b raised X: y"))
    trace = as_trace(raised, "r", line_of(exported, run), None, None, "x")
    assert trace.evaluation.status == "RUNTIME_ERROR" and "raised X: y" in trace.evaluation.log


def test_captures_and_callables_are_no_evaluations(record: Record) -> None:
    run = record()
    callable_run = replace(run, workload=replace(run.workload, definition="callable:mine"))
    with pytest.raises(UsageError, match="no solution of a definition"):
        require_evaluation(callable_run, "r")


def test_the_largest_relative_error_is_flashinfer_benchs() -> None:
    import torch
    from flashinfer_bench.bench.config import BenchmarkConfig
    from flashinfer_bench.bench.utils import compute_error_stats

    from moeprof.measure.numerics import judge

    expected = torch.randn(50, 8)
    expected[3, 4] = 0.0
    output = (expected + 0.01 * torch.randn(50, 8)).to(torch.bfloat16)
    run = builders.make_run()
    verdict = judge(output, expected, run.settings)
    config = BenchmarkConfig(atol=run.settings.atol, rtol=run.settings.rtol)
    absolute, relative, _, matched = compute_error_stats(
        output, expected.to(torch.bfloat16), config
    )
    assert verdict.max_relative == pytest.approx(relative)
    assert verdict.max_absolute == pytest.approx(absolute)
    assert verdict.matched_ratio == pytest.approx(matched)


def test_lines_between_are_looked_at(dataset: Path, record: Record) -> None:
    run = record()
    trace = as_trace(run, "r", line_of(dataset, run), "main", None, "x")
    target = find_target(dataset, run, "r")
    (added,) = add_traces(dataset, target.path, [trace])
    (kept,) = add_traces(dataset, target.path, [trace])
    assert (added.action, kept.action) == ("added", "kept")
    assert len(parse_lines((dataset / target.path).read_text(), "x")) == 1


def test_writers_at_the_same_time_lose_no_line(dataset: Path, record: Record) -> None:
    run = record()
    target = find_target(dataset, run, "r")
    one = as_trace(run, "r", target.workload, "main", None, "x")
    traces = [
        replace(one, evaluation=replace(one.evaluation, timestamp=f"2026-03-{day:02}"))
        for day in range(1, 25)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda trace: add_traces(dataset, target.path, [trace]), traces))
    text = (dataset / target.path).read_text()
    assert {line["evaluation"]["timestamp"] for line in parse_lines(text, "x")} == {
        trace.evaluation.timestamp for trace in traces
    }
