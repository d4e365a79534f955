"""Entries of the history to series: one quantity of one subject over its checks, with its changes.

A series is read from one source, that of its newest check: the same time read from another pass
differs by what that pass costs, which would look like a change. Only candidates are in it: the
other side of a check is code that was never the current one then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moeprof.history.changes import SeriesNoise, changes_of, noise_of_series
from moeprof.history.values import Entry, Point, Series, Subject
from moeprof.regression.limits import QUANTUM_US
from moeprof.regression.series import SOURCES
from moeprof.regression.values import Noise, Quantity


def subjects(entries: Sequence[Entry]) -> tuple[tuple[Subject, int], ...]:
    """The subjects that have entries and how many each has; the one checked last comes first."""
    newest = sorted(entries, key=lambda entry: entry.created, reverse=True)
    order = dict.fromkeys(entry.subject for entry in newest)
    return tuple((one, sum(entry.subject == one for entry in entries)) for one in order)


def quantities(entries: Sequence[Entry]) -> tuple[Quantity, ...]:
    """What is known of the newest check that has times: the forward first, then its stages."""
    for entry in sorted(entries, key=lambda entry: entry.created, reverse=True):
        known = {
            quantity
            for process in entry.processes
            if process.side == "candidate"
            for quantity, _, _ in process.times_us
        }
        if known:
            order = {f.quantity: place for place, f in enumerate(entry.findings)}
            last = len(order)
            return tuple(sorted(known, key=lambda q: (order.get(q, last), q.stage, q.measure)))
    return ()


def series_of(
    entries: Sequence[Entry], subject: Subject, quantity: Quantity, noise: Noise | None = None
) -> Series | None:
    """The series of ``quantity``, without its changes; None where no check has it.

    noise: what a baseline of the subject knows.
    """
    own = sorted((e for e in entries if e.subject == subject), key=lambda e: (e.created, e.key))
    source = next((s for e in reversed(own) if (s := _source(e, quantity))), "")
    timed = [(e, us) for e in own if (us := _times_us(e, quantity, source))]
    if not timed:
        return None
    known = noise_of_series(
        [us for _, us in timed],
        noise.process if noise else 0.0,
        noise.session if noise else None,
    )
    return Series(
        subject=subject,
        quantity=quantity,
        source=source,
        points=tuple(_point(entry, us, quantity, known) for entry, us in timed),
        process_noise=known.process,
        check_noise=known.check,
    )


def with_changes(series: Series, noise: Noise | None = None) -> Series:
    """The series with its changes. EnvironmentMissing where ruptures is not installed."""
    checks = [point.processes_us for point in series.points]
    known = noise_of_series(
        checks, noise.process if noise else 0.0, noise.session if noise else None
    )
    return replace(series, changes=changes_of(checks, known))


def _point(entry: Entry, us: tuple[float, ...], quantity: Quantity, noise: SeriesNoise) -> Point:
    finding = entry.finding(quantity)
    return Point(
        key=entry.key,
        created=entry.created,
        code=entry.code,
        source_hash=entry.source_hash,
        processes_us=us,
        us=math.exp(float(np.mean(np.log(us)))),
        noise=noise.of_mean(len(us)),
        verdict=finding.verdict if finding else "",
        headline=entry.headline,
    )


def _source(entry: Entry, quantity: Quantity) -> str:
    """The best source that every process of the candidate has; '' if none."""
    own = [process for process in entry.processes if process.side == "candidate"]
    for source in SOURCES:
        having = [
            any(known == quantity and s == source for known, s, _ in process.times_us)
            for process in own
        ]
        if having and all(having):
            return source
    return ""


def _times_us(entry: Entry, quantity: Quantity, source: str) -> tuple[float, ...]:
    return tuple(
        max(us, QUANTUM_US)  # of nothing at all there is no logarithm
        for process in entry.processes
        if process.side == "candidate"
        for known, own_source, us in process.times_us
        if known == quantity and own_source == source
    )
