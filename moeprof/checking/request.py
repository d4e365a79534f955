"""What every fresh process of a check is asked, in full: the options of ``moeprof run``.

Nothing is left to a default of the code under measurement, which may differ between two revisions.
The command line is the interface: a process runs its own side's moeprof, whatever that looks like
inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from moeprof.errors import UsageError
from moeprof.problem.dataset import Dataset
from moeprof.problem.routing import RECORDED
from moeprof.records import Run

DEFAULT_SECONDS = 900.0  # of one process: loading, compiling, the reference, the passes

# what a check reads, by device; without CUPTI its operations are not seen, only event pairs
PASSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cuda": ("bare", "kernels", "api"),
        "cuda without CUPTI": ("bare", "events"),
        "cpu": ("bare", "stages"),
    }
)


@dataclass(frozen=True, slots=True)
class Request:
    """The work and how it is measured.

    workload: a UUID of the dataset, '' for a new one of seq_len tokens.
    seconds: how long one process may take.
    """

    definition: str
    workload: str
    seq_len: int
    dataset: Path
    routing: str
    weights: str
    device: Literal["cuda", "cpu"]
    preset: str
    warmup: int
    iterations: int
    trials: int
    l2: Literal["flush", "warm"]
    seed: int
    passes: tuple[str, ...]
    allow_no_local_work: bool = False
    seconds: float = DEFAULT_SECONDS

    def arguments(self) -> tuple[str, ...]:
        """Options of ``moeprof run``, all but the solution and where records go."""
        which = (
            ("--workload", self.workload) if self.workload else ("--num-tokens", str(self.seq_len))
        )
        return (
            *("--definition", self.definition, *which, "--dataset", str(self.dataset)),
            *("--routing", self.routing, "--weights", self.weights, "--device", self.device),
            *("--preset", self.preset, "--warmup", str(self.warmup)),
            *("--iterations", str(self.iterations), "--trials", str(self.trials)),
            *("--l2", self.l2, "--seed", str(self.seed), "--passes", ",".join(self.passes)),
            *(("--allow-no-local-work",) if self.allow_no_local_work else ()),
        )


def check_passes(device: str, cupti: bool) -> tuple[str, ...]:
    """The passes that a check reads on 'cuda' or 'cpu'. cupti: whether its module is installed."""
    return PASSES[device if device == "cpu" or cupti else "cuda without CUPTI"]


def request_of(
    run: Run, dataset: Path, routing: str | None = None, seconds: float = DEFAULT_SECONDS
) -> Request:
    """The same work measured the same way as ``run`` was.

    dataset: where its definition and workload are read from. routing: what to ask for where the
    record does not tell (a file's). UsageError if the dataset lacks them or the routing is unknown.
    """
    data = Dataset(dataset)
    definition = data.definition(run.workload.definition)
    known = {workload.uuid for workload in data.workloads(definition)}
    settings = run.settings
    passes = {name for names in PASSES.values() for name in names}
    return Request(
        definition=run.workload.definition,
        workload=run.workload.uuid if run.workload.uuid in known else "",
        seq_len=run.workload.seq_len,
        dataset=dataset.resolve(),
        routing=routing or routing_asked(run.routing.label),
        weights=run.routing.weights_recipe,
        device=run.environment.device_kind,
        preset=settings.preset,
        warmup=settings.warmup,
        iterations=settings.iterations,
        trials=settings.trials,
        l2=settings.l2,
        seed=run.routing.seed,
        passes=tuple(name for name in settings.passes if name in passes),
        allow_no_local_work=run.routing.local_pairs == 0,
        seconds=seconds,
    )


def routing_asked(label: str) -> str:
    """The --routing that gives a routing of this label; UsageError for a file's."""
    kind, _, name = label.partition(" ")
    if kind == "synthetic" and name:
        return name
    if kind == RECORDED:  # what follows says who made it up
        return RECORDED
    raise UsageError(
        f"the routing was {label!r}", do="give the same again with --routing file:PATH"
    )
