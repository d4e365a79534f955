"""``moeprof export fib`` on folders that are there already, and on what cannot be meant."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from moeprof.cli.main import run_command
from moeprof.problem.dataset import Dataset, own_root
from tests.privacy import private_words

TINY = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e8_h256_i256"
REAL = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e32_h7168_i2048"
SOLUTION = Path("solutions/moeprof/moe") / TINY / "reference.json"
RUN = (
    "def run(routing_logits, routing_bias, hidden_states, hidden_states_scale, gemm1_weights,\n"
    "        gemm1_weights_scale, gemm2_weights, gemm2_weights_scale, offset, factor):\n"
    "    return hidden_states\n"
)


def export(root, *arguments, solution="reference", definition="tiny"):
    return run_command(
        ["export", "fib", "--solution", str(solution), "--dataset", str(root)]
        + ["--definition", definition, *map(str, arguments)]
    )


def tree(root):
    """Every file below ``root`` with a digest of it."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def root(tmp_path, capsys):
    """A dataset that was exported before."""
    assert export(tmp_path / "ds") == 0
    capsys.readouterr()
    return tmp_path / "ds"


@pytest.fixture
def foreign(tmp_path):
    """A dataset as flashinfer publishes it: workloads, and blobs that were not fetched."""
    for folder, suffix in (("definitions", "json"), ("workloads", "jsonl")):
        target = tmp_path / "theirs" / folder / "moe"
        target.mkdir(parents=True)
        source = own_root() / folder / "moe" / f"{REAL}.{suffix}"
        (target / source.name).write_bytes(source.read_bytes())
    return tmp_path / "theirs"


def refused(capsys, before, root, code, *parts):
    """One line on stderr that holds every part, exit code 2, and nothing was written."""
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    for part in parts:
        assert str(part) in captured.err
    if root is not None:
        assert (tree(root) if root.is_dir() else None) == before


# --- what is there already ---


def test_the_same_command_again_changes_nothing(root, capsys):
    before = tree(root)
    assert export(root, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert {file["action"] for file in document["files"]} == {"kept"}
    assert tree(root) == before


def test_blobs_are_kept_whatever_seed_is_asked_for(root, capsys):
    before = tree(root)
    assert export(root, "--seed", 5, "--routing", "single") == 0
    assert tree(root) == before
    assert "5 kept" in (shown := capsys.readouterr().out)
    assert "synthetic uniform, seed 0" in shown


def test_another_solution_is_added_and_nothing_else_changes(root):
    before = tree(root)
    assert export(root, "--author", "me", solution="sglang_v1") == 0
    after = tree(root)
    added = f"solutions/me/moe/{TINY}/sglang_v1.json"
    assert set(after) - set(before) == {added}
    assert {name: after[name] for name in before} == before


def test_a_missing_blob_of_our_own_is_written_again_on_request_only(root, capsys):
    before = tree(root)
    blob = next(root.rglob("*.safetensors"))
    blob.unlink()
    assert export(root) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "note: 1 of 5 workloads lack their blob" in shown
    assert not blob.exists()
    assert export(root, "--routing", "uniform") == 0
    assert tree(root) == before
    assert "1 written" in (out := capsys.readouterr().out) and "4 kept" in out


def test_a_published_dataset_keeps_its_workloads_and_gets_no_blob_unasked(foreign, capsys):
    before = tree(foreign)
    assert export(foreign, "--json", definition="dsv3") == 0
    document = json.loads(capsys.readouterr().out)
    assert "19 of 19 workloads lack their blob" in document["warnings"][0]
    assert set(tree(foreign)) - set(before) == {f"solutions/moeprof/moe/{REAL}/reference.json"}
    assert export(foreign, "--routing", "zipf:1", "--num-tokens", "7,56", definition="dsv3") == 0
    after = tree(foreign)
    assert {name: after[name] for name in before} == before
    dataset = Dataset(foreign)
    definition = dataset.definition("dsv3")
    with_blob = {
        workload.seq_len
        for workload in dataset.workloads(definition)
        if all(file.path.exists() for file in dataset.recorded_routing(workload).values())
    }
    assert with_blob == {7, 56}


def test_a_solution_that_differs_is_replaced_only_by_force(root, capsys):
    text = (root / SOLUTION).read_text()
    (root / SOLUTION).write_text(text.replace("expert by expert", "by and by"))
    before = tree(root)
    refused(capsys, before, root, export(root), SOLUTION, "differs", "--force")
    traces = root / "traces" / "moe"
    traces.mkdir(parents=True)
    traces.joinpath(f"{TINY}.jsonl").write_text('{"solution":"reference"}\n{"solution": "other"}\n')
    assert export(root, "--force") == 0
    assert (root / SOLUTION).read_text() == text
    assert "1 traces of reference are of the source that was replaced" in capsys.readouterr().out


def test_a_solution_written_in_another_way_is_the_same(root, capsys):
    path = root / SOLUTION
    path.write_text(json.dumps(json.loads(path.read_text())))
    before = tree(root)
    assert export(root) == 0
    assert tree(root) == before


def test_what_flashinfer_bench_will_stumble_over_is_named(foreign, capsys):
    path = foreign / "workloads" / "moe" / f"{REAL}.jsonl"
    line = json.loads(path.read_text().splitlines()[0])
    blob = line["workload"]["inputs"]["routing_logits"]["path"]
    line["workload"]["inputs"]["gemm1_weights"] = {
        "type": "safetensors",
        "path": blob,
        "tensor_key": "gemm1_weights",
    }
    path.write_text(json.dumps(line) + "\n")
    (foreign / blob).parent.mkdir(parents=True)
    (foreign / blob).write_bytes(b"no blob")
    assert export(foreign, "--json", definition="dsv3") == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert len(warnings) == 2
    assert "reads gemm1_weights from a blob" in warnings[0]
    assert "is no safetensors file" in warnings[1]


# --- what cannot be meant ---


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"solution": "triton_v9"}, ("triton_v9", "triton_v2")),
        ({"solution": "reference,triton_v9"}, ("triton_v9",)),
        ({"solution": ","}, ("names none",)),
        ({"solution": "./none.py"}, ("none.py",)),
        ({"solution": "fib:theirs"}, ("fib:theirs", "a dataset already")),
        ({"definition": "dsv4"}, ("dsv4", "dsv3")),
    ],
)
def test_unknown_names(tmp_path, capsys, arguments, parts):
    refused(capsys, None, tmp_path / "ds", export(tmp_path / "ds", **arguments), *parts)


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        (("--author", "a/b"), ("'a/b'", "slash")),
        (("--author", "a\\b"), ("slash",)),
        (("--author", ".."), ("'..'",)),
        (("--author", " "), ("' '",)),
        (("--routing", "recorded"), ("recorded", "uniform")),
        (("--routing", "uniformly"), ("uniformly", "uniform")),
        (("--num-tokens", "7,x"), ("7,x",)),
        (("--num-tokens", "0"), ("0 tokens",)),
        (("--routing", "file:none.npz"), ("none.npz",)),
    ],
)
def test_options_that_mean_nothing(tmp_path, capsys, option, parts):
    refused(capsys, None, tmp_path / "ds", export(tmp_path / "ds", *option), *parts)


