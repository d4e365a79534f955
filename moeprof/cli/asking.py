"""From the options of ``check`` and ``baseline record`` to what every fresh process is asked."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from moeprof.checking.request import DEFAULT_SECONDS, Request, check_passes, request_of
from moeprof.cli.planning import RunOptions, make_choices
from moeprof.errors import UsageError
from moeprof.fib.find import is_fib, shown
from moeprof.problem.dataset import Dataset, dataset_root, own_root
from moeprof.records import Run
from moeprof.regression.policy import Policy, policy_from_json


def say(text: str) -> None:
    """One line of progress."""
    click.echo(text, err=True)


@contextmanager
def ends_as_ctrl_c() -> Iterator[None]:
    """A SIGTERM (a cancelled CI job) or a closed terminal ends as Ctrl-C does: children first."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def resolved_request(options: RunOptions, seconds: float = DEFAULT_SECONDS) -> Request:
    """The one workload of ``options``, and how it is measured, with nothing left open."""
    if is_fib(options.solution):
        raise UsageError(
            f"{shown(options.solution)} is foreign code, which is not run again and again unasked",
            "a name of moeprof's own, or your file",
        )
    chosen = make_choices(options)
    (workload,) = chosen.workloads
    known = {one.uuid for one in chosen.dataset.workloads(chosen.definition)}
    cupti = importlib.util.find_spec("cupti") is not None
    settings = chosen.settings
    return Request(
        definition=chosen.definition.name,
        workload=workload.uuid if workload.uuid in known else "",
        seq_len=workload.seq_len,
        dataset=chosen.dataset.root.resolve(),
        routing=options.routing,
        weights=options.weights,
        device=chosen.device,
        preset=settings.preset,
        warmup=settings.warmup,
        iterations=settings.iterations,
        trials=settings.trials,
        l2=settings.l2,
        seed=settings.seed,
        passes=check_passes(chosen.device, cupti),
        allow_no_local_work=options.allow_no_local_work,
        seconds=seconds,
    )


def request_as_recorded(
    run: Run, dataset: str | None, routing: str | None, seconds: float
) -> Request:
    """What gives a record like ``run``. dataset, routing: as given, None where they were not."""
    root = dataset_root(dataset, os.environ)
    if dataset is None and run.workload.definition not in Dataset(root).names():
        root = own_root()
    return request_of(run, root, routing, seconds)


def read_policy(path: Path | None) -> Policy:
    """The policy in a JSON file; the default one without a file."""
    if path is None:
        return Policy()
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON ({error})", "a policy") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path} holds no JSON object", "a policy, one key a field")
    return policy_from_json(document)
