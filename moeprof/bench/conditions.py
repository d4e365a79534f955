"""Under what the cells of a bench were measured, and which of them stand under other conditions.

Work that differs never shares a row (``cells``). What is left may differ in the card, the driver,
versions or settings: cells are grouped by these, each group gets a letter, and every report names
the groups and marks the cells. Doubts about single records are ``compare.comparable``'s.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from moeprof.bench.cells import Bench, Cell
from moeprof.compare.comparable import CARD, reasons, told
from moeprof.records import Run

# what a group is told by: these should be one value in one bench
FACTS: tuple[tuple[str, Callable[[Run], str]], ...] = (
    ("card", lambda run: run.environment.card or "not read"),
    ("driver", lambda run: run.environment.driver or ""),
    ("CUDA", lambda run: run.environment.cuda or ""),
    ("Python", lambda run: run.environment.python),
    ("torch", lambda run: run.environment.versions.get("torch", "")),
    ("triton", lambda run: run.environment.versions.get("triton", "")),
    ("moeprof", lambda run: run.moeprof),
    ("preset", lambda run: run.settings.preset),
    ("warm-ups", lambda run: str(run.settings.warmup)),
    ("iterations", lambda run: str(run.settings.iterations)),
    ("trials", lambda run: str(run.settings.trials)),
    ("L2 before each iteration", lambda run: run.settings.l2),
    ("routing", lambda run: run.routing.label),
    ("weights", lambda run: run.routing.weights_recipe),
    ("seed", lambda run: str(run.routing.seed)),
    ("Triton interpreter", lambda run: "yes" if run.environment.interpreter else "no"),
)
# what groups say already, and what reasons say of records without times
SAID = {CARD, "driver", "L2 setting", "moeprof version", "CUDA version", "interpreter"}
SAID |= {"torch version", "triton version", "weights recipe", "wrong result", "no samples"}


@dataclass(frozen=True, slots=True)
class Conditions:
    """One group of cells. letter: '' where all cells are of one group; differing: the facts that
    the groups differ in, with this group's values."""

    letter: str
    values: tuple[str, ...]
    differing: tuple[tuple[str, str], ...]
    solutions: tuple[str, ...]
    cells: int

    @property
    def card(self) -> str | None:
        found = self.values[0]
        return None if found == "not read" else found


def conditions(bench: Bench) -> tuple[Conditions, ...]:
    """The groups, that of the most cells first."""
    members: dict[tuple[str, ...], list[Cell]] = {}
    for cell in bench.every_cell:
        run = cell.measured
        if run is not None:
            members.setdefault(values(run), []).append(cell)
    order = sorted(members, key=lambda key: (-len(members[key]), key))
    positions = [
        position for position in range(len(FACTS)) if len({key[position] for key in order}) > 1
    ]
    every = (*bench.solutions, bench.reference)
    return tuple(
        Conditions(
            letter=_letter(number) if len(order) > 1 else "",
            values=key,
            differing=tuple((FACTS[position][0], key[position]) for position in positions),
            solutions=tuple(
                name
                for name in dict.fromkeys(every)
                if any(cell.solution == name for cell in members[key])
            ),
            cells=len(members[key]),
        )
        for number, key in enumerate(order)
    )


def values(run: Run) -> tuple[str, ...]:
    """The values of ``FACTS``."""
    return tuple(value(run) for _, value in FACTS)


def letters(bench: Bench, groups: Sequence[Conditions]) -> dict[str, str]:
    """The letters of each solution's cells, such as 'b' or 'ab'; '' where there is one group."""
    return {
        name: "".join(group.letter for group in groups if name in group.solutions)
        for name in (*bench.solutions, bench.reference)
    }


def letter(cell: Cell, groups: Sequence[Conditions]) -> str:
    """The letter of one cell's group."""
    if cell.measured is None:
        return ""
    own = values(cell.measured)
    return next((group.letter for group in groups if group.values == own), "")


def doubts(bench: Bench) -> tuple[str, ...]:
    """What stands against single cells: clocks held down, lost records. Many alike become one.

    Each cell is set against one of its row: the reference's, else the first by name.
    """
    found = []
    for row, reference in zip(bench.cells, bench.references, strict=True):
        measured = [cell for cell in row if cell.measured is not None]
        measured.sort(key=lambda cell: cell.solution)
        anchor = reference if reference.measured is not None else next(iter(measured), None)
        for cell in measured:
            if anchor is not None and anchor.run is not None and cell.run is not None:
                tokens = f" at T = {cell.workload.seq_len:,}"
                labels = (anchor.solution + tokens, cell.solution + tokens)
                between = reasons(anchor.run, cell.run, labels)
                found += [reason for reason in between if reason.name not in SAID]
    return told(found)


def stand_ins(bench: Bench) -> tuple[str, ...]:
    """Which torch twins stood in for which libraries, and in which solutions."""
    found: dict[str, dict[str, None]] = {}
    for cell in bench.every_cell:
        if cell.measured is not None:
            for name in cell.measured.solution.stand_ins:
                found.setdefault(name, {})[cell.solution] = None
    return tuple(
        f"torch twins stand in for {name} (in {', '.join(solutions)})"
        for name, solutions in found.items()
    )


def sm_clocks(bench: Bench) -> tuple[float, float, float] | None:
    """Least, median and most of the SM clock beside the passes, MHz."""
    runs = [cell.measured for cell in bench.every_cell if cell.measured is not None]
    found = [clock.sm_mhz for run in runs for clock in run.clocks if clock.sm_mhz]
    return (min(found), statistics.median(found), max(found)) if found else None


def _letter(number: int) -> str:
    return ascii_lowercase[number] if number < len(ascii_lowercase) else f"z{number}"
