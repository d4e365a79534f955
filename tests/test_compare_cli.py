"""``moeprof compare`` as typed: reports, records found by name, bad input, no torch, in time."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.cli.main import run_command
from moeprof.records import PassResult
from moeprof.storage import store
from tests.comparisons import at, fused, named, pipeline, save_all
from tests.test_comparable import clocked, with_iteration

TOKENS = [1, 7, 14, 15, 16, 32, *range(52, 60), 62, 80, 901, 11948, 14107]
PAIR = ["triton_v2", "flashinfer_moe"]


@pytest.fixture(scope="module")
def traces(tmp_path_factory) -> Path:
    """19 workloads of six solutions and the reference, as they lie in a checkout."""
    folder = tmp_path_factory.mktemp("traces")
    names = ["sglang_v1", "sglang_v2", "triton_v1", "triton_v2"]
    base = [*(pipeline(name=name) for name in names), fused()]
    base.append(pipeline(name="reference", scale=5.0))
    runs = [at(run, tokens, f"{tokens:08x}-x") for run in base for tokens in TOKENS]
    save_all(runs, folder, "recorded/h200")
    return folder


@pytest.fixture
def pair(tmp_path) -> list[str]:
    """The paths of two records of one workload."""
    return [str(path) for path in save_all([pipeline(), fused()], tmp_path)]


def say(*arguments: str) -> int:
    return run_command(["compare", *arguments])


def refused(capsys, *arguments: str) -> str:
    """The one line that a refused command leaves; its exit code must be 2."""
    assert say(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1, err
    return err


# -- what it says ------------------------------------------------------------------------------


def test_the_largest_cause_is_named_without_being_told(traces, capsys):
    assert say(*PAIR, "--num-tokens", "14107", "--traces", str(traces)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "At T = 14,107 triton_v2 takes 11.45 ms from its first operation to the end of its last, "
        "flashinfer_moe 3.12 ms: 8.33 ms between them (3.67x)"
    )
    assert lines[1] == (
        "Work amplification is the largest cause: 10.64 ms, more than the 8.33 ms because "
        "2.31 ms offset it"
    )
    assert lines[2].strip() == (
        "- 8.07x the rows in gemm1 cost triton_v2 5.75 ms of the 8.33 ms; per row executed it "
        "takes 0.93x flashinfer_moe's time, which saves 187.7 us"
    )
    waterfall = lines.index("From triton_v2 to flashinfer_moe, us")
    assert lines[waterfall + 1].split()[:2] == ["triton_v2", "11,446.3"]
    assert lines[waterfall + 2].split()[:3] == ["gemm1:", "amplification", "-5,752.4"]
    assert any("112,856 / 13,982*" in line for line in lines)
    assert any("T14107-" in line and "recorded/h200/flashinfer_moe" in line for line in lines)


def test_the_waterfall_shown_adds_up(traces, capsys):
    say(*PAIR, "--num-tokens", "14107", "--traces", str(traces), "--format", "md")
    text = capsys.readouterr().out
    table = text.split("| :-- | --: | --: |\n")[1].split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    totals = [float(row[2].replace(",", "")) for row in rows]
    changes = [float(row[1].replace(",", "")) for row in rows[1:-1]]
    assert rows[0][0] == r"**triton\_v2**" and rows[-1][0] == r"**flashinfer\_moe**"
    assert totals[0] + sum(changes) == pytest.approx(totals[-1], abs=0.1 * len(changes))
    assert totals[-2] == pytest.approx(totals[-1], abs=0.11)


def test_the_document(pair, capsys):
    assert say(*pair, "--format", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "moeprof.compare/1"
    assert document["residual_ns"] == 0
    bars = [bar["delta_ns"] for part in document["parts"] for bar in part["bars"]]
    assert sum(bars) == document["delta_ns"]
    assert document["delta_ns"] == document["after"]["span_ns"] - document["before"]["span_ns"]
    assert document["causes"][0]["cause"] == "amplification"
    assert document["parts"][3]["after"]["rows"] == 13982
    assert document["reasons"] == []


def test_narrow_and_ascii_terminals(traces):
    command = [sys.executable, "-m", "moeprof", "compare", *PAIR, "--num-tokens", "14107"]
    done = subprocess.run(
        [*command, "--traces", str(traces)],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert b"####" in done.stdout


def test_a_difference_within_noise_is_called_so(tmp_path, capsys):
    paths = save_all([pipeline(), named(pipeline(), "twin")], tmp_path)
    assert say(*map(str, paths)) == 0
    out = capsys.readouterr().out
    assert "within the noise of the samples" in out and "largest cause" not in out


# -- finding records ---------------------------------------------------------------------------


def test_newer_records_of_this_machine_come_first(tmp_path, capsys):
    save_all([pipeline(), fused()], tmp_path, "recorded/h200")
    (old,) = save_all([pipeline(created="2026-02-01T00:00:00+00:00")], tmp_path)
    (new,) = save_all([pipeline(created="2026-02-02T00:00:00+00:00")], tmp_path)
    assert say(*PAIR, "--traces", str(tmp_path), "--format", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["before"]["record"].endswith(new.name) and old.name != new.name
    assert "recorded/h200" in document["after"]["record"]


def test_a_path_beside_a_name_takes_the_same_workload(traces, pair, capsys):
    path = next((traces / "recorded/h200/triton_v2/dsv3").glob("T901-*"))
    assert say("flashinfer_moe", str(path), "--traces", str(traces), "--format", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["before"]["label"], document["after"]["label"]) == tuple(reversed(PAIR))
    assert document["workload"]["seq_len"] == 901


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (PAIR, "share 19 workloads of any workload; choose --num-tokens: 1, 7, 14,"),
        ([*PAIR, "--num-tokens", "8"], "no record of triton_v2 for T=8; it has T=1, 7, 14,"),
        (["triton_v3", "flashinfer_moe"], "no record of 'triton_v3'; did you mean triton_v"),
        (["triton_v2"], "1 records to compare; expected two"),
        (["triton_v2", "triton_v2", "--num-tokens", "7"], "triton_v2 twice; expected two"),
        ([*PAIR, "sglang_v1"], "3 records to compare; expected two; --all-workloads takes more"),
        ([*PAIR, *PAIR, "--all-workloads"], "a solution is named twice"),
        (["none.json.gz", "flashinfer_moe"], "none.json.gz: cannot be read"),
    ],
)
def test_what_cannot_be_found_is_one_line(traces, capsys, arguments, words):
    assert words in refused(capsys, *arguments, "--traces", str(traces))


def test_no_records_at_all(tmp_path, capsys):
    assert "there is no record of 'triton_v2'" in refused(capsys, *PAIR, "--traces", str(tmp_path))


# -- refusals and bad input --------------------------------------------------------------------


def test_different_work_is_refused_whatever_is_forced(tmp_path, capsys):
    other = fused()
    other = replace(other, routing=replace(other.routing, histogram_hash="cd" * 32))
    other = replace(other, environment=replace(other.environment, driver="590.2"))
    paths = [str(path) for path in save_all([pipeline(), other], tmp_path)]
    for force in ([], ["--force"]):
        line = refused(capsys, *paths, *force)
        assert "the routing histogram differs: abababababab for triton_v2" in line
        assert "the driver differs: 580.1 for triton_v2, 590.2 for flashinfer_moe" in line
        assert "measure both again the same way" in line


def test_a_flag_is_shown_on_top_when_forced(tmp_path, capsys):
    paths = [str(path) for path in save_all([pipeline(), clocked(1410)], tmp_path)]
    assert "--force compares them all the same" in refused(capsys, *paths)
    assert say(*paths, "--force") == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "! the SM clock differs: 1,980 MHz for triton_v2, 1,410 MHz for flashinfer_moe"


def test_the_power_cap_is_shown_on_top_unforced(tmp_path, capsys):
    paths = [str(path) for path in save_all([pipeline(), clocked(1410, "sw_power_cap")], tmp_path)]
    assert say(*paths, "--format", "md") == 0
    assert "> **the SM clock differs: 1,980 MHz for triton\\_v2" in capsys.readouterr().out


def edited(path: str, old: str, new: str) -> None:
    """Rewrite a record's text; ``old`` must be in it."""
    text = gzip.decompress(Path(path).read_bytes()).decode()
    assert old in text
    Path(path).write_bytes(gzip.compress(text.replace(old, new, 1).encode()))


