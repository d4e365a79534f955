"""``moeprof.profile``: the passes around a user's own callable, and a record of them.

The same clocks as for a Solution, in the same order; the stages are the ``moeprof.stage`` scopes
that the callable goes through, and what lies in none of them is the row 'outside'. There is no
reference, so the result is recorded as not checked; no definition, so necessary work is unknown.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

from moeprof import __version__
from moeprof.errors import EnvironmentMissing, UsageError
from moeprof.machine.environment import describe
from moeprof.measure.callable_forward import CallableForward, discover
from moeprof.measure.passes import CUPTI_PASSES, Passes
from moeprof.other_threads import charge_by_time
from moeprof.presets import ATOL, MAX_RELATIVE_L2, REQUIRED_MATCHED_RATIO, RTOL, choose_passes
from moeprof.records import (
    CALLABLE,
    UNCHECKED,
    ClockSample,
    PassResult,
    RoutingIdentity,
    Run,
    Sample,
    Settings,
    SolutionIdentity,
    StageInfo,
    WorkloadIdentity,
)
from moeprof.scopes import LISTENER
from moeprof.timelines import TimelinePass
from moeprof.timing.device import now_ns
from moeprof.timing.ranges import ScopeRanges

# calls in a row that must show the first one's stages before anything is measured: bare samples
# alternate between stamped and not, so a callable that takes turns would not be noticed there
CHECKED_CALLS = 3


@dataclass(slots=True)
class Called:
    """A user's callable under measurement: what ``passes`` adds to."""

    forward: CallableForward
    seq_len: int
    passes: list[PassResult] = field(default_factory=list)
    timelines: list[TimelinePass] = field(default_factory=list)
    clocks: list[ClockSample] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    rests: bool = False


def profile(
    fn: Callable[..., Any],
    *args: Any,
    name: str | None = None,
    variant: str | None = None,
    seq_len: int = 1,
    iterations: int = 20,
    warmup: int = 5,
    trials: int = 3,
    passes: Sequence[str] | None = None,
    l2: Literal["flush", "warm"] = "flush",
    device: Literal["cuda", "cpu"] | None = None,
    **kwargs: Any,
) -> Run:
    """Measure ``fn(*args, **kwargs)`` and return its record.

    name: what is computed, by default the callable's name; runs compare under one name and seq_len.
    variant: which way it is computed, where several share a name. seq_len: tokens of this call,
    recorded and not used. warmup: untimed calls before each pass, iterations: samples of a pass,
    trials: repetitions of the bare pass. passes: some of ``records.PASSES`` (on a CPU
    ``records.CPU_PASSES``), by default all. l2: 'flush' empties the L2 cache before each call.
    device: by default CUDA where torch sees it.

    ``fn`` must go through the same stages in every call: ContractError if not. Its own exceptions
    pass through. Keywords above are not handed to ``fn``: wrap it where it needs one of them.
    """
    _check(fn, seq_len)
    title = _title(fn, name)
    where = _device(device)
    settings = _settings(warmup, iterations, trials, passes, l2, where)
    listener = LISTENER.set(None)  # nobody else listens while it is measured
    try:
        called, clocks = _measure(title, partial(fn, *args, **kwargs), seq_len, settings, where)
    finally:
        LISTENER.reset(listener)
    workload = _workload(title, seq_len)
    return _record(called, clocks, workload, variant or title, _source_hash(fn), where)


def _measure(
    title: str, call: Callable[[], Any], seq_len: int, settings: Settings, device: str
) -> tuple[Called, Passes]:
    """Every pass, in order."""
    clocks = Passes(settings, device)
    clocks.device.synchronize()
    entry = now_ns()
    forward, result = discover(title, call)
    clocks.device.synchronize()
    first_us = (now_ns() - entry) / 1e3
    del result
    called = Called(forward, seq_len)
    called.passes.append(PassResult("first", (Sample(span_us=first_us, wall_us=first_us),)))
    if device == "cuda" and _cupti_attached():
        called.warnings.append(
            "CUPTI was attached earlier in this process, which slows the host: "
            "profile in a fresh process to trust host figures"
        )
    for _ in range(CHECKED_CALLS):
        forward.observed()
    clocks.settle([called])
    for name in settings.passes[1:]:
        for trial in range(settings.trials if name == "bare" else 1):
            _one_pass(clocks, called, name, trial)
    return called, clocks


def _one_pass(clocks: Passes, called: Called, name: str, trial: int) -> None:
    """One pass; without CUPTI its passes are recorded as not measured, and the others stay."""
    if name in CUPTI_PASSES:
        try:
            clocks.attach()
        except EnvironmentMissing as error:
            called.timelines.append(TimelinePass(name, unavailable=str(error)))
            return
    clocks.measure(name, called, trial)
    if name == "api":
        _charge_other_threads(called)


def _charge_other_threads(called: Called) -> None:
    """Give what other threads launched a stage, and say so."""
    position = next(i for i, timeline in enumerate(called.timelines) if timeline.name == "api")
    timeline, elsewhere = charge_by_time(called.timelines[position], called.forward.stage_names)
    called.timelines[position] = timeline
    if elsewhere:
        called.warnings.append(
            f"api: {elsewhere} operation(s) a call were launched by other threads; each counts for "
            "the stage that the measured thread was in at that moment"
        )


