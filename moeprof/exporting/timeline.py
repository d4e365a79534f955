"""Run -> Timeline: the forward and the replayed graph, iterations one after another.

Iterations have their real durations; the time between them (flushing the L2 cache, waiting) is not
recorded, so they stand 10 us apart. The replayed graph is another pass: it is drawn from the same
zero so that the two can be compared by eye, and did not run at the same time.

Clocks, power and temperature were read once after each pass, not during it: a reading is drawn from
the begin of the first iteration of its trial, and its counter's name says so. Readings that cannot
be told apart by trial are facts of the trace and no counter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moeprof.analysis.attribution import profile as explain_run
from moeprof.analysis.profiles import Profile, Source
from moeprof.analysis.reconstruct import reconstruct
from moeprof.errors import UsageError
from moeprof.exporting.chosen import Shown, Which, choose, forwards, of_pass
from moeprof.exporting.slices import Slices, add_iteration, extent_ns
from moeprof.exporting.tracks import Argument, Counter, Group, Slice, Timeline, Track, tracks_of
from moeprof.importing.names import printable
from moeprof.records import ClockSample, Run

APART_NS = 10_000
ONCE = "read once after the trial"
COUNTERS = (
    ("SM clock", "MHz", "sm_mhz"),
    ("memory clock", "MHz", "memory_mhz"),
    ("power", "W", "power_w"),
    ("temperature", "C", "temperature_c"),
)


def timeline_of(
    run: Run, iterations: Which = "median", origins_ns: Mapping[int, int] | None = None
) -> Timeline:
    """Everything that ``run`` can show of the iterations asked for.

    origins_ns: of each iteration by its number, when the host entered it on another clock; they
    then stand there and not one after another, and the graph, which has no place there, is left
    out. Raises RecordError where the record holds no stage times, UsageError for an unknown
    iteration.
    """
    reconstruction = reconstruct(run)
    profile = explain_run(run, reconstruction)
    every = forwards(run, profile.source, reconstruction)
    if every:
        shown = choose(every, iterations)
        name, description = _names(run, profile.source)
        taken_in = "bare" if profile.source == "reconstructed" else "api"
        found, origins = _laid_out(run, shown, 1, origins_ns)
        counters = _counters(run, taken_in, _firsts(shown, origins))
        groups = [Group(name, description, _tracks(found), counters)]
    else:
        shown = ()
        groups = [_stage_clock(run, profile, iterations)]
    graph = run.timeline("graph")
    if graph is not None and origins_ns is None:
        replays = of_pass(graph)
        if not isinstance(iterations, int) or iterations in {one.number for one in replays}:
            arrows = 1 + sum(len(one.operations) for one in shown)
            groups.append(_graph(run, choose(replays, iterations), arrows))
    facts = _facts(run, profile, len(shown), len(every))
    title = f"{run.solution.name} T={run.workload.seq_len} on {run.environment.device}"
    return _with_record(Timeline(printable(title), tuple(groups), facts))


def _names(run: Run, source: Source) -> tuple[str, str]:
    """What the forward's group is called, and how it was read."""
    if source == "reconstructed":
        return (
            "forward without a profiler (reconstructed)",
            "host times of the bare pass, durations of the kernels pass, launches placed as in "
            "the api pass; its span meets the measured one",
        )
    if run.capture is not None:
        tool = " ".join(filter(None, (run.capture.tool, run.capture.version)))
        return f"forward under {printable(tool)}", f"imported; stages by {run.capture.stages_by}"
    return "forward under CUPTI", "the api pass: the profiler slows the host, not the kernels"


def _firsts(shown: Sequence[Shown], origins_ns: Sequence[int]) -> dict[int, int]:
    """Where the first iteration of each trial begins."""
    found: dict[int, int] = {}
    for one, origin_ns in zip(shown, origins_ns, strict=True):
        found.setdefault(one.trial, origin_ns)
    return found


def _graph(run: Run, shown: Sequence[Shown], first_arrow: int) -> Group:
    found, _ = _laid_out(run, shown, first_arrow, None)
    description = (
        "the forward captured once and replayed, under CUPTI, nodes by the stage that made them; "
        "a pass of its own, drawn from the same zero"
    )
    return Group("replayed CUDA graph", description, _tracks(found))


def _laid_out(
    run: Run, shown: Sequence[Shown], arrow: int, given_ns: Mapping[int, int] | None
) -> tuple[Slices, list[int]]:
    """The slices of all iterations, and where the host entry of each lies."""
    found = Slices()
    origins_ns: list[int] = []
    now_ns = 0
    for one in shown:
        begin_ns, end_ns = extent_ns(one)
        origins_ns.append(now_ns - begin_ns if given_ns is None else given_ns[one.number])
        arrow += add_iteration(found, run, one, origins_ns[-1], arrow)
        now_ns += end_ns - begin_ns + APART_NS
    return found, origins_ns


