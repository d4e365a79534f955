"""The progress bar of ``run`` on stderr; nothing where stderr is no terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


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
