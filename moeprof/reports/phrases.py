"""What a report says in words, as plain strings: every format uses the same sentences."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from moeprof.analysis.attribution import graph_rows
from moeprof.analysis.profiles import Profile, Reading, Trust
from moeprof.records import Run
from moeprof.reports.units import duration, percent, us
from moeprof.scopes import OUTSIDE

Note = tuple[str, str]  # label, sentence


def heading(run: Run) -> tuple[Note, ...]:
    """Who ran where, on what, and whether the result was right."""
    environment = run.environment
    parts = [f"driver {environment.driver}" if environment.driver else ""]
    parts.append(f"CUDA {environment.cuda}" if environment.cuda else "")
    parts.extend(f"{name} {version}" for name, version in environment.versions.items())
    versions = ", ".join(part for part in parts if part)
    known = f" ({versions})" if versions else ""
    notes = [
        ("solution", f"{run.solution.name} on {environment.device}{known}"),
        *_problem(run),
        ("result", correctness(run)),
    ]
    if run.capture is not None:
        notes.append(("capture", capture_sentence(run)))
    if run.correctness.stages:
        notes.append(("stage tensors", stage_tensors(run)))
    if run.solution.stand_ins:
        notes.append(("stand-ins", f"torch twins stand in for {'; '.join(run.solution.stand_ins)}"))
    return tuple(notes)


def _problem(run: Run) -> list[Note]:
    """The workload and its routing; without a definition there is a name and a size."""
    workload, routing = run.workload, run.routing
    if not workload.has_definition:
        return [("workload", f"T = {workload.seq_len:,}, {workload.definition}")]
    return [
        (
            "workload",
            f"T = {workload.seq_len:,} tokens, {workload.uuid[:8]} of {workload.definition}, "
            f"local experts from {workload.local_expert_offset}",
        ),
        (
            "routing",
            f"{routing.label}: P = {routing.local_pairs:,} local pairs, "
            f"A = {routing.active_experts} of {len(routing.tokens_per_expert)} local experts "
            f"active; weights {routing.weights_recipe}, seed {routing.seed}",
        ),
    ]


def correctness(run: Run) -> str:
    """The verdict on the output."""
    result = run.correctness
    if not result.checked:
        if run.capture is not None:
            return "not checked: a capture holds no result"
        return "not checked: moeprof has no reference for a user's callable"
    if not result.passed:
        return f"WRONG: {result.problem or 'the output does not match the reference'}"
    return (
        f"correct: {percent(result.matched_ratio, 1, 2)} matched, "
        f"relative L2 {result.relative_l2:.4f}, cosine {result.cosine:.5f}"
    )


def capture_sentence(run: Run) -> str:
    """Which capture a record was imported from, and how."""
    capture = run.capture
    if capture is None:
        return ""
    tool = " ".join(part for part in (capture.tool, capture.version) if part)
    schema = f", schema {capture.schema}" if capture.schema else ""
    kept = sum(len(timeline.iterations) for timeline in run.timelines)
    forwards = f"{capture.forwards:,} forward{'s' * (capture.forwards != 1)}"
    some = f", {kept:,} of them kept" if kept != capture.forwards else ""
    where = f"{capture.file or 'a file'} of {tool}{schema}"
    return f"{where}: {forwards}{some}; stages told by {capture.stages_by}"


def stage_tensors(run: Run) -> str:
    """How the tensors between the stages compare with the reference's, over local pairs."""
    checked = run.correctness.stages
    wrong = [f"{c.stage} ({c.tensor}, {c.relative_l2:.4f})" for c in checked if not c.passed]
    if wrong:
        return f"WRONG from {wrong[0]} on: {len(wrong)} of {len(checked)} differ"
    worst = max(checked, key=lambda check: check.relative_l2)
    return (
        f"{len(checked)} checked, all right; largest relative L2 {worst.relative_l2:.4f} "
        f"({worst.tensor} of {worst.stage})"
    )


def source(run: Run, profile: Profile) -> str:
    """What the table's figures are."""
    means = f"means of the middle 80 % of iterations ({profile.iterations})"
    if profile.source == "reconstructed":
        return f"The undisturbed forward, reconstructed; us, {means}"
    if profile.source == "api":
        profiler = run.capture.tool if run.capture else "CUPTI"
        return f"The forward under {profiler}: host figures are upper bounds; us, {means}"
    if profile.source == "events":
        return f"One CUDA event pair a stage, each with an empty pair's floor in it; us, {means}"
    stands = ["Triton interpreter"] if run.environment.interpreter else []
    stands += ["torch twins"] if run.solution.stand_ins else []
    why = f" ({'; '.join(stands)})" if stands else ""
    return f"CPU timings{why}: not GPU performance; us, {means}"


def trust_sentence(trust: Trust) -> str:
    """The readings of the orchestration side by side, and whether they agree."""
    if trust.verdict == "not measured":
        return f"orchestration was not read twice: {'; '.join(map(_reading, trust.readings))}"
    verdict = {
        "agree": "agree",
        "differ": "DIFFER",
        "within noise": "differ, but not beyond their noise",
    }[trust.verdict]
    return (
        f"orchestration between the outer events, us: {'; '.join(map(_reading, trust.readings))}: "
        f"they {verdict} (spread {trust.spread_us:,.1f}, tolerance {trust.tolerance_us:,.1f})"
    )


