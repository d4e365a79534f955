"""flashinfer-bench's timers on one case: which runs when, and what it adds to the record.

The case's solution is called in a straight line (``straight_line``), with buffers of its own. The
passes keep flashinfer-bench's own sizes (``ParitySettings``) and, as it does, neither rest nor stop
Python's collector.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from moeprof.errors import EnvironmentMissing, UsageError
from moeprof.measure.passes import Passes
from moeprof.measure.straight_line import StraightCall
from moeprof.measure.workbench import Case
from moeprof.records import ParitySettings, PassResult, Sample
from moeprof.timing import parity
from moeprof.timing.device import host_loop_us

CUPTI_PASSES = ("fib_span", "fib_observed")
NARROWED = (
    "fib_span: this process had already left some API calls out of its records, so that the host "
    "was quicker than under flashinfer-bench main's timer"
)


def measure(passes: Passes, name: str, case: Case, trial: int = 0) -> None:
    """The parity pass ``name`` over ``case``; samples, timelines and clocks are added to it.

    It makes all its trials in one turn, as flashinfer-bench does: ``trial`` is 0. Raises
    EnvironmentMissing where CUPTI does not load.
    """
    settings = passes.settings.parity
    if passes.cuda is None or settings is None:
        raise UsageError(f"pass {name!r} runs on a GPU, with --parity")
    call = StraightCall(case.forward.solution, case.given)
    _one(passes, name, case, call, settings)
    loop_us = host_loop_us()
    case.clocks.extend(
        replace(sample, host_loop_us=loop_us) for sample in passes.clock_reader.sample(name)
    )


def _one(
    passes: Passes, name: str, case: Case, call: StraightCall, settings: ParitySettings
) -> None:
    warmup, iterations, trials = settings.warmup, settings.iterations, settings.trials
    if name == "fib_events":
        samples: list[Sample] = []
        for trial in range(trials):
            samples.extend(parity.event_pairs(call, warmup, iterations, trial))
        case.passes.append(PassResult(name, tuple(samples)))
    elif name == "fib_span":
        # CUPTI's first pass: the calibration already leaves out calls that main's timer records
        from moeprof.timing.cupti import session

        cupti = session()
        if not cupti.records_every_call:
            case.warnings.append(NARROWED)
        l2_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        case.timelines.append(
            parity.kernel_spans(cupti, call, l2_bytes, warmup, iterations, trials)
        )
    else:
        passes.attach()
        if passes.cupti is None:
            raise EnvironmentMissing("CUPTI is not attached")
        observed, timeline = parity.observed_event_pairs(
            passes.cupti, call, warmup, iterations, trials
        )
        case.passes.append(PassResult(name, observed))
        case.timelines.append(timeline)
