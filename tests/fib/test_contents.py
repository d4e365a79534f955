"""``moeprof import fib DIR``: what is shown of a TraceSet, and of one that is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeprof.cli.main import run_command
from moeprof.cli.planning import RunOptions, make_choices
from moeprof.errors import UsageError
from moeprof.fib.contents import read_contents
from moeprof.problem.dataset import own_root
from tests.fib import tracesets
from tests.fib.tracesets import TINY


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tracesets.make(tmp_path / "set")


def lines(root: Path) -> list[dict[str, Any]]:
    text = (root / "workloads" / "moe" / f"{TINY}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def put_workloads(root: Path, documents: list[Any]) -> None:
    text = "".join(json.dumps(document) + "\n" for document in documents)
    (root / "workloads" / "moe" / f"{TINY}.jsonl").write_text(text)


def put_definition(root: Path, **changes: Any) -> dict[str, Any]:
    path = root / "definitions" / "moe" / f"{TINY}.json"
    document = {**json.loads(path.read_bytes()), **changes}
    path.write_text(json.dumps(document))
    return document


def put_traces(root: Path, place: str, evaluations: list[dict[str, Any]]) -> None:
    path = root / "traces" / place / f"{TINY}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    workload = lines(root)[0]
    text = "".join(json.dumps({**workload, **one}) + "\n" for one in evaluations)
    path.write_text(text)


def trace(solution: str, latency: Any, status: str = "PASSED", **more: Any) -> dict[str, Any]:
    performance = {"latency_ms": latency, **more}
    return {"solution": solution, "evaluation": {"status": status, "performance": performance}}


def thirteen(root: Path) -> None:
    scalar = {"shape": None, "dtype": "int32"}
    more = dict.fromkeys(("top_k", "n_group", "topk_group"), scalar)
    document = put_definition(root)
    put_definition(root, inputs={**document["inputs"], **more})


# ---------------------------------------------------------------- what is there


def test_moeprofs_own_dataset_is_read_whole() -> None:
    found = read_contents(own_root())
    assert [d.problem for d in found.definitions] == ["", ""]
    big = [w for w in found.workloads if w.definition.endswith("h7168_i2048")]
    assert len(big) == 19 and sorted(w.seq_len for w in big)[-1] == 14107
    assert not found.unreadable and not found.solutions and not found.claims


def test_solutions_say_language_style_and_what_speaks_against_them(root: Path) -> None:
    returning = tracesets.reference().replace("@torch.no_grad()\n", "")
    documents = [
        tracesets.solution("a"),
        tracesets.solution("b", returning, style=False, language="triton"),
        tracesets.solution("c", "def run(x): pass"),
        tracesets.solution("d", "def run(:"),
        tracesets.solution("e", "from .reference import run"),
        tracesets.solution("f", "x = 1"),
        tracesets.solution("g", definition="another"),
        tracesets.solution("h", files={"k.cu": "int x;"}, language="cuda"),
        tracesets.solution("i", "def run(*given): pass"),
    ]
    for document in documents:
        tracesets.put(root, document)
    tracesets.put(root, tracesets.solution("a"), file="twice")
    found = {f"{s.file.path.rpartition('/')[2]}": s for s in read_contents(root).solutions}
    assert [found[f"{name}.json"].parameters for name in "abcdefghi"] == [
        11, 10, 1, None, None, None, 11, None, 0,
    ]  # fmt: skip
    problems = {name: found[f"{name}.json"].problem for name in "abcdefghi"}
    assert problems == {
        "a": "",
        "b": "",
        "c": "takes 1 parameters, 11 are passed",
        "d": "main.py:1: invalid syntax",
        "e": "",
        "f": "it holds no 'run'",
        "g": "its definition another is not here",
        "h": "",
        "i": "",
    }
    assert found["twice.json"].problem.startswith("has the name of solutions/somebody/moe/")


def test_blobs_are_there_or_missing(root: Path) -> None:
    documents = lines(root)
    blob = f"./blob/workloads/moe/{TINY}/x.safetensors"
    for document, path in ((documents[0], blob), (documents[1], f"{blob}.none")):
        for name in ("routing_logits", "routing_bias"):
            document["workload"]["inputs"][name] = {
                "type": "safetensors", "path": path, "tensor_key": name,
            }  # fmt: skip
    put_workloads(root, documents)
    (root / blob).parent.mkdir(parents=True)
    (root / blob).write_bytes(b"")
    routing = [w.routing for w in read_contents(root).workloads]
    assert routing == ["recorded", "blob missing", "random", "random", "random"]


def choose(root: Path, routing: str, tokens: int) -> None:
    make_choices(
        RunOptions(
            solution="fib:theirs", num_tokens=tokens, workload=None, all_workloads=False,
            definition=None, routing=routing, weights="quantised", dataset=str(root),
            device="cpu", preset=None, warmup=None, iterations=None, trials=None, l2="warm",
            seed=0, passes=None, allow_no_local_work=False, trust=True,
        )
    )  # fmt: skip


def test_a_run_without_its_blobs_wants_a_routing(root: Path) -> None:
    documents = lines(root)
    for name in ("routing_logits", "routing_bias"):
        spec = {"type": "safetensors", "path": "./blob/x.safetensors", "tensor_key": name}
        documents[1]["workload"]["inputs"][name] = spec
    put_workloads(root, documents)
    tracesets.put(root, tracesets.solution())
    with pytest.raises(UsageError, match=r"routing of 1 of 1 workloads is missing .*T=7\); .*unif"):
        choose(root, "auto", 7)
    choose(root, "uniform", 7)
    choose(root, "auto", 33)


def test_the_definition_of_the_same_name_with_13_inputs_is_named(root: Path) -> None:
    thirteen(root)
    tracesets.put(root, tracesets.solution())
    (definition,) = read_contents(root).definitions
    assert definition.problem.startswith("it has 13 inputs, not 10")
    with pytest.raises(UsageError, match="it has 13 inputs, not 10"):
        choose(root, "uniform", 7)


def test_traces_claim_the_least_latency_that_passed(root: Path) -> None:
    put_traces(
        root,
        "moe",
        [
            trace("slow", 2.0),
            trace("quick", 0.5),
            trace("wrong", 0.1, status="INCORRECT_NUMERICAL"),
            trace("odd", "NaN"),
            trace("negative", -1),
            trace("no", None),
        ],
    )
    (claim,) = read_contents(root).claims
    assert (claim.traces, claim.passed) == (6, 5)
    assert (claim.solution, claim.latency_ms, claim.timer) == ("quick", 0.5, "0.1.2?")
    put_traces(root, "somebody/moe", [trace("quicker", 0.25)])
    (claim,) = read_contents(root).claims
    assert (claim.solution, claim.timer, claim.traces) == ("quicker", "main?", 7)


def test_unknown_keys_are_named_with_their_place_and_number(root: Path) -> None:
    document = tracesets.solution(extra=1)
    document["spec"]["flags"] = ["-O3"]
    document["sources"][0]["mode"] = document["sources"][1]["mode"] = 0
    tracesets.put(root, document)
    put_traces(root, "moe", [trace("a", 1.0, stages={}), trace("b", 1.0, stages={})])
    put_definition(root, seen="yes")
    assert read_contents(root).ignored == {
        "definition: seen": 1,
        "solution: extra": 1,
        "solution: sources[].mode": 2,
        "solution: spec.flags": 1,
        "trace: evaluation.performance.stages": 2,
    }


# ---------------------------------------------------------------- the command


def test_both_spellings_show_the_same_and_nothing_steers_the_terminal(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracesets.put(root, tracesets.solution("a\x1b[2Jb", author="\x9bcsi"), file="x")
    tracesets.put(root, "{\x1b", file="broken")
    put_traces(root, "moe", [trace("q\x1b]0;title\x07", 1.0)])
    assert run_command(["import", "fib", str(root)]) == 0
    first = capsys.readouterr().out
    assert run_command(["import", str(root)]) == 0
    assert capsys.readouterr().out == first
    assert all(letter.isprintable() or letter == "\n" for letter in first)
    assert "Solutions" in first and "a\ufffd[2Jb" in first
    assert "cannot be read: solutions/somebody" in first
    assert run_command(["import", "fib", str(root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "moeprof.traceset/1"
    (solution,) = document["solutions"]
    assert solution["parameters"] == 11 and len(solution["sha256"]) == 64
    assert str(root) not in json.dumps(document)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fib", "/no/such/folder"], "/no/such/folder does not exist"),
        (["fib", "."], "holds no definitions or solutions"),
        (["one", "two"], "2 arguments; expected one FILE, or fib DIR"),
        (["a", "b", "c"], "3 arguments"),
        (["fib"], "fib: there is no such file"),
    ],
)
def test_what_is_no_trace_set_is_one_line(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["import", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("tags", [True, 3, "x", {"a": 1}])
def test_tags_that_are_no_list_are_that_definitions_problem(root: Path, tags: Any) -> None:
    put_definition(root, tags=tags)
    assert "has tags = " in read_contents(root).definitions[0].problem


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["moe", TINY, "seq_len", "main.py::run", "\ud800", "1" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FILES = st.sampled_from(["definition", "workload", "solution", "trace"])


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), kind=FILES)
def test_no_content_of_a_file_stops_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    root = tracesets.make(tmp_path_factory.mktemp("set", numbered=True) / "set")
    put_traces(root, "moe", [trace("a", 1.0)])
    tracesets.put(root, tracesets.solution())
    places = {
        "definition": root / "definitions" / "moe" / f"{TINY}.json",
        "workload": root / "workloads" / "moe" / f"{TINY}.jsonl",
        "solution": next((root / "solutions").rglob("*.json")),
        "trace": root / "traces" / "moe" / f"{TINY}.jsonl",
    }
    text = places[kind].read_text()
    document = json.loads(text.splitlines()[0] if places[kind].suffix == ".jsonl" else text)
    _damage(document, data)
    places[kind].write_text(json.dumps(document) + "\n")
    contents = read_contents(root)
    from moeprof.reports.trace_set import contents_document, render_contents

    json.dumps(contents_document(contents), allow_nan=False).encode()
    render_contents(contents, "DIR")
    for file in contents.unreadable:
        assert (file.path + file.problem).isprintable()


def _damage(value: Any, data: st.DataObject) -> None:
    """Somewhere in the document a key or an item is replaced, removed or added."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        inner = value[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            value = inner
            continue
        if isinstance(value, dict) and data.draw(st.booleans()):
            del value[key]
        else:
            value[key] = data.draw(VALUES)
        return


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b"{}", b"1e999", b"NaN"]))
def test_no_bytes_stop_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tracesets.make(tmp_path_factory.mktemp("set", numbered=True) / "set")
    for path in (
        root / "definitions" / "moe" / f"{TINY}.json",
        root / "solutions" / "x.json",
        root / "workloads" / "moe" / f"{TINY}.jsonl",
        root / "traces" / "moe" / f"{TINY}.jsonl",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    contents = read_contents(root)
    assert not contents.solutions
    for file in contents.unreadable:
        assert (file.path + file.problem).isprintable()


def test_a_recorded_foreign_solution_is_looked_up_by_its_name_whatever_it_holds() -> None:
    from moeprof.storage.lookup import is_path

    assert not is_path("fib:theirs") and not is_path("fib:a/b.json")
    assert is_path("a/b.json")
