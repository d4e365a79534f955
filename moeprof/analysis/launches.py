"""How the GPU follows the host: launch latency, gaps between queued operations, stream waits.

Read from the calibration where it has them, else from the ``api`` pass, in which both the launch
call and the operation of each launch are seen. Every constant can be overridden (``LaunchModel``).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.analysis.identity import NEVER, Times
from moeprof.analysis.simulate import OperationModel
from moeprof.records import Calibration
from moeprof.timelines import Iteration, Operation

# where neither calibration nor the api pass shows one: read on an H200 under Nsight Systems
ASSUMED_LAUNCH_LATENCY_NS, ASSUMED_QUEUED_GAP_NS = 1642, 1088


@dataclass(frozen=True, slots=True)
class LaunchModel:
    """How the GPU follows the host, ns; override any of them to tune the prediction.

    launch_latency: launch call's return to start, idle stream. queued_gap: end of one operation to
    the start of the next queued one. event_latency, event_gap: the same two for a CUDA event.
    per_operation: use each operation's own median latency and gap where ``api`` shows them.
    """

    launch_latency_ns: int
    queued_gap_ns: int
    event_latency_ns: int
    event_gap_ns: int
    per_operation: bool = True


def launch_model(
    calibration: Calibration | None,
    operations: Sequence[Operation],
    iterations: Sequence[Iteration],
) -> LaunchModel:
    """From the calibration; what it lacks, from the medians of the api pass."""
    latency = calibration.launch_latency_ns if calibration else None
    gap = calibration.queued_gap_ns if calibration else None
    if latency is None or gap is None:
        seen = _observe(operations, iterations, latency or ASSUMED_LAUNCH_LATENCY_NS)
        latencies = [value for _, idle, _ in seen for value in idle]
        gaps = [value for _, _, queued in seen for value in queued]
        latency = median_ns(latencies, ASSUMED_LAUNCH_LATENCY_NS) if latency is None else latency
        gap = median_ns(gaps, ASSUMED_QUEUED_GAP_NS) if gap is None else gap
    return LaunchModel(latency, gap, event_latency_ns=latency, event_gap_ns=max(0, gap))


def _observe(
    operations: Sequence[Operation], iterations: Sequence[Iteration], latency_ns: int
) -> list[tuple[int, list[int], list[int]]]:
    """(position, latencies when its stream was idle, gaps when it was queued) per operation.

    Queued: the launch reached the GPU before the predecessor on the stream ended. Idle: the
    predecessor ended before the launch call began. In between, neither is seen.
    """
    shape = (len(iterations), len(operations))
    start_ns, end_ns, begin_ns, return_ns = (
        np.array([getattr(i, name) for i in iterations], dtype=np.int64).reshape(shape)
        for name in ("start_ns", "end_ns", "launch_begin_ns", "launch_end_ns")
    )
    before_ns = _stream_ends(operations, start_ns, end_ns)
    # a blocking copy's call returns after the copy: no latency to be read
    copies = np.array([operation.kind == "memcpy" for operation in operations], dtype=np.bool_)
    seen = ~(copies & (return_ns >= end_ns))
    idle = seen & (before_ns <= begin_ns)
    queued = seen & ~idle & (return_ns + latency_ns <= before_ns)
    latencies_ns, gaps_ns = start_ns - return_ns, start_ns - before_ns
    return [
        (p, latencies_ns[idle[:, p], p].tolist(), gaps_ns[queued[:, p], p].tolist())
        for p in range(len(operations))
    ]


def _stream_ends(operations: Sequence[Operation], start_ns: Times, end_ns: Times) -> Times:
    """For each operation [I, N] the latest end on its stream before it; NEVER for the first."""
    order = np.argsort(start_ns, axis=1, kind="stable")
    streams = np.array([operation.stream for operation in operations], dtype=np.int64)[order]
    ends_ns = np.take_along_axis(end_ns, order, axis=1)
    before_ns = np.full(start_ns.shape, NEVER)
    for stream in np.unique(streams):
        mine = streams == stream
        through = np.maximum.accumulate(np.where(mine, ends_ns, NEVER), axis=1)
        before_ns[:, 1:] = np.where(mine[:, 1:], through[:, :-1], before_ns[:, 1:])
    found = np.empty_like(before_ns)
    np.put_along_axis(found, order, before_ns, axis=1)
    return found


def operation_models(
    operations: Sequence[Operation],
    iterations: Sequence[Iteration],
    durations: Sequence[int],
    model: LaunchModel,
) -> tuple[OperationModel, ...]:
    """What places each operation: its own latency and gap where most iterations show them."""
    seen = _observe(operations, iterations, model.launch_latency_ns)
    enough = len(iterations) / 2 if model.per_operation else len(iterations) + 1
    held_by = _held_by(operations, iterations, model)
    return tuple(
        OperationModel(
            stream=operations[position].stream,
            duration_ns=durations[position],
            launch_latency_ns=median_ns(idle, 0)
            if len(idle) >= enough
            else model.launch_latency_ns,
            queued_gap_ns=median_ns(queued, 0) if len(queued) >= enough else model.queued_gap_ns,
            held_by=held_by[position],
        )
        for position, idle, queued in seen
    )


def _held_by(
    operations: Sequence[Operation], iterations: Sequence[Iteration], model: LaunchModel
) -> list[int | None]:
    """For each operation the one on another stream that it waits for, as far as times show it.

    It had been launched and its stream was free, yet it started within two queued gaps after the
    end of an operation on another stream, in most iterations: records do not say which stream a
    wait call was for.
    """
    streams = [operation.stream for operation in operations]
    if len(set(streams)) < 2:
        return [None] * len(operations)
    votes: list[list[int]] = [[] for _ in operations]
    for iteration in iterations:
        for position, stream in enumerate(streams):
            start_ns = iteration.start_ns[position]
            ready_ns = max(
                [iteration.launch_end_ns[position] + model.launch_latency_ns]
                + [
                    e
                    for s, e in zip(streams, iteration.end_ns, strict=True)
                    if s == stream and e <= start_ns
                ]
            )
            ended = [
                (end_ns, other)
                for other, end_ns in enumerate(iteration.end_ns)
                if streams[other] != stream and ready_ns < end_ns <= start_ns
            ]
            if ended and start_ns - max(ended)[0] <= 2 * model.queued_gap_ns:
                votes[position].append(max(ended)[1])
    half = len(iterations) / 2
    return [_majority(vote, half) for vote in votes]


def _majority(votes: Sequence[int], more_than: float) -> int | None:
    winner = statistics.mode(votes) if votes else None
    return winner if winner is not None and votes.count(winner) > more_than else None


def median_ns(values: Sequence[int], otherwise: int) -> int:
    return round(statistics.median(values)) if values else otherwise