def _record(
    called: Called,
    clocks: Passes,
    workload: WorkloadIdentity,
    variant: str,
    source_hash: str,
    device: str,
) -> Run:
    return Run(
        moeprof=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        solution=SolutionIdentity(variant, source_hash, _stages(called.forward)),
        workload=workload,
        routing=RoutingIdentity("none", "none", 0, "", 0, 0, 0, ()),
        environment=describe(device),
        settings=clocks.settings,
        correctness=UNCHECKED,
        passes=tuple(called.passes),
        timelines=tuple(called.timelines),
        clocks=tuple(called.clocks),
        calibration=clocks.calibration,
        ceilings=clocks.ceilings,
        warnings=tuple(called.warnings),
    )


def _stages(forward: CallableForward) -> tuple[StageInfo, ...]:
    return tuple(
        StageInfo(
            name=stretch.name,
            covers=(),
            backend="callable",
            reads=(),
            writes=(),
            row=stretch.row,
            resumes=stretch.resumes,
        )
        for stretch in forward.stretches
    )


def _workload(title: str, seq_len: int) -> WorkloadIdentity:
    """The same name and size are the same workload, on any machine."""
    definition = f"{CALLABLE}{title}"
    return WorkloadIdentity(
        definition=definition,
        uuid=str(uuid5(NAMESPACE_URL, f"{definition}/T{seq_len}")),
        seq_len=seq_len,
        local_expert_offset=0,
        routed_scaling_factor=1.0,
        constants={},
    )


def _settings(
    warmup: int,
    iterations: int,
    trials: int,
    passes: Sequence[str] | None,
    l2: Literal["flush", "warm"],
    device: str,
) -> Settings:
    for name, value, least in (
        ("warmup", warmup, 0),
        ("iterations", iterations, 1),
        ("trials", trials, 1),
    ):
        if type(value) is not int or value < least:
            raise UsageError(f"{name} is {value!r}", expected=f"a whole number from {least} on")
    if l2 not in ("flush", "warm"):
        raise UsageError(f"l2 is {l2!r}", expected="'flush' or 'warm'")
    asked = passes.split(",") if isinstance(passes, str) else passes
    return Settings(
        preset="own",
        warmup=warmup,
        iterations=iterations,
        trials=trials,
        seed=0,
        l2=l2,
        passes=choose_passes(asked, device),
        rtol=RTOL,
        atol=ATOL,
        required_matched_ratio=REQUIRED_MATCHED_RATIO,
        max_relative_l2=MAX_RELATIVE_L2,
    )


def _device(asked: str | None) -> str:
    import torch

    if asked not in (None, "cuda", "cpu"):
        raise UsageError(f"device is {asked!r}", expected="'cuda' or 'cpu'")
    if torch.cuda.is_available():
        return asked or "cuda"
    if asked == "cuda":
        raise EnvironmentMissing(
            "device='cuda', but torch sees no CUDA device", do="moeprof doctor says what is missing"
        )
    return "cpu"


def _cupti_attached() -> bool:
    from moeprof.timing.cupti import attached

    return attached()


def _check(fn: Callable[..., Any], seq_len: int) -> None:
    if not callable(fn):
        raise UsageError(
            f"profile was given a {type(fn).__name__}",
            expected="a callable and its arguments",
            do="write profile(fn, x), not profile(fn(x))",
        )
    if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn):
        raise UsageError(
            f"{_name_of(fn)} is a generator or coroutine, which runs nothing when it is called",
            do="profile a function that drives it to its end",
        )
    if type(seq_len) is not int or seq_len < 1:
        raise UsageError(f"seq_len is {seq_len!r}", expected="a whole number from 1 on")
    listener = LISTENER.get()
    if listener is not None and not isinstance(listener, ScopeRanges):
        raise UsageError(
            "moeprof.profile was called inside the callable that it measures",
            do="profile the outer or the inner one",
        )


def _title(fn: Callable[..., Any], name: str | None) -> str:
    title = _name_of(fn) if name is None else name
    if not isinstance(title, str) or not title.strip() or not title.isprintable():
        raise UsageError(f"name is {name!r}", expected="a short text such as 'moe_layer'")
    return title


def _name_of(fn: Callable[..., Any]) -> str:
    """``layer`` for a function, a method of that name, or an object of class ``layer``."""
    fn = fn.func if isinstance(fn, partial) else fn
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    return str(name).rpartition("<locals>.")[2].replace("<lambda>", "lambda")


def _source_hash(fn: Callable[..., Any]) -> str:
    """Of the callable's own source (its class's for an object), else of its name alone."""
    fn = fn.func if isinstance(fn, partial) else fn
    source = inspect.unwrap(fn)
    if not hasattr(source, "__code__") and not inspect.ismethod(source):
        source = type(fn)
    try:
        text = inspect.getsource(source)
    except (OSError, TypeError):  # typed at a prompt, or written in C
        text = _name_of(fn)
    return hashlib.sha256(text.encode()).hexdigest()
