"""Baselines for people: one with what a check against it can see, or all of them in a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from moeprof.regression.policy import changed_fields
from moeprof.regression.values import Baseline, Noise
from moeprof.reports.compare_text import notes_grid, warning
from moeprof.reports.table import Column, FittedTable
from moeprof.reports.units import MISSING
from moeprof.storage.baselines import Entry


def render_baseline(baseline: Baseline, place: str, size_bytes: int) -> RenderableType:
    """place: GPU and name. size_bytes: of its folder."""
    workload = baseline.workload
    changed = changed_fields(baseline.policy)
    policy = ", ".join(f"{name} {value:g}" for name, value in changed.items()) or "as by default"
    driver = f" (driver {baseline.driver})" if baseline.driver else ""
    notes = [
        ("baseline", place),
        ("of", f"{baseline.solution} (source {baseline.source_hash[:8]})"),
        (
            "workload",
            f"T = {workload.seq_len:,} ({workload.uuid[:8]}) of {workload.definition}",
        ),
        ("measured", f"{len(baseline.runs)} processes on {baseline.device}{driver}"),
        ("created", f"{baseline.created[:16].replace('T', ' ')} UTC"),
        ("policy", policy),
        ("size", f"{size_bytes / 1e3:,.0f} kB"),
    ]
    notes += [("note", baseline.note)] if baseline.note else []
    parts: list[RenderableType] = [notes_grid(notes)]
    if baseline.noise:
        title = "\nNoise without any change, and what a check under this policy can see"
        parts += [Text(title, style="bold"), FittedTable(noise_columns(baseline.noise))]
    else:
        parts.append(warning("its noise was not computed: a check takes it from the runs"))
    return Group(*parts)


def noise_columns(noise: Sequence[Noise]) -> tuple[Column, ...]:
    """A line a quantity."""
    return (
        Column("time", tuple(str(one.quantity) for one in noise), left=True),
        Column("between\nprocesses", tuple(_percent(one.process) for one in noise)),
        Column("between\nsessions", tuple(_percent(one.session) for one in noise), dropped=2),
        Column("slowdown found\n8 times in 10", tuple(_percent(one.detectable) for one in noise)),
        Column("processes", tuple(str(one.processes) for one in noise), dropped=1),
    )


def render_baselines(entries: Sequence[Entry]) -> RenderableType:
    """A line each; what is damaged is named below and leaves the others usable."""
    whole = [(e, e.baseline) for e in entries if e.baseline is not None]
    columns = (
        Column("gpu", tuple(entry.gpu for entry, _ in whole), left=True),
        Column("name", tuple(entry.name for entry, _ in whole), left=True),
        Column("solution", tuple(b.solution for _, b in whole), left=True, dropped=2),
        Column("T", tuple(f"{b.workload.seq_len:,}" for _, b in whole)),
        Column("processes", tuple(str(len(b.runs)) for _, b in whole), dropped=3),
        Column(
            "smallest slowdown\nseen in any stage", tuple(_worst(b) for _, b in whole), dropped=4
        ),
        Column("created, UTC", tuple(b.created[:16].replace("T", " ") for _, b in whole)),
        Column("note", tuple(b.note for _, b in whole), left=True, dropped=5),
    )
    parts: list[RenderableType] = [FittedTable(columns)] if whole else []
    parts += [warning(entry.problem) for entry in entries if entry.problem]
    return Group(*parts) if parts else Text("no baselines")


def _worst(baseline: Baseline) -> str:
    """The smallest slowdown that is found in whatever stage it is."""
    of_stages = [one.detectable for one in baseline.noise if one.quantity.measure == "busy"]
    return _percent(max(of_stages, default=None))


def _percent(fraction: float | None) -> str:
    return MISSING if fraction is None else f"{100 * fraction:.2f} %"
