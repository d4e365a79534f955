"""A capture becomes an ordinary record: forwards, their operations and stages, in the pass ``api``.

What is told by whom: ``choose`` whose work it is, ``iterations`` where forwards begin and end,
``stages`` and the rules which stage launched what. Here they are put in order, counted, and written
down; every operation of the capture is in the record, or counted in one of its notes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from moeprof import __version__
from moeprof.errors import UsageError
from moeprof.importing.choose import Choice, choose
from moeprof.importing.fit import Fitted, apply, best_fit
from moeprof.importing.identity import (
    borrowed,
    environment_of,
    require_same_gpu,
    settings_of,
    solution_of,
    workload_of,
)
from moeprof.importing.iterations import (
    Forwards,
    iteration_names,
    range_forwards,
    staged_forwards,
    walked_forwards,
)
from moeprof.importing.keep import spread, undisturbed
from moeprof.importing.placed import Placed, place_operations
from moeprof.importing.rules import RuleSet, shipped_rules
from moeprof.importing.stages import (
    Told,
    charge_other_threads,
    node_stages,
    open_ranges,
    range_stages,
    rule_stages,
)
from moeprof.importing.timeline import timeline_of
from moeprof.importing.trace import Trace
from moeprof.records import UNCHECKED, Capture, RoutingIdentity, Run, SolutionIdentity
from moeprof.timelines import TimelinePass

MOST_ITERATIONS = 1_000
ENOUGH = 0.5  # of the forwards' GPU time inside stage ranges, for these to tell stages
# operations as a record describes them: more than that and reading it takes seconds
MOST_DESCRIBED_BYTES, DESCRIPTION_BYTES = 100_000_000, 350
NO_ROUTING = RoutingIdentity("none", "none", 0, "", 0, 0, 0, ())


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to read a capture.

    name: of what is computed (by default ``file`` without its ending), variant: which way, where
    several captures share a name. num_tokens: T of the forward. rules: the user's own instead of
    the shipped ones. iteration: what ranges mark forwards; ranges: what other ranges name stages,
    pairs of pattern and stage. process, gpu: whose work. max_iterations: how many forwards to keep.
    """

    file: str = ""
    name: str | None = None
    variant: str | None = None
    num_tokens: int | None = None
    rules: RuleSet | None = None
    iteration: re.Pattern[str] | None = None
    ranges: Sequence[tuple[re.Pattern[str], str]] = ()
    process: int | None = None
    gpu: int | None = None
    max_iterations: int = MOST_ITERATIONS


@dataclass(frozen=True, slots=True)
class Account:
    """Where every GPU operation of the capture went; they add up to ``total``.

    kept: in a stage of a forward of the record; unattributed: in such a forward, in no stage;
    spare: in forwards that the record does not keep or that are not whole; outside: between
    forwards; elsewhere: of other processes or GPUs.
    """

    kept: int
    unattributed: int
    spare: int
    outside: int
    elsewhere: int

    @property
    def total(self) -> int:
        return self.kept + self.unattributed + self.spare + self.outside + self.elsewhere


@dataclass(frozen=True, slots=True)
class Imported:
    """The record of a capture and the account of its operations."""

    run: Run
    account: Account


def record_of(trace: Trace, options: ImportOptions | None = None, like: Run | None = None) -> Run:
    """The record of a capture: see ``import_trace``."""
    return import_trace(trace, options, like).run


def import_trace(
    trace: Trace, options: ImportOptions | None = None, like: Run | None = None
) -> Imported:
    """The record of a capture, and where its operations went.

    like: a record of the same solution on the same workload, which then gives identity, routing,
    environment, settings and correctness. Raises UsageError if forwards cannot be told apart, or
    if ``like`` cannot be of this capture.
    """
    options = options or ImportOptions()
    rules = (options.rules,) if options.rules else shipped_rules()
    choice = choose(trace, rules, options.process, options.gpu)
    gpu = trace.operations.places[choice.place][1]
    if like is not None:
        require_same_gpu(like, trace, gpu, options.num_tokens)
    placed = place_operations(trace, choice.place)
    forwards, told = _told(trace, placed, rules, options, like)
    sound = undisturbed(forwards, placed, trace.overhead_ns)
    kept, timeline, solution, unmapped = _kept(trace, placed, sound, told, options, like)
    account = _account(told, kept, forwards, choice)
    notes = (
        *trace.notes,
        *choice.notes,
        *kept.notes,
        *told.notes,
        *unmapped,
        *(borrowed(like, trace, placed) if like else ()),
        *open_ranges(trace, options.ranges, iteration_names(trace.ranges, options.iteration)),
        *_left_out(account, forwards, placed),
    )
    source = trace.source
    capture = Capture(
        tool=source.tool,
        version=source.tool_version,
        schema=source.schema,
        file=options.file,
        stages_by=told.by,
        forwards=len(forwards),
        notes=notes,
    )
    run = Run(
        moeprof=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        solution=solution,
        workload=workload_of(options, like),
        routing=like.routing if like else NO_ROUTING,
        environment=like.environment if like else environment_of(trace, gpu),
        settings=settings_of(len(kept), like),
        correctness=like.correctness if like else UNCHECKED,
        timelines=(timeline,),
        capture=capture,
    )
    return Imported(run, account)


