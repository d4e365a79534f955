"""What a stage and a solution are: the only module of moeprof that ``stages/`` may import.

A stage is a function of named tensors. Its positional parameter names say what it reads, the
decorator says what it writes and which of the seven steps it covers; keyword-only parameters are
options that a solution may set. From that alone moeprof derives wiring, bytes, rows, per-stage
correctness and every way of timing it. The function itself holds no instrumentation.

    @stage(Step.GEMM1, writes="gemm1_output", rows=problem_rows("problem_sizes1"))
    def gemm1(shuffled_hidden_states, ..., buffers, *, workspace_bytes=90_000): ...

Names a stage may ask for besides tensors written earlier: the definition's inputs, ``output``
(the destination, [T, H] bfloat16), the definition's constant axes by name (int) and ``buffers``.
This module imports neither torch nor a kernel library, so that records can be read without them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from moeprof.errors import ContractError, nearest


class Step(StrEnum):
    """The seven steps of the forward, in order."""

    ROUTING = "routing"
    PREPARE_MOE_INPUT = "prepare_moe_input"
    SHUFFLE_ROWS = "shuffle_rows"
    GEMM1 = "gemm1"
    SWIGLU_QUANT = "swiglu_quant"
    GEMM2 = "gemm2"
    GATHER = "gather"


STEPS: tuple[Step, ...] = tuple(Step)


@dataclass(frozen=True, slots=True)
class GroupedTopK:
    """DeepSeek-V3's group-limited routing. The definition hard-codes it: no axes."""

    top_k: int = 8
    num_groups: int = 8
    topk_groups: int = 4


ROUTING = GroupedTopK()
BLOCK = 128  # edge of a scale block: 1x128 for activations, 128x128 for weights
E4M3_MAX = 448.0


@dataclass(frozen=True, slots=True)
class Library:
    """A kernel library that a stage calls, and whether a torch twin stands in for it.

    ``stand_in`` is None when the real library is loaded, else the reason why it is not.
    """

    name: str
    version: str | None = None
    stand_in: str | None = None


@dataclass(frozen=True, slots=True)
class RowCount:
    """How many (token, expert) rows a stage really runs, read off a tensor after the forward."""

    tensor: str
    kind: Literal["leading", "problem_sizes", "counts", "slots", "local_pairs"]


def leading_rows(tensor: str) -> RowCount:
    """The leading dimension of ``tensor``."""
    return RowCount(tensor, "leading")


def problem_rows(tensor: str) -> RowCount:
    """The sum of column 0 (m) of a grouped GEMM's problem sizes, [E, 3] int32."""
    return RowCount(tensor, "problem_sizes")


def counted_rows(tensor: str) -> RowCount:
    """The sum of ``tensor``, [E_l] int32: rows of each local expert."""
    return RowCount(tensor, "counts")


def slots_with_row(tensor: str) -> RowCount:
    """The slots of ``tensor``, [M] int32, that hold a row; -1 is a slot without one."""
    return RowCount(tensor, "slots")


def declared_local_rows() -> RowCount:
    """Local pairs only, on the solution's word: for an opaque op that shows no problem sizes."""
    return RowCount("", "local_pairs")


@dataclass(frozen=True, slots=True)
class KernelRule:
    """Inside an opaque stage: operations whose name matches ``pattern`` belong to ``steps``.

    The i-th match of one forward belongs to ``steps[i]``, later ones to the last entry.
    ``pattern`` is a regular expression searched in the full kernel name.
    """

    pattern: str
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """One instrumented call of the forward. Made by the ``stage`` decorator."""

    name: str
    covers: tuple[Step, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    function: Callable[..., Any]
    backend: str
    rows: RowCount | None = None
    rows_if: Mapping[str, RowCount] = field(default_factory=dict)
    library: Library | None = None
    kernel_rules: tuple[KernelRule, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    option_names: tuple[str, ...] = ()
    why: str = ""

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    @property
    def rows_run(self) -> RowCount | None:
        """``rows``, or what an option that is set puts in its place."""
        instead = (count for option, count in self.rows_if.items() if self.options.get(option))
        return next(instead, self.rows)

    def with_options(self, **options: Any) -> Stage:
        """The same stage with some of its keyword-only options set; recorded with every run."""
        for name in options:
            if name not in self.option_names:
                raise ContractError(
                    f"stage {self.name} ({self.backend}) has no option {name!r}",
                    do=nearest(name, self.option_names),
                )
        return replace(
            self,
            function=functools.partial(self.function, **options),
            options={**self.options, **options},
        )

    def named(self, name: str) -> Stage:
        """The same stage under another row name."""
        return replace(self, name=name)


def stage(
    *covers: Step,
    writes: str | Sequence[str],
    rows: RowCount | None = None,
    rows_if: Mapping[str, RowCount] | None = None,
    library: Library | None = None,
    kernel_rules: Sequence[KernelRule] = (),
    name: str | None = None,
    why: str = "",
) -> Callable[[Callable[..., Any]], Stage]:
    """Declare a function of named tensors as a stage.

    covers: the steps it performs; none for work that the definition does not ask for (``why``
        then says what forces it). writes: tensor names in the order returned; a stage that fills
        tensors it was given may return None. rows: see ``RowCount``; rows_if: what counts instead
        where the option of that name is set. library: the kernel library called, if any. name: the
        row it is shown under, by default the steps joined by '+'.
    """
    written = (writes,) if isinstance(writes, str) else tuple(writes)

    def declare(function: Callable[..., Any]) -> Stage:
        parameters = inspect.signature(function).parameters.values()
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise ContractError(
                    f"stage function {function.__name__} takes *{parameter.name}",
                    expected="tensors by name as positional parameters, options as keyword-only",
                )
        return Stage(
            name=name or "+".join(covers) or function.__name__,
            covers=tuple(covers),
            reads=tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY),
            writes=written,
            function=function,
            backend=function.__module__.rsplit(".", 1)[-1],
            rows=rows,
            rows_if=dict(rows_if or {}),
            library=library,
            kernel_rules=tuple(kernel_rules),
            option_names=tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY),
            why=why,
        )

    return declare