def test_a_half_written_record(pair, capsys):
    content = Path(pair[1]).read_bytes()
    Path(pair[1]).write_bytes(content[: len(content) // 2])
    assert "damaged or cut short" in refused(capsys, *pair)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"schema_version":1', '"schema_version":99', "schema_version 99 is newer"),
        ('"format":"moeprof run"', '"format":"other"', "no moeprof record"),
        ('"span_us":', '"span_us":NaN,"was":', "it holds NaN"),
        ('"span_us":812345.0', '"span_us":-812345.0', "a sample of -812345.0 us"),
        ('"span_us":812345.0', '"span_us":1e999', "span_us"),
        ('"local_pairs":13982', '"local_pairs":5', "histogram sums to 13982"),
        ('"device_kind":"cuda"', '"device_kind":"abacus"', "device_kind"),
        ('"hidden_size":7168', '"hidden_sizes":7168', "hidden_size"),
    ],
)
def test_an_edited_record(pair, capsys, old, new, words):
    edited(pair[1], old, new)
    assert words in refused(capsys, *pair, "--force")


def test_a_foreign_file(pair, tmp_path, capsys):
    foreign = tmp_path / "trace.json"
    foreign.write_text('{"traceEvents": []}')
    assert "no moeprof record" in refused(capsys, pair[0], str(foreign))
    foreign.write_bytes(b"\x00\x01\x02")
    assert "not JSON" in refused(capsys, pair[0], str(foreign))


