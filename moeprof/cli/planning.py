"""From the options of ``run`` to a Plan: every choice a user left open is made here, once.

Cheap checks come before torch is imported, so that a misspelt name is answered at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from moeprof.definition import Definition, Workload
from moeprof.errors import EnvironmentMissing, UsageError
from moeprof.fib.find import find_solution, is_fib
from moeprof.presets import (
    ATOL,
    MAX_RELATIVE_L2,
    PARITY_TIMERS,
    PRESETS,
    REQUIRED_MATCHED_RATIO,
    RTOL,
    check_passes,
    choose_passes,
    with_parity,
)
from moeprof.problem.dataset import Dataset, dataset_root, own_root
from moeprof.records import ParitySettings, Settings

if TYPE_CHECKING:
    from moeprof.measure.plan import Plan


@dataclass(frozen=True, slots=True)
class Defaults:
    """What runs on a device where the user left it open."""

    definition: str
    preset: str


# an interpreted forward of the small problem takes 1.5 s on a CPU, hence the quick preset there
DEFAULTS: Mapping[str, Defaults] = MappingProxyType(
    {"cuda": Defaults("dsv3", "default"), "cpu": Defaults("tiny", "quick")}
)
# definition -> its middle workload; any other definition has the first one's
DEFAULT_TOKENS: Mapping[str | None, int] = MappingProxyType({"dsv3": 56, "tiny": 33})


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The command line of ``run`` as given; None where the user left the choice open."""

    solution: str
    num_tokens: int | None
    workload: str | None
    all_workloads: bool
    definition: str | None
    routing: str
    weights: str
    dataset: str | None
    device: str
    preset: str | None
    warmup: int | None
    iterations: int | None
    trials: int | None
    l2: Literal["flush", "warm"]
    seed: int
    passes: str | None
    allow_no_local_work: bool
    trust: bool = False
    parity: str | None = None


@dataclass(frozen=True, slots=True)
class Choices:
    """What is run on what, before the solution itself is loaded."""

    dataset: Dataset
    definition: Definition
    workloads: tuple[Workload, ...]
    settings: Settings
    device: Literal["cuda", "cpu"]


def make_choices(options: RunOptions) -> Choices:
    """What was left open, chosen; UsageError or EnvironmentMissing say what cannot be meant."""
    dataset = check_options(options)
    device = choose_device(options.device)
    if is_fib(options.solution):
        definition = its_definition(options.solution, dataset, options.definition)
    else:
        dataset, definition = choose_definition(options.definition, dataset, device)
    workloads = choose_workloads(options, dataset, definition)
    if is_fib(options.solution) and options.routing == "auto":
        refuse_missing_blobs(dataset, workloads)
    return Choices(dataset, definition, workloads, make_settings(options, device), device)


def check_options(options: RunOptions) -> Dataset:
    """What can be said of the options without torch, and their dataset; UsageError."""
    from moeprof.problem.routing import parse_spec
    from moeprof.solutions.catalog import check_exists

    _check_one_selection(options)
    dataset = Dataset(dataset_root(options.dataset, os.environ))
    check_exists(options.solution, dataset=dataset.root, trusted=options.trust)
    parse_spec(options.routing)
    if options.passes is not None:
        check_passes(split_passes(options.passes))
    return dataset


def check_solution(solution: str, dataset: str | None, trusted: bool) -> None:
    """UsageError if there is no such solution, or if it is foreign code and not trusted."""
    from moeprof.solutions.catalog import check_exists

    check_exists(solution, dataset=dataset_root(dataset, os.environ), trusted=trusted)


def make_plan(options: RunOptions, before_loading: Callable[[], None] = lambda: None) -> Plan:
    """What to run; the errors of ``make_choices``, and ContractError for what is no solution.

    before_loading: called when everything but the solution itself is there.
    """
    chosen = make_choices(options)  # before torch is imported

    from moeprof.measure.plan import Plan
    from moeprof.solutions.catalog import load_solution

    before_loading()
    return Plan(
        loaded=load_solution(
            options.solution, chosen.device, dataset=chosen.dataset.root, trusted=options.trust
        ),
        definition=chosen.definition,
        workloads=chosen.workloads,
        dataset=chosen.dataset,
        settings=chosen.settings,
        routing=options.routing,
        weights=options.weights,
        device=chosen.device,
        allow_no_local_work=options.allow_no_local_work,
    )


