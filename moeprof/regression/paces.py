"""How slow each process was as a whole, for each of its quantities: what verdicts cancel.

GPU times of a stage go with the SM clock, as NVML read it beside the passes. The span and the wall
do so for the part that the GPU is busy. Host times of a stage go with the host's pace, read off
the other stages of the same process: on a shared machine all of them stretch together (measured:
by up to 1.7 times), and a fixed loop of Python timed beside the passes does not show it. The
orchestration has no pace: if the whole host gets slower, it is where that must be seen. How slow a
process's host was by all its stages is told beside the paces, for what a check may exclude.

A host pace needs at least three other stages; a clock that could not be read is unknown (NaN).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.regression.sides import Round
from moeprof.regression.statistics import Array
from moeprof.regression.values import Clock, Measure

FEWEST_OTHERS = 3
CLOCK_OF: dict[Measure, Clock] = {
    "busy": "SM clock",
    "host": "host pace",
    "span": "SM clock",
    "wall": "SM clock",
    "orchestration": "none",
}


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Processes of one side and round. us: [..., Q, P]; sm_mhz: [..., P], NaN where unknown."""

    us: Array
    sm_mhz: Array


def with_paces(
    measures: Sequence[Measure], rounds: Sequence[tuple[Measured | None, Measured]]
) -> tuple[Round, ...]:
    """Rounds of (baseline, candidate) with the pace of every process; baseline None: as before.

    measures: [Q].
    """
    processes = [one for pair in rounds for one in pair if one is not None]
    host = [i for i, measure in enumerate(measures) if measure == "host"]
    logs = _centred(np.concatenate([one.us[..., host, :] for one in processes], axis=-1))
    host_pace, whole_host = _host_pace(logs), _whole_host(logs)
    shares = _busy_shares(measures, np.concatenate([one.us for one in processes], axis=-1))
    begin = 0
    paces, hosts = [], []
    for one in processes:
        end = begin + one.us.shape[-1]
        pace = shares * -np.log(one.sm_mhz)[..., None, :]
        pace[..., host, :] = host_pace[..., begin:end]
        paces.append(np.exp(pace))
        hosts.append(whole_host[..., begin:end])
        begin = end
    found = []
    place = 0
    for baseline, candidate in rounds:
        before = place if baseline is not None else None
        after = place + (baseline is not None)
        place = after + 1
        found.append(
            Round(
                candidate_us=candidate.us,
                candidate_pace=paces[after],
                candidate_host=hosts[after],
                baseline_us=None if baseline is None else baseline.us,
                baseline_pace=None if before is None else paces[before],
                baseline_host=None if before is None else hosts[before],
            )
        )
    return tuple(found)


def _busy_shares(measures: Sequence[Measure], us: Array) -> Array:
    """By which power each quantity goes with the SM clock, [..., Q, 1]; NaN where by none."""
    medians = np.median(us, axis=-1)
    busy_us = medians[..., [i for i, measure in enumerate(measures) if measure == "busy"]]
    found = np.full((*medians.shape, 1), np.nan)
    for i, measure in enumerate(measures):
        if measure == "busy":
            found[..., i, 0] = 1.0
        elif CLOCK_OF[measure] == "SM clock":
            found[..., i, 0] = np.minimum(1.0, busy_us.sum(axis=-1) / medians[..., i])
    return found


def _centred(host_us: Array) -> Array:
    """Logarithms of host times [..., S, P] less the stage's mean."""
    logs = np.log(host_us)
    return np.asarray(logs - logs.mean(axis=-1, keepdims=True))


def _host_pace(logs: Array) -> Array:
    """[..., S, P], a logarithm: how much slower the process was than usual in the other stages."""
    stages = logs.shape[-2]
    if stages <= FEWEST_OTHERS:
        return np.full(logs.shape, np.nan)
    others = [np.delete(logs, stage, axis=-2) for stage in range(stages)]
    return np.stack([np.median(other, axis=-2) for other in others], axis=-2)


def _whole_host(logs: Array) -> Array:
    """The same by all stages, [..., P]."""
    if logs.shape[-2] <= FEWEST_OTHERS:
        return np.full((*logs.shape[:-2], logs.shape[-1]), np.nan)
    return np.asarray(np.median(logs, axis=-2))