def _reading(reading: Reading) -> str:
    if reading.value_us is None:
        return f"{reading.name} - ({reading.why})"
    why = f" ({reading.why})" if reading.why else ""
    return f"{reading.name} {reading.value_us:,.1f}{why}"


def time_sentence(run: Run, profile: Profile) -> str:
    """Wall time and its parts, as far as the host's exit is known."""
    whole = f"wall {us(profile.wall_ns)} us"
    if profile.source in ("events", "stage clock"):
        where = "of the clock's own" if profile.stage(OUTSIDE) else "outside stages"
        between = f"{us(profile.epilogue_ns)} us {where}"
        return f"{whole}: stages {us(profile.span_ns)} us, {between}"
    parts = f"prologue {us(profile.prologue_ns)} + span {us(profile.span_ns)}"
    if run.capture is not None and all(i.exit_ns < 0 for t in run.timelines for i in t.iterations):
        whole = f"{parts} us, host exit unknown"
    else:
        whole = f"{whole} = {parts} + epilogue {us(profile.epilogue_ns)}"
    return (
        f"{whole}; of the span, GPU busy {percent(profile.busy_ns, profile.span_ns)}, "
        f"orchestration {percent(profile.orchestration_ns, profile.span_ns)}"
    )


def notes(run: Run, profile: Profile | None) -> tuple[Note, ...]:
    """What belongs below the table; only what is known."""
    found: list[Note] = []
    if profile is not None:
        found.append(("time", time_sentence(run, profile)))
        found.extend(_profile_notes(run, profile))
    found.extend(("capture", note) for note in (run.capture.notes if run.capture else ()))
    found.append(("spans", _spans(run)))
    found.append(("graph stages", _graph_stages(run)))
    found.append(("first call", _first_call(run)))
    found.append(("clocks", _clocks(run)))
    found.extend(
        ("not needed", f"{stage.name}: {stage.why or 'the definition does not ask for it'}")
        for stage in run.solution.stages
        if not stage.covers and not stage.row and run.workload.has_definition
    )
    unavailable = [(p.name, p.unavailable) for p in run.passes]
    unavailable += [(t.name, t.unavailable) for t in run.timelines]
    found.extend(("not measured", f"{name}: {why}") for name, why in unavailable if why)
    return tuple(note for note in found if note[1])


def warnings(run: Run, profile: Profile | None) -> tuple[str, ...]:
    """Every doubt: the profile's findings, then the run's own."""
    return (*(profile.findings if profile else ()), *run.warnings)


def _profile_notes(run: Run, profile: Profile) -> list[Note]:
    found: list[Note] = []
    if profile.source not in ("events", "stage clock") and run.capture is None:
        found.append(("trust", trust_sentence(profile.trust)))
    check = profile.span_check
    if check is not None:
        found.append(
            (
                "reconstruction",
                f"predicted {check.predicted_us:,.1f} us between the outer events, bare "
                f"{check.measured_us:,.1f} us: {100 * check.error:+.1f} % "
                f"({'within' if check.agrees else 'outside'} {check.tolerance_us:,.1f} us)",
            )
        )
    if profile.perturbation is not None:
        found.append(
            (
                "perturbation",
                f"{profile.perturbation:.2f}x: span under CUPTI with API records / bare span",
            )
        )
    return found


def _spans(run: Run) -> str:
    """Medians between the outer events of each pass, and what an empty pair reads."""
    if run.environment.device_kind == "cpu":
        return ""
    medians = [
        f"{name} {statistics.median(s.span_us for s in run.samples(name)):,.1f}"
        for name in ("bare", "events", "blocked", "graph")
        if run.samples(name)
    ]
    if run.calibration is not None:
        medians.append(f"an empty pair {run.calibration.null_event_pair_us:.1f}")
    return f"between the outer events, us: {', '.join(medians)}" if medians else ""


def _graph_stages(run: Run) -> str:
    """What each stage takes in the replayed graph, by node."""
    rows = [row for row in graph_rows(run) if row.operations]
    busy = ", ".join(f"{row.name} {row.busy_ns / 1e3:,.1f}" for row in rows)
    gap_us = sum(row.gap_ns for row in rows) / 1e3
    return f"busy by node, us: {busy}; gaps between nodes {gap_us:,.1f}" if rows else ""


def _first_call(run: Run) -> str:
    samples = run.samples("first")
    if not samples:
        return ""
    first = run.position == 0 and not run.workload.is_callable
    where = ", loading of libraries included" if first else ""
    return f"{duration(samples[0].wall_us)}{where}"


def _clocks(run: Run) -> str:
    if not run.clocks:
        return ""
    reasons = list(dict.fromkeys(reason for clock in run.clocks for reason in clock.throttle))
    return (
        f"SM {_range([c.sm_mhz for c in run.clocks])} MHz, "
        f"{_range([c.power_w for c in run.clocks])} W, "
        f"{_range([c.temperature_c for c in run.clocks])} C; "
        f"clock reasons: {', '.join(reasons) or 'none'}"
    )


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.0f}" if round(low) == round(high) else f"{low:,.0f} to {high:,.0f}"