def _kept(
    trace: Trace,
    placed: Placed,
    sound: Forwards,
    told: Told,
    options: ImportOptions,
    like: Run | None,
) -> tuple[Forwards, TimelinePass, SolutionIdentity, tuple[str, ...]]:
    """As many forwards as were asked for and fit into a record, with its stages."""
    most = options.max_iterations
    while True:
        kept = spread(sound, most)
        solution, renamed, unmapped = solution_of(told, kept, placed, options, like)
        timeline = timeline_of(trace, placed, kept, renamed, options.ranges)
        described = [o for operations in timeline.operation_sets for o in operations]
        size = sum(len(operation.name) + DESCRIPTION_BYTES for operation in described)
        if size <= MOST_DESCRIBED_BYTES or len(kept) == 1:
            return kept, timeline, solution, unmapped
        most = len(kept) // 2


def _told(
    trace: Trace,
    placed: Placed,
    rules: Sequence[RuleSet],
    options: ImportOptions,
    like: Run | None,
) -> tuple[Forwards, Told]:
    """The forwards and the stages: by ranges where they say enough, else by rules."""
    forwards, empty = _marked(trace, placed, options)
    notes: tuple[str, ...] = (str(empty),) if empty else ()
    staged = None if options.rules else range_stages(trace, placed, options.ranges)
    if staged is not None:
        around = forwards or staged_forwards(placed, staged.label, staged.labels)
        if around is not None:
            staged = charge_other_threads(staged, trace, placed, around, options.ranges)
            share = staged.share_of(around.of >= 0, placed)
            if share >= ENOUGH:
                return around, replace(staged, notes=(*notes, *staged.notes))
            notes += (f"stage ranges hold only {100 * share:.0f} % of the forwards' GPU time",)
    if forwards is not None and like is not None and options.rules is None:
        nodes = node_stages(trace, placed, forwards.of >= 0, like)
        if nodes is not None:
            return forwards, nodes
    fitted = _fitted(trace, placed, rules, forwards, options)
    if forwards is None:
        forwards = walked_forwards(placed, fitted) if fitted else None
        if forwards is None:
            raise empty or UsageError(
                _nothing_told(trace, placed, rules, options),
                "ranges named 'iteration' in the domain moeprof, or kernels that rules name",
                "give --iteration PATTERN (ranges around a forward) or --rules FILE; "
                f"its ranges: {_some_ranges(trace)}",
            )
    elif fitted is not None:
        notes += _several(fitted, forwards)
    if fitted is None:
        blank = np.full(len(placed), -1, dtype=np.int64)
        none = "no rules fit and no ranges name stages: everything is unattributed"
        return forwards, Told(blank, (), "rules", (*notes, none))
    told = rule_stages(fitted, forwards, placed)
    return forwards, replace(told, notes=(*notes, *told.notes))


def _marked(
    trace: Trace, placed: Placed, options: ImportOptions
) -> tuple[Forwards | None, UsageError | None]:
    """The forwards that ranges mark; where those hold nothing, which the user did not ask for
    either, what is to be said if rules find none."""
    try:
        return range_forwards(trace, placed, options.iteration), None
    except UsageError as error:
        if options.iteration is not None:
            raise
        return None, error


def _fitted(
    trace: Trace,
    placed: Placed,
    rules: Sequence[RuleSet],
    forwards: Forwards | None,
    options: ImportOptions,
) -> Fitted | None:
    group = forwards.of if forwards is not None else None
    if options.rules is not None:
        return apply(rules[0], trace, placed, group)
    return best_fit(rules, trace, placed, group)


def _several(fitted: Fitted, forwards: Forwards) -> tuple[str, ...]:
    """A note where ranges hold several forwards each by the rules."""
    begun = int(fitted.whole.sum())
    if begun < 2 * len(forwards):
        return ()
    return (
        f"each range holds {begun / len(forwards):.1f} forwards by the rules "
        f"{fitted.walk.rules.name!r}: rows are sums over them",
    )


def _nothing_told(
    trace: Trace, placed: Placed, rules: Sequence[RuleSet], options: ImportOptions
) -> str:
    time_ns = np.zeros(max(1, len(trace.operations.descriptions)), dtype=np.int64)
    np.add.at(time_ns, placed.description, placed.duration_ns)
    top = np.argsort(-time_ns, kind="stable")[:3].tolist()
    names = dict.fromkeys(trace.operations.descriptions[n].name[:60] for n in top)
    who = f"the rules {rules[0].name!r}" if options.rules else "the shipped rules"
    return (
        f"the capture holds no ranges around forwards, and {who} find none among its "
        f"{len(placed):,} operations (most time: {', '.join(names)})"
    )


def _some_ranges(trace: Trace) -> str:
    texts = list(dict.fromkeys(text[:40] for _, text in trace.ranges.names))
    more = f" and {len(texts) - 6} more" if len(texts) > 6 else ""
    return ", ".join(texts[:6]) + more if texts else "none"


def _account(told: Told, kept: Forwards, forwards: Forwards, choice: Choice) -> Account:
    inside, every = kept.of >= 0, forwards.of >= 0
    named = int((inside & (told.label >= 0)).sum())
    return Account(
        kept=named,
        unattributed=int(inside.sum()) - named,
        spare=int((every & ~inside).sum()),
        outside=int((~every).sum()),
        elsewhere=choice.others,
    )


def _left_out(account: Account, forwards: Forwards, placed: Placed) -> tuple[str, ...]:
    if not account.outside:
        return ()
    whole = int(placed.duration_ns.sum())
    share = 100 * int(placed.duration_ns[forwards.of < 0].sum()) / whole if whole else 0.0
    return (
        f"{account.outside:,} operations outside forwards are left out ({share:.0f} % of the "
        "place's GPU time)",
    )