def test_a_record_without_samples(tmp_path, capsys):
    empty = replace(fused(), passes=(PassResult("bare", unavailable="stopped"),), timelines=())
    paths = [str(path) for path in save_all([pipeline(), empty], tmp_path)]
    assert "the record of flashinfer_moe has no samples" in refused(capsys, *paths, "--force")


def test_dropped_records_and_negative_durations(tmp_path, capsys):
    dropped = with_iteration(fused(), "api", dropped=2)
    paths = [str(path) for path in save_all([pipeline(), dropped], tmp_path)]
    assert "CUPTI dropped 2 record(s) in the api pass of flashinfer_moe" in refused(capsys, *paths)
    assert say(*paths, "--force") == 0
    assert capsys.readouterr().out.startswith("! CUPTI dropped 2 record(s)")
    starts = fused().timeline("api").iterations[0].start_ns
    negative = with_iteration(fused(), "api", end_ns=tuple(start - 1 for start in starts))
    (path,) = save_all([negative], tmp_path / "b")
    assert "end before they start (api)" in refused(capsys, paths[0], str(path), "--force")


def test_nothing_is_written(traces, capsys):
    before = sorted(traces.rglob("*"))
    say(*PAIR, "--num-tokens", "7", "--traces", str(traces))
    say(*PAIR, "--all-workloads", "--traces", str(traces))
    assert sorted(traces.rglob("*")) == before


# -- all workloads -----------------------------------------------------------------------------


def test_tables_over_all_workloads(traces, capsys):
    assert say(*PAIR, "--all-workloads", "--traces", str(traces)) == 0
    text = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "Speedup over reference" in lines
    assert "medium (T=52-80) 10 11,457.1 3,128.9 3.66" in lines
    assert "flashinfer_moe 19 3,128.9 3,128.9 3,128.9 3,128.9 0 % 19" in lines