def _tracks(found: Slices) -> tuple[Track, ...]:
    """The tracks from the host's down to the GPU's, and why it idled last."""
    tracks = [
        *tracks_of("iterations", "iterations", found.iterations, nested=True),
        *tracks_of("stages", "host: stages", found.stages, nested=True),
        *tracks_of("calls", "host: CUDA calls", found.calls, nested=True),
        *tracks_of("busy", "GPU busy: stage", found.busy),
    ]
    for stream in sorted(found.streams):
        name = f"GPU stream {stream}"
        tracks += tracks_of("stream", name, found.streams[stream], stream=stream)
    tracks += tracks_of("gaps", "GPU idle: cause", found.gaps)
    return tuple(tracks)


def _counters(run: Run, taken_in: str, first_ns: dict[int, int]) -> tuple[Counter, ...]:
    """Readings beside the pass by trial; none where they and the trials differ in number."""
    readings = [clock for clock in run.clocks if clock.pass_name == taken_in]
    trials = sorted({sample.trial for sample in run.samples(taken_in)} or {0})
    if len(readings) != len(trials) or not any(reading.sm_mhz for reading in readings):
        return ()
    placed = [
        (first_ns[trial], reading)
        for trial, reading in zip(trials, readings, strict=True)
        if trial in first_ns
    ]
    return tuple(
        Counter(f"{name} ({ONCE})", unit, tuple((ns, getattr(r, field)) for ns, r in placed))
        for name, unit, field in COUNTERS
    )


def _stage_clock(run: Run, profile: Profile, which: Which) -> Group:
    """A record without operations: its stages end to end, which is all its clock says."""
    pass_name = "stages" if profile.source == "stage clock" else "events"
    samples = [s for s in run.samples(pass_name) if len(s.stage_us) == len(run.solution.stages)]
    order = sorted(range(len(samples)), key=lambda i: sum(samples[i].stage_us))
    if which == "median":
        numbers = [order[(len(order) - 1) // 2]]
    elif which == "all":
        numbers = list(range(len(samples)))
    elif 0 <= which < len(samples):
        numbers = [which]
    else:
        raise UsageError(f"the record has no iteration {which}", f"0 to {len(samples) - 1}")
    whole: list[Slice] = []
    stages: list[Slice] = []
    now_ns = 0
    for number in numbers:
        begin_ns = now_ns
        for name, stage_us in zip(run.solution.stage_names, samples[number].stage_us, strict=True):
            end_ns = now_ns + round(stage_us * 1e3)
            stages.append(
                Slice(now_ns, end_ns, printable(name), "stage", {"stage": printable(name)})
            )
            now_ns = end_ns
        whole.append(Slice(begin_ns, now_ns, f"iteration {number}", "iteration"))
        now_ns += APART_NS
    clock = "the host clock" if pass_name == "stages" else "a pair of CUDA events a stage"
    return Group(
        f"stages by {clock}",
        "each stage was timed on its own; they are drawn end to end",
        (
            *tracks_of("iterations", "iterations", whole),
            *tracks_of("stages", "stages, end to end", stages),
        ),
    )


def _facts(run: Run, profile: Profile, shown: int, among: int) -> dict[str, Argument]:
    """Whose record it is, how it was measured, what to doubt."""
    work, machine = run.workload, run.environment
    facts: dict[str, Argument | None] = {
        "moeprof": run.moeprof,
        "created": run.created,
        "solution": run.solution.name,
        "source_hash": run.solution.source_hash,
        "definition": work.definition,
        "workload": work.uuid,
        "num_tokens": work.seq_len,
        "local_expert_offset": work.local_expert_offset,
        "routing": run.routing.label,
        "local_pairs": run.routing.local_pairs,
        "device": machine.device,
        "driver": machine.driver,
        "cuda": machine.cuda,
        **{f"version.{library}": version for library, version in machine.versions.items()},
        "source": profile.source,
        "iterations_shown": shown or None,
        "iterations_recorded": among or None,
        "mean_span_ns": round(profile.span_ns),
        "perturbation": profile.perturbation,
    }
    if run.capture is not None:
        facts |= {"captured_by": run.capture.tool, "capture_file": run.capture.file}
    for number, clock in enumerate(run.clocks):
        facts[f"clocks.{number}"] = _reading(clock)
    for number, finding in enumerate(profile.findings):
        facts[f"finding.{number}"] = finding
    return {
        key: printable(value) if isinstance(value, str) else value
        for key, value in facts.items()
        if value is not None
    }


def _reading(clock: ClockSample) -> str:
    held = f", held down by {', '.join(clock.throttle)}" if clock.throttle else ""
    return (
        f"after {clock.pass_name}: SM {clock.sm_mhz} MHz, memory {clock.memory_mhz} MHz, "
        f"{clock.power_w:.1f} W, {clock.temperature_c} C{held}"
    )


def _with_record(timeline: Timeline) -> Timeline:
    """A first group with one slice that carries the facts, which every viewer can show."""
    one = Slice(0, timeline.end_ns, timeline.title, "record", timeline.facts)
    tracks = tracks_of("record", "record", [one])
    description = "whose record this is and how it was measured: see the slice's arguments"
    group = Group("about this trace", description, tracks)
    return Timeline(timeline.title, (group, *timeline.groups), timeline.facts)
