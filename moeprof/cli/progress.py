"""The progress bars of ``run`` and ``bench`` on stderr; where stderr is no terminal a bench says a
line now and then, and nothing else is drawn."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from moeprof.storage.benches import BenchFolder


SECONDS_A_LINE = 60.0  # of a bench in a log


class ProgressBar:
    """``execute.Progress`` drawn with rich; gone when finished, so that stdout's report stands."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None)
        self._steps_begun = 0

    def start(self, total_steps: int) -> None:
        """Draw the bar."""
        self._progress.update(self._task, total=total_steps, description="making inputs")
        self._progress.start()

    def step(self, label: str) -> None:
        """A step begins, so the one before it is done."""
        self._progress.update(self._task, completed=self._steps_begun, description=label)
        self._steps_begun += 1

    def finish(self) -> None:
        """Remove the bar."""
        self._progress.stop()


class BenchBar:
    """``bench.Watch`` drawn with rich: cells done, time passed and left, whose turn it is.

    folder: the bench's, once it is known.
    """

    def __init__(self) -> None:
        self.folder: BenchFolder | None = None
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            BarColumn(),
            TextColumn("{task.fields[cells]}"),
            TimeElapsedColumn(),
            TextColumn("about"),
            TimeRemainingColumn(),
            TextColumn("left; {task.description}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._cells = 0
        self._told = time.monotonic()
        self._task = self._progress.add_task("starting", total=1.0, cells="")
        self._progress.start()

    def begin(self, folder: BenchFolder, cells: int, done: int) -> None:
        """The plan is known: ``cells`` to measure, of which ``done`` have a record."""
        self.folder, self._cells = folder, cells
        self._progress.update(self._task, completed=done / max(1, cells))

    def turn(self, text: str, cells_done: int, share_done: float) -> None:
        """Whose turn begins. share_done: of all turns of the bench."""
        shown = f"{cells_done} of {self._cells} cells" if self._cells else ""
        self._progress.update(self._task, description=text, cells=shown, completed=share_done)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._told >= SECONDS_A_LINE:
            self._told = now
            self.say(f"{100 * share_done:.0f} % done, {shown}; {text}")

    def say(self, text: str) -> None:
        """One line that stays, above the bar."""
        self._console.print(f"moeprof: {text}", markup=False)

    def finish(self) -> None:
        """Remove the bar."""
        self._progress.stop()
