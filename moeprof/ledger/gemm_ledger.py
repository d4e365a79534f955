"""The ledger of a grouped GEMM: what its tiles, its waves and the spread of its rows cost.

    tiles       sum over experts of ceil(rows / tile rows), times ceil(columns / tile columns);
                a cluster of tiles is scheduled, and rounded up, as one
    padding     area of the tiles / rows x columns of the output
    waves       ceil(tiles / SMs) / (tiles / SMs): a block an SM takes tiles in turn, and the last
                turn is not full
    imbalance   rows of the busiest expert / mean of the local experts

    busy = ideal x padding x waves x helpers x residual

ideal: the executed work at the ceilings, by bytes or by FLOPs, whichever takes longer. helpers: the
row's other kernels (pointer set-up, fills). residual: what is left, the kernel's own efficiency.

Padding and waves are counted always, but they lengthen arithmetic only: rows that are padding bring
no further weights from memory. So they enter the product as the change of

    max(bytes time, FLOPs time x padding x waves)

which is the whole factor where FLOPs bound the GEMM, 1 where bytes do even so, and between where
padding turns the one into the other. The product is the busy time either way. Where only bounds of
the padding are known (``expert_rows``) the fewest tiles enter; the residual has the rest. Left out:
split-K, tiles of unequal cost, blocks that leave an SM early for another reason than the last wave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from moeprof.analysis.profiles import Profile
from moeprof.analysis.reconstruct import usual_set
from moeprof.analysis.rows import rows_of
from moeprof.compare.partition import profile_rows
from moeprof.ledger.ceilings import ceilings_of
from moeprof.ledger.expert_rows import ExpertRows, Range, expert_rows
from moeprof.ledger.floors import FloorRow, counts_idle_time, floor_rows
from moeprof.ledger.gemm_tiles import GemmTile, Parsed, parse_kernel, short_name
from moeprof.ledger.ledger import Ceilings
from moeprof.ledger.necessary import Geometry, geometry
from moeprof.records import Run

GEMMS = ("gemm1", "gemm2")
Limit = Literal["bytes", "FLOPs"]


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a GEMM's output falls into tiles. padding, waves: factors of at least 1.

    waves_of_fewest: the waves of the fewest tiles, whose padding is ``padding.low``.
    """

    tiles: Range
    padding: Range
    waves: Range
    waves_of_fewest: float
    multiprocessors: int


@dataclass(frozen=True, slots=True)
class GemmFactors:
    """busy = ideal x padding x waves x helpers x residual.

    padding, waves: what they cost in time, which is nothing where bytes bound the GEMM or where
    they are unknown. bound: what limits the executed work with its padding and waves. ideal_bound:
    what limits it without them.
    """

    ideal_ns: float
    padding: float
    waves: float
    helpers: float
    residual: float
    bound: Limit
    ideal_bound: Limit

    @property
    def busy_ns(self) -> float:
        return self.ideal_ns * self.padding * self.waves * self.helpers * self.residual


