"""A user's callable as a forward: which stretches a call has, and that hooks meet exactly those."""

from __future__ import annotations

import contextvars
import threading
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof import stage
from moeprof.errors import ContractError
from moeprof.measure.callable_forward import (
    CallableForward,
    Stretch,
    discover,
    stretches,
    tensors_in,
)
from moeprof.scopes import LISTENER, OUTSIDE


def hooked(forward: CallableForward) -> list[str]:
    """What the hooks of one call heard: '+name' and '-name', names of stretches."""
    heard: list[str] = []
    forward(
        enter=lambda position: heard.append(f"+{forward.stage_names[position]}"),
        leave=lambda position: heard.append(f"-{forward.stage_names[position]}"),
    )
    assert LISTENER.get() is None
    return heard


def pairs(*names: str) -> list[str]:
    return [sign + name for name in names for sign in "+-"]


def test_a_call_is_a_sequence_of_stretches_without_gaps():
    weight = torch.eye(4)

    @stage("gemm")
    def gemm(x):
        return x @ weight

    def layer(x):
        x = gemm(x)
        with stage("activation"):
            x = torch.relu(x)
        return gemm(x) + 1

    forward, result = discover("layer", lambda: layer(torch.ones(2, 4)))
    names = ("outside", "gemm", "outside #2", "activation", "outside #3", "gemm #2", "outside #4")
    assert forward.stage_names == names
    assert forward.row_names == tuple(name.split(" #")[0] for name in names)
    assert hooked(forward) == pairs(*names)
    assert torch.equal(result, torch.full((2, 4), 2.0))
    assert torch.equal(forward(), result)  # and without hooks the result is the callable's


def test_an_inner_scope_wins_and_the_outer_goes_on_after_it():
    def call():
        with stage("layer"):
            with stage("norm"):
                pass
            with stage("norm"):
                pass

    forward, _ = discover("nested", call)
    assert forward.stretches == (
        Stretch("outside", OUTSIDE, False),
        Stretch("layer", "layer", False),
        Stretch("norm", "norm", False),
        Stretch("layer #2", "layer", True),
        Stretch("norm #2", "norm", False),
        Stretch("layer #3", "layer", True),
        Stretch("outside #2", OUTSIDE, True),
    )
    assert hooked(forward) == pairs(*forward.stage_names)


def test_a_scope_may_be_entered_inside_itself():
    @stage("depth")
    def depth(levels):
        return 0 if levels == 0 else 1 + depth(levels - 1)

    forward, result = discover("recursive", lambda: depth(2))
    assert result == 2
    assert forward.row_names == (OUTSIDE, *["depth"] * 5, OUTSIDE)
    assert [s.resumes for s in forward.stretches] == [False, False, False, False, True, True, True]
    assert hooked(forward) == pairs(*forward.stage_names)


def test_no_stage_at_all_is_one_stretch_outside():
    forward, result = discover("bare", lambda: 7)
    assert (forward.stage_names, result) == (("outside",), 7)
    assert hooked(forward) == ["+outside", "-outside"]


def test_an_exception_inside_a_stage_that_the_callable_handles_ends_the_stage():
    def call():
        try:
            with stage("fast path"):
                raise RuntimeError("not here")
        except RuntimeError:
            with stage("slow path"):
                return "done"

    forward, result = discover("falls back", call)
    assert result == "done"
    assert forward.row_names == (OUTSIDE, "fast path", OUTSIDE, "slow path", OUTSIDE)
    assert hooked(forward) == pairs(*forward.stage_names)


def test_an_exception_of_the_callable_passes_with_hooks_balanced():
    healthy = [True]

    def call():
        with stage("outer"), stage("inner"):
            if not healthy:
                raise FloatingPointError("of the user")

    forward, _ = discover("breaks", call)
    healthy.clear()
    heard: list[str] = []
    with pytest.raises(FloatingPointError, match="of the user"):
        forward(
            enter=lambda position: heard.append(f"+{position}"),
            leave=lambda position: heard.append(f"-{position}"),
        )
    # the stretches went on while the exception left the scopes
    assert heard == ["+0", "-0", "+1", "-1", "+2", "-2", "+3", "-3", "+4", "-4"]
    assert LISTENER.get() is None
    with pytest.raises(FloatingPointError):
        discover("breaks at once", call)
    assert LISTENER.get() is None


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (["a", "b"], "after 4 boundaries came stage 'c'|returned where stage 'c' was next"),
        (["a", "b", "c", "d"], "after 6 boundaries came stage 'd', not the end of the call"),
        (["a", "c"], "after 2 boundaries came stage 'c', not stage 'b'"),
        ([], "it returned where stage 'a' was next"),
    ],
)
def test_other_stages_than_in_the_first_call_are_named(later, said):
    names = ["a", "b", "c"]

    def call():
        for name in names:
            with stage(name):
                pass
        return "finished"

    forward, _ = discover("moody", call)
    names[:] = later
    balance: Counter[str] = Counter()
    with pytest.raises(ContractError, match=said) as caught:
        forward(
            enter=lambda position: balance.update([f"{position}"]),
            leave=lambda position: balance.subtract([f"{position}"]),
        )
    assert str(caught.value).startswith("moody does not go through the same stages in every call")
    assert not +balance and not -balance  # every stretch that a hook opened was closed
    with pytest.raises(ContractError):
        forward.observed()
    assert forward() == "finished"  # unobserved, it is nobody's business


