"""``moeprof timeline``: a capture by another profiler as a record, or a record as a timeline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from moeprof.cli.options import (
    COUNT,
    dataset_option,
    definition_option,
    input_options,
    json_option,
    traces_option,
    trust_option,
)
from moeprof.cli.output import show, show_json, shown_path
from moeprof.errors import EnvironmentMissing, UsageError
from moeprof.presets import PRESETS

if TYPE_CHECKING:
    from rich.text import Text

    from moeprof.capturing.capture import Files
    from moeprof.capturing.find import Tool
    from moeprof.capturing.job import Job, Mode, ToolName
    from moeprof.cli.planning import Choices
    from moeprof.records import Run

DOCUMENT = "moeprof.timeline/1"
_ITERATIONS = f"Forwards captured [default: {PRESETS['default'].iterations}]."
_PROGRAM = click.Path(path_type=Path, dir_okay=False)
_RAW = "the report is raw: names of host and user, paths; do not share or commit it"
_TOLD = (
    "the report holds the environment of every process on this machine, tokens included: nsys "
    "copies it, and unshare, which would hide them, does not work here"
)


@click.command("timeline")
@click.argument("record", required=False, metavar="[RUN]")
@click.option(
    "--solution", metavar="NAME", help="Capture this one: a name, a file's path, or fib:NAME."
)
@click.option("--num-tokens", type=int, metavar="T", help="The workload of T tokens, or a new one.")
@click.option("--workload", metavar="UUID-PREFIX", help="One workload.")
@definition_option
@click.option(
    "--tool",
    type=click.Choice(["nsys", "torch", "ncu"]),
    default="nsys",
    show_default=True,
    help="Nsight Systems, PyTorch's profiler, or Nsight Compute on the kernels of one stage.",
)
@click.option("--stage", metavar="STAGE", help="With ncu: whose kernels to measure.")
@click.option(
    "--mode",
    type=click.Choice(["eager", "graph"]),
    default="eager",
    show_default=True,
    help="With nsys: the forward as it is, or replayed as one CUDA graph.",
)
@click.option("--warmup", type=click.IntRange(0, 100_000), metavar="N", help="Untimed forwards.")
@click.option("--iterations", type=COUNT, metavar="N", help=_ITERATIONS)
@input_options
@dataset_option
@trust_option
@click.option("--nsys", type=_PROGRAM, metavar="PATH", help="Nsight Systems' nsys.")
@click.option("--ncu", type=_PROGRAM, metavar="PATH", help="Nsight Compute's ncu.")
@click.option(
    "--record",
    "attach_to",
    type=click.Path(path_type=Path, exists=True),
    metavar="RUN",
    help="With ncu: the record to copy and add to [default: the newest of the same work].",
)
@click.option(
    "--which",
    default="median",
    show_default=True,
    metavar="N",
    help="With RUN: the iteration of median span, number N, or all.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="The folder for a capture's files; with RUN the timeline's file.",
)
@click.option("--force", is_flag=True, help="Write over what is there.")
@traces_option
@json_option
def command(
    record: str | None, solution: str | None, output: Path, traces: Path, **options: Any
) -> None:
    """Capture a solution with another profiler, or write the record RUN as a timeline.

    With --solution it is run under the profiler, its result checked first, and the capture becomes
    a record under DIR/runs. RUN is a record's file, or a solution whose newest record is meant;
    -o ends in .perfetto-trace, .json or .nsys-rep. Exit codes: 0 ok, 1 wrong result, 2 usage or
    environment, 130 interrupted.
    """
    if (record is None) == (solution is None):
        found = "neither RUN nor --solution" if record is None else "both RUN and --solution"
        raise UsageError(found, "one of them: a record to write, or a solution to capture")
    if record is not None:
        _export(record, output, traces, options)
    else:
        assert solution is not None
        _capture(solution, output, traces, options)


# ---------------------------------------------------------------- a record as a timeline


def _export(record: str, output: Path, traces: Path, options: Mapping[str, Any]) -> None:
    from moeprof.exporting import export
    from moeprof.storage.lookup import Wanted, is_path, one_workload, workloads_of
    from moeprof.storage.store import load

    path = Path(record)
    if not is_path(record):
        wanted = Wanted(options["num_tokens"], options["workload"], options["definition"])
        path = one_workload({record: workloads_of(traces, record, wanted)}, wanted)[record]
    which = _which(options["which"])
    export(load(path), output, iterations=which, force=options["force"])
    if options["as_json"]:
        content = {"record": shown_path(path), "files": {"timeline": shown_path(output)}}
        show_json(DOCUMENT, content)
        return
    show(_unbroken(f"{shown_path(path)} written to {shown_path(output)}"))


def _which(text: str) -> Literal["median", "all"] | int:
    if text.isdecimal():
        return int(text)
    if text not in ("median", "all"):
        raise UsageError(f"--which {text}", "median, all or the number of an iteration")
    return "all" if text == "all" else "median"


# ---------------------------------------------------------------- a solution under a profiler


def _capture(solution: str, output: Path, traces: Path, options: Mapping[str, Any]) -> None:
    from moeprof.capturing.capture import Files
    from moeprof.storage.store import check_writable

    name: ToolName = options["tool"]
    _refuse_combinations(name, options)
    _refuse_places(output, traces)
    tool = _find(name, options)
    job, chosen = _job(solution, name, options)
    files = Files(output, _stem(solution, job), name)
    check_writable(output)
    check_writable(traces / "runs")
    files.require_free(options["force"])
    click.echo(f"capturing {solution} at T={job.workload.seq_len} with {name}", err=True)
    run = _captured(job, tool, files, chosen, traces, options)
    _keep(run, job, tool, files, chosen, traces, bool(options["as_json"]))


def _captured(
    job: Job,
    tool: Tool | None,
    files: Files,
    chosen: Choices,
    traces: Path,
    options: Mapping[str, Any],
) -> Run:
    """The record that came of it."""
    from moeprof.capturing.capture import capture_ncu, capture_nsys, capture_torch
    from moeprof.storage.store import load

    if job.tool == "ncu":
        from moeprof.capturing import attach

        assert tool is not None
        known = options["attach_to"] and load(options["attach_to"])
        captured, metrics = capture_ncu(job, tool, files)
        if known:
            attach.require_same_work(known, captured.skeleton, shown_path(options["attach_to"]))
        alias = chosen.definition.alias
        found = known or attach.newest_of_same_work(traces / "runs", captured.skeleton, alias)
        return attach.with_metrics(found or captured.skeleton, metrics)
    from moeprof.capturing.imported import as_record

    captured = capture_torch(job, files) if tool is None else capture_nsys(job, tool, files)
    if not captured.alone:
        click.echo(f"moeprof: warning: {_TOLD}", err=True)
    return as_record(captured, files)


def _keep(
    run: Run,
    job: Job,
    tool: Tool | None,
    files: Files,
    chosen: Choices,
    traces: Path,
    as_json: bool,
) -> None:
    """Save the record, print it and where everything lies."""
    from moeprof.storage.store import save

    path = save(run, traces / "runs", chosen.definition.alias)
    places = {"report": files.report, "export": files.export, "skeleton": files.skeleton}
    kept = {what: shown_path(p) for what, p in places.items() if p is not None and p.exists()}
    if as_json:
        from moeprof.reports.json import run_document

        version = tool.version if tool else None
        content = {"tool": job.tool, "version": version, "mode": job.mode, "files": kept}
        show_json(DOCUMENT, {**content, "record": shown_path(path), "run": run_document(run)})
        return
    from moeprof.reports.text import render_run

    show(render_run(run))
    lines = [f"{what} {place}" for what, place in kept.items() if what != "skeleton"]
    lines += [f"       {_RAW}"] if "report" in kept else []
    lines.append(f"record {shown_path(path)}")
    show(*(_unbroken(line) for line in lines))


def _unbroken(line: str) -> Text:
    """A line that is not folded, so that a path in it can be copied."""
    from rich.text import Text

    return Text(line, no_wrap=True, overflow="ignore")


def _find(name: ToolName, options: Mapping[str, Any]) -> Tool | None:
    from moeprof.capturing.find import NCU, NSYS, find

    if name == "torch":
        return None
    return find(NSYS, options["nsys"]) if name == "nsys" else find(NCU, options["ncu"])


def _job(solution: str, name: ToolName, options: Mapping[str, Any]) -> tuple[Job, Choices]:
    """What to capture: every choice that was left open is made here."""
    from moeprof.capturing.job import Job
    from moeprof.cli.planning import RunOptions, make_choices

    same = ("num_tokens", "workload", "definition", "routing", "weights", "dataset", "device")
    sizes = ("warmup", "iterations", "l2", "seed", "allow_no_local_work", "trust")
    given: dict[str, Any] = {key: options[key] for key in (*same, *sizes)}
    given.update(all_workloads=False, preset="default", trials=1, passes=None)
    chosen = make_choices(RunOptions(solution=solution, **given))
    if chosen.device == "cpu":
        raise EnvironmentMissing(
            "a timeline is one of GPU operations, and there is no GPU to run on",
            do="moeprof doctor says what is missing; moeprof run measures on a CPU",
        )
    settings = replace(chosen.settings, passes=("api",))
    if name == "ncu":
        settings = replace(settings, iterations=1)
    job = Job(
        tool=name,
        mode=cast("Mode", options["mode"]),
        stage=options["stage"] or "",
        solution=solution,
        definition=chosen.definition.name,
        workload=chosen.workloads[0],
        dataset=str(chosen.dataset.root),
        settings=settings,
        routing=options["routing"],
        weights=options["weights"],
        device=chosen.device,
        allow_no_local_work=options["allow_no_local_work"],
        trusted=options["trust"],
    )
    return job, chosen


def _refuse_combinations(name: ToolName, options: Mapping[str, Any]) -> None:
    """UsageError for options that the tool cannot honour."""
    if name == "ncu" and not options["stage"]:
        raise UsageError("--tool ncu without --stage", "the stage whose kernels to measure")
    if name != "ncu" and (options["stage"] or options["attach_to"]):
        given = "--stage" if options["stage"] else "--record"
        raise UsageError(f"{given} with --tool {name}", do="it is ncu's: --tool ncu")
    if name != "nsys" and options["mode"] == "graph":
        raise UsageError(
            f"--mode graph with --tool {name}",
            "nsys, which alone tells the nodes of a graph apart by stage",
        )
    if name == "ncu" and options["iterations"]:
        raise UsageError(
            "--iterations with --tool ncu", "none: it replays each kernel of one forward"
        )


def _refuse_places(output: Path, traces: Path) -> None:
    """A folder, and none that is committed or handed on: raw reports go there."""
    from moeprof.problem.dataset import own_root

    if output.exists() and not output.is_dir():
        raise UsageError(f"{shown_path(output)} is a file", "a folder for the capture's files")
    for folder in (traces, own_root()):
        if output.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"{shown_path(output)} lies in {shown_path(folder)}, which may be committed",
                "a folder for raw reports elsewhere",
            )


def _stem(solution: str, job: Job) -> str:
    """What the files of a capture are called: solution, tokens, and what else tells them apart."""
    name = Path(solution).stem if solution.endswith(".py") else solution
    how = {"nsys": "graph" if job.mode == "graph" else "", "ncu": job.stage, "torch": "torch"}
    parts = (name, f"T{job.workload.seq_len}", how[job.tool])
    return "-".join(re.sub(r"[^A-Za-z0-9_.+]", "_", part) for part in parts if part)
