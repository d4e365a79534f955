"""FlashInfer-Bench's Trace as a value: an evaluation of a solution on a workload, dumped as a line.

The rules are those of flashinfer-bench 0.1.2's models: PASSED has a correctness and a performance,
INCORRECT_NUMERICAL a correctness alone, every other status neither. Infinity and NaN are the texts
that its models write and read. What it does not know it drops; only ``extra`` and ``log`` are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moeprof.errors import UsageError
from moeprof.problem.json_values import parse_json

PASSED, INCORRECT_NUMERICAL = "PASSED", "INCORRECT_NUMERICAL"
STATUSES = (
    PASSED,
    "INCORRECT_SHAPE",
    INCORRECT_NUMERICAL,
    "INCORRECT_DTYPE",
    "RUNTIME_ERROR",
    "COMPILE_ERROR",
    "TIMEOUT",
)
LONGEST_LOG = 5 << 20  # bytes; flashinfer-bench itself writes no more
OURS = "moeprof"  # the key in ``extra``, and how a log that moeprof wrote begins


@dataclass(frozen=True, slots=True)
class ErrorFigures:
    """The largest errors of any element, relative to the reference and absolute; NaN is a value.

    extra: more figures, by name.
    """

    max_relative_error: float
    max_absolute_error: float
    extra: Mapping[str, Any]

    def __post_init__(self) -> None:
        for value in (self.max_relative_error, self.max_absolute_error):
            if value < 0:  # NaN is not
                raise UsageError(f"an error of {value}", "0 or more, or NaN")


@dataclass(frozen=True, slots=True)
class Performance:
    """Milliseconds. reference_latency_ms and speedup_factor are 0 where no reference was timed."""

    latency_ms: float
    reference_latency_ms: float = 0.0

    def __post_init__(self) -> None:
        for value in (self.latency_ms, self.reference_latency_ms):
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"a latency of {value} ms", "a time")

    @property
    def speedup_factor(self) -> float:
        return self.reference_latency_ms / self.latency_ms if self.latency_ms else 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of running a solution on a workload. hardware: as torch names the device."""

    status: str
    hardware: str
    libraries: Mapping[str, str]
    timestamp: str
    log: str = ""
    correctness: ErrorFigures | None = None
    performance: Performance | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise UsageError(f"status {self.status!r}", " or ".join(STATUSES))
        if (self.correctness is not None) != (self.status in (PASSED, INCORRECT_NUMERICAL)):
            raise UsageError(f"{self.status} with correctness {self.correctness}")
        if (self.performance is not None) != (self.status == PASSED):
            raise UsageError(f"{self.status} with performance {self.performance}")
        if not self.hardware or not self.timestamp:
            raise UsageError("an evaluation without hardware or timestamp")


@dataclass(frozen=True, slots=True)
class Trace:
    """One line of a dataset's traces. workload: as the dataset's own line of it says."""

    definition: str
    workload: Mapping[str, Any]
    solution: str
    evaluation: Evaluation


def trace_document(trace: Trace) -> dict[str, Any]:
    """The JSON form, all keys in flashinfer-bench's order."""
    evaluation = trace.evaluation
    figures, performance = evaluation.correctness, evaluation.performance
    return {
        "definition": trace.definition,
        "workload": dict(trace.workload),
        "solution": trace.solution,
        "evaluation": {
            "status": evaluation.status,
            "environment": {
                "hardware": evaluation.hardware,
                "libs": dict(evaluation.libraries),
            },
            "timestamp": evaluation.timestamp,
            "log": _shortened(evaluation.log),
            "correctness": None
            if figures is None
            else {
                "max_relative_error": _number(figures.max_relative_error),
                "max_absolute_error": _number(figures.max_absolute_error),
                "extra": dict(figures.extra),
            },
            "performance": None
            if performance is None
            else {
                "latency_ms": performance.latency_ms,
                "reference_latency_ms": performance.reference_latency_ms,
                "speedup_factor": performance.speedup_factor,
            },
        },
    }


def trace_line(trace: Trace) -> str:
    """The trace as one line of JSON, without its end."""
    document = trace_document(trace)
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def parse_lines(text: str, where: str) -> list[Any]:
    """The value of each line that is not blank; UsageError for one that is no trace.

    A line that flashinfer-bench cannot read would keep it from loading the whole dataset.
    """
    found: list[Any] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        value = parse_json(line, f"{where}:{number}")
        if not isinstance(value, dict) or not isinstance(value.get("evaluation"), dict):
            raise UsageError(f"{where}:{number} is no trace", do="mend or remove the line")
        found.append(value)
    return found


def ours(document: Any) -> Mapping[str, Any] | None:
    """What moeprof noted in a trace of its own; None for another's. Empty for one without figures.

    document: a parsed line.
    """
    evaluation = document["evaluation"]
    correctness = evaluation.get("correctness")
    extra = correctness.get("extra") if isinstance(correctness, dict) else None
    noted = extra.get(OURS) if isinstance(extra, dict) else None
    if isinstance(noted, dict):
        return noted
    return {} if str(evaluation.get("log", "")).startswith(f"{OURS} ") else None


def _number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if math.isinf(value) else value


def _shortened(log: str) -> str:
    return log.encode()[:LONGEST_LOG].decode(errors="ignore")