def test_a_dataset_that_is_a_file(tmp_path, capsys):
    path = tmp_path / "ds"
    path.write_text("x")
    refused(capsys, None, path, export(path), path, "is a file")
    refused(capsys, None, path, export(path / "below"), path, "cannot be written to")


def test_a_folder_of_other_things(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("x")
    before = tree(tmp_path)
    refused(capsys, before, tmp_path, export(tmp_path), "is no dataset", "thesis.tex")


def test_a_folder_that_cannot_be_written_to(root, capsys, monkeypatch):
    """By the system's answer: tests may run as a user whom no permission stops."""
    import os

    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    refused(capsys, tree(root), root, export(root), root, "cannot be written to", "--dataset")


def test_a_disk_that_fails_leaves_no_part_of_a_file(tmp_path, capsys, monkeypatch):
    import errno
    import os

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    code = export(tmp_path / "ds")
    refused(capsys, None, None, code, "No space left", "--dataset")
    assert tree(tmp_path / "ds") == {}


def test_a_definition_of_the_same_name_with_thirteen_inputs(root, capsys):
    path = root / "definitions" / "moe" / f"{TINY}.json"
    data = json.loads(path.read_text())
    for name in ("top_k", "n_group", "topk_group"):
        data["inputs"][name] = {"shape": None, "dtype": "int32"}
    path.write_text(json.dumps(data))
    refused(capsys, tree(root), root, export(root), TINY, "13 inputs, not 10")


def test_a_definition_of_other_sizes(root, capsys):
    path = root / "definitions" / "moe" / f"{TINY}.json"
    data = json.loads(path.read_text())
    data["axes"]["num_local_experts"]["value"] = 4
    path.write_text(json.dumps(data))
    refused(capsys, tree(root), root, export(root), path, "num_local_experts = 4", "8")


def test_a_definition_in_two_files(root, capsys):
    other = root / "definitions" / "elsewhere.json"
    other.write_bytes((root / "definitions" / "moe" / f"{TINY}.json").read_bytes())
    refused(capsys, tree(root), root, export(root), other, TINY)


def test_the_name_of_another_authors_solution(root, capsys):
    code = export(root, "--author", "me", "--force")
    refused(capsys, tree(root), root, code, SOLUTION, "reference", "already")


def test_two_solutions_of_one_name(tmp_path, capsys):
    (tmp_path / "reference.py").write_text(RUN)
    names = f"reference,{tmp_path / 'reference.py'}"
    code = export(tmp_path / "ds", solution=names)
    refused(capsys, None, tmp_path / "ds", code, "two of the solutions", "reference")


def test_a_solution_file_that_is_no_json(root, capsys):
    path = root / "solutions" / "broken.json"
    path.write_text("{")
    refused(capsys, tree(root), root, export(root), path, "is not JSON")


def test_workloads_of_a_dataset_are_not_added_to(root, capsys):
    code = export(root, "--num-tokens", "7,8")
    refused(capsys, tree(root), root, code, "no workload of 8 tokens", "1, 7, 13")


def test_a_blob_outside_the_dataset_is_not_written(root, capsys):
    path = root / "workloads" / "moe" / f"{TINY}.jsonl"
    blob = next(root.rglob("*.safetensors"))
    path.write_text(path.read_text().replace(f"./{blob.relative_to(root)}", "../../out"))
    code = export(root, "--routing", "uniform")
    refused(capsys, tree(root), root, code, "outside the dataset", "../../out")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (RUN.replace("offset, factor", "offset"), ("mine.py", "9 positional parameters")),
        ("x = 1\n", ("mine.py", "neither SOLUTION nor run")),
        ("from moeprof.records import Run\n" + RUN, ("mine.py:1", "moeprof.contract")),
        ("import helper.part\n" + RUN, ("mine.py:1", "from helper.part import")),
    ],
)
def test_a_users_file_that_cannot_be_exported(tmp_path, capsys, text, parts):
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "helper").mkdir()
    (tmp_path / "helper" / "part.py").write_text("")
    code = export(tmp_path / "ds", solution=tmp_path / "mine.py")
    refused(capsys, None, tmp_path / "ds", code, *parts)


