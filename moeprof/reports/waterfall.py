"""The waterfall of a comparison drawn with block characters, one line a bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from moeprof.reports.waterfall_lines import Line, lines

__all__ = ["Line", "Waterfall", "lines"]

NARROWEST_PLOT = 12
FULL, THIN, ASCII = "█", "▏", "#"


@dataclass(frozen=True, slots=True)
class Waterfall:
    """A rich renderable of ``lines``: label, signed us, bar. Too narrow a terminal has no bars."""

    lines: tuple[Line, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        numbers = [_number(line) for line in self.lines]
        widths = max(map(len, numbers)), max(cell_len(line.label) for line in self.lines)
        label_width = min(widths[1], max(16, options.max_width - widths[0] - NARROWEST_PLOT - 4))
        plot_width = options.max_width - widths[0] - label_width - 4
        low_ns, high_ns = _axis(self.lines)
        block = ASCII if options.ascii_only else FULL
        thin = ASCII if options.ascii_only else THIN
        for line, number in zip(self.lines, numbers, strict=True):
            text = Text(no_wrap=True, overflow="crop")
            text.append(_cut(line.label, label_width), style="bold" if line.total else "")
            text.append(f"  {number:>{widths[0]}}  ", style="bold" if line.total else "")
            if plot_width >= NARROWEST_PLOT:
                bar = _draw(line, low_ns, high_ns, plot_width, block, thin)
                text.append(bar, style=_style(line))
            yield text


def _axis(shown: Sequence[Line]) -> tuple[int, int]:
    """The running totals to show; cut off below where all of them lie far above zero."""
    levels = [level for line in shown for level in ((line.end_ns,) if line.total else _ends(line))]
    low_ns, high_ns = min(levels), max(levels)
    margin_ns = (high_ns - low_ns) // 4
    return (low_ns - margin_ns if low_ns - margin_ns > high_ns // 2 else 0), max(high_ns, 1)


def _ends(line: Line) -> tuple[int, int]:
    return line.begin_ns, line.end_ns


def _draw(line: Line, low_ns: int, high_ns: int, width: int, block: str, thin: str) -> str:
    scale = width / max(1, high_ns - low_ns)
    first, last = sorted((line.begin_ns, line.end_ns))
    left = round(max(0, first - low_ns) * scale)
    cells = round(max(0, last - low_ns) * scale) - left
    return " " * min(left, width - 1) + (block * cells if cells else thin)


def _number(line: Line) -> str:
    return f"{line.end_ns / 1e3:,.1f}" if line.total else f"{line.delta_ns / 1e3:+,.1f}"


def _style(line: Line) -> str:
    if line.total:
        return "dim"
    return "red" if line.delta_ns > 0 else "green"


def _cut(label: str, width: int) -> str:
    text = Text(label)
    text.truncate(width, overflow="ellipsis", pad=True)
    return text.plain