def test_an_unobserved_call_has_no_listener():
    seen = []
    forward, _ = discover("look", lambda: seen.append(LISTENER.get()))
    forward()
    assert seen[0] is not None and seen[1] is None


def test_scopes_that_do_not_nest_are_refused():
    def crossed():
        first, second = stage("first"), stage("second")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)

    with pytest.raises(ContractError, match="'first' was left while 'second' inside it is open"):
        discover("crossed", crossed)
    with pytest.raises(ContractError, match="'open' was still open when the call returned"):
        discover("leaky", lambda: stage("open").__enter__())
    with pytest.raises(ContractError, match="'never' was left without having been entered"):
        discover("odd", lambda: stage("never").__exit__(None, None, None))


def test_scopes_that_stop_nesting_are_refused_later():
    orderly = [True]

    def call():
        scope = stage("open")
        scope.__enter__()
        if orderly:
            scope.__exit__(None, None, None)

    forward, _ = discover("leaky later", call)
    orderly.clear()
    with pytest.raises(ContractError, match="'open' was still open when the call returned"):
        forward.observed()


def test_scopes_of_other_threads_are_passed_over():
    def work():
        for _ in range(50):
            with stage("elsewhere"):
                pass

    def call():
        with stage("here"):
            # one thread with an empty context, one that copies this thread's
            copied = contextvars.copy_context()
            threads = [threading.Thread(target=work)]
            threads.append(threading.Thread(target=lambda: copied.run(work)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    forward, _ = discover("threaded", call)
    assert forward.row_names == (OUTSIDE, "here", OUTSIDE)
    assert hooked(forward) == pairs(*forward.stage_names)


def test_a_call_may_be_measured_on_any_thread():
    found = []

    def call():
        with stage("worker"):
            pass

    def measure():
        forward, _ = discover("on a thread", call)
        found.append(hooked(forward))

    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
    assert found == [pairs("outside", "worker", "outside #2")]


trees = st.recursive(
    st.just([]),
    lambda inner: st.lists(st.tuples(st.sampled_from("abc"), inner), max_size=4),
    max_leaves=12,
)


def walk(tree, visited, current=OUTSIDE):
    visited.append(current)
    for name, inner in tree:
        with stage(name):
            walk(inner, visited, name)
        visited.append(current)


@settings(max_examples=60, deadline=None)
@given(trees)
def test_any_nesting_is_followed_exactly(tree):
    visited: list[str] = []
    forward, _ = discover("tree", lambda: walk(tree, visited))
    assert list(forward.row_names) == visited  # the innermost scope owns each stretch
    assert len(set(forward.stage_names)) == len(forward.stage_names)
    entered = Counter(s.row for s in forward.stretches if not s.resumes)
    assert entered == Counter(_names(tree)) + Counter({OUTSIDE: 1})
    assert hooked(forward) == pairs(*forward.stage_names)


def _names(tree):
    for name, inner in tree:
        yield name
        yield from _names(inner)


def test_stretches_of_no_events():
    assert list(stretches([])) == [Stretch("outside", OUTSIDE, False)]


def test_tensors_are_found_where_calls_put_them():
    first, second, third = (torch.zeros(1) for _ in range(3))
    value = (first, {"a": [second, None]}, 3, "text", {"b": {"c": third}})
    assert [id(t) for t in tensors_in(value)] == [id(first), id(second), id(third)]
    assert list(tensors_in(None)) == []


def test_only_tensors_that_a_call_made_are_checked_after_a_replay():
    kept = torch.zeros(3)

    def call():
        return torch.ones(3), kept[:2], torch.ones(3, dtype=torch.int64)

    forward, eager = discover("mixed", call)
    captured = forward()
    found = forward.replayable(eager, captured)
    assert [(id(one), id(other)) for one, other in found] == [(id(eager[0]), id(captured[0]))]