@pytest.mark.parametrize("written", range(8))
def test_an_interruption_leaves_whole_files_and_can_be_made_up_for(root, tmp_path, written):
    """Whatever is there can be loaded, and the same command again completes it."""
    from flashinfer_bench.data import TraceSet

    from moeprof.fib import dataset_files

    real, count = dataset_files.write_atomically, 0

    def interrupted(*arguments, **options):
        nonlocal count
        if count == written:
            raise KeyboardInterrupt
        count += 1
        real(*arguments, **options)

    other = tmp_path / "other"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dataset_files, "write_atomically", interrupted)
        assert export(other) == 130
    before = tree(other) if other.exists() else {}
    assert len(before) == written
    assert before.items() <= tree(root).items()
    TraceSet.from_path(str(other))
    assert export(other) == 0
    assert tree(other) == tree(root)


def test_a_file_made_while_the_export_was_planned_is_not_written_over(tmp_path):
    from moeprof.errors import UsageError
    from moeprof.fib.dataset_files import Asked, choose_definition, plan

    definition = choose_definition(tmp_path / "ds", "tiny")
    planned = plan(tmp_path / "ds", definition, [], Asked(None, 0), force=True)
    path = tmp_path / "ds" / "workloads" / "moe" / f"{TINY}.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("theirs")
    with pytest.raises(UsageError, match="was made meanwhile"):
        planned.write()
    assert path.read_text() == "theirs"


# --- what is printed and written ---


def test_what_a_file_prints_is_no_report(tmp_path, capfd):
    (tmp_path / "mine.py").write_text("print('hello')\n" + RUN)
    assert export(tmp_path / "ds", "--json", solution=tmp_path / "mine.py") == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out)["solutions"][0]["name"] == "mine"
    assert "hello" in captured.err


def test_the_command_that_is_printed_is_one_of_flashinfer_benchs(root, capsys, monkeypatch):
    """Its own parser takes it, its own configuration accepts the values."""
    import sys

    from flashinfer_bench.cli import main as theirs

    assert export(root, "--json") == 0
    command = json.loads(capsys.readouterr().out)["command"]
    seen = []
    monkeypatch.setattr(theirs, "run", seen.append)
    monkeypatch.setattr(sys, "argv", command)
    theirs.cli()
    (options,) = seen
    assert options.definitions == [TINY] and options.solutions == ["reference"]
    assert (options.atol, options.rtol, options.required_matched_ratio) == (1.0, 0.3, 0.9)
    assert options.use_isolated_runner and Path(options.local[0]).resolve() == root.resolve()


def test_nothing_private_is_written(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(RUN)
    assert export(tmp_path / "ds", solution=f"triton_v3,{mine}") == 0
    content = b"\n".join(path.read_bytes() for path in (tmp_path / "ds").rglob("*.json*"))
    words = {word for word in private_words() if not word.isdecimal()}
    for word in (*words, str(tmp_path)):
        assert word.encode() not in content, word


def test_help_says_what_is_kept(capsys):
    assert run_command(["export", "--help"]) == 0
    assert run_command(["export", "fib", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "nothing is changed but what --force allows" in shown
