"""The ledger of the GEMMs in sentences, two a GEMM: its tiles, and its time as a product."""

from __future__ import annotations

from collections.abc import Sequence

from moeprof.ledger.expert_rows import Range
from moeprof.ledger.gemm_ledger import GemmFactors, GemmRow, Tiling
from moeprof.ledger.gemm_tiles import GemmTile
from moeprof.reports.phrases import Note
from moeprof.reports.units import us

NEGLIGIBLE = 1.005  # a factor below it shows as 1.00
BASIS = {
    "counted": "",
    "local": "",
    "clamped": "pairs of other ranks pile up on the first and the last expert",
}


def gemm_notes(rows: Sequence[GemmRow]) -> tuple[Note, ...]:
    """A label and a sentence each, two sentences a GEMM."""
    found: list[Note] = []
    for row in rows:
        found.append((row.name, tiles_sentence(row)))
        if row.factors is not None:
            found.append((row.name, time_sentence(row, row.factors)))
    return tuple(found)


def tiles_sentence(row: GemmRow) -> str:
    """Its tile and what follows from it, or why that is unknown."""
    parts = [_tile(row.tile) if row.tile is not None else "tile unknown"]
    split = row.tiling
    if split is not None:
        parts.append(f"padding {factor(split.padding)}")
        parts.append(
            f"waves {factor(split.waves)} ({_whole(split.tiles)} tiles on "
            f"{split.multiprocessors} SMs)"
        )
    spread = row.rows.imbalance if row.rows is not None else None
    if spread is not None and row.rows is not None:
        share = row.busiest_share
        of_tiles = f", {_percent(share)} of the tiles" if share is not None else ""
        basis = BASIS[row.rows.basis]
        because = f": {basis}" if basis else ""
        parts.append(f"busiest expert {factor(spread)} the mean{of_tiles}{because}")
    reasons = f" ({'; '.join(row.why)})" if row.why else ""
    return ", ".join(parts) + reasons


def time_sentence(row: GemmRow, factors: GemmFactors) -> str:
    """busy = ideal x padding x waves x helpers x residual, and what bounds it."""
    product = [f"{us(factors.ideal_ns)} us of {factors.ideal_bound}"]
    if factors.padding >= NEGLIGIBLE:
        product.append(f"padding {factors.padding:.2f}")
    if factors.waves >= NEGLIGIBLE:
        product.append(f"waves {factors.waves:.2f}")
    if factors.helpers >= NEGLIGIBLE:
        product.append(f"helper kernels {factors.helpers:.2f}")
    product.append(f"residual {factors.residual:.2f}")
    return f"{us(row.busy_ns)} us = {' x '.join(product)}; {_bound(row, factors)}"


def factor(figure: Range) -> str:
    """1.05x, or 16.0x to 28.0x."""
    low, high = _decimals(figure.low), _decimals(figure.high)
    return f"{low}x" if low == high else f"{low}x to {high}x"


def _bound(row: GemmRow, factors: GemmFactors) -> str:
    if row.tiling is None:
        return f"bound by {factors.bound} at best; padding and waves, if any, are in the residual"
    if factors.bound == "bytes":
        return f"bound by bytes, which padding and waves do not add to{_idle(row.tiling)}"
    return "bound by FLOPs" + (" once padded" if factors.ideal_bound == "bytes" else "")


def _idle(split: Tiling) -> str:
    """Too few tiles leave SMs out, which slows the reading; no ceiling here says by how much."""
    if split.tiles.high >= split.multiprocessors:
        return ""
    working = _whole(split.tiles)
    return f"; only {working} of {split.multiprocessors} SMs have a tile, which the residual holds"


def _tile(tile: GemmTile) -> str:
    swapped = f" with A and B swapped ({tile.rows} rows)" if tile.swap_ab else ""
    return f"{tile.library} tile {tile.shape}{swapped}"


def _decimals(value: float) -> str:
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}"


def _whole(figure: Range) -> str:
    if figure.low == figure.high:
        return f"{figure.low:,.0f}"
    return f"{figure.low:,.0f} to {figure.high:,.0f}"


def _percent(figure: Range) -> str:
    low, high = f"{100 * figure.low:.0f}", f"{100 * figure.high:.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"
