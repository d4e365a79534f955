"""Which iterations of a record an exported timeline shows.

The forward is the one that the profile's rows are means of: the undisturbed one where it could be
reconstructed, else the profiled one, or the capture of another profiler. Iterations that were not
timed completely are left out, as in the rows. The replayed graph is a second pass of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from moeprof.analysis import checks
from moeprof.analysis.profiles import Source
from moeprof.analysis.reconstruct import Reconstruction
from moeprof.errors import UsageError
from moeprof.records import Run
from moeprof.timelines import Iteration, Operation, TimelinePass

Which = Literal["median", "all"] | int


@dataclass(frozen=True, slots=True)
class Shown:
    """One iteration. number: its place in its pass, from 0; trial: of the bare pass, else 0."""

    number: int
    operations: tuple[Operation, ...]
    iteration: Iteration
    trial: int = 0


def forwards(run: Run, source: Source, reconstruction: Reconstruction) -> tuple[Shown, ...]:
    """Every iteration of the pass that the rows come from; none where no pass has operations."""
    if source == "reconstructed":
        stamps = len(run.solution.stages) + 2
        trials = [s.trial for s in run.samples("bare") if len(s.stamps_us) == stamps]
        return tuple(
            Shown(number, reconstruction.operations, prediction.iteration, trial)
            for number, (prediction, trial) in enumerate(
                zip(reconstruction.predictions, trials, strict=True)
            )
        )
    api = run.timeline("api")
    return of_pass(api) if source == "api" and api is not None else ()


def of_pass(timeline: TimelinePass) -> tuple[Shown, ...]:
    """The sound iterations of a CUPTI pass, all of them where none is."""
    every = [
        Shown(number, timeline.operation_sets[iteration.operation_set], iteration)
        for number, iteration in enumerate(timeline.iterations)
    ]
    return tuple(one for one in every if checks.sound(one.iteration)) or tuple(every)


def choose(found: Sequence[Shown], which: Which) -> tuple[Shown, ...]:
    """The iterations asked for: all, the one of median span, or the one of a number.

    Raises UsageError for a number that is not there.
    """
    if which == "all" or not found:
        return tuple(found)
    if which == "median":
        ordered = sorted(found, key=lambda one: one.iteration.span_ns)
        return (ordered[(len(ordered) - 1) // 2],)
    chosen = tuple(one for one in found if one.number == which)
    if not chosen:
        numbers = [one.number for one in found]
        raise UsageError(
            f"the record has no iteration {which}",
            f"a number from {min(numbers)} to {max(numbers)}, 'median' or 'all'",
        )
    return chosen
