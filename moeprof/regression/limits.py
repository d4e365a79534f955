"""What each quantity of a check must exceed: floors, families, what "severe" is a fraction of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeprof.regression.policy import Policy
from moeprof.regression.statistics import Array
from moeprof.regression.values import FORWARD_MEASURES, Measure

QUANTUM_US = 0.032  # one tick of the GPU's clock, as CUPTI and CUDA events report it


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """families: [Q], those of one number are judged together; of_forward: [Q], whether it is a time
    of the whole forward; [..., Q] where nothing else is said.

    screening_alpha, relative_floor: the policy's for the measure, [Q]. floor_us: the absolute
    floor. severe_us: what the severe fraction is of. deviation: standard
    deviation of the logarithm that the clock's ticks alone leave. process, session: known noise
    (``values.Noise``), 0 where unknown.
    """

    families: tuple[int, ...]
    of_forward: NDArray[np.bool_]
    screening_alpha: Array
    relative_floor: Array
    floor_us: Array
    severe_us: Array
    deviation: Array
    process: Array
    session: Array


def families_of(measures: Sequence[Measure]) -> tuple[int, ...]:
    """One family a measure of stages, one for the forward."""
    names = ["forward" if measure in FORWARD_MEASURES else measure for measure in measures]
    known = list(dict.fromkeys(names))
    return tuple(known.index(name) for name in names)


def limits_of(
    measures: Sequence[Measure],
    typical_us: Array,
    policy: Policy,
    process: Array | float = 0.0,
    session: Array | float = 0.0,
    gpu: bool = True,
) -> Limits:
    """The limits of quantities of ``measures`` [Q] that take ``typical_us`` [..., Q].

    Severe is a fraction of a stage's own GPU time, but of the span for what only
    the host does: 5 % of a stage's host time is nothing that anyone waits for.
    """
    is_busy = np.array([measure == "busy" for measure in measures])
    is_span = np.array([measure == "span" for measure in measures])
    span_us = typical_us[..., is_span if is_span.any() else is_busy].sum(axis=-1, keepdims=True)
    span = np.broadcast_to(span_us, typical_us.shape)
    by_host = np.array([measure in ("host", "orchestration") for measure in measures])
    of_own = np.array([measure in ("busy", "span", "wall") for measure in measures])
    quantum_us = QUANTUM_US if gpu else 0.0
    busy_floor_us = max(policy.busy_floor_us, policy.quanta * quantum_us)
    floor_us = np.where(is_busy, busy_floor_us, policy.host_floor_us)
    return Limits(
        families=families_of(measures),
        of_forward=np.array([measure in FORWARD_MEASURES for measure in measures]),
        screening_alpha=np.where(is_busy, policy.screening_alpha, policy.host_screening_alpha),
        relative_floor=np.where(by_host, policy.host_relative_floor, policy.relative_floor),
        floor_us=np.maximum(floor_us, policy.span_floor * span),
        severe_us=np.where(of_own, typical_us, span),
        deviation=quantum_us / np.sqrt(12) / np.maximum(typical_us, QUANTUM_US),
        process=np.broadcast_to(process, typical_us.shape),
        session=np.broadcast_to(session, typical_us.shape),
    )
