"""A user's own callable as a forward: its stage scopes become the stages that clocks hook.

One call is a sequence of stretches that follow each other without a gap. A new one begins wherever
a scope is entered or left and belongs to the innermost scope open then, or to 'outside' where none
is, so that nothing of the call is lost. Which stretches there are is discovered in the first call;
every later call whose boundaries are observed must show the same ones. Stretches of one scope are
one row of a table (``StageInfo.row``); the record keeps them apart, as the host went through them.

Calls without hooks run with nobody listening to the scopes: nothing is observed, nor slowed.
Scopes entered on other threads are not the measured thread's and are passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any

from moeprof.errors import ContractError
from moeprof.measure.forward import Hook
from moeprof.scopes import LISTENER, OUTSIDE

Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Stretch:
    """One stretch of a call. resumes: its scope was entered before, and goes on after an inner one.

    name: unique in the call: the row's name, from the second stretch on with a number.
    """

    name: str
    row: str
    resumes: bool


class Discovery:
    """Listens to the first call and notes its boundaries: the name entered, or None for a leave."""

    def __init__(self) -> None:
        self.events: list[str | None] = []
        self.open: list[str] = []
        self.problem = ""
        self._thread = get_ident()

    def enter(self, name: str) -> None:
        if get_ident() == self._thread:
            self.open.append(name)
            self.events.append(name)

    def leave(self, name: str) -> None:
        if get_ident() == self._thread:
            self.problem = self.problem or _closes(self.open, name)
            self.events.append(None)


class Follower:
    """Listens to a later call: turns its boundaries into positions and holds them to ``events``.

    After the first difference no hook is called any more: positions would mean nothing.
    """

    __slots__ = ("problem", "_enter", "_events", "_leave", "_open", "_position", "_thread")

    def __init__(
        self, events: Sequence[str | None], enter: Hook | None, leave: Hook | None
    ) -> None:
        self.problem = ""
        self._events = events
        self._enter = enter
        self._leave = leave
        self._open: list[str] = []
        self._position = 0
        self._thread = get_ident()

    def enter(self, name: str) -> None:
        if get_ident() == self._thread and not self.problem:
            self._open.append(name)
            self._move(name)

    def leave(self, name: str) -> None:
        if get_ident() == self._thread and not self.problem:
            misnested = _closes(self._open, name)
            if misnested:
                self._stop(misnested)
            else:
                self._move(None)

    def begin(self) -> None:
        """The call begins: outside any scope."""
        if self._enter is not None:
            self._enter(0)

    def end(self, returned: bool) -> None:
        """The call has ended; returned False: by an exception, which is the user's to see."""
        if self.problem:
            return
        if returned and self._open:
            self._stop(_left_open(self._open))
        elif returned and self._position < len(self._events):
            self._stop(f"it returned where {_event(self._events[self._position])} was next")
        elif self._leave is not None:
            self._leave(self._position)

    def _move(self, event: str | None) -> None:
        position = self._position
        if position == len(self._events) or self._events[position] != event:
            known = position < len(self._events)
            was = _event(self._events[position]) if known else "the end of the call"
            self._stop(f"after {position} boundaries came {_event(event)}, not {was}")
            return
        if self._leave is not None:
            self._leave(position)
        self._position = position + 1
        if self._enter is not None:
            self._enter(position + 1)

    def _stop(self, problem: str) -> None:
        self.problem = problem
        if self._leave is not None:  # what the last enter hook opened is closed
            self._leave(self._position)


class CallableForward:
    """``call`` with the stages that its first call showed; called as ``Forward`` is."""

    def __init__(self, name: str, call: Call, events: Sequence[str | None]) -> None:
        self.name = name
        self.stretches = tuple(stretches(events))
        self.stage_names = tuple(stretch.name for stretch in self.stretches)
        self.row_names = tuple(stretch.row for stretch in self.stretches)
        self._call = call
        self._events = tuple(events)

    def __call__(self, enter: Hook | None = None, leave: Hook | None = None) -> Any:
        """One call; returns what the user's callable returns. Hooks as in ``Forward``.

        With hooks, ContractError if the stages are not those of the first call.
        """
        if enter is None and leave is None:
            return self._call()
        return self.observed(enter, leave)

    def observed(self, enter: Hook | None = None, leave: Hook | None = None) -> Any:
        """One call whose stages are held to the first call's."""
        follower = Follower(self._events, enter, leave)
        returned = False
        token = LISTENER.set(follower)
        try:
            follower.begin()
            result = self._call()
            returned = True
        finally:
            LISTENER.reset(token)
            follower.end(returned)
        if follower.problem:
            raise ContractError(
                f"{self.name} does not go through the same stages in every call: "
                f"{follower.problem}",
                do="call it before profiling if its first calls differ, profile each path apart",
            )
        return result

    def replayable(self, eager: Any, captured: Any) -> tuple[tuple[Any, Any], ...]:
        """Floating tensors of an eager result, each with the one a captured graph will write.

        Only those that the call made: one that lies where the other lies is the caller's own (an
        argument, a cache), which is neither to be poisoned nor the same after every call.
        """
        pairs = zip(tensors_in(eager), tensors_in(captured), strict=False)
        return tuple(
            (one, other)
            for one, other in pairs
            if one.is_floating_point()
            and one.untyped_storage().data_ptr() != other.untyped_storage().data_ptr()
        )


def discover(name: str, call: Call) -> tuple[CallableForward, Any]:
    """Make the first call: the forward with the stages it showed, and the call's result.

    Exceptions of the call are the user's and pass through.
    """
    discovery = Discovery()
    token = LISTENER.set(discovery)
    try:
        result = call()
    finally:
        LISTENER.reset(token)
    problem = discovery.problem or (_left_open(discovery.open) if discovery.open else "")
    if problem:
        raise ContractError(f"the stages of {name} are not nested: {problem}")
    return CallableForward(name, call, discovery.events), result


def stretches(events: Sequence[str | None]) -> Iterator[Stretch]:
    """The stretches between ``events`` (the name entered; None: the innermost is left)."""
    seen: Counter[str] = Counter()

    def stretch(row: str, resumes: bool) -> Stretch:
        seen[row] += 1
        return Stretch(row if seen[row] == 1 else f"{row} #{seen[row]}", row, resumes)

    yield stretch(OUTSIDE, False)
    open_rows = [OUTSIDE]
    for event in events:
        if event is None:
            open_rows.pop()
        else:
            open_rows.append(event)
        yield stretch(open_rows[-1], event is None)


def tensors_in(value: Any) -> Iterator[Any]:
    """The tensors in a value: itself, or those in its lists, tuples, mappings and dataclasses."""
    if hasattr(value, "untyped_storage"):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        for name in value.__dataclass_fields__:
            yield from tensors_in(getattr(value, name))


def _closes(open_names: list[str], name: str) -> str:
    """Take ``name`` off the open scopes; what is wrong if it is not the innermost."""
    if open_names and open_names[-1] == name:
        open_names.pop()
        return ""
    inside = f" while {open_names[-1]!r} inside it is open" if name in open_names else ""
    return f"stage {name!r} was left{inside or ' without having been entered'}"


def _left_open(open_names: Sequence[str]) -> str:
    return f"stage {open_names[-1]!r} was still open when the call returned"


def _event(event: str | None) -> str:
    return "the end of a stage" if event is None else f"stage {event!r}"
