"""Stage scopes for code that is not a Solution: ``with moeprof.stage("gemm1"): ...``.

A scope names what its body does and measures nothing. Someone may listen (``moeprof.profile`` to a
call it is measuring, ``moeprof.enable_ranges`` to open NVTX ranges). While nobody does, entering
and leaving one costs 0.13 us, 0.18 as ``with moeprof.stage(...)`` (Python 3.11, a core of a shared
server); 0.11 us of that any context manager with two empty methods costs.

Who listens is a context variable: it reaches one thread and what copies its context, so that a
profile of one thread leaves the others as they are. A scope holds no state of its own, so one
object may be kept, shared between threads and entered again inside itself.

This module is imported with the package, so it imports next to nothing. Left out: generators and
coroutines, whose bodies are suspended with the scope open (use ``with`` around what runs at once).
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import wraps

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import ParamSpec, Protocol, TypeVar

    Parameters = ParamSpec("Parameters")
    Result = TypeVar("Result")

    class Listener(Protocol):
        """Told of the scopes that a thread enters and leaves, as they happen."""

        def enter(self, name: str) -> None: ...
        def leave(self, name: str) -> None: ...


OUTSIDE = "outside"  # the row of what a callable does in no stage
RESERVED = (OUTSIDE, "unattributed", "sum")  # rows of every table
SUSPENDED = 0x20 | 0x80 | 0x200  # code flags of generators, coroutines, asynchronous generators

LISTENER: ContextVar[Listener | None] = ContextVar("moeprof listener", default=None)
_listener = LISTENER.get


class Scope:
    """A named part of the code around it; made by ``stage``. Context manager and decorator."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        listener = _listener()
        if listener is not None:
            listener.enter(self.name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        listener = _listener()
        if listener is not None:
            listener.leave(self.name)

    def __call__(self, function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        """``function`` with its every call inside this scope."""
        _refuse_suspended(self.name, function)
        name = self.name

        @wraps(function)
        def scoped(*arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
            listener = _listener()
            if listener is None:
                return function(*arguments, **named)
            listener.enter(name)
            try:
                return function(*arguments, **named)
            finally:
                listener.leave(name)

        return scoped

    def __repr__(self) -> str:
        return f"moeprof.stage({self.name!r})"


class Scopes(dict):  # type: ignore[type-arg]
    """The one scope of each name, made when it is first asked for."""

    __slots__ = ()

    def __missing__(self, name: str) -> Scope:
        _refuse_name(name)
        scope = self[name] = Scope(name)
        return scope


if TYPE_CHECKING:

    def stage(name: str) -> Scope:
        """A scope named ``name``: ``with stage("gemm1"):`` or ``@stage("gemm1")`` on a function.

        The same name gives the same object; keep names few (a layer's number does not belong in
        one: ``moeprof.profile`` counts how often a stage is entered). UsageError if it cannot be
        the name of a row.
        """
else:  # a dictionary's own look-up: a Python function around it would cost 40 ns more
    stage = Scopes().__getitem__


def _refuse_name(name: object) -> None:
    found = ""
    if not isinstance(name, str):
        found = f"a stage was named {name!r}"
    elif not name.strip() or not name.isprintable():
        found = f"a stage was named {name!r}"
    elif name in RESERVED:
        found = f"a stage was named {name!r}, which every table has a row for"
    elif "#" in name:
        found = f"a stage was named {name!r}, but '#' numbers the stretches of a stage"
    if found:
        from moeprof.errors import UsageError

        raise UsageError(found, expected="a short text such as 'gemm1'", do="rename it")


def _refuse_suspended(name: str, function: Callable[..., object]) -> None:
    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & SUSPENDED:
        from moeprof.errors import UsageError

        raise UsageError(
            f"stage {name!r} decorates {function.__qualname__}, a generator or coroutine",
            expected="a function that runs to its end when it is called",
            do="use 'with moeprof.stage(...)' inside it, around code that does not yield or await",
        )