def test_tables_as_markdown_and_json(traces, capsys):
    everything = [*PAIR, "sglang_v1", "--all-workloads", "--traces", str(traces)]
    assert say(*everything, "--format", "md") == 0
    text = capsys.readouterr().out
    assert "# triton_v2, flashinfer_moe, sglang_v1 over 19 workloads" in text
    assert "## Speedup over reference" in text
    assert say(*everything, "--format", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "moeprof.compare.compare-workloads/1"
    assert len(document["workloads"]) == len(document["records"]) == 19
    assert [s["wins"] for s in document["metrics"]["latency"]["summary"]] == [0, 19, 0]
    assert set(document["records"][0]) == {*PAIR, "sglang_v1", "reference"}


def test_tables_without_a_reference_have_no_speedups(tmp_path, capsys):
    save_all([pipeline(), fused()], tmp_path)
    assert say(*PAIR, "--all-workloads", "--traces", str(tmp_path)) == 0
    assert "Speedup" not in capsys.readouterr().out


def test_tables_refuse_different_work(tmp_path, capsys):
    other = fused()
    other = replace(other, routing=replace(other.routing, weights_recipe="harness"))
    save_all([pipeline(), other], tmp_path)
    line = refused(capsys, *PAIR, "--all-workloads", "--traces", str(tmp_path))
    assert "the weights recipe differs: quantised for triton_v2 at T=14,107" in line


BLOCKED = (
    "import sys\n"
    "for name in ('torch', 'triton', 'sgl_kernel', 'flashinfer', 'cupti', 'pynvml'):\n"
    "    sys.modules[name] = None\n"
    "from moeprof.cli.main import run_command\n"
    "sys.exit(run_command(sys.argv[1:]))\n"
)


@pytest.mark.parametrize("form", ["text", "md", "json"])
def test_without_torch_and_in_time(traces, form):
    """Six solutions over 19 workloads within two seconds, the device libraries blocked."""
    names = [path.name for path in (traces / "recorded/h200").iterdir()]
    assert len(names) == 6
    shared = ["--traces", str(traces), "--format", form]
    for chosen in ([*names, "--all-workloads"], [*PAIR, "--num-tokens", "901"]):
        command = [sys.executable, "-c", BLOCKED, "compare", *chosen, *shared]
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
        assert done.returncode == 0, done.stderr
        assert seconds < 2.0


# -- records of a real GPU ---------------------------------------------------------------------


def test_recorded_runs_name_work_amplification(root, capsys):
    traces = root / "traces"
    found = store.find_runs(traces / "recorded" / "h200", seq_len=14107)
    if {*PAIR} - {run.solution for run in found}:
        pytest.skip("needs records of both solutions in traces/recorded/h200")
    paths = {run.solution: str(run.path) for run in found}
    assert say(*(paths[name] for name in PAIR), "--format", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["largest_cause"].startswith("Work amplification is the largest cause")
    assert document["residual_ns"] == 0
    first = next(part for part in document["parts"] if part["name"] == "gemm1")
    ratio = first["before"]["rows"] / first["after"]["rows"]
    assert f"{ratio:.2f}x the rows in gemm1 cost triton_v2" in document["sentences"][0]


def test_recorded_tables_in_time(root):
    """Every recorded workload of every solution, from a cold start."""
    recorded = root / "traces" / "recorded" / "h200"
    names = sorted({run.solution for run in store.find_runs(recorded)})
    if len(names) < 6:
        pytest.skip("needs the records of six solutions in traces/recorded/h200")
    command = [sys.executable, "-c", BLOCKED, "compare", *names, "--all-workloads"]
    begin = time.perf_counter()
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["workloads"]) == 19
    assert seconds < 2.0


def test_names_mean_records_of_one_folder_where_it_has_them_all(tmp_path, capsys):
    """What came with a checkout was measured alike in one folder; what was run here goes first."""

    def compared() -> list[str]:
        assert say("slow", "quick", "--traces", str(tmp_path), "--format", "json") == 0
        document = json.loads(capsys.readouterr().out)
        return [document[side]["record"].split("/")[-4] for side in ("before", "after")]

    slow, quick = pipeline(name="slow"), pipeline(name="quick", scale=0.5)
    save_all([slow], tmp_path, "recorded/a")
    save_all([quick], tmp_path, "recorded/c")
    assert compared() == ["a", "c"]
    save_all([slow, quick], tmp_path, "recorded/b")
    assert compared() == ["b", "b"]
    save_all([slow], tmp_path, "runs")
    assert compared() == ["runs", "b"]
