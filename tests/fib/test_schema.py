"""A Solution as a value: flashinfer-bench's own model takes and refuses the same files."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from flashinfer_bench.data import Solution
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from moeprof.errors import UsageError
from moeprof.fib.schema import dump_solution, parse_solution

GOOD: dict[str, Any] = {
    "name": "mine",
    "definition": "moe",
    "author": "me",
    "spec": {
        "language": "triton",
        "target_hardware": ["cuda"],
        "entry_point": "main.py::run",
        "dependencies": ["torch"],
        "destination_passing_style": False,
        "binding": None,
    },
    "sources": [
        {"path": "main.py", "content": "def run(): ...\n"},
        {"path": "a/b.py", "content": "x = 'é'\n"},
    ],
    "description": "words",
}
PLACES: list[tuple[Any, ...]] = [
    *((key,) for key in GOOD),
    *(("spec", key) for key in GOOD["spec"]),
    *(("spec", key, 0) for key in ("target_hardware", "dependencies")),
    ("sources", 0),
    *(("sources", number, key) for number in (0, 1) for key in ("path", "content")),
]
REMOVED = object()
VALUES = st.sampled_from(
    [REMOVED, None, "", "x", "main.py", "main.py::run", "main.py::", "::run", "a::b::c", "a/b.py"]
    + ["/etc/x.py", "../x.py", "a/../b", "a/..b", "cuda", "cpp", "tvm-ffi", "torch"]
    + [[], ["x"], [""], [1], {}, {"path": "main.py", "content": "x"}, 7, True, False]
)


def changed(changes: list[tuple[tuple[Any, ...], Any]]) -> str:
    data = copy.deepcopy(GOOD)
    for place, value in changes:
        container: Any = data
        try:
            for step in place[:-1]:
                container = container[step]
            if value is REMOVED:
                del container[place[-1]]
            else:
                container[place[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue
    return json.dumps(data)


def is_lax(text: str) -> bool:
    """What pydantic takes for a bool although it is none; nobody writes that."""
    spec = json.loads(text).get("spec")
    style = spec.get("destination_passing_style", True) if isinstance(spec, dict) else True
    return not isinstance(style, bool)


@settings(max_examples=400, deadline=None)
@example([])
@example([(("spec", "binding"), "")])
@example([(("spec", "dependencies"), None)])
@example([(("spec", "target_hardware", 0), "")])
@example([(("spec", "dependencies", 0), "")])
@example([(("spec", "destination_passing_style"), None)])
@example([(("sources", 1, "path"), "main.py")])
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), max_size=3))
def test_takes_and_refuses_what_theirs_does(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    text = changed(changes)
    try:
        theirs = Solution.model_validate_json(text)
    except ValidationError:
        with pytest.raises(UsageError) as caught:
            parse_solution(text, "x.json")
        assert str(caught.value).startswith("x.json") and "\n" not in str(caught.value)
        return
    if is_lax(text):
        return
    ours = parse_solution(text, "x.json")
    assert ours.hash == theirs.hash()
    assert ours.name == theirs.name and ours.description == (theirs.description or "")
    assert (ours.spec.entry_path, ours.spec.entry_symbol) == (
        str(theirs.spec.entry_point.split("::")[0]),
        theirs.get_entry_symbol(),
    )
    again = dump_solution(ours)
    assert parse_solution(again, "again") == ours
    assert Solution.model_validate_json(again).hash() == theirs.hash()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '"x"', "[" * 100_000])
def test_what_is_no_object_is_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_solution(text, "x.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_survives(content: str, description: str) -> None:
    data = {**GOOD, "description": description}
    data["sources"] = [{"path": "main.py", "content": content + "x"}]
    solution = parse_solution(json.dumps(data), "x.json")
    again = parse_solution(dump_solution(solution), "again")
    assert again == solution and again.source("main.py") == content + "x"
