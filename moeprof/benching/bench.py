"""A bench from its plan to its last cell: one measuring process after another, each watched.

Workloads are measured in groups, each group in a fresh process that runs every pass over it: CUPTI
comes last in a process and slows it, and a cell's passes must share one process to be compared
(where its memory lies alone moves a kernel by a tenth). So a group is what a kill can cost, and a
record is complete when it is written; starting a process takes some 15 s of a GPU machine's time.

This side imports no torch and touches no GPU: whatever a solution does to its process, crash, hang,
exit or break the GPU, is seen from here, costs its cell, and the rest goes on in a new process. A
solution that ends two processes is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Protocol

from moeprof.bench.cells import Failure, FailureKind
from moeprof.benching.messages import (
    Asked,
    Broken,
    End,
    Event,
    Failed,
    Fatal,
    Job,
    Loading,
    Preparing,
    Ready,
    Recorded,
    Request,
    Turn,
)
from moeprof.benching.process import Ended, Process
from moeprof.benching.words import place
from moeprof.checking.rounds import device_alone
from moeprof.errors import EnvironmentMissing, MoeprofError, UsageError
from moeprof.storage.benches import (
    BENCH_FILE,
    BenchFolder,
    BenchPlan,
    BenchWorkload,
    Cell,
    difference,
)
from moeprof.storage.locks import locked

WORKLOADS_A_PROCESS = 5
ENDS_TO_BE_DROPPED = 2
DEFAULT_SECONDS = 300.0
LEAST_LOADING_SECONDS = 60.0  # the first of a kernel library imports it
LEAST_PREPARING_SECONDS = 300.0  # importing torch, weights, ceilings

REFERENCE = "reference"


class Watch(Protocol):
    """Told how a bench goes on; draws it or not."""

    def begin(self, folder: BenchFolder, cells: int, done: int) -> None: ...
    def turn(self, text: str, cells_done: int, share_done: float) -> None: ...
    def say(self, text: str) -> None: ...
    def finish(self) -> None: ...


def groups(
    workloads: Sequence[BenchWorkload], size: int = WORKLOADS_A_PROCESS
) -> tuple[tuple[BenchWorkload, ...], ...]:
    """The workloads of each process: as few processes as ``size`` allows, small and large alike."""
    count = -(-len(workloads) // size)
    return tuple(tuple(workloads[first::count]) for first in range(count))


def _least_seconds(doing: Event | None) -> float:
    """What a process is given at least, whatever a solution is given for its turn."""
    if isinstance(doing, Turn):
        return 0.0
    return LEAST_LOADING_SECONDS if isinstance(doing, Loading) else LEAST_PREPARING_SECONDS


def bench(
    request: Request,
    folder_for: Callable[[BenchPlan], BenchFolder],
    watch: Watch,
    seconds: float = DEFAULT_SECONDS,
) -> BenchFolder:
    """Measure every cell that has no record yet; the folder in which everything then lies.

    folder_for: gets the plan once it is known and gives the bench's folder, new or resumed.
    seconds: how long one turn may take. Raises UsageError, EnvironmentMissing, ResourceExhausted:
    what concerns no single solution; records are kept.
    """
    with ExitStack() as held:
        try:
            return _Bench(request, folder_for, watch, seconds, held).run()
        finally:
            watch.finish()


class _Bench:
    def __init__(
        self,
        request: Request,
        folder_for: Callable[[BenchPlan], BenchFolder],
        watch: Watch,
        seconds: float,
        held: ExitStack,
    ) -> None:
        self.request = request
        self.folder_for = folder_for
        self.watch = watch
        self.seconds = seconds
        self.held = held
        self.folder: BenchFolder | None = None
        self.recorded: set[Cell] = set()
        self.unexplained = 0
        self.unloadable: dict[str, tuple[FailureKind, str]] = {}  # by what was asked
        self.asked: dict[str, Asked] = {}  # by the solution's name
        self.failures: dict[Cell, Failure] = {}
        self.ends: Counter[str] = Counter()  # processes that a solution has ended
        self.turns: Counter[Cell] = Counter()  # of the present process

    def run(self) -> BenchFolder:
        """One process after another until no cell is left."""
        while self.folder is None or self.left():
            self.one_process()
        return self.folder

    def left(self) -> tuple[Cell, ...]:
        """The cells of the next process; none when all are done."""
        assert self.folder is not None
        missing = set(self.folder.plan.cells) - self.recorded - self.failures.keys()
        for group in groups(self.folder.plan.workloads):
            uuids = {workload.uuid for workload in group}
            cells = tuple(cell for cell in self.folder.plan.cells if cell[1] in uuids)
            if not missing.isdisjoint(cells):
                return tuple(cell for cell in cells if cell in missing)
        return ()

    # -- one process ------------------------------------------------------------------------

    def one_process(self) -> None:
        """From its start to its end; every round takes at least one cell or raises."""
        self.turns.clear()
        process = Process(replace(self.request, solutions=self.to_load()))
        try:
            self.follow(process)
        finally:
            process.end()

    def to_load(self) -> tuple[Asked, ...]:
        """All that were asked for, once the plan is known those that have cells left here."""
        if self.folder is None:
            return tuple(
                one for one in self.request.solutions if one.solution not in self.unloadable
            )
        names = dict.fromkeys(name for name, _ in self.left())
        return tuple(self.asked[name] for name in names)

    def follow(self, process: Process) -> None:
        """Listen until the process has ended or must be; who is to blame is noted."""
        doing: Event | None = None
        while True:
            limit = max(self.seconds, _least_seconds(doing))
            event = process.next(limit)
            if isinstance(event, Ended):
                if not (isinstance(doing, Failed) and doing.ends):
                    self.lost(doing, "crashed", str(event), event.last_line)
                return
            if event is None:
                self.lost(doing, "timeout", f"it did not come to an end within {limit:g} s")
                return
            if isinstance(event, Fatal):
                error = MoeprofError(event.message)
                error.exit_code = event.exit_code
                raise error
            if isinstance(event, Broken):
                raise RuntimeError(f"the measuring process failed:\n{event.traceback}")
            if isinstance(event, End):
                return
            if isinstance(event, Ready):
                self.accept(event.plan)
                if not self.left():
                    return
                assert self.folder is not None
                process.send(Job(str(self.folder.path.absolute()), self.left()))
            self.note(event)
            doing = event

    def note(self, event: Event) -> None:
        """What an event adds to the books, and to what is drawn."""
        if isinstance(event, Turn):
            passes = self.folder.plan.settings.passes if self.folder is not None else ()
            self.turns[event.solution, event.uuid] += event.turn in passes
            what = {"rest": "power of", "again": "last check of"}.get(event.turn, event.turn)
            self.draw(f"{what} {event.solution} T={event.seq_len:,}")
        elif isinstance(event, Failed):
            self.fail(event.failure)
            if event.ends:
                self.count_end(event.failure)
        elif isinstance(event, Recorded):
            self.recorded.add((event.solution, event.uuid))
        elif isinstance(event, Loading):
            self.draw(f"loading {Asked(event.asked, True).name}")
        elif isinstance(event, Preparing):
            self.draw("making inputs")

    # -- the plan ---------------------------------------------------------------------------

    def accept(self, plan: BenchPlan) -> None:
        """The plan of the first process is the bench's; that of a later one must agree with it."""
        if self.folder is None:
            self.begin(plan)
            return
        begun = self.folder.plan
        if (begun.environment.device, begun.environment.card) != (
            plan.environment.device,
            plan.environment.card,
        ):
            raise EnvironmentMissing(
                "another GPU answered while the bench ran", do="see CUDA_VISIBLE_DEVICES; --resume"
            )
        known = {one.name: one for one in begun.solutions}
        same = replace(
            begun,
            solutions=tuple(known[name] for name in plan.names if name in known),
            environment=plan.environment,  # some libraries tell their version only once loaded
        )
        found = difference(same, plan)
        if found:
            raise UsageError(
                f"while the bench ran, {found}", do="finished records were kept; measure it --fresh"
            )

    def begin(self, plan: BenchPlan) -> None:
        """Now that everything is loaded: the folder, and nobody else in it or on the device."""
        loaded = iter(plan.solutions)
        columns = []
        for one in self.request.solutions:
            lost = self.unloadable.get(one.solution)
            columns.append(next(loaded) if lost is None else one.lost(*lost))
        plan = replace(plan, solutions=tuple(columns))
        self.asked = {
            column.name: one for column, one in zip(columns, self.request.solutions, strict=True)
        }
        folder = self.folder_for(plan)
        self.held.enter_context(locked(folder.path / BENCH_FILE, 0.5))
        if plan.environment.device_kind == "cuda":
            self.held.enter_context(device_alone(self.watch.say))
        self.folder = folder
        self.recorded = set(folder.recorded())
        self.watch.begin(folder, len(plan.cells), len(self.recorded))

    # -- failures ---------------------------------------------------------------------------

    def lost(self, doing: Event | None, kind: FailureKind, why: str, printed: str = "") -> None:
        """The process is gone or does not answer: charge whoever had its turn."""
        if isinstance(doing, Loading):
            shown = Asked(doing.asked, True).name
            self.say_lost(shown, f"{why} while it was loaded", printed)
            if self.folder is not None:
                raise UsageError(f"{shown} loaded before, but now {why}", do="--resume goes on")
            self.unloadable[doing.asked] = (kind, f"{why} while it was loaded")
            if doing.asked == REFERENCE:
                raise EnvironmentMissing(f"the reference does not load: {why}; {printed}")
        elif isinstance(doing, Turn):
            told = f"{why} {place(doing.turn)}"
            failure = Failure(doing.solution, doing.uuid, doing.seq_len, kind, told)
            self.say_lost(f"{doing.solution} T={doing.seq_len}", told, printed)
            self.fail(failure)
            self.count_end(failure)
        else:
            shown = f"; it printed: {printed}" * bool(printed)
            self.unexplained += 1
            if self.folder is not None and self.unexplained == 1:  # a thread left by a solution?
                self.watch.say(f"{why} while no solution ran{shown}; trying once more")
                return
            raise EnvironmentMissing(
                f"the measuring process could not go on: {why} while no solution ran{shown}",
                do="moeprof doctor says what is missing",
            )

    def say_lost(self, what: str, why: str, printed: str) -> None:
        shown = f"; it printed: {printed}" * bool(printed)
        self.watch.say(f"{what}: {why}{shown}")

    def fail(self, failure: Failure) -> None:
        """Put the failure down at once."""
        self.failures[failure.solution, failure.uuid] = failure
        self.put_down()

    def count_end(self, failure: Failure) -> None:
        """A solution that has ended a process; the second time it is dropped."""
        assert self.folder is not None
        name = failure.solution
        self.ends[name] += 1
        if self.ends[name] < ENDS_TO_BE_DROPPED:
            return
        if name == REFERENCE:
            raise EnvironmentMissing(f"the reference cannot be run here: {failure.message}")
        why = f"not tried: {name} ended {ENDS_TO_BE_DROPPED} processes ({failure.message})"
        sizes = {workload.uuid: workload.seq_len for workload in self.folder.plan.workloads}
        for cell in self.folder.plan.cells:
            if cell[0] == name and cell not in self.recorded | self.failures.keys():
                self.failures[cell] = Failure(*cell, sizes[cell[1]], failure.kind, why)
        self.watch.say(f"{name} is dropped: it ended {ENDS_TO_BE_DROPPED} processes")
        self.put_down()

    def put_down(self) -> None:
        assert self.folder is not None
        self.folder.write_failures(tuple(self.failures.values()))

    # -- progress ---------------------------------------------------------------------------

    def draw(self, text: str) -> None:
        if self.folder is None:
            self.watch.turn(text, 0, 0.0)
            return
        plan = self.folder.plan
        a_cell = plan.settings.turns
        done = self.recorded | self.failures.keys()
        begun = sum(n for cell, n in self.turns.items() if cell not in done)
        share = (len(done) * a_cell + begun) / max(1, a_cell * len(plan.cells))
        self.watch.turn(text, len(done), min(share, 1.0))
