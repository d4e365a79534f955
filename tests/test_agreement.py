"""Records beside captures: what is judged, what is said, what is refused; real captures too."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from moeprof.cli.main import run_command
from moeprof.compare.agreement import Agreement, Figure, RowAgreement, Tolerance, agree
from moeprof.errors import RecordError
from moeprof.exporting import export
from moeprof.importing.open import read_trace
from moeprof.importing.record import ImportOptions, record_of
from moeprof.records import Capture, Run
from moeprof.reports.agreement_json import agreement_document
from moeprof.reports.agreement_markdown import agreement_markdown
from moeprof.reports.agreement_phrases import doubts, sentences
from moeprof.reports.agreement_text import render_agreement
from moeprof.storage import store
from moeprof.timelines import Iteration, Operation, TimelinePass
from tests.builders import Launch, Script, eager_script, make_run, stage_info
from tests.privacy import private_words

ROOT = Path(__file__).resolve().parents[1]
DATA, RECORDED = ROOT / "tests" / "data", ROOT / "traces" / "recorded" / "h200"
CAPTURE = Capture("Nsight Systems", "2025.3.2", "3.20.3", "trace.sqlite", "ranges", 20)


def longer(by: dict[str, int], script: Script | None = None) -> Script:
    """The script with each kernel of the stages named longer by so many ns."""
    return tuple(
        (name, tuple(replace(one, duration_ns=one.duration_ns + by.get(name, 0)) for one in stage))
        for name, stage in (script or eager_script())
    )


def captured(script: Script | None = None, **changes: Any) -> Run:
    """A capture of the same work as ``make_run()``: one pass, its own times."""
    run = make_run(script, passes=("api",))
    return replace(run, passes=(), clocks=(), calibration=None, capture=CAPTURE, **changes)


def row(agreement: Agreement, name: str) -> RowAgreement:
    return next(one for one in agreement.rows if one.name == name)


def differing(agreement: Agreement) -> list[str]:
    return [one.name for one in agreement.rows if not one.agrees]


# -- time -------------------------------------------------------------------------------------


def test_the_same_work_agrees_although_the_host_was_slower() -> None:
    run = make_run(profiler=1.5)
    slow = replace(make_run(profiler=3.0, passes=("api",)), capture=CAPTURE, passes=(), clocks=())
    found = agree([run], slow)
    assert found.agrees and sentences(found) == ()
    assert [one.name for one in found.rows] == list(run.solution.stage_names)
    assert all(one.busy.difference == 0 for one in found.rows)
    assert found.span.capture > 1.5 * found.span.record  # shown, not judged
    assert dict(found.idle)["host_late_ns"].capture > dict(found.idle)["host_late_ns"].record
    assert (found.iterations, found.capture_iterations) == ((20,), 20)


@pytest.mark.parametrize(
    ("stage", "each_ns", "agrees"),
    [
        ("gemm1", 400, True),  # 3 kernels of 20 us: 1.2 us of 60 are 2 %
        ("gemm1", 401, False),
        ("gemm1", -400, True),
        ("gemm1", -401, False),
        ("routing", 166, True),  # 3 kernels of 2 us: 0.5 us is more than 2 %
        ("routing", 167, False),
        ("routing", -167, False),
    ],
)
def test_two_per_cent_or_half_a_microsecond(stage: str, each_ns: int, agrees: bool) -> None:
    found = agree([make_run()], captured(longer({stage: each_ns})))
    assert differing(found) == ([] if agrees else [stage])
    one = row(found, stage)
    assert one.busy.difference == 3 * each_ns == one.kernel_sum.difference


def test_the_tolerance_is_the_users_to_choose() -> None:
    capture = captured(longer({"gemm1": 400, "routing": 166}))
    assert agree([make_run()], capture).agrees
    assert differing(agree([make_run()], capture, Tolerance(0.01, 0.5))) == ["gemm1"]
    assert differing(agree([make_run()], capture, Tolerance(0.02, 0.1))) == ["routing"]


def test_between_the_records_of_two_processes_everything_agrees() -> None:
    """A kernel with atomics keeps one of two durations for the life of a process."""
    runs = [make_run(), make_run(longer({"prepare_moe_input": 5_000}))]
    for each_ns, agrees in ((2_500, True), (5_166, True), (5_167, False), (-166, True)):
        found = agree(runs, captured(longer({"prepare_moe_input": each_ns})))
        assert found.agrees == agrees, each_ns
    one = row(found, "prepare_moe_input")
    assert (one.busy.low, one.busy.high, one.busy.record) == (6_000, 21_000, 13_500)
    assert not agree(runs[:1], captured(longer({"prepare_moe_input": 2_500}))).agrees


@given(
    st.lists(st.integers(0, 10**7), min_size=1, max_size=4),
    st.integers(0, 10**7),
    st.sampled_from([0.0, 0.02, 0.5]),
    st.sampled_from([0.0, 0.5, 100.0]),
)
def test_agreement_is_being_within_reach_of_some_record_or_between_them(
    records: list[int], capture: int, fraction: float, us: float
) -> None:
    figure = Figure(tuple(map(float, records)), float(capture))
    nothing = Figure((0.0,) * len(records), 0.0)
    one = RowAgreement(
        "gemm1", True, True, figure, nothing, nothing, nothing, (), (), Tolerance(fraction, us)
    )  # fmt: skip
    near = any(abs(capture - value) <= max(fraction * value, us * 1e3) for value in records)
    assert one.agrees == (near or min(records) <= capture <= max(records))


def test_one_iteration_that_hiccuped_or_was_not_timed_decides_nothing() -> None:
    capture = captured()
    api = capture.timelines[0]
    slow = replace(
        api.iterations[0], end_ns=tuple(end + 50_000 for end in api.iterations[0].end_ns)
    )
    lost = replace(api.iterations[1], end_ns=(0, *api.iterations[1].end_ns[1:]))
    broken = TimelinePass("api", api.operation_sets, (slow, lost, *api.iterations[2:]))
    found = agree([make_run()], replace(capture, timelines=(broken,)))
    assert found.agrees and found.capture_iterations == 19


def test_sums_of_durations_that_grow_with_overlap_are_not_judged() -> None:
    """The second kernel is launched early and waits for the first: its duration, not its work."""
    operations = (Operation("a", "kernel", "gemm1", 7), Operation("b", "kernel", "gemm1", 7))
    stages = [stage_info("gemm1")]

    def run(second_starts_ns: int, capture: Capture | None) -> Run:
        iteration = Iteration(0, (100, second_starts_ns), (50_100, 60_100), (1, 20), (10, 30))
        api = TimelinePass("api", (operations,), (iteration,) * 3)
        return make_run(stages=stages, passes=("api",), timelines=(api,), capture=capture)

    found = agree([run(50_100, None)], run(40_100, CAPTURE))
    one = row(found, "gemm1")
    assert found.agrees and one.busy.difference == 0
    assert one.kernel_sum.difference == 10_000 and not one.kernel_sum_agrees


def test_a_clock_that_sinks_within_the_capture_is_said() -> None:
    capture = captured()
    api = capture.timelines[0]
    late = captured(longer({"gemm1": 3_000, "gemm2": 3_000})).timelines[0].iterations
    sinking = TimelinePass("api", api.operation_sets, (*api.iterations[:7], *late[7:]))
    found = agree([make_run()], replace(capture, timelines=(sinking,)))
    assert found.drifts and found.drift == (150_000, 168_000)
    assert differing(found) == ["gemm1", "gemm2"]
    assert "from 150.0 us in its first 5 forwards to 168.0 us in its last 5" in sentences(found)[-1]
    steady = agree([make_run()], captured(longer({"gemm1": 3_000, "gemm2": 3_000})))
    assert not steady.drifts
    assert "the same kernels took more time" in sentences(steady)[-1]


# -- operations -------------------------------------------------------------------------------


def with_stage(name: str, launches: Sequence[Launch]) -> Script:
    return tuple((n, tuple(launches) if n == name else stage) for n, stage in eager_script())


def test_a_kernel_that_is_missing_or_new_is_named() -> None:
    extra = with_stage(
        "gather", [*dict(eager_script())["gather"], Launch("void ns::extra<int>(int)", 10)]
    )
    found = agree([make_run()], captured(extra))
    assert differing(found) == ["gather"]
    assert row(found, "gather").more == (("extra", 1),)
    assert sentences(found) == ("gather: the capture also has extra",)
    found = agree([make_run(extra)], captured())
    assert row(found, "gather").fewer == (("extra", 1),)
    assert sentences(found) == ("gather: the capture lacks extra",)


def test_a_kernel_launched_once_more_is_another_set_although_the_time_is_the_same() -> None:
    twice = with_stage(
        "gather", [Launch("gather_0", 1_000)] * 2 + list(dict(eager_script())["gather"][1:])
    )
    found = agree([make_run()], captured(twice))
    one = row(found, "gather")
    assert one.busy.difference == 0 and not one.agrees
    assert (one.operations.record, one.operations.capture) == (3, 4)
    assert sentences(found) == ("gather: the capture also has gather_0",)


def test_profilers_may_spell_a_kernel_their_own_way() -> None:
    ours = [Launch("_ZN7cutlass13device_kernelINS_4gemm6kernelEEEvNT_6ParamsE", 9_000),
            Launch("void at::(anonymous namespace)::k<4>(int)", 2_000),
            Launch("memcpy DTOH", 2_000, copy=True)]  # fmt: skip
    theirs = [Launch("void cutlass::device_kernel<gemm::kernel>(T1::Params)", 9_000),
              Launch("void at::<unnamed>::k<(int)4>(int)", 2_000),
              Launch("[CUDA memcpy Device-to-Host]", 2_000, copy=True)]  # fmt: skip
    found = agree([make_run(with_stage("gemm1", ours))], captured(with_stage("gemm1", theirs)))
    assert found.agrees
    other = [Launch("void cutlass::other_kernel<gemm::kernel>(T1::Params)", 9_000), *theirs[1:]]
    found = agree([make_run(with_stage("gemm1", ours))], captured(with_stage("gemm1", other)))
    assert row(found, "gemm1").more == (("other_kernel", 1),)
    assert row(found, "gemm1").fewer == (("device_kernel", 1),)


def test_records_that_differ_among_themselves_are_no_reason_to_differ() -> None:
    extra = with_stage("gather", [*dict(eager_script())["gather"], Launch("extra", 100)])
    assert agree([make_run(), make_run(extra)], captured(extra)).agrees


def test_a_stage_of_one_side_only_and_operations_of_none() -> None:
    fewer = tuple((name, stage) for name, stage in eager_script() if name != "gather")
    found = agree([make_run()], captured(fewer))
    assert sentences(found) == ("gather: the capture has no operation of it",)
    capture = captured()
    api = capture.timelines[0]
    nameless = tuple(replace(o, stage="" if o.stage == "gather" else o.stage)
                     for o in api.operation_sets[0])  # fmt: skip
    lost = TimelinePass("api", (nameless,), api.iterations)
    found = agree([make_run()], replace(capture, timelines=(lost,)))
    assert differing(found) == ["gather", "unattributed"]
    assert sentences(found)[1] == "3 operations of the capture belong to no stage"
    assert [one.name for one in found.rows][-1] == "unattributed"


def test_a_capture_of_a_replayed_graph_is_compared_with_the_replayed_graph() -> None:
    run = make_run()
    api = run.timeline("api")
    assert api is not None
    shorter = longer({"gemm1": -5_000})
    graph = replace(make_run(shorter, passes=("api",)).timelines[0], name="graph")
    run = replace(run, timelines=(*run.timelines, graph))
    by_nodes = replace(CAPTURE, stages_by="graph nodes")
    assert not agree([run], captured(shorter)).agrees
    found = agree([run], replace(captured(shorter), capture=by_nodes))
    assert found.agrees and found.pass_name == "graph"
    with pytest.raises(RecordError, match="no operations of the pass 'graph'"):
        agree([make_run()], replace(captured(), capture=by_nodes))


# -- refusals and doubts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"solution": replace(make_run().solution, name="other")}, "solution differs: hand_made"),
        ({"workload": replace(make_run().workload, seq_len=8)}, "number of tokens differs"),
        ({"environment": replace(make_run().environment, device="NVIDIA B200")}, "device differs"),
        ({"routing": replace(make_run().routing, histogram_hash="cd" * 32)}, "routing histogram"),
    ],
)
def test_other_work_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(RecordError, match=f"cannot be compared: .*{named}"):
        agree([make_run()], captured(**changes))
    with pytest.raises(RecordError, match=named):  # among the records as well
        agree([make_run(), make_run(**changes)], captured())


def test_a_changed_source_or_driver_is_a_doubt() -> None:
    run = make_run()
    changed = replace(run.solution, source_hash="9a" * 32)
    newer = replace(run.environment, driver="590.1")
    found = agree([run], captured(solution=changed, environment=newer))
    assert found.agrees
    assert any("source of hand_made has changed" in doubt for doubt in doubts(found))
    assert any("driver differs" in doubt for doubt in doubts(found))


def test_of_a_capture_that_says_nothing_of_itself_the_gpu_must_be_the_same() -> None:
    run = make_run()
    unknown = replace(run.solution, source_hash="", name="trace")
    workload = replace(run.workload, definition="imported:trace", seq_len=1, constants={})
    capture = captured(solution=unknown, workload=workload)
    found = agree([run], capture)
    assert found.agrees and found.unknown_work
    assert any("your word" in doubt for doubt in doubts(found))
    elsewhere = replace(capture.environment, device="NVIDIA B200")
    with pytest.raises(RecordError, match="device differs: NVIDIA H200 and NVIDIA B200"):
        agree([run], replace(capture, environment=elsewhere))


def test_two_records_of_our_own_can_be_compared_too() -> None:
    found = agree([make_run()], make_run(longer({"gemm2": 1_000})))
    assert differing(found) == ["gemm2"]
    with pytest.raises(RecordError, match="pass 'api'; run the solution again"):
        agree([make_run(passes=("bare", "kernels"))], make_run())


# -- reports ----------------------------------------------------------------------------------


def text_of(agreement: Agreement, width: int = 160) -> str:
    console = Console(width=width, record=True, highlight=False, file=open(os.devnull, "w"))
    console.print(render_agreement(agreement))
    return console.export_text()


def test_the_text_says_what_differs_and_by_how_much() -> None:
    found = agree([make_run()], captured(longer({"gemm1": 1_000})))
    text = text_of(found)
    assert (
        "hand_made at T = 7 on NVIDIA H200: the record and Nsight Systems agree on 6 of 7" in text
    )
    assert ("gemm1: busy 63.00 us in the capture, 60.00 us in the record: 3.00 us more (5.0 %), "
            "where 1.20 us are allowed") in text  # fmt: skip
    line = next(one for one in text.splitlines() if one.strip().startswith("gemm1 "))
    assert line.split()[:6] == ["gemm1", "60.00", "63.00", "+3.00", "+5.0", "1.20"]
    assert line.rstrip().endswith("time differs")
    assert "trace.sqlite of Nsight Systems 2025.3.2" in text


def test_several_records_are_shown_as_a_range() -> None:
    runs = [make_run(), make_run(longer({"gemm1": 1_000}))]
    found = agree(runs, captured())
    assert "60.00 to 63.00" in text_of(found) and "2 records and Nsight" in text_of(found)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_judged_columns_fit_narrow_terminals(width: int) -> None:
    text = text_of(agree([make_run()], captured()), width)
    assert max(map(len, text.splitlines())) <= width
    line = next(one for one in text.splitlines() if one.strip().startswith("prepare_moe_input"))
    assert "6.00" in line and line.rstrip().endswith("agrees")


def test_markdown_shows_names_as_they_are() -> None:
    extra = with_stage("gather", [*dict(eager_script())["gather"], Launch("x*y|z", 10)])
    found = agree([make_run()], captured(extra))
    markdown = agreement_markdown(found)
    assert r"x\*y\|z" in markdown
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert all(line.replace(r"\|", "").count("|") == 11 for line in table[:9])


def test_the_document_holds_every_figure() -> None:
    runs = [make_run(), make_run()]
    found = agree(runs, captured(longer({"gemm1": 1_000})))
    document = json.loads(json.dumps(agreement_document(found, ["a", "b"], "c"), allow_nan=False))
    assert document["agrees"] is False and document["against"]["label"] == "Nsight Systems"
    gemm = next(stage for stage in document["stages"] if stage["name"] == "gemm1")
    assert gemm["busy_us"] == {"records": [60.0, 60.0], "capture": 63.0, "difference": 3.0}
    assert gemm["verdict"] == "time differs" and gemm["allowed_us"] == 1.2
    assert gemm["operations"]["capture"] == 3
    assert set(document["not_judged"]) == {
        "span_us", "host_late_us", "api_us", "launch_latency_us", "dependency_us",
    }  # fmt: skip


# -- the command ------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    def save(run: Run, name: str) -> str:
        store.write(run, tmp_path / name)
        return str(tmp_path / name)

    return save


def test_exit_codes_say_the_verdict(saved: Any, capsys: pytest.CaptureFixture[str]) -> None:
    record = saved(make_run(), "record.json.gz")
    same = saved(captured(), "same.json.gz")
    other = saved(captured(longer({"gemm1": 1_000})), "other.json.gz")
    refused = saved(captured(workload=replace(make_run().workload, seq_len=8)), "refused.json.gz")
    assert run_command(["verify", record, "--against", same]) == 0
    assert "agree on all 7 stages" in capsys.readouterr().out
    assert run_command(["verify", record, "--against", other]) == 1
    assert "gemm1: busy 63.00 us" in capsys.readouterr().out
    assert run_command(["verify", record, "--against", other, "--tolerance-percent", "5"]) == 0
    assert run_command(["verify", record, "--against", other, "--tolerance-us", "3"]) == 0
    capsys.readouterr()
    assert run_command(["verify", record, "--against", refused]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "number of tokens differs" in error
    assert run_command(["verify", record, "--against", other, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "moeprof.verify/1" and not document["agrees"]
    assert run_command(["verify", record, "--against", other, "--format", "md"]) == 1
    assert capsys.readouterr().out.startswith("# hand\\_made at T = 7")


@pytest.mark.parametrize("option", ["--tolerance-percent", "--tolerance-us"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "much"])
def test_a_tolerance_is_a_number(
    option: str, value: str, saved: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    record = saved(make_run(), "record.json.gz")
    assert run_command(["verify", record, "--against", record, option, value]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_several_records_are_one_side(saved: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names = [saved(make_run(), "a.json.gz"), saved(make_run(longer({"gemm1": 1_000})), "b.json.gz")]
    capture = saved(captured(longer({"gemm1": 500})), "capture.json.gz")
    assert run_command(["verify", names[0], "--against", capture]) == 1
    assert run_command(["verify", *names, "--against", capture]) == 0
    assert "2 records" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"\0" * 40, "not a capture"), (b'{"traceEvents": []}', "no GPU operation")],
)
def test_files_that_are_no_capture_end_in_one_line(
    content: bytes, said: str, saved: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "capture.bin"
    path.write_bytes(content)
    record = saved(make_run(), "record.json.gz")
    assert run_command(["verify", record, "--against", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert run_command(["verify", record, "--against", str(tmp_path / "gone")]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_a_damaged_record_is_called_a_damaged_record(
    saved: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = saved(make_run(), "record.json.gz")
    cut = tmp_path / "cut.json.gz"
    cut.write_bytes(Path(record).read_bytes()[:-400])
    assert run_command(["verify", record, "--against", str(cut)]) == 2
    assert "damaged or cut short" in capsys.readouterr().err


def test_a_capture_whose_forwards_cannot_be_told_says_how(
    saved: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = {"ph": "X", "cat": "kernel", "name": "k", "ts": 1, "dur": 2, "pid": 0, "tid": 7,
              "args": {"device": 0, "stream": 7, "correlation": 3}}  # fmt: skip
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": [kernel]}))
    record = saved(make_run(), "record.json.gz")
    assert run_command(["verify", record, "--against", str(path)]) == 2
    assert "moeprof import FILE --like RUN first" in capsys.readouterr().err


def test_an_exported_timeline_agrees_with_the_record_it_came_from(
    saved: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Record, Chrome's format, reader, forwards, stages, comparison: to the nanosecond."""
    run = make_run(passes=("first", "kernels", "api"))  # shown as the api pass has it
    record, trace = saved(run, "record.json.gz"), tmp_path / "trace.json.gz"
    export(run, trace, iterations="all")
    assert run_command(["verify", record, "--against", str(trace), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    for stage in document["stages"]:
        for figure in ("busy_us", "kernel_sum_us", "operations", "gap_us"):
            assert stage[figure]["difference"] == 0, (stage["name"], figure)
    assert document["not_judged"]["span_us"]["difference"] == 0
    assert document["against"]["iterations"] == 20
    assert document["against"]["capture"]["stages_by"] == "ranges"


def test_nothing_of_this_machine_or_its_user_is_printed(
    saved: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, capture = saved(make_run(), "r.json.gz"), saved(captured(), "c.json.gz")
    words = private_words()  # of where the tests were started
    monkeypatch.chdir(tmp_path)
    assert record and capture
    for form in ("text", "md", "json"):
        command = ["verify", "r.json.gz", "--against", "c.json.gz", "--format", form]
        assert run_command(command) == 0
        assert not store.leaks(capsys.readouterr().out, words)


# -- real captures of an H200 -----------------------------------------------------------------


def recorded(solution: str, tokens: int) -> Run:
    (file,) = (RECORDED / solution / "dsv3").glob(f"T{tokens}-*")
    return store.load(file)


REAL = [
    ("nsys/triton_v2-T1.sqlite", "triton_v2", 1),
    ("nsys/triton_v2-T56.sqlite", "triton_v2", 56),
    ("nsys/triton_v2-T14107.sqlite", "triton_v2", 14107),
    ("nsys/sglang_v2-T56.sqlite", "sglang_v2", 56),
    ("nsys/sglang_v2-T14107.sqlite", "sglang_v2", 14107),
    ("nsys/flashinfer_moe-T56.sqlite", "flashinfer_moe", 56),
    ("nsys/flashinfer_moe-T14107.sqlite", "flashinfer_moe", 14107),
    ("nsys/graph-triton_v2-T56.sqlite", "triton_v2", 56),
    ("kineto/kineto-triton_v2-T56.json.gz", "triton_v2", 56),
    ("kineto/kineto-sglang_v2-T56.json.gz", "sglang_v2", 56),
    ("kineto/kineto-flashinfer_moe-T14107.json.gz", "flashinfer_moe", 14107),
    ("kineto/plain-reference-T56.json.gz", "reference", 56),
    ("kineto/plain-triton_v2-T56.json.gz", "triton_v2", 56),
]
# their forwards ran back to back into the GPU's power cap, as a record's do not
WITHOUT_PAUSES = {"nsys/triton_v2-T14107.sqlite", "nsys/sglang_v2-T14107.sqlite"}


@pytest.mark.parametrize(("file", "solution", "tokens"), REAL)
def test_real_captures_hold_the_same_operations_and_nearly_the_same_time(
    file: str, solution: str, tokens: int
) -> None:
    """Other processes on another day: each stage within 5 % or 1.2 us, their sum within 2 %."""
    run = recorded(solution, tokens)
    capture = record_of(read_trace(DATA / file), ImportOptions(file=Path(file).name), run)
    found = agree([run], capture, Tolerance(0.05, 1.2))
    assert [one.name for one in found.rows if not one.same_operations] == []
    assert found.drifts == (file in WITHOUT_PAUSES)
    if found.drifts:
        first, _ = found.drift
        assert first == pytest.approx(found.busy.record, rel=0.02)
    else:
        assert differing(found) == []
        assert found.busy.capture == pytest.approx(found.busy.record, rel=0.02)


def test_names_of_solutions_find_their_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "capture.sqlite"
    shutil.copy(DATA / "nsys" / "flashinfer_moe-T56.sqlite", trace)
    command = ["verify", "flashinfer_moe", "--against", str(trace), "--num-tokens", "56"]
    assert run_command(command) == 0
    assert "agree on all 8 stages" in capsys.readouterr().out
    assert run_command([*command[:-1], "57"]) in (0, 1)  # another T of the user's word
    assert run_command(command[:4]) == 2
    assert "choose --num-tokens" in capsys.readouterr().err
