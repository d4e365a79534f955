"""``moeprof explain``: change one thing at a time, and see whether the profile was right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from moeprof.cli.options import (
    dataset_option,
    definition_option,
    json_option,
    measuring_options,
    traces_option,
    trust_option,
)
from moeprof.cli.output import show, show_json, shown_path, stdout_kept
from moeprof.cli.supervised import (
    KeepsArguments,
    Supervisor,
    WatchedProgress,
    supervised,
    timeout_options,
)
from moeprof.errors import MoeprofError, UsageError, WrongResult, is_out_of_memory

CPU_TOKENS = 7  # of the small definition; every variant runs through Triton's interpreter


@click.command("explain", cls=KeepsArguments)
@click.argument("solutions", nargs=2, metavar="A B")
@click.option("--num-tokens", type=int, metavar="T", help="The workload of T tokens, or a new one.")
@click.option("--workload", metavar="UUID-PREFIX", help="One workload.")
@click.option("--sensitivity", is_flag=True, help="Also other routings, ranks, numbers of tokens.")
@definition_option
@measuring_options
@dataset_option
@trust_option
@timeout_options
@traces_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    solutions: tuple[str, str],
    seconds: float | None,
    supervisor: int | None,
    **options: Any,
) -> None:
    """Change one thing in A at a time and put the change beside what A's and B's profiles predict.

    A is the solution that is changed: name the slower one first. Tried are CUDA-graph replay, local
    pairs only, each of B's stages in the place of A's, kept or fresh buffers, the workspace alone,
    and weight views made once. The records of A and B are kept. Exit codes: 0 ok, whatever was
    proven; 1 wrong result (or one that never came), 2 usage or environment.
    """
    from moeprof.cli.planning import check_solution
    from moeprof.fib.find import is_fib

    for name in solutions:
        check_solution(name, options["dataset"], options["trust"])
    if len(set(solutions)) == 1:
        raise UsageError(f"{solutions[0]} twice", "two solutions", "moeprof run measures one")
    foreign = [name for name in solutions if is_fib(name)]
    if supervisor is None and (foreign or seconds is not None):
        context.exit(supervised(context, foreign or solutions, seconds))
    watched = Supervisor(supervisor)
    with watched.told():
        _explain(solutions, watched, supervisor is not None, bool(foreign), **options)


def _explain(
    solutions: tuple[str, str],
    watched: Supervisor,
    ends_after: bool,
    foreign: bool,
    sensitivity: bool,
    traces: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """ends_after: this process does nothing else. foreign: a solution is somebody's code."""
    from moeprof.cli.planning import RunOptions, choose_device, its_definition, make_plan
    from moeprof.cli.progress import ProgressBar
    from moeprof.fib.find import is_fib
    from moeprof.problem.dataset import Dataset, dataset_root
    from moeprof.solutions.catalog import load_solution
    from moeprof.storage.store import check_writable, save

    first, second = solutions
    dataset = Dataset(dataset_root(options["dataset"], os.environ))
    options["device"] = choose_device(options["device"])
    chosen = options["num_tokens"] is not None or options["workload"] is not None
    if options["device"] == "cpu" and not chosen:
        options["num_tokens"] = CPU_TOKENS
    folder = traces / "runs"
    records: list[Path] = []
    with stdout_kept(for_good=ends_after):
        asked = RunOptions(solution=first, all_workloads=False, passes=None, **options)
        plan = make_plan(asked, lambda: watched.begin("loading"))
        check_writable(folder)

        from moeprof.explain.explain import EXPLAIN_PASSES, ExplainPlan, explain

        settings = replace(plan.settings, passes=EXPLAIN_PASSES[plan.device])
        if is_fib(second):
            its_definition(second, dataset, plan.definition.name)
        other = load_solution(second, plan.device, dataset=dataset.root, trusted=options["trust"])
        watched.idle()
        if other.solution.name == plan.loaded.solution.name:
            raise UsageError(f"both solutions are called {other.solution.name}", do="rename one")
        with _raises_in_one_line(foreign):
            explanation = explain(
                ExplainPlan(replace(plan, settings=settings), other, sensitivity),
                WatchedProgress(ProgressBar(), watched),
                lambda run: records.append(save(run, folder, plan.definition.alias)),
            )
    shown = [shown_path(path) for path in records]
    if as_json:
        from moeprof.reports.explain_json import DOCUMENT, explanation_document

        show_json(DOCUMENT, explanation_document(explanation, shown))
    else:
        from moeprof.reports.explain_text import render_explanation

        show(render_explanation(explanation))
        show(f"records {shown[0]}\n        {shown[1]}")


@contextmanager
def _raises_in_one_line(foreign: bool) -> Iterator[None]:
    """What foreign code raises once it has been right is its own fault."""
    try:
        yield
    except MoeprofError:
        raise
    except (Exception, SystemExit) as error:
        if not foreign or is_out_of_memory(error):
            raise
        from moeprof.solutions.raised import said

        raise WrongResult(
            f"a foreign solution was right, and later raised {said(error)}"
        ) from error