def choose_device(asked: str) -> Literal["cuda", "cpu"]:
    """'cuda' or 'cpu'; 'auto' is CUDA where torch sees a device."""
    if asked == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "cuda":
        raise EnvironmentMissing(
            "--device cuda, but torch sees no CUDA device",
            do="moeprof doctor says what is missing; --device cpu runs the tiny definition",
        )
    return "cpu"


def choose_definition(
    asked: str | None, dataset: Dataset, device: str
) -> tuple[Dataset, Definition]:
    """The definition and its dataset: moeprof's own where ``dataset`` lacks the default one."""
    if asked is not None:
        return dataset, dataset.definition(asked)
    name = DEFAULTS[device].definition
    places = (dataset, Dataset(own_root()))
    found = next((place for place in places if _has(place, name)), dataset)
    return found, found.definition(name)


def its_definition(solution: str, dataset: Dataset, asked: str | None) -> Definition:
    """The definition that a TraceSet's solution is for; UsageError if another was asked for."""
    file = find_solution(solution, dataset.root)
    definition = dataset.definition(file.solution.definition)
    if asked is not None and dataset.definition(asked).name != definition.name:
        raise UsageError(
            f"{file.label} is a solution for {definition.name}, not for {asked}",
            do="leave --definition out",
        )
    return definition


def refuse_missing_blobs(dataset: Dataset, workloads: tuple[Workload, ...]) -> None:
    """Raise UsageError where a TraceSet's workload names recorded routing that is not there.

    FlashInfer-Bench could not run it either; another routing is only taken where the user says so.
    """
    missing = [
        workload
        for workload in workloads
        if not all(f.path.is_file() for f in (dataset.recorded_routing(workload) or {}).values())
    ]
    if missing:
        raise UsageError(
            f"the recorded routing of {len(missing)} of {len(workloads)} workloads is missing "
            f"(first: {missing[0].uuid[:8]}, T={missing[0].seq_len})",
            expected="the TraceSet's blob folder",
            do="--routing uniform (or zipf:S, balanced) runs them with a synthetic one",
        )


def _has(dataset: Dataset, name: str) -> bool:
    names = dataset.names()  # outside the try: a folder that is no dataset is an error
    try:
        return dataset.definition(name).name in names
    except UsageError:
        return False


def choose_workloads(
    options: RunOptions, dataset: Dataset, definition: Definition
) -> tuple[Workload, ...]:
    """One workload, or all of the definition by rising number of tokens."""
    if options.workload is not None:
        return (dataset.workload(definition, options.workload),)
    if options.all_workloads:
        found = sorted(dataset.workloads(definition), key=lambda workload: workload.seq_len)
        if not found:
            raise UsageError(f"{definition.name} has no workloads", do="choose --num-tokens")
        return tuple(found)
    tokens = options.num_tokens
    if tokens is None:
        tokens = DEFAULT_TOKENS.get(definition.alias, DEFAULT_TOKENS["dsv3"])
    return (dataset.workload_of_size(definition, tokens),)


def make_settings(options: RunOptions, device: str) -> Settings:
    """The preset with what the user changed of it."""
    name = options.preset or DEFAULTS[device].preset
    preset = PRESETS[name]
    asked = None if options.passes is None else split_passes(options.passes)
    timers = parity_timers(options.parity)
    return Settings(
        preset=name,
        warmup=preset.warmup if options.warmup is None else options.warmup,
        iterations=options.iterations or preset.iterations,
        trials=options.trials or preset.trials,
        seed=options.seed,
        l2=options.l2,
        passes=with_parity(choose_passes(asked, device), timers, device),
        rtol=RTOL,
        atol=ATOL,
        required_matched_ratio=REQUIRED_MATCHED_RATIO,
        max_relative_l2=MAX_RELATIVE_L2,
        parity=ParitySettings(timers) if timers else None,
    )


def parity_timers(asked: str | None) -> tuple[str, ...]:
    """The timers of flashinfer-bench that --parity names."""
    if asked is None:
        return ()
    return tuple(PARITY_TIMERS) if asked == "both" else (asked,)


def split_passes(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _check_one_selection(options: RunOptions) -> None:
    given = [
        option
        for option, chosen in (
            ("--num-tokens", options.num_tokens is not None),
            ("--workload", options.workload is not None),
            ("--all-workloads", options.all_workloads),
        )
        if chosen
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} were given together", do="choose one of them")