class Buffers:
    """Where stages get their intermediate tensors from.

    ``keep=False`` allocates at every call, as code that calls ``torch.empty`` does. ``keep=True``
    allocates once per (name, shape, dtype, device) and hands out the same memory again. A
    solution chooses; the stages are the same, so the cost of allocation is one switch.
    """

    __slots__ = ("_kept", "_empty", "_full", "_once")

    def __init__(self, keep: bool) -> None:
        from torch import empty, full  # the contract must be importable where torch is not

        self._empty = empty
        self._full = full
        self._kept: dict[tuple[Any, ...], Any] | None = {} if keep else None
        self._once: dict[tuple[str, int], tuple[Any, Any]] = {}

    @property
    def keep(self) -> bool:
        return self._kept is not None

    def empty(self, name: str, shape: tuple[int, ...], dtype: Any, device: Any) -> Any:
        """An uninitialised tensor. Kept ones still hold what the last call left in them."""
        if self._kept is None:
            return self._empty(shape, dtype=dtype, device=device)
        key = (name, shape, dtype, device)
        tensor = self._kept.get(key)
        if tensor is None:
            tensor = self._kept[key] = self._empty(shape, dtype=dtype, device=device)
        return tensor

    def full(self, name: str, shape: tuple[int, ...], value: Any, dtype: Any, device: Any) -> Any:
        """A constant tensor, filled at every call, or once if buffers are kept: never write it."""
        if self._kept is None:
            return self._full(shape, value, dtype=dtype, device=device)
        key = (name, shape, value, dtype, device)
        tensor = self._kept.get(key)
        if tensor is None:
            tensor = self._kept[key] = self._full(shape, value, dtype=dtype, device=device)
        return tensor

    def once(self, name: str, source: Any, make: Callable[[Any], Any]) -> Any:
        """``make(source)``, made at the first call with this very object, whether or not ``keep``:
        what code that prepares its weights when it loads them would have at hand."""
        found = self._once.get((name, id(source)))
        if found is None:  # the source is kept with it, so that its id stays its own
            found = self._once[name, id(source)] = (source, make(source))
        return found[1]


@dataclass(frozen=True)
class Solution:
    """An ordered list of stages that together perform the seven steps."""

    name: str
    stages: tuple[Stage, ...]
    keeps_buffers: bool = False
    description: str = ""

    @property
    def libraries(self) -> tuple[Library, ...]:
        """The kernel libraries called, each once, in order of first use."""
        return tuple(dict.fromkeys(s.library for s in self.stages if s.library is not None))

    @property
    def stand_ins(self) -> tuple[Library, ...]:
        """The libraries for which a torch twin stands in here."""
        return tuple(library for library in self.libraries if library.stand_in is not None)

    def with_stage(self, position: int, stage: Stage) -> Solution:
        """The same solution with one stage exchanged."""
        stages = (*self.stages[:position], stage, *self.stages[position + 1 :])
        return replace(self, stages=stages)


def check_wiring(solution: Solution, given: Sequence[str]) -> None:
    """Raise ContractError unless every stage finds what it reads and all seven steps are covered.

    given: names available before the first stage (inputs, constant axes, ``output``, ``buffers``).
    """
    available = set(given)
    covered: list[Step] = []
    seen_names: set[str] = set()
    for position, current in enumerate(solution.stages, start=1):
        where = f"solution {solution.name}: stage {position} ({current.name}, {current.backend})"
        if current.name in seen_names:
            raise ContractError(f"{where} has the name of an earlier stage", do="rename one")
        seen_names.add(current.name)
        for name in current.reads:
            if name not in available:
                raise ContractError(
                    f"{where} reads {name!r}, which no earlier stage writes",
                    do=nearest(name, available),
                )
        for step in current.covers:
            if step in covered:
                raise ContractError(f"{where} covers {step}, which an earlier stage covers already")
            if covered and STEPS.index(step) < STEPS.index(covered[-1]):
                raise ContractError(
                    f"{where} covers {step} after {covered[-1]}", "the steps in order"
                )
            covered.append(step)
        available.update(current.writes)
    missing = [step for step in STEPS if step not in covered]
    if missing:
        raise ContractError(
            f"solution {solution.name} covers no {', '.join(missing)}",
            expected="all seven steps, each covered by one stage",
        )
    if not any("output" in current.writes for current in solution.stages):
        raise ContractError(f"solution {solution.name} never writes 'output'")
