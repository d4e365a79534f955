"""A record as FlashInfer-Bench's Trace: what it says of the result and of the time, and no more.

A trace is written only of a record in which the output was compared with the reference on a GPU,
and a latency only where the record holds one of flashinfer-bench's own (``moeprof run --parity``).
Everything else is refused in one line.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from moeprof.analysis.parity import parity_latency
from moeprof.errors import UsageError
from moeprof.fib.find import PREFIX
from moeprof.fib.traces import (
    INCORRECT_NUMERICAL,
    OURS,
    PASSED,
    ErrorFigures,
    Evaluation,
    Performance,
    Trace,
)
from moeprof.records import Run

REFERENCE = "reference"
LIBRARIES = ("torch", "triton")  # those that flashinfer-bench names as well
# how a verdict begins (``measure.numerics``, ``measure.workbench``) -> the status that says it
FAILURES: tuple[tuple[str, str], ...] = (
    (r"output has shape ", "INCORRECT_SHAPE"),
    (r"output is \w+, expected bfloat16", "INCORRECT_DTYPE"),
    (r"output has NaN or infinity ", INCORRECT_NUMERICAL),
    (r"stage .* of .* raised |.* made the GPU fault|output is ", "RUNTIME_ERROR"),
)


def solution_name(run: Run) -> str:
    """What the dataset calls the solution of a record."""
    return run.solution.name.removeprefix(PREFIX)


def record_id(run: Run) -> str:
    """Tells one record from another: digits of a hash of what it ran, on what, when."""
    facts = (run.created, run.solution.name, run.solution.source_hash, run.workload.uuid)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def require_evaluation(run: Run, where: str) -> None:
    """Raise UsageError unless the record is an evaluation that a trace can be made of."""
    problem = ""
    if not run.workload.has_definition or run.capture is not None:
        problem = "of no solution of a definition that moeprof ran itself"
    elif not run.correctness.checked:
        problem = "of a result that nothing was compared with"
    elif run.environment.device_kind != "cuda":
        problem = "of a CPU, whose times are no latency"
    if problem:
        raise UsageError(f"{where} is a record {problem}", "one of moeprof run on a GPU")


def choose_timer(runs: Iterable[Run], asked: str | None) -> str | None:
    """The timer whose latencies are written: the one asked for, or the only one recorded.

    None where no record holds any (results that were wrong have none).
    """
    if asked is not None:
        return asked
    recorded = {
        timer for run in runs if run.settings.parity for timer in run.settings.parity.timers
    }
    if len(recorded) > 1:
        raise UsageError(
            f"the records hold latencies by the timers {' and '.join(sorted(recorded))} of "
            "flashinfer-bench, which cannot be compared",
            do="choose one with --timer",
        )
    return next(iter(recorded), None)


def as_trace(
    run: Run,
    where: str,
    workload: Mapping[str, Any],
    timer: str | None,
    reference: Run | None,
    sidecar: str,
) -> Trace:
    """The trace of a record. where: the record's name in errors. workload: the dataset's line.

    reference: the record of the reference on the same problem. sidecar: the path of the stage data.
    """
    require_evaluation(run, where)
    status = _status(run, where)
    performance = _performance(run, where, timer, reference) if status == PASSED else None
    libraries = {n: v for n, v in run.environment.versions.items() if n in LIBRARIES}
    if run.environment.cuda:
        libraries["cuda"] = run.environment.cuda
    noted = {
        "version": run.moeprof,
        "record": record_id(run),
        "weights": run.routing.weights_recipe,
        "routing": run.routing.label,
        "timer": timer if performance else None,
        "reference": None
        if reference is None or performance is None
        else f"moeprof's solution '{REFERENCE}'",
        "stages": sidecar,
    }
    return Trace(
        run.workload.definition,
        workload,
        solution_name(run),
        Evaluation(
            status=status,
            hardware=run.environment.device,
            libraries=libraries,
            timestamp=run.created,
            log=_log(run, timer if performance else None),
            correctness=_figures(run, noted) if status in (PASSED, INCORRECT_NUMERICAL) else None,
            performance=performance,
        ),
    )


def matching_reference(run: Run, timer: str | None, runs: Iterable[Run]) -> Run | None:
    """The newest record of the reference on the same problem and GPU with such a latency."""

    def problem(one: Run) -> tuple[object, ...]:
        return (
            one.workload.definition,
            one.workload.uuid,
            one.routing.histogram_hash,
            one.routing.weights_recipe,
            one.environment.device,
        )

    found = [
        one
        for one in runs
        if one.solution.name == REFERENCE
        and problem(one) == problem(run)
        and timer is not None
        and parity_latency(one, timer) is not None
    ]
    return max(found, key=lambda one: one.created, default=None)


def _status(run: Run, where: str) -> str:
    verdict = run.correctness
    if verdict.passed:
        return PASSED
    problem = verdict.problem or ""
    for pattern, status in FAILURES:
        if re.match(pattern, problem):
            return status
    if verdict.max_relative is not None:  # the output was compared, element by element
        return INCORRECT_NUMERICAL
    raise UsageError(
        f"{where} failed in a way that FlashInfer-Bench has no status for ({problem[:120]})",
        do="leave the record out",
    )


def _figures(run: Run, noted: Mapping[str, Any]) -> ErrorFigures:
    verdict, settings = run.correctness, run.settings
    compared = verdict.max_relative is not None
    extra: dict[str, Any] = {"matched_ratio": verdict.matched_ratio}
    if compared:
        extra |= {"relative_l2": verdict.relative_l2, "cosine": verdict.cosine}
    extra["tolerance"] = {
        "rtol": settings.rtol,
        "atol": settings.atol,
        "required_matched_ratio": settings.required_matched_ratio,
        "max_relative_l2": settings.max_relative_l2,
    }
    return ErrorFigures(
        max_relative_error=math.nan if verdict.max_relative is None else verdict.max_relative,
        max_absolute_error=verdict.max_absolute if compared else math.nan,
        extra={**extra, OURS: dict(noted)},
    )


def _performance(run: Run, where: str, timer: str | None, reference: Run | None) -> Performance:
    latency = parity_latency(run, timer) if timer else None
    if run.correctness.max_relative is None:
        raise UsageError(
            f"{where} was made before moeprof kept the largest relative error",
            do="run the solution again with --parity",
        )
    if latency is None:
        raise UsageError(
            f"{where} holds no latency by flashinfer-bench{f' {timer}' if timer else ''}'s timer, "
            "and another is not written as one",
            do=f"moeprof run --parity {timer or '0.1.2'} records it",
        )
    known = parity_latency(reference, timer) if reference is not None and timer else None
    return Performance(latency.latency_ns / 1e6, known.latency_ns / 1e6 if known else 0.0)


def _log(run: Run, timer: str | None) -> str:
    """What a reader of the trace alone must know. It begins with ``OURS``."""
    settings = run.settings
    told = (
        f"{OURS} {run.moeprof} evaluated this, not flashinfer-bench: against its own reference, "
        f"rtol {settings.rtol:g}, atol {settings.atol:g}, {settings.required_matched_ratio:.0%} "
        f"matched, relative L2 {settings.max_relative_l2:g}."
    )
    if timer is not None:
        told += f" The latency is by the timer of flashinfer-bench {timer}, reproduced."
    if not run.correctness.passed:
        told += f" {run.correctness.problem or 'The output does not match the reference'}."
    return told
