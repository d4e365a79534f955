"""``moeprof explain``: change one thing at a time, and see whether the profile was right."""

from __future__ import annotations

import os
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
from moeprof.cli.output import show, show_json, shown_path
from moeprof.errors import UsageError

CPU_TOKENS = 7  # of the small definition; every variant runs through Triton's interpreter


@click.command("explain")
@click.argument("solutions", nargs=2, metavar="A B")
@click.option("--num-tokens", type=int, metavar="T", help="The workload of T tokens, or a new one.")
@click.option("--workload", metavar="UUID-PREFIX", help="One workload.")
@click.option("--sensitivity", is_flag=True, help="Also other routings, ranks, numbers of tokens.")
@definition_option
@measuring_options
@dataset_option
@trust_option
@traces_option
@json_option
def command(
    solutions: tuple[str, str], sensitivity: bool, traces: Path, as_json: bool, **options: Any
) -> None:
    """Change one thing in A at a time and put the change beside what A's and B's profiles predict.

    A is the solution that is changed: name the slower one first. Tried are CUDA-graph replay, local
    pairs only, each of B's stages in the place of A's, kept or fresh buffers, the workspace alone,
    and weight views made once. The records of A and B are kept. Exit codes: 0 ok, whatever was
    proven; 1 wrong result, 2 usage or environment.
    """
    from moeprof.cli.planning import RunOptions, choose_device, its_definition, make_plan
    from moeprof.cli.progress import ProgressBar
    from moeprof.fib.find import is_fib
    from moeprof.problem.dataset import Dataset, dataset_root
    from moeprof.solutions.catalog import check_exists, load_solution
    from moeprof.storage.store import check_writable, save

    first, second = solutions
    dataset = Dataset(dataset_root(options["dataset"], os.environ))
    for name in solutions:
        check_exists(name, dataset=dataset.root, trusted=options["trust"])
    if first == second:
        raise UsageError(f"{first} twice", "two solutions", "moeprof run measures one")
    options["device"] = choose_device(options["device"])
    chosen = options["num_tokens"] is not None or options["workload"] is not None
    if options["device"] == "cpu" and not chosen:
        options["num_tokens"] = CPU_TOKENS
    plan = make_plan(RunOptions(solution=first, all_workloads=False, passes=None, **options))
    folder = traces / "runs"
    check_writable(folder)
    records: list[Path] = []

    from moeprof.explain.explain import EXPLAIN_PASSES, ExplainPlan, explain

    settings = replace(plan.settings, passes=EXPLAIN_PASSES[plan.device])
    if is_fib(second):
        its_definition(second, dataset, plan.definition.name)
    other = load_solution(second, plan.device, dataset=dataset.root, trusted=options["trust"])
    if other.solution.name == plan.loaded.solution.name:
        raise UsageError(f"both solutions are called {other.solution.name}", do="rename one")
    explanation = explain(
        ExplainPlan(replace(plan, settings=settings), other, sensitivity),
        ProgressBar(),
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