@dataclass(frozen=True, slots=True)
class GemmRow:
    """One GEMM of a profile. step: gemm1 or gemm2; kernel: the short name of its kernel.

    tile, rows, tiling are None where unknown; why: the reasons. factors: None where the executed
    work or its time is unknown.
    """

    name: str
    step: str
    kernel: str
    tile: GemmTile | None
    rows: ExpertRows | None
    tiling: Tiling | None
    factors: GemmFactors | None
    busy_ns: float
    why: tuple[str, ...] = ()

    @property
    def busiest_share(self) -> Range | None:
        """The busiest expert's part of the row tiles."""
        if self.tile is None or self.rows is None or self.tiling is None:
            return None
        low, high = self.rows.tiles(self.tile.rows)
        busiest = self.rows.busiest
        least = -(-int(busiest.low) // self.tile.rows)
        most = -(-int(busiest.high) // self.tile.rows)
        return Range(least / high, min(1.0, most / low))


@dataclass(frozen=True, slots=True)
class _Kernel:
    """The GEMM kernel of a row. helpers: time of the row's operations / its own."""

    name: str
    tile: GemmTile | None
    helpers: float = 1.0
    why: str = ""


def gemm_rows(run: Run, profile: Profile, ceilings: Ceilings | None = None) -> tuple[GemmRow, ...]:
    """The ledger of every row of ``profile`` that performs one GEMM, in order.

    ceilings: by default the record's own or, failing that, an H200's. Nothing where ``floor_rows``
    has nothing or busy times hold idle time; a row that performs both GEMMs is left out, as its
    tiles cannot be told apart.
    """
    ceilings = ceilings or ceilings_of([run])[0]
    floors = () if counts_idle_time(profile) else floor_rows(run, profile, ceilings)
    rows = {row.name: row for row in profile_rows(run, profile)}
    found: list[GemmRow] = []
    for floor in floors:
        steps = [step for step in floor.work.covers if step in GEMMS]
        stage = rows[floor.work.name].stage
        if len(steps) != 1 or stage is None or not floor.work.busy_ns:
            continue
        size = geometry(run)
        kernel = _kernel(run, floor.work.name, steps[0], size)
        by_expert, why = expert_rows(run, stage)
        sms = run.environment.multiprocessors
        split = None
        if kernel.tile is not None and by_expert is not None and by_expert.total and sms:
            split = tiling(by_expert, output_columns(steps[0], size), kernel.tile, sms)
        found.append(
            GemmRow(
                name=floor.work.name,
                step=steps[0],
                kernel=kernel.name,
                tile=kernel.tile,
                rows=by_expert,
                tiling=split,
                factors=_factors(floor, split, kernel.helpers, ceilings),
                busy_ns=floor.work.busy_ns,
                why=tuple(reason for reason in (kernel.why, why) if reason),
            )
        )
    return tuple(found)


def output_columns(step: str, size: Geometry) -> int:
    """Columns of the product: 2I of gemm1, H of gemm2."""
    return 2 * size.intermediate if step == "gemm1" else size.hidden


def tiling(rows: ExpertRows, columns: int, tile: GemmTile, multiprocessors: int) -> Tiling:
    """The tiles of a product of ``rows`` (at least one) x ``columns`` on a persistent grid."""
    cluster = tile.cluster_rows * tile.cluster_columns
    slots = max(1, multiprocessors // cluster)
    across = -(-columns // (tile.columns * tile.cluster_columns))
    area = tile.rows * tile.columns * cluster
    clusters = [down * across for down in rows.tiles(tile.rows * tile.cluster_rows)]
    turns = [-(-count // slots) * slots / count for count in clusters]
    padding = [count * area / (rows.total * columns) for count in clusters]
    return Tiling(
        tiles=Range(clusters[0] * cluster, clusters[1] * cluster),
        padding=Range(*padding),
        waves=Range(min(turns), max(turns)),
        waves_of_fewest=turns[0],
        multiprocessors=multiprocessors,
    )


def gemm_factors(
    busy_ns: float,
    bytes_ns: float,
    flops_ns: float,
    padding: float = 1.0,
    waves: float = 1.0,
    helpers: float = 1.0,
) -> GemmFactors | None:
    """Divide a busy time; None where there is no time or no work.

    bytes_ns, flops_ns: best times of the executed work; padding, waves, helpers: at least 1.
    """
    ideal_ns = max(bytes_ns, flops_ns)
    if ideal_ns <= 0 or busy_ns <= 0:
        return None
    padded_ns = max(bytes_ns, flops_ns * padding)
    waved_ns = max(bytes_ns, flops_ns * padding * waves)
    return GemmFactors(
        ideal_ns=ideal_ns,
        padding=padded_ns / ideal_ns,
        waves=waved_ns / padded_ns,
        helpers=helpers,
        residual=busy_ns / helpers / waved_ns,
        bound="bytes" if bytes_ns >= flops_ns * padding * waves else "FLOPs",
        ideal_bound="bytes" if bytes_ns >= flops_ns else "FLOPs",
    )


def _factors(
    floor: FloorRow, split: Tiling | None, helpers: float, ceilings: Ceilings
) -> GemmFactors | None:
    executed = floor.executed
    if executed.bytes is None or executed.flops is None:
        return None
    bytes_ns = 1e9 * executed.bytes / ceilings.bytes_per_second
    flops_ns = 1e9 * executed.flops / ceilings.flops_per_second
    padding, waves = (split.padding.low, split.waves_of_fewest) if split else (1.0, 1.0)
    return gemm_factors(floor.work.busy_ns, bytes_ns, flops_ns, padding, waves, helpers)


def _kernel(run: Run, row: str, step: str, size: Geometry) -> _Kernel:
    """The one kernel of ``row`` whose name tells its tile, or why there is none."""
    timeline = run.timeline("api")
    if timeline is None:
        return _Kernel("", None, why="no kernels were recorded by stage")
    usual, iterations = usual_set(timeline)
    operations = timeline.operation_sets[usual]
    places = [
        place for place, name in enumerate(rows_of(operations, run.solution.stages)) if name == row
    ]
    took = {
        place: sum(one.end_ns[place] - one.start_ns[place] for one in iterations)
        for place in places
    }
    if not places:
        return _Kernel("", None, why="the row has no kernels")
    longest = short_name(operations[max(places, key=lambda place: took[place])].name)
    names = dict.fromkeys(operations[place].name for place in places)
    parsed = {name: parse_kernel(name) for name in names}
    known = [place for place in places if parsed[operations[place].name].tile is not None]
    if len(known) != 1:
        return _Kernel(longest, None, why=_no_tile(parsed, len(known)))
    (place,) = known
    name, tile = short_name(operations[place].name), parsed[operations[place].name].tile
    columns = output_columns(step, size)
    if tile is not None and tile.columns_built not in (None, columns):
        why = f"{name} is built for {tile.columns_built:,} columns, {step} has {columns:,}"
        return _Kernel(name, None, why=why)
    return _Kernel(name, tile, sum(took.values()) / took[place] if took[place] else 1.0)


def _no_tile(parsed: Mapping[str, Parsed], known: int) -> str:
    if known:
        return f"{known} GEMM kernels in one row: their rows cannot be told apart"
    reason = next((kernel.why for kernel in parsed.values() if kernel.why), "")
    return reason or "no kernel of the row has its tile in its name"
